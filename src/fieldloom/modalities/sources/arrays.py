"""Arrays of numbers on a grid: ``.npy`` and ``.npz`` files, scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError, quote_path, set_key
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.decoding import crop_and_resize, decode_image, describe_resizing
from fieldloom.modalities.sources.files import (
    PIXELS,
    Archive,
    array_name,
    check_size,
    find_file,
    load_array,
    read_labels,
    read_npz,
)
from fieldloom.modalities.sources.numbers import Range, kind_of, scale_array
from fieldloom.modalities.sources.source import (
    Filter,
    Limit,
    Source,
    Split,
    choose,
    make_source,
)
from fieldloom.modalities.sources.summary import Summary, describe_size
from fieldloom.permit import NOTHING, Permit

CHANNELS = (1, 3, 4)
"""Usual numbers of channels: grey, RGB, and RGB with alpha."""
LUMA = (0.299, 0.587, 0.114)
"""Grey of red, green and blue, as Pillow has it (ITU-R BT.601)."""


RIGHT = {
    1: "(n, samples), perhaps with an axis of channels",
    2: "(n, height, width), perhaps with an axis of 1, 3 or 4 channels",
    3: "(n, X, Y, Z) or (n, frames, height, width), perhaps with an axis of channels",
}
"""Axes of a datum -> the right shapes of an array, in words."""


class Layout(NamedTuple):
    """What an array's axes are: one datum or many, and where the axis of channels is, if any.

    certain: whether no other reading would fit.
    """

    single: bool
    channels: Literal["none", "first", "last"]
    certain: bool = True


def find_layout(shape: tuple[int, ...], modality: Grid, many: bool = False) -> Layout:
    """The layout of an array of at most two axes more than a datum has.

    (*axes) is one datum. (*axes, c) is one with its channels last, where c is 1, 3, 4 or the
    modality's, and all axes are longer than channels are; (c, *axes) likewise where c is the
    modality's and not 1; otherwise (n, *axes) are n data of one channel. (n, *axes, c) and (n, c,
    *axes) are n data: where c could be both, it is the one that leaves the modality's size, or
    equals its channels, or else the last.
    many: whether the first axis is known to count the data. Raises InputError for other arrays.
    """
    axes, size = len(modality.size), None if modality.native else modality.size
    counts = {*CHANNELS, modality.channels}
    long = lambda part: min(part, default=0) > max(CHANNELS)
    if len(shape) == axes and not many:
        return Layout(True, "none")
    if len(shape) == axes + 1:
        if not many and shape[-1] in counts and long(shape[:-1]) and shape[1:] != size:
            return Layout(True, "last", certain=False)
        if not many and shape[0] == modality.channels > 1 and long(shape[1:]):
            return Layout(True, "first", certain=False)
        planes = not many and shape[0] in (3, 4) and long(shape[1:]) and shape[1:] != size
        return Layout(False, "none", certain=not planes)
    first, last = (len(shape) == axes + 2 and shape[i] in counts for i in (1, -1))
    if not (first or last):
        right = RIGHT.get(axes, f"{axes + 1} axes, the first of which counts the data")
        raise InputError(
            f"source: an array of the shape {shape} does not hold {axes}-axis data: it has {right}."
        )
    if first and last:
        fits = [shape[2:] == size, shape[1] == modality.channels != shape[-1]]
        first = fits[0] or (shape[1:-1] != size and fits[1])
        return Layout(False, "first" if first else "last", certain=False)
    return Layout(False, "first" if first else "last")


def to_grid(
    array: NDArray[Any],
    modality: Grid,
    filter: Filter,
    given: Range = None,
    many: bool = False,
    large: bool = False,
) -> tuple[Tensor, dict[str, str]]:
    """Numbers of any layout -> (n, channel, *axes), uint8 or float32 in [0, 1]; how they were read.

    Data keep their own size where the modality has none; images are resized otherwise, and their
    fourth channel is alpha, over white. Further axes in front are flattened into the first.
    given: ``source.range``. many: see ``find_layout``. Raises InputError for arrays that do not fit
    the modality, and for numbers whose range is not certain.
    """
    axes, shape, taken = len(modality.size), array.shape, dict[str, str]()
    if not array.size:
        raise InputError(f"source: an array of the shape {shape} holds no data.")
    if array.ndim > axes + 2:
        plain = modality.channels == 1 and (
            shape[-1] not in CHANNELS or shape[-axes:] == modality.size
        )
        array, many = array.reshape(-1, *shape[-axes - (not plain) :]), True
    layout = find_layout(array.shape, modality, many)
    if not layout.certain:
        count = "one datum, " if layout.single else ""
        where = "one channel each" if layout.channels == "none" else f"channels {layout.channels}"
        taken["axes"] = f"{count}{where} in {describe_size(shape)}"
    array = array[None] if layout.single else array
    if layout.channels == "none":
        array = array[:, None]
    elif layout.channels == "last":
        array = np.moveaxis(array, -1, 1)
    if axes == 2:
        height, width = array.shape[2:]
        what = f"an array of images of {height} x {width}"
        check_size(what, height * width, "pixels", PIXELS, large)
    array, scale = scale_array(array, given)
    if scale.words:
        taken["range"] = scale.words
    if array.shape[1] == 4 and modality.channels in (1, 3):
        array = _put_on_white(array)
    size = array.shape[2:] if modality.native else modality.size
    if array.shape[1] != modality.channels or array.shape[2:] != size:
        if axes != 2 or not {array.shape[1], modality.channels} <= {1, 3}:
            own = {"modality.channels": array.shape[1], "modality.size": list(array.shape[2:])}
            usual = {"modality.channels": modality.channels, "modality.size": list(size)}
            fixes = [set_key(key, value) for key, value in own.items() if value != usual[key]]
            raise InputError(
                f"source: data of the shape {array.shape[1:]} where the modality has "
                f"{(modality.channels, *modality.size)}: {' '.join(fixes)} takes them as they are."
            )
        taken |= describe_resizing([array.shape[2:]], size, filter)
        resize = _resize_bytes if array.dtype == np.uint8 else _resize_floats
        array = np.stack([resize(x, modality, filter, size) for x in array])
    return torch.from_numpy(np.ascontiguousarray(array)), taken


def _put_on_white(array: NDArray[Any]) -> NDArray[Any]:
    """(n, 4, *axes) of straight alpha -> (n, 3, *axes)."""
    most = 255 if array.dtype == np.uint8 else 1
    alpha = array[:, 3:].astype(np.float32) / most
    colours = array[:, :3] * alpha + most * (1 - alpha)
    return np.rint(colours).astype(np.uint8) if most == 255 else colours.astype(np.float32)


def _resize_bytes(
    image: NDArray[np.uint8], modality: Grid, filter: Filter, size: tuple[int, ...]
) -> NDArray[np.uint8]:
    tile = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return decode_image(Image.fromarray(tile), modality, filter, size)


def _resize_floats(
    image: NDArray[np.float32], modality: Grid, filter: Filter, size: tuple[int, ...]
) -> NDArray[np.float32]:
    """As images of 8 bits are cropped and resized, and made grey, without their rounding."""
    if len(image) == 3 and modality.channels == 1:
        image = np.tensordot(np.array(LUMA, np.float32), image, 1)[None]
    height, width = size
    parts = [
        np.asarray(crop_and_resize(Image.fromarray(x), (height, width), filter)) for x in image
    ]
    resized = np.stack(parts).clip(0, 1)
    return np.broadcast_to(resized, (modality.channels, height, width))


def suggest_size(modality: Grid, data: Tensor) -> dict[str, dict[str, Any]]:
    """The recipe's section that data suggest: their own size, where the modality has none."""
    return {"modality": {"size": list(data.shape[2:])}} if modality.native else {}


