"""Images of any size and mode: folders, packed files, bundled ones.

They are centre-cropped and resized, with an antialiasing filter, to what the modality asks for.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError, name_argument, quote, quote_path, set_key, shorten, unknown
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.decoded import Decode, decode_once
from fieldloom.modalities.sources.decoding import (
    check_image_modality,
    decode_image,
    describe_resizing,
    one_large_at_a_time,
    upright_size,
)
from fieldloom.modalities.sources.files import (
    Archive,
    Refused,
    check_skipped,
    find_file,
    find_path,
    load_array,
    name_path,
    read_labels,
    read_npz,
    read_offsets,
)
from fieldloom.modalities.sources.folders import UNREADABLE, FoundFiles, find_files
from fieldloom.modalities.sources.formats import SUFFIXES, Encoded, open_image
from fieldloom.modalities.sources.index import Index, index_images
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.paths import Each, stamp_file
from fieldloom.modalities.sources.source import (
    Depth,
    Filter,
    Limit,
    Source,
    Split,
    choose,
    make_source,
)
from fieldloom.modalities.sources.streamed import LazyImages, describe_decoding
from fieldloom.modalities.sources.summary import Summary
from fieldloom.modalities.sources.survey import survey_images
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

DECODED = 1 << 30
"""The largest set of decoded images in memory, in bytes; larger sets are decoded on reading."""


Cache = Literal["none", "decoded"]
"""What of a large set is kept decoded: nothing, or all, in one file of the cache folder."""


def load_images(
    names: Sequence[str],
    read: Callable[[int], Encoded],
    modality: Grid,
    filter: Filter,
    large: bool,
    given: Range = None,
    *,
    stamps: Sequence[str] | None = None,
    place: str = "",
    cache: Cache = "none",
) -> tuple[Tensor | LazyImages, Sequence[int], dict[str, str]]:
    """Images (n, channel, height, width) uint8; the indices of the readable ones; what is said.

    What is said of how they were read is part of ``Summary.taken``.

    names: of the images, for messages. read: index of an image -> its file, or its bytes.
    given: ``source.range``. stamps: for each image a text that changes when its bytes may have,
    such as the size and the time of change of a file. place: a text that names the set among
    others, to which its index in the cache belongs: its path, and behind a NUL what else tells it
    from others. cache: see ``Cache``.

    Sets of at most ``DECODED`` bytes are decoded once, in parallel. Of larger ones the headers are
    read, and kept in an index (``index``), where there are stamps and a place; the images are
    decoded on every read, or once into the cache, with the same values. Unreadable ones are skipped
    with one warning; what only shows when it is decoded is an error of that read. Raises InputError
    where these are too many, or an image is too large.
    """
    check_image_modality(modality)
    item = (modality.channels, *modality.size)
    if len(names) * math.prod(item) > DECODED:
        index = index_images(names, read, large, given, stamps, place)
        return _stream(names, read, modality, filter, large, given, index, cache, place)
    survey = survey_images(names, read, large, given)
    sizes = set[tuple[int, int]]()

    def check(number: int) -> NDArray[np.uint8] | InputError:
        try:
            with open_image(read(number), names[number], large) as image:
                with one_large_at_a_time(image):
                    found = decode_image(image, modality, filter, scales=survey.scales)
                sizes.add(upright_size(image))
                return found
        except Refused:
            raise
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool:
        tried = pool.map(check, survey.facts)
        read_ones = track(tried, "reading images", len(survey.facts), "images", BRIEF)
        found = dict(zip(survey.facts, read_ones, strict=True))
    later = {i: x for i, x in found.items() if isinstance(x, InputError)}
    faults = dict(sorted({**survey.faults, **later}.items()))
    check_skipped(names, faults, "images")
    good = [i for i in range(len(names)) if i not in faults]
    taken = describe_resizing(sizes, item[1:], filter) | survey.describe(modality.channels)
    if cache != "none":
        taken["cache"] = "none, since they fit in memory"
    images = [x for x in found.values() if isinstance(x, np.ndarray)]
    return torch.from_numpy(np.stack(images)), good, taken


def _stream(
    names: Sequence[str],
    read: Callable[[int], Encoded],
    modality: Grid,
    filter: Filter,
    large: bool,
    given: Range,
    index: Index,
    cache: Cache,
    place: str,
) -> tuple[LazyImages, Sequence[int], dict[str, str]]:
    """``load_images`` of a set that does not fit in memory."""
    item, scales = (modality.channels, *modality.size), index.scales(given)

    def decode(number: int) -> NDArray[np.uint8]:
        with open_image(read(number), names[number], large) as image, one_large_at_a_time(image):
            return decode_image(image, modality, filter, scales=scales)

    how, contents = describe_decoding(item, filter, scales), index.contents()
    check_skipped(names, index.faults, "images")
    readable = index.rows["readable"].copy()
    fetch: Decode = decode
    if cache == "decoded":
        name = re.sub(r"[^\w-]+", "_", Path(place.partition("\0")[0]).stem)[:40]
        fetch, broken = decode_once(decode, contents, how, item, readable, name)
        check_skipped(names, broken, "images")
        readable[list(broken)] = False
    taken = describe_resizing(index.sizes(), item[1:], filter)
    taken |= index.describe(scales, modality.channels)
    good = np.flatnonzero(readable)
    own = torch.from_numpy(contents[good])
    lazy = LazyImages(fetch, torch.from_numpy(good), item, own, how)
    return lazy, range(len(names)) if readable.all() else good.tolist(), taken


def size_of_first(path: Path, large: bool = False) -> tuple[int, int]:
    """(height, width), upright, of the first image of a file, a folder or a packed file."""
    first: Encoded
    if path.suffix == ".npz":
        file = read_npz(path)
        prefix = next(iter(find_prefixes(file)), "")
        data = load_array(file, f"{prefix}data", "bytes", axes=(1,), large=large)
        ends = read_offsets(file, f"{prefix}offsets", len(data), "bytes")
        if len(ends) < 2:
            raise InputError(f"{quote_path(path)} holds no images: its offsets are one more.")
        first, name = data[ends[0] : ends[1]], f"image 0 of {quote_path(path)}"
    else:
        found = find_files(path, str(path), SUFFIXES, "images").files[0]
        first, name = found, quote_path(found)
    with open_image(first, name, large) as image:
        return upright_size(image)


def read_folder(
    modality: Grid,
    path: str,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    label_depth: Depth = None,
    filter: Filter = "bicubic",
    range: Range = None,
    cache: Cache = "none",
    permit: Permit = NOTHING,
) -> Source:
    """A folder of images, or one image; sub-folders are classes and parts (``folders``).

    limit: the number of images that are used: of classes the same number, of parts a fraction.
    label_depth: the class is the folder so many levels below ``path``, parts not counted; 0: none.

    range: the numbers that become 0 and 1 (see ``numbers``). Images of more than ``DECODED`` bytes
    together are decoded from their files on every read, and are never in memory together; cache:
    ``decoded`` keeps these decoded on the disk, where they are read faster.
    """
    root = find_path(path)
    if root.suffix in (".npz", ".npy") and root.is_file():
        kind = "packed" if find_prefixes(read_npz(root)) else "array"
        fix = set_key("source.name", kind)
        raise InputError(f"{name_path(path)} is no folder of images: {fix} reads it.")
    alone = FoundFiles(root, [root])
    found = alone if root.is_file() else find_files(root, path, SUFFIXES, "images")
    found = found.classify(label_depth).limit(limit, split)
    data, good, taken = load_images(
        found.names,
        found.files.__getitem__,
        modality,
        filter,
        permit.large,
        range,
        stamps=Each(found.files, stamp_file),
        place=f"{os.path.abspath(root)}\0{limit}",
        cache=cache,
    )
    if len(good) == 1:
        split = (1.0, 0.0)
    found = found.keep_readable(good)
    groups = found.groups
    summary = Summary("image", taken={**groups.taken, **taken}, passed_over=found.passed_over)
    return make_source(
        data, groups.labels, split, shuffle, filter=filter, parts=groups.parts, summary=summary
    )


def find_prefixes(file: Archive) -> list[str]:
    """The prefixes of packed images in a file: ``train_`` of ``train_data``, ``train_offsets``."""
    found = [name.removesuffix("data") for name in file.names or () if name.endswith("data")]
    return [prefix for prefix in found if f"{prefix}offsets" in file]


def read_packed(
    modality: Grid,
    path: str,
    prefix: str = "",
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
    range: Range = None,
    cache: Cache = "none",
    permit: Permit = NOTHING,
) -> Source:
    """Encoded images back to back in an ``.npz``: ``data`` (bytes) and ``offsets`` (n + 1).

    prefix: of the names of both arrays (``train_``). label: name of the array of labels.
    range: the numbers that become 0 and 1 (see ``numbers``). cache: as of ``read_folder``.
    """
    file = read_npz(find_file(path))
    prefixes = find_prefixes(file)
    if prefixes and prefix not in prefixes:
        there = ", ".join(map(quote, prefixes))
        raise InputError(
            f"source.prefix = {quote(prefix)}: {quote_path(path)} has packed images of {there}."
        )
    data = load_array(file, f"{prefix}data", "bytes", axes=(1,), large=permit.large)
    ends = read_offsets(file, f"{prefix}offsets", len(data), "bytes")
    labels = None if label is None else read_labels(file, label, len(ends) - 1, "images")
    if len(ends) < 2:
        raise InputError(f"{quote_path(path)} holds no images: its offsets are one more.")
    which = choose(limit or len(ends), len(ends) - 1, labels)
    names = [f"image {i} of {quote_path(path)}" for i in which]
    part = lambda i: data[ends[which[i]] : ends[which[i] + 1]]
    whole = stamp_file(file.path)
    images, good, taken = load_images(
        names,
        part,
        modality,
        filter,
        permit.large,
        range,
        stamps=Each(which, lambda i: f"{whole} {ends[i]} {ends[i + 1]}"),
        place=f"{os.path.abspath(file.path)}\0{prefix}\0{limit}",
        cache=cache,
    )
    chosen = None if labels is None else [labels[which[i]] for i in good]
    readable = set(good)
    bad = [f"image {one}" for i, one in enumerate(which) if i not in readable]
    told = Summary("image", taken=taken, passed_over={UNREADABLE: bad}, unit="image")
    return make_source(images, chosen, split, shuffle, filter=filter, summary=told)


BUNDLED = {
    "astronaut": "astronaut.png", "brick": "brick.png", "camera": "camera.png",
    "cat": "chelsea.png", "cell": "cell.png", "checkerboard": "chessboard_GRAY.png",
    "chelsea": "chelsea.png", "clock": "clock_motion.png", "coffee": "coffee.png",
    "coins": "coins.png", "colorwheel": "color.png", "grass": "grass.png", "gravel": "gravel.png",
    "horse": "horse.png", "hubble_deep_field": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png", "logo": "logo.png", "microaneurysms": "microaneurysms.png",
    "moon": "moon.png", "page": "page.png", "retina": "retina.jpg", "rocket": "rocket.jpg",
    "shepp_logan_phantom": "phantom.png", "text": "text.png",
}  # fmt: skip
"""scikit-image's name of an image -> its file in the installed package."""
FETCHED = ("eagle", "human_mitosis", "skin")
"""Images that scikit-image downloads."""


