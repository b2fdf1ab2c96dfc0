"""Images of any size and mode: folders, packed files, bundled ones.

They are centre-cropped and resized, with an antialiasing filter, to what the modality asks for.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fieldloom.errors import InputError, quote_path, shorten, unknown
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.files import (
    PIXELS,
    Refused,
    check_size,
    check_skipped,
    find_file,
    find_path,
    load_array,
    read_labels,
    read_npz,
    read_offsets,
)
from fieldloom.modalities.sources.folders import FoundFiles, find_files
from fieldloom.modalities.sources.source import (
    Depth,
    Filter,
    Limit,
    Source,
    Split,
    choose,
    make_source,
)
from fieldloom.modalities.sources.summary import Summary
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import track

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM",
           "AVIF", "JPEG2000", "QOI", "PCX", "SGI", "TGA")  # fmt: skip
"""The formats that Pillow may open: it decodes them itself, and their header has the size.
Others run programs (EPS), or contain images of another size than the header says (ICO)."""
ORIENTATION = 0x0112
"""EXIF's tag of an image's orientation."""
TILE_WIDTH, TILE_HEIGHT = 322, 323
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> the transpose that sets an image upright; from 5 on sides are swapped."""
ALONE = 1 << 24
"""The size in pixels from which images are decoded one at a time, in spite of threads."""

DECODED = 1 << 30
"""The largest set of decoded images in memory, in bytes; larger sets are decoded on reading."""

Encoded = Path | bytes | NDArray[np.uint8]
"""The file of an image, or its bytes."""

_guard, _alone = Lock(), Lock()
_open, _kept = 0, Image.MAX_IMAGE_PIXELS


@contextmanager
def _pillows_limit_aside() -> Iterator[None]:
    """A context without Pillow's limit on pixels, which belongs to the whole process."""
    global _open, _kept
    with _guard:
        if not _open:
            _kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _open += 1
    try:
        yield
    finally:
        with _guard:
            _open -= 1
            if not _open:
                Image.MAX_IMAGE_PIXELS = _kept


@contextmanager
def open_image(file: Encoded, name: str, large: bool = False) -> Iterator[Image.Image]:
    """An open image of at most ``PIXELS`` unless ``large``; its pixels are not decoded yet.

    Raises InputError, which names ``name``, for files that are not images or are broken, also where
    that is noticed only in the with block; Refused before anything is allocated.
    """
    Image.init()
    formats = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        stream = file.open("rb") if isinstance(file, Path) else io.BytesIO(bytes(file))
        with stream, _pillows_limit_aside(), Image.open(stream, formats=formats) as image:
            tags = getattr(image, "tag_v2", {})  # a TIFF is decoded by tiles of any size
            sizes = image.size, (tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0))
            width, height = max(sizes, key=math.prod)
            length = stream.seek(0, io.SEEK_END)
            what = f"{name} ({length:,} bytes, {height} x {width})"
            check_size(what, height * width, "pixels", PIXELS, large)
            yield image
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow fails in many ways on a broken file
        unidentified = isinstance(error, UnidentifiedImageError)
        reason = "it is of no known format" if unidentified else shorten(str(error))
        raise InputError(f"{name} is no image that can be read: {reason}.") from None


def one_large_at_a_time(image: Image.Image) -> AbstractContextManager[object]:
    """A context in which only one thread at a time decodes a large image."""
    return _alone if image.width * image.height > ALONE else nullcontext()


def decode_image(
    image: Image.Image,
    modality: Grid,
    filter: Filter = "bicubic",
    size: tuple[int, ...] | None = None,
) -> NDArray[np.uint8]:
    """Any image -> uint8 (channel, height, width): turned by EXIF, on white, cropped, resized.

    size: None takes the modality's.
    """
    height, width = size or modality.size
    array = np.asarray(
        crop_and_resize(to_grey_or_rgb(image, modality.channels), (height, width), filter)
    )
    return array[None] if modality.channels == 1 else array.transpose(2, 0, 1)


