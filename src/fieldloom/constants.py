"""Constants on a device: each is copied there once, since a copy at every step would wait."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_copies = WeakIdKeyDictionary()
"""Constant -> (device, dtype) -> its copy."""


def place(constant: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A constant on a device; its copy lives as long as the constant. Neither may be changed.

    dtype: of the copy; None: the constant's own.
    """
    copies, key = _copies.get(constant, {}), (device, dtype or constant.dtype)
    if key in copies:
        return copies[key]
    with torch.inference_mode(False):  # else gradients could never use it
        copy = constant.to(*key)
        copy = copy.clone() if copy.is_inference() else copy
    if copy is not constant:  # which would keep itself alive
        _copies.setdefault(constant, {})[key] = copy
    return copy


def row(numbers: Sequence[int] | Sequence[float], like: Tensor) -> Tensor:
    """A few numbers as a tensor of the device and dtype of another one, which nobody changes."""
    return _row(tuple(numbers), like.device, like.dtype)


@lru_cache(maxsize=1 << 12)
def _row(numbers: tuple[int | float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=dtype, device=device)
