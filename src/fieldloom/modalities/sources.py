"""Where data come from: folders of pictures, arrays, packed files, bundled sets, Hugging Face.

Every reader returns a Source in the size and channels that the modality asks for: pictures of any
size and mode are centre-cropped and resized with an antialiasing filter.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.progress import track

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
UNREADABLE = 0.1
"""The share of unreadable files that is skipped with a warning; more is an error."""

Limit = Annotated[int, Field(ge=1)] | None
Split = tuple[int | float, int | float]
Filter = Literal["bicubic", "bilinear", "lanczos", "box"]


@dataclass(frozen=True)
class Source:
    """A data set in memory: uint8 in 0 .. 255 or float in [0, 1], (signals, channel, *axes).

    labels: (signals,) or None; names: of the classes; train, test: places of the two parts.
    filter: how pictures were resized, for the record beside every metric.
    """

    data: Tensor
    labels: Tensor | None
    names: tuple[str, ...]
    train: Tensor
    test: Tensor
    filter: str = "none"

    def read(self, index: Tensor) -> Tensor:
        """Data of these places, float in [0, 1]: (n, channel, *axes)."""
        part = self.data[index]
        return part.float() / 255 if part.dtype == torch.uint8 else part

    def facts(self) -> dict[str, Any]:
        """What the system must know of its data: goes into the resolved recipe."""
        seen = hashlib.blake2b(self.data.numpy().tobytes(), digest_size=8)
        seen.update(torch.cat([self.train, self.test]).numpy().tobytes())
        if self.labels is not None:
            seen.update(self.labels.numpy().tobytes())
        return {
            "signals": len(self.train),
            "classes": len(self.names),
            "names": list(self.names),
            "filter": self.filter,
            "fingerprint": seen.hexdigest(),
        }


def divide(count: int, split: Split, shuffle: bool) -> tuple[Tensor, Tensor]:
    """Places of the training and the test part.

    split: shares that add up to at most 1, or numbers of signals. shuffle: in an order that is the
    same in every run, whatever its seed; otherwise the first ones train.
    """
    shares = sum(split) <= 1
    train = round(split[0] * count) if shares else int(split[0])
    test = round(sum(split) * count) - train if shares else int(split[1])
    if train < 1 or test < 0 or train + test > count:
        raise InputError(f"source.split = {list(split)} does not fit {count} signals.")
    order = torch.arange(count)
    if shuffle:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:train], order[train : train + test]


def assemble(
    data: Tensor,
    labels: Sequence[Any] | None,
    split: Split,
    shuffle: bool,
    limit: Limit = None,
    filter: str = "none",
) -> Source:
    """A Source of data and labels of any kind: classes are the sorted distinct labels."""
    if labels is not None:
        flat = np.asarray(labels).reshape(-1)
        if len(flat) != len(data):
            raise InputError(f"source: {len(flat)} labels for {len(data)} data.")
        labels = flat.tolist()
    if limit is not None:
        data, labels = data[:limit], None if labels is None else labels[:limit]
    names = () if labels is None else tuple(str(x) for x in sorted(set(labels)))
    place = {name: i for i, name in enumerate(names)}
    numbers = None if labels is None else torch.tensor([place[str(x)] for x in labels])
    return Source(data, numbers, names, *divide(len(data), split, shuffle), filter)


# -- pictures


def picture(image: Image.Image, modality: Grid, filter: Filter = "bicubic") -> NDArray[np.uint8]:
    """Any picture -> uint8 (channel, height, width): turned by EXIF, on white, cropped, resized."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey, 32-bit integers, floats
        raw = np.asarray(image, np.float64)
        top = 65535 if image.mode.startswith("I") else (1 if raw.max(initial=0) <= 1 else 255)
        image = Image.fromarray(np.clip(np.rint(raw / top * 255), 0, 255).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if modality.channels == 1 else "RGB")
    height, width = modality.size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling[filter.upper()])
    array = np.asarray(image)
    return array[None] if modality.channels == 1 else array.transpose(2, 0, 1)


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
        except (OSError, SyntaxError, ValueError, TypeError, AttributeError,
                Image.DecompressionBombError):  # fmt: skip
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


def existing(path: str) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        raise InputError(f"source.path = '{path}' does not exist.")
    return found


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
        kind = spec_of(path)["name"]
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