def to_grey_or_rgb(image: Image.Image, channels: int) -> Image.Image:
    """Any image as 8-bit grey (1 channel) or RGB (3): turned by EXIF, on white."""
    image.load()  # Pillow rotates TIFF itself
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey, 32-bit integers, floats
        raw = np.asarray(image, np.float64)
        top = 65535 if image.mode.startswith("I") else (1 if raw.max(initial=0) <= 1 else 255)
        image = Image.fromarray(np.clip(np.rint(raw / top * 255), 0, 255).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an image after its EXIF orientation is applied."""
    swapped = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    return image.size if swapped else (image.height, image.width)


def crop_and_resize(image: Image.Image, size: tuple[int, int], filter: Filter) -> Image.Image:
    """An image of (height, width) = ``size``: centre-cropped and resized where it has another."""
    wanted = (size[1], size[0])
    if image.size == wanted:
        return image
    return ImageOps.fit(image, wanted, Image.Resampling[filter.upper()])


def check_image_modality(modality: Grid) -> None:
    """Raise InputError for a modality that is not of grey or RGB images."""
    if len(modality.size) != 2 or modality.channels not in (1, 3):
        raise InputError(
            "this source reads images: the modality needs two axes and 1 or 3 channels."
        )


@dataclass(frozen=True)
class LazyImages:
    """Images that are decoded on every read (``types.Lazy``), and never kept in memory.

    decode:  index of an image -> uint8 (channel, height, width).
    numbers: indices of the images that can be read, (n,).
    item:    the shape of one image.
    """

    decode: Callable[[int], NDArray[np.uint8]]
    numbers: Tensor
    item: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.item)

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8

    def read(self, which: slice | Tensor) -> Tensor:
        """The images of these indices, decoded in parallel: uint8 (n, channel, height, width).

        Raises InputError, which names the file, where one can no longer be read.
        """
        numbers = self.numbers[which].tolist()
        found = np.empty((len(numbers), *self.item), np.uint8)
        with ThreadPoolExecutor() as pool:
            for i, image in enumerate(pool.map(self.decode, numbers)):
                found[i] = image
        return torch.from_numpy(found)


def load_images(
    names: Sequence[str],
    read: Callable[[int], Encoded],
    modality: Grid,
    filter: Filter,
    large: bool,
) -> tuple[Tensor | LazyImages, list[int]]:
    """Images (n, channel, height, width) uint8, and the indices of those that can be read.

    names: of the images, for messages. read: index of an image -> its file, or its bytes.

    All are decoded once, in parallel. If they take more than ``DECODED`` bytes together, none is
    kept: they are decoded again on every read, with the same values. Unreadable ones are skipped
    with one warning. Raises InputError where these are too many, or an image is too large.
    """
    check_image_modality(modality)
    item = (modality.channels, *modality.size)
    keep = len(names) * math.prod(item) <= DECODED

    def decode(number: int) -> NDArray[np.uint8]:
        with open_image(read(number), names[number], large) as image, one_large_at_a_time(image):
            return decode_image(image, modality, filter)

    def check(number: int) -> NDArray[np.uint8] | InputError | None:
        try:
            found = decode(number)
            return found if keep else None
        except Refused:
            raise
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool:
        tried = pool.map(check, range(len(names)))
        found = list(track(tried, "reading images", len(names), "images"))
    faults = {i: x for i, x in enumerate(found) if isinstance(x, InputError)}
    check_skipped(names, faults, "images")
    good = [i for i in range(len(names)) if i not in faults]
    if not keep:
        return LazyImages(decode, torch.tensor(good), item), good
    return torch.from_numpy(np.stack([x for x in found if isinstance(x, np.ndarray)])), good


def read_folder(
    modality: Grid,
    path: str,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    label_depth: Depth = None,
    filter: Filter = "bicubic",
    permit: Permit = NOTHING,
) -> Source:
    """A folder of images, or one image; sub-folders are classes and parts (``folders``).

    limit: the number of images that are used: of classes the same number, of parts a fraction.
    label_depth: the class is the folder so many levels below ``path``, parts not counted; 0: none.

    Images of more than ``DECODED`` bytes together are decoded from their files on every read, and
    are never in memory together.
    """
    root = find_path(path)
    if root.suffix in (".npz", ".npy") and root.is_file():
        kind = "packed" if "offsets" in read_npz(root) else "array"
        raise InputError(
            f"source.path = {quote_path(path)} is no folder of images: --set source.name={kind}."
        )
    alone = FoundFiles(root, [root])
    found = alone if root.is_file() else find_files(root, path, SUFFIXES, "images")
    found = found.limit(limit, label_depth, split)
    data, good = load_images(found.names, found.files.__getitem__, modality, filter, permit.large)
    if len(good) == 1:
        split = (1.0, 0.0)
    found = found.keep_readable(good)
    groups = found.classify(label_depth)
    summary = Summary("image", taken=groups.taken, passed_over=found.passed_over)
    return make_source(
        data, groups.labels, split, shuffle, filter=filter, parts=groups.parts, summary=summary
    )


def read_packed(
    modality: Grid,
    path: str,
    prefix: str = "",
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
    permit: Permit = NOTHING,
) -> Source:
    """Encoded images back to back in an ``.npz``: ``data`` (bytes) and ``offsets`` (n + 1).

    prefix: of the names of both arrays (``train_``). label: name of the array of labels.
    """
    file = read_npz(find_file(path))
    data = load_array(file, f"{prefix}data", "bytes", axes=(1,), large=permit.large)
    ends = read_offsets(file, f"{prefix}offsets", len(data), "bytes")
    labels = None if label is None else read_labels(file, label, len(ends) - 1, "images")
    if len(ends) < 2:
        raise InputError(f"{quote_path(path)} holds no images: its offsets are one more.")
    which = choose(limit or len(ends), len(ends) - 1, labels)
    names = [f"image {i} of {quote_path(path)}" for i in which]
    part = lambda i: data[ends[which[i]] : ends[which[i] + 1]]
    images, good = load_images(names, part, modality, filter, permit.large)
    chosen = None if labels is None else [labels[which[i]] for i in good]
    return make_source(images, chosen, split, shuffle, filter=filter)


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
    """Images that come with scikit-image, by their names there.

    scikit-image fetches ``eagle``, ``human_mitosis`` and ``skin``, which the user must allow.
    """
    if not images:
        raise InputError("source.images is empty: name at least one of scikit-image's.")
    files = [_bundle(name, permit) for name in images]
    data, _ = load_images(images, files.__getitem__, modality, filter, permit.large)
    return make_source(data, None, split, shuffle=False, filter=filter)


def _bundle(name: str, permit: Permit) -> Encoded:
    from skimage import data as bundle

    if name in BUNDLED:
        return Path(bundle.__file__).parent / BUNDLED[name]
    if name not in FETCHED:
        raise unknown("image of scikit-image", name, [*BUNDLED, *FETCHED])
    if not permit.network:
        raise InputError(
            f"source.images: scikit-image would fetch '{name}': --network (in Python "
            "network=True) allows it."
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
