"""The modality that sources of shapes need.

Shapes are in the cube [-1, 1]; the data's ``frame``, float64, gives their original position.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from fieldloom.errors import InputError
from fieldloom.types import Coords


@runtime_checkable
class Cells(Protocol):
    """A modality of three axes in [-1, 1] and one channel, as sources of shapes need it."""

    size: tuple[int, ...]
    channels: int
    native: bool

    def grid(self, resolution: int | tuple[int, ...] | None = None) -> Coords: ...


def check_modality(modality: Cells) -> None:
    """Raise InputError for a modality that is not of shapes in [-1, 1]."""
    if len(modality.size) != 3 or min(modality.size) < 2 or modality.channels != 1:
        raise InputError(
            f"this source reads shapes, not data of the size {modality.size} with "
            f"{modality.channels} channels: the modality needs three axes and 1 channel."
        )
    coords = modality.grid()[0]
    low, high = float(coords.min()), float(coords.max())
    if abs(low) > 1.001 or abs(high) > 1.001 or high - low < 1.999 - 2 / min(modality.size):
        raise InputError(
            f"modality.coords run from {low:g} to {high:g}: shapes stand in [-1, 1], so set "
            "low = -1 and high = 1."
        )
