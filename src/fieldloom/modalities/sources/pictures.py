"""Pictures of any size and mode: folders, packed files, bundled ones, Hugging Face.

They are centre-cropped and resized, with an antialiasing filter, to what the modality asks for.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.source import (
    Filter,
    Limit,
    Source,
    Split,
    assemble,
    existing,
    member,
    read_npz,
)
from fieldloom.progress import track

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
ORIENTATION = 0x0112
"""EXIF's tag for how a picture is turned."""
UNREADABLE = 0.1
"""The share of unreadable files that is skipped with a warning; more is an error."""
UNREAD = (OSError, SyntaxError, ValueError, TypeError, AttributeError, Image.DecompressionBombError)
"""What Pillow raises for files that are no pictures."""


def picture(
    image: Image.Image,
    modality: Grid,
    filter: Filter = "bicubic",
    size: tuple[int, ...] | None = None,
) -> NDArray[np.uint8]:
    """Any picture -> uint8 (channel, height, width): turned by EXIF, on white, cropped, resized.

    size: None takes the modality's.
    """
    height, width = size or modality.size
    array = np.asarray(fitted(plain(image, modality.channels), (height, width), filter))
    return array[None] if modality.channels == 1 else array.transpose(2, 0, 1)


def plain(image: Image.Image, channels: int) -> Image.Image:
    """Any picture as 8-bit grey (1 channel) or RGB (3): turned by EXIF, on white."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
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


def fitted(image: Image.Image, size: tuple[int, int], filter: Filter) -> Image.Image:
    """A picture of (height, width) = ``size``: centre-cropped and resized where it has another."""
    wanted = (size[1], size[0])
    if image.size == wanted:
        return image
    return ImageOps.fit(image, wanted, Image.Resampling[filter.upper()])


def check_pictures(modality: Grid) -> None:
    if len(modality.size) != 2 or modality.channels not in (1, 3):
        raise InputError(
            "this source reads pictures: the modality needs two axes and 1 or 3 channels."
        )


def pictures_of(
    items: Iterable[tuple[str, Callable[[], Image.Image]]],
    count: int,
    modality: Grid,
    filter: Filter,
) -> tuple[Tensor, list[int]]:
    """Pictures opened in parallel: uint8 (n, channel, height, width), and the places of those read.

    Unreadable ones are named in one warning, and skipped. Raises InputError where they are too
    many.
    """
    check_pictures(modality)

    def one(item: tuple[str, Callable[[], Image.Image]]) -> NDArray[np.uint8] | str:
        name, open_image = item
        try:
            with open_image() as image:
                return picture(image, modality, filter)
        except UNREAD:
            return name

    with ThreadPoolExecutor() as pool:
        read = list(track(pool.map(one, items), "reading pictures", count, "pictures"))
    bad = [name for name in read if isinstance(name, str)]
    good = [i for i, array in enumerate(read) if not isinstance(array, str)]
    if len(bad) > UNREADABLE * count:
        raise InputError(f"{len(bad)} of {count} pictures cannot be read: {', '.join(bad[:5])}.")
    if bad:
        warnings.warn(f"skipped {len(bad)} unreadable pictures: {', '.join(bad)}.", stacklevel=2)
    arrays = [array for array in read if not isinstance(array, str)]
    return torch.from_numpy(np.stack(arrays)), good


def folder(
    modality: Grid,
    path: str,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
) -> Source:
    """A folder of pictures, or one picture; sub-folders are classes if all pictures lie in one."""
    root = existing(path)
    if root.suffix in (".npz", ".npy"):
        kind = "packed" if "offsets" in read_npz(root) else "array"
        raise InputError(
            f"source.path = '{path}' is no folder of pictures: --set source.name={kind}."
        )
    files = (
        [root]
        if root.is_file()
        else sorted(f for f in root.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    )
    files = list(islice(files, limit))
    if not files:
        raise InputError(
            f"source.path = '{path}' holds no pictures ({', '.join(sorted(SUFFIXES))})."
        )
    items = [(str(f), partial(Image.open, f)) for f in files]
    data, good = pictures_of(items, len(files), modality, filter)
    if len(data) == 1:
        split = (1.0, 0.0)
    classes = [
        files[i].relative_to(root).parts[:-1] for i in good
    ]  # its sub-folders, outermost first
    labels = [c[0] for c in classes] if all(classes) and len({c[0] for c in classes}) > 1 else None
    return assemble(data, labels, split, shuffle, filter=filter)


def packed(
    modality: Grid,
    path: str,
    prefix: str = "",
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
) -> Source:
    """Encoded pictures back to back in an ``.npz``: ``data`` (bytes) and ``offsets`` (n + 1).

    prefix: of the two arrays' names (``train_``); label: the array of labels, one a picture.
    """
    file = read_npz(existing(path))
    data, offsets = (member(file, f"{prefix}{key}", path) for key in ("data", "offsets"))
    labels = None if label is None else list(member(file, label, path))
    count = min(len(offsets) - 1, limit or len(offsets))

    def items() -> Iterator[tuple[str, Callable[[], Image.Image]]]:
        for i in range(count):
            blob = data[offsets[i] : offsets[i + 1]].tobytes()
            yield f"picture {i} of {path}", partial(Image.open, io.BytesIO(blob))

    pictures, good = pictures_of(items(), count, modality, filter)
    chosen = None if labels is None else [labels[i] for i in good]
    return assemble(pictures, chosen, split, shuffle, filter=filter)


def bundled(
    modality: Grid,
    pictures: tuple[str, ...] = ("astronaut", "chelsea", "coffee", "rocket"),
    split: Split = (1.0, 0.0),
    filter: Filter = "bicubic",
) -> Source:
    """Pictures that come with scikit-image, by their names there."""
    from skimage import data as bundle

    items = []
    for name in pictures:
        reader = getattr(bundle, name, None)
        if reader is None:
            raise InputError(f"source.pictures: scikit-image has no picture '{name}'.")
        items.append((name, lambda reader=reader: Image.fromarray(reader())))
    data, _ = pictures_of(items, len(items), modality, filter)
    return assemble(data, None, split, shuffle=False, filter=filter)


def huggingface(
    modality: Grid,
    path: str,
    part: str = "train",
    key: str = "image",
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
) -> Source:
    """A data set of Hugging Face, by name or saved in a folder (needs the extra ``datasets``).

    part: which of its splits; key: the column of pictures; label: the column of labels.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            "source 'huggingface' needs the package datasets: pip install 'fieldloom[datasets]'."
        ) from None
    try:
        saved = {file.name for file in Path(path).glob("*.json")}
        if "dataset_dict.json" in saved:
            table = datasets.load_from_disk(path)[part]
        elif "state.json" in saved:
            table = datasets.load_from_disk(path)
        else:
            table = datasets.load_dataset(path, split=part)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"source.path = '{path}' is no data set that can be loaded: {error}"
        ) from None
    for column in [key] if label is None else [key, label]:
        if column not in table.column_names:
            raise InputError(
                f"source: no column '{column}' in '{path}'; it has {', '.join(table.column_names)}."
            )
    count = min(len(table), limit or len(table))
    items = ((f"row {i} of {path}", lambda i=i: table[i][key]) for i in range(count))
    data, good = pictures_of(items, count, modality, filter)
    known = None if label is None else list(table[label])
    labels = None if known is None else [known[i] for i in good]
    return assemble(data, labels, split, shuffle, filter=filter)