def name_thing(modality: Grid) -> str:
    """What a datum of a modality is, as far as its axes tell."""
    return "image" if len(modality.size) == 2 and not modality.sphere else "datum"


def read_array(
    modality: Grid,
    path: str,
    key: str | None = None,
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
    range: Range = None,
    permit: Permit = NOTHING,
) -> Source:
    """A ``.npy`` array, or one of an ``.npz``; ``x_train`` and ``x_test`` keep their own split.

    range: the numbers that become 0 and 1 (see ``numbers``); the axes are as ``find_layout`` says.
    limit: of x_train and x_test that of each part: its first ones where these have all classes.
    key: name of the array in an ``.npz`` with several.
    label: name of the array of labels (``y_train`` and ``y_test`` are found by themselves).
    """
    file = read_npz(find_file(path))
    published = key is None and "x_train" in file and "x_test" in file
    if published:
        held, labels, split = _read_published(file, limit, permit.large)
        many, shuffle, limit = True, False, None
    else:
        kinds = None if label is None else load_array(file, label, "labels")
        held, labels = load_array(file, array_name(file, key, label), large=permit.large), None
        many = kinds is not None and kinds.size == len(held)
    data, taken = to_grid(held, modality, filter, range, many, permit.large)
    if not published:
        labels = None if label is None else read_labels(file, label, len(data), "data")
        split = (1.0, 0.0) if len(data) == 1 else split
    return make_source(
        data,
        labels,
        split,
        shuffle,
        limit,
        filter,
        suggests=suggest_size(modality, data),
        summary=Summary(name_thing(modality), taken=taken),
    )


