"""Arrays of numbers on a grid: ``.npy`` and ``.npz`` files, scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError, quote_path
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.files import (
    array_name,
    find_file,
    load_array,
    read_labels,
    read_npz,
)
from fieldloom.modalities.sources.images import decode_image
from fieldloom.modalities.sources.source import (
    Filter,
    Limit,
    Source,
    Split,
    choose,
    make_source,
)
from fieldloom.permit import NOTHING, Permit


def to_grid(
    array: NDArray[Any],
    modality: Grid,
    filter: Filter,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """(n, *axes), (n, *axes, channel) or (n, channel, *axes) -> (n, channel, *axes).

    Data keep their own size where the modality has none. Further axes in front are flattened into
    the first. bounds: the numbers that become 0 and 1. Raises InputError for arrays that do not fit
    the modality, and for numbers out of range.
    """
    axes = len(modality.size)
    if not array.size:
        raise InputError(f"source: an array of the shape {array.shape} holds no data.")
    if array.ndim > axes + 2:
        array = array.reshape(-1, *array.shape[-axes - (modality.channels > 1) :])
    if bounds is not None:
        array = _rescale(array, bounds)
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
            raise InputError(
                "source: an array of numbers other than uint8 must lie in [0, 1]: give bounds."
            )
    size = array.shape[2:] if modality.native else modality.size
    if array.shape[1] != modality.channels or array.shape[2:] != size:
        if axes != 2 or array.dtype != np.uint8 or array.shape[1] not in (1, 3):
            raise InputError(
                f"source: data of the shape {array.shape[1:]} where the modality has "
                f"{(modality.channels, *modality.size)}."
            )
        tiles = [x[0] if len(x) == 1 else x.transpose(1, 2, 0) for x in array]
        array = np.stack([decode_image(Image.fromarray(x), modality, filter, size) for x in tiles])
    return torch.from_numpy(np.ascontiguousarray(array))


def _rescale(array: NDArray[Any], bounds: tuple[float, float]) -> NDArray[np.float64]:
    """The array scaled so that the bounds become 0 and 1.

    Raises InputError for numbers out of the bounds, and for wrong bounds.
    """
    if not -np.inf < bounds[0] < bounds[1] < np.inf:
        raise InputError(f"source.bounds = {list(bounds)}: finite, the lower one first.")
    unit = (array.astype(np.float64) - bounds[0]) / (bounds[1] - bounds[0])
    if not (unit.min() >= 0 and unit.max() <= 1):
        low, high = (x * (bounds[1] - bounds[0]) + bounds[0] for x in (unit.min(), unit.max()))
        raise InputError(
            f"source.bounds = {list(bounds)}: the numbers go from {low:.6g} to {high:.6g}."
        )
    return unit


def suggest_size(modality: Grid, data: Tensor) -> dict[str, dict[str, Any]]:
    """The recipe's section that data suggest: their own size, where the modality has none."""
    return {"modality": {"size": list(data.shape[2:])}} if modality.native else {}


def read_array(
    modality: Grid,
    path: str,
    key: str | None = None,
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
    bounds: tuple[float, float] | None = None,
    permit: Permit = NOTHING,
) -> Source:
    """A ``.npy`` array, or one of an ``.npz``; ``x_train`` and ``x_test`` keep their own split.

    bounds: the numbers that become 0 and 1, for data of another range.
    limit: of x_train and x_test that of each part: its first ones where these have all classes.
    key: name of the array in an ``.npz`` with several.
    label: name of the array of labels (``y_train`` and ``y_test`` are found by themselves).
    """
    file = read_npz(find_file(path))
    if key is None and "x_train" in file and "x_test" in file:
        parts = [load_array(file, name, large=permit.large) for name in ("x_train", "x_test")]
        if parts[0].shape[1:] != parts[1].shape[1:]:
            raise InputError(
                f"{quote_path(path)}: x_train {parts[0].shape} and x_test {parts[1].shape} must "
                "differ in nothing but their number."
            )
        labels = None
        if "y_train" in file and "y_test" in file:
            own = [
                read_labels(file, key, len(part), "data")
                for key, part in zip(("y_train", "y_test"), parts, strict=True)
            ]
            which = [_choose_published(limit, labels) for labels in own]
            if limit is not None:
                parts = [part[chosen] for part, chosen in zip(parts, which, strict=True)]
            labels = [some[i] for some, chosen in zip(own, which, strict=True) for i in chosen]
        parts = [part[:limit] for part in parts]
        data = to_grid(np.concatenate(parts), modality, filter, bounds)
        counts = (float(len(parts[0])), float(len(parts[1])))
        kept = suggest_size(modality, data)
        return make_source(data, labels, counts, shuffle=False, filter=filter, suggests=kept)
    held = load_array(file, array_name(file, key, label), large=permit.large)
    data = to_grid(held, modality, filter, bounds)
    labels = None if label is None else read_labels(file, label, len(data), "data")
    return make_source(
        data, labels, split, shuffle, limit, filter, suggests=suggest_size(modality, data)
    )


def _choose_published(limit: Limit, labels: Sequence[Any]) -> list[int]:
    """Which data of a part with its own labels are used: the first ones, if they have all classes.

    Published sets come in random order, and their first ones are what others take; a set that is
    sorted by class has other classes behind them.
    """
    mixed = set(labels[:limit]) == set(labels)
    return list(choose(limit or len(labels), len(labels), None if mixed else labels))


def read_digits(modality: Grid, split: Split = (0.8, 0.2), filter: Filter = "bicubic") -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8, grey."""
    from sklearn.datasets import load_digits

    read = load_digits()
    levels = np.rint(read.images / 16 * 255).astype(np.uint8)
    data = to_grid(levels, modality, filter)
    kept = suggest_size(modality, data)
    return make_source(data, list(read.target), split, shuffle=True, filter=filter, suggests=kept)