def read_bundled(
    modality: Grid,
    images: tuple[str, ...] = ("astronaut", "chelsea", "coffee", "rocket"),
    split: Split = (1.0, 0.0),
    filter: Filter = "bicubic",
    permit: Permit = NOTHING,
) -> Source:
    """Images that come with scikit-image.

    images: their names there. scikit-image fetches ``eagle``, ``human_mitosis`` and ``skin``, which
    the user must allow.
    """
    if not images:
        raise InputError("source.images is empty: name at least one of scikit-image's.")
    files = [_bundle(name, permit) for name in images]
    data, _, taken = load_images(images, files.__getitem__, modality, filter, permit.large)
    told = Summary("image", taken=taken)
    return make_source(data, None, split, shuffle=False, filter=filter, summary=told)


def _bundle(name: str, permit: Permit) -> Encoded:
    from skimage import data as bundle

    if name in BUNDLED:
        return Path(bundle.__file__).parent / BUNDLED[name]
    if name not in FETCHED:
        raise unknown("image of scikit-image", name, [*BUNDLED, *FETCHED])
    if not permit.network:
        raise InputError(
            f"source.images: scikit-image would download '{name}': "
            f"{name_argument('network', True)} allows it."
        )
    try:
        fetched = Image.fromarray(getattr(bundle, name)())
    except Exception as error:  # the network fails in many ways
        raise InputError(
            f"source.images: '{name}' cannot be fetched: {shorten(str(error))}."
        ) from None
    content = io.BytesIO()
    fetched.save(content, "PNG")
    return content.getvalue()
