"""What a field is: slots, and how to evaluate them. It owns no parameters and no state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from fieldloom.nn.kernels import KernelsOf
from fieldloom.types import Coords, Slot, Values, Weights


@runtime_checkable
class Field(Protocol):
    """A function of (coords, weights), which owns no weights itself.

    ``slots`` are the named tensors that a conditioner provides, in order of evaluation.
    Constructors take ``(coord_dim, value_dim, direction_dim=0, **own)``.
    """

    slots: Mapping[str, Slot]

    def __call__(self, coords: Coords, weights: Weights) -> Values: ...


@runtime_checkable
class HasKernels(Protocol):
    """A field that computes by what its device has: ``kernels`` is asked at each call."""

    kernels: KernelsOf
