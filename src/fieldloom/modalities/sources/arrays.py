"""Arrays of numbers on a grid: ``.npy`` and ``.npz`` files, scikit-learn's digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.pictures import picture
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


def to_grid(
    array: NDArray[Any],
    modality: Grid,
    filter: Filter,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """(n, *axes), (n, *axes, channel) or (n, channel, *axes) -> (n, channel, *axes).

    Data keep their own size where the modality says none. Further axes in front are joined to the
    first. bounds: the numbers that become 0 and 1.
    """
    axes = len(modality.size)
    if array.ndim > axes + 2:
        array = array.reshape(-1, *array.shape[-axes - (modality.channels > 1) :])
    if bounds is not None:
        if not bounds[0] < bounds[1]:
            raise InputError(f"source.bounds = {list(bounds)}: the lower one comes first.")
        array = (array.astype(np.float64) - bounds[0]) / (bounds[1] - bounds[0])
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            low, high = (
                x * (bounds[1] - bounds[0]) + bounds[0] for x in (array.min(), array.max())
            )
            raise InputError(
                f"source.bounds = {list(bounds)}: the numbers go from {low:.6g} to {high:.6g}."
            )
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
        array = np.stack([picture(Image.fromarray(x), modality, filter, size) for x in tiles])
    return torch.from_numpy(np.ascontiguousarray(array))


def own(modality: Grid, data: Tensor) -> dict[str, dict[str, Any]]:
    """What data suggest where the modality says no size: their own."""
    return {"modality": {"size": list(data.shape[2:])}} if modality.native else {}


def array(
    modality: Grid,
    path: str,
    key: str | None = None,
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
    bounds: tuple[float, float] | None = None,
) -> Source:
    """A ``.npy`` array, or one of an ``.npz``; ``x_train`` and ``x_test`` keep their own split.

    bounds: the numbers that become 0 and 1, where they lie outside.
    key: of the array in an ``.npz`` with several; label: of its labels (``y_train``, ``y_test``
    beside ``x_train``, ``x_test`` are found).
    """
    file = read_npz(existing(path))
    if isinstance(file, np.ndarray):
        data = to_grid(file, modality, filter, bounds)
        return assemble(data, None, split, shuffle, limit, filter, suggests=own(modality, data))
    if key is None and {"x_train", "x_test"} <= set(file):
        parts = [file["x_train"][:limit], file["x_test"][:limit]]
        labels = None
        if {"y_train", "y_test"} <= set(file):
            labels = [*file["y_train"][:limit], *file["y_test"][:limit]]
        data = to_grid(np.concatenate(parts), modality, filter, bounds)
        counts = (float(len(parts[0])), float(len(parts[1])))
        kept = own(modality, data)
        return assemble(data, labels, counts, shuffle=False, filter=filter, suggests=kept)
    if key is None and len(file.files) > 1:
        raise InputError(f"source.key: '{path}' has the arrays {', '.join(file)}; name one.")
    data = to_grid(member(file, key or file.files[0], path), modality, filter, bounds)
    labels = None if label is None else list(member(file, label, path))
    return assemble(data, labels, split, shuffle, limit, filter, suggests=own(modality, data))


def digits(modality: Grid, split: Split = (0.8, 0.2), filter: Filter = "bicubic") -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8, grey."""
    from sklearn.datasets import load_digits

    read = load_digits()
    levels = np.rint(read.images / 16 * 255).astype(np.uint8)
    data = to_grid(levels, modality, filter)
    kept = own(modality, data)
    return assemble(data, list(read.target), split, shuffle=True, filter=filter, suggests=kept)