# -- arrays


def read_npz(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' is not a readable .npz or .npy file: {error}.") from None


def member(file: Any, key: str, path: str) -> NDArray[Any]:
    if isinstance(file, np.ndarray):
        raise InputError(f"'{path}' holds one array, not a packed file: --set source.name=array.")
    if key not in file:
        raise InputError(f"'{path}' has no array '{key}'; it has {', '.join(file)}.")
    try:
        return file[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"the array '{key}' of '{path}' cannot be read: {error}.") from None


def to_grid(array: NDArray[Any], modality: Grid, filter: Filter) -> Tensor:
    """(n, *axes), (n, *axes, channel) or (n, channel, *axes) -> (n, channel, *axes)."""
    axes = len(modality.size)
    if array.ndim == axes + 1:
        array = array[:, None]
    elif array.ndim == axes + 2 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        array = np.moveaxis(array, -1, 1)
    if array.ndim != axes + 2 or array.dtype.kind not in "uifb":
        raise InputError(
            f"source: an array of the shape {array.shape} does not hold {axes}-axis data."
        )
    if array.dtype == np.bool_ or (axes != 2 and array.dtype == np.uint8 and array.max() <= 1):
        array = array.astype(np.float32)
    elif array.dtype != np.uint8:
        array = array.astype(np.float32)
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError("source: an array of numbers other than uint8 must lie in [0, 1].")
    if array.shape[1] != modality.channels or array.shape[2:] != modality.size:
        if axes != 2 or array.dtype != np.uint8 or array.shape[1] not in (1, 3):
            raise InputError(
                f"source: data of the shape {array.shape[1:]} where the modality has "
                f"{(modality.channels, *modality.size)}."
            )
        tiles = [x[0] if len(x) == 1 else x.transpose(1, 2, 0) for x in array]
        array = np.stack([picture(Image.fromarray(x), modality, filter) for x in tiles])
    return torch.from_numpy(np.ascontiguousarray(array))


def array(
    modality: Grid,
    path: str,
    key: str | None = None,
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
) -> Source:
    """A ``.npy`` array, or one of an ``.npz``; ``x_train`` and ``x_test`` keep their own split.

    key: of the array in an ``.npz`` with several; label: of its labels (``y_train``, ``y_test``
    beside ``x_train``, ``x_test`` are found).
    """
    file = read_npz(existing(path))
    if isinstance(file, np.ndarray):
        return assemble(to_grid(file, modality, filter), None, split, shuffle, limit, filter)
    if key is None and {"x_train", "x_test"} <= set(file):
        parts = [file["x_train"][:limit], file["x_test"][:limit]]
        labels = None
        if {"y_train", "y_test"} <= set(file):
            labels = [*file["y_train"][:limit], *file["y_test"][:limit]]
        data = to_grid(np.concatenate(parts), modality, filter)
        counts = (float(len(parts[0])), float(len(parts[1])))
        return assemble(data, labels, counts, shuffle=False, filter=filter)
    if key is None and len(file.files) > 1:
        raise InputError(f"source.key: '{path}' has the arrays {', '.join(file)}; name one.")
    data = to_grid(member(file, key or file.files[0], path), modality, filter)
    labels = None if label is None else list(member(file, label, path))
    return assemble(data, labels, split, shuffle, limit, filter)


def digits(modality: Grid, split: Split = (0.8, 0.2), filter: Filter = "bicubic") -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8, grey."""
    from sklearn.datasets import load_digits

    read = load_digits()
    levels = np.rint(read.images / 16 * 255).astype(np.uint8)
    data = to_grid(levels, modality, filter)
    return assemble(data, list(read.target), split, shuffle=True, filter=filter)


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


def spec_of(path: str) -> dict[str, Any]:
    """The source spec for a user's path: a folder, a picture, a packed file or an array."""
    found = existing(path)
    spec: dict[str, Any] = {"name": "folder", "path": path, "split": [1.0, 0.0], "shuffle": False}
    if found.suffix == ".npz" and "offsets" in read_npz(found):
        spec["name"] = "packed"
    elif found.suffix in (".npz", ".npy"):
        spec["name"] = "array"
    return spec


SOURCES = {
    "folder": folder,
    "packed": packed,
    "array": array,
    "digits": digits,
    "skimage": bundled,
    "huggingface": huggingface,
}
