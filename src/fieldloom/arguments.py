"""Checked arguments of public calls: data, arrays, cameras, counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom.errors import InputError, quote
from fieldloom.types import Cameras, Data

Array = Tensor | NDArray[Any]
"""An array of numbers."""


def as_data(data: Any, what: str = "data") -> Data:
    """Data from data, a tensor or a numpy array of uint8 or floats. Raises InputError."""
    if not isinstance(data, Data):
        return Data(as_values(data, what))
    if not isinstance(data.values, Tensor):  # lazy: checked where it is read
        return data
    coords = None if data.coords is None else as_numbers("coords", data.coords)
    return replace(data, values=as_values(data.values, what), coords=coords)


def as_values(values: Any, what: str) -> Tensor:
    """Values of data from a tensor or a numpy array of uint8 or floats. Raises InputError."""
    if isinstance(values, np.ndarray) and values.dtype == np.uint8:
        values = torch.from_numpy(np.ascontiguousarray(values))
    if not (isinstance(values, Tensor) and values.dtype == torch.uint8):
        values = as_numbers(what, values, "uint8, or floats in [0, 1]")
    if values.ndim < 2:
        raise InputError(f"{what}: the shape {tuple(values.shape)} is that of no data.")
    return values


ROUNDING = 1e-3
"""How far floats may lie beyond [0, 1]: arithmetic in few bits leaves such an overshoot."""


def check_unit_range(values: Tensor, what: str = "data") -> None:
    """Raise InputError where floats are not in [0, 1], up to ``ROUNDING``, which is taken as it is.

    NaN and infinite values are refused, too. uint8 values are always right.
    """
    if not values.is_floating_point() or not values.numel():
        return
    low, high = (float(x) for x in torch.aminmax(values))
    if not math.isfinite(low) or not math.isfinite(high):
        raise InputError(f"{what}: some values are NaN or infinite, and floats lie in [0, 1].")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(
            f"{what}: floats from {low:.4g} to {high:.4g}, where they lie in [0, 1]: scale them, "
            "or give uint8."
        )


def as_numbers(what: str, value: Any, right: str = "floats") -> Tensor:
    """A tensor from a tensor or a numpy array of floats. Raises InputError for others."""
    if isinstance(value, np.ndarray) and value.dtype in (np.float16, np.float32, np.float64):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = type(value).__name__
        given = f"a {kind} of {value.dtype}" if hasattr(value, "dtype") else f"a {kind}"
        raise InputError(f"{what}: {given} where a tensor or a numpy array is needed, {right}.")
    return value


def as_cameras(cameras: Any) -> Cameras | None:
    """Cameras from ``Cameras``, or from a dict of tensors or numpy arrays. Raises InputError."""
    if cameras is None or isinstance(cameras, Cameras):
        return cameras
    if not isinstance(cameras, Mapping) or cameras.keys() != {one.name for one in fields(Cameras)}:
        raise InputError("cameras are a dict of two tensors: c2w and intrinsics.")
    return Cameras(**{key: as_numbers(key, value) for key, value in cameras.items()})


def check_whole(what: str, value: Any, least: int = 0) -> None:
    """Raise InputError where a value is no whole number, or below ``least``."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) < 2**63:
        raise InputError(f"{what} = {quote(value)}: a whole number, at least {least}.")