def _read_published(
    file: Archive, limit: Limit, large: bool
) -> tuple[NDArray[Any], list[Any] | None, Split]:
    """``x_train`` and ``x_test`` in one array, their labels where they have some, their numbers."""
    parts = [load_array(file, name, large=large) for name in ("x_train", "x_test")]
    if parts[0].shape[1:] != parts[1].shape[1:]:
        raise InputError(
            f"{quote_path(file.path)}: x_train {parts[0].shape} and x_test {parts[1].shape} must "
            "differ in nothing but their number."
        )
    if kind_of(parts[0].dtype) != kind_of(parts[1].dtype):
        raise InputError(
            f"{quote_path(file.path)}: x_train holds {parts[0].dtype} and x_test {parts[1].dtype}, "
            "whose range could not be the same."
        )
    labels = None
    if "y_train" in file and "y_test" in file:
        own = [
            read_labels(file, name, len(part), "data")
            for name, part in zip(("y_train", "y_test"), parts, strict=True)
        ]
        which = [_choose_published(limit, some) for some in own]
        if limit is not None:
            parts = [part[chosen] for part, chosen in zip(parts, which, strict=True)]
        labels = [some[i] for some, chosen in zip(own, which, strict=True) for i in chosen]
    parts = [part[:limit] for part in parts]
    return np.concatenate(parts), labels, (float(len(parts[0])), float(len(parts[1])))


def _choose_published(limit: Limit, labels: Sequence[Any]) -> list[int]:
    """Which data of a part with its own labels are used: the first ones, if they have all classes.

    Published sets come in random order, and their first ones are what others take; a set that is
    sorted by class has other classes behind them.
    """
    mixed = set(labels[:limit]) == set(labels)
    return list(choose(limit or len(labels), len(labels), None if mixed else labels))


def _load_digits_table() -> NDArray[np.float64]:
    """Pixels in 0 .. 16 and the class of each digit: (1797, 65).

    Read from the file, where it is found: to import scikit-learn takes as long as to import torch.
    """
    package = find_spec("sklearn")
    for place in (package and package.submodule_search_locations) or ():
        path = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    read = load_digits()
    return np.column_stack([read.data, read.target])


def read_digits(modality: Grid, split: Split = (0.8, 0.2), filter: Filter = "bicubic") -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8, grey."""
    table = _load_digits_table()
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    levels = np.rint(images / 16 * 255).astype(np.uint8)
    data, taken = to_grid(levels, modality, filter, many=True)
    return make_source(
        data,
        list(labels),
        split,
        shuffle=True,
        filter=filter,
        suggests=suggest_size(modality, data),
        summary=Summary("image", taken=taken),
    )
