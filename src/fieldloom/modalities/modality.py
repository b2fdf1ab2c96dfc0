"""What a datum is: data <-> a set of observations."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Generator, Tensor, uint8

from fieldloom.errors import InputError, quote
from fieldloom.types import Batch, Coords, Signal, Values

Resolution = int | tuple[int, ...]
LONGEST = 1 << 40
"""Samples of an axis, at most."""

Range = Literal["signed", "unit"]
Cameras = Mapping[str, Tensor]
"""``c2w`` (views, 4, 4) or (batch, views, 4, 4), OpenGL; ``intrinsics`` (..., 4) in pixels."""


def sizes_of(resolution: Any, axes: int) -> tuple[int, ...]:
    """Samples of each axis, from one number for all or one an axis. Raises InputError."""
    each = tuple(resolution) if isinstance(resolution, tuple | list) else (resolution,) * axes
    whole = all(isinstance(n, Integral) and not isinstance(n, bool) for n in each)
    if len(each) != axes or not whole or not all(0 < n <= LONGEST for n in each):
        raise InputError(
            f"resolution {quote(resolution)} is not one or {axes} positive whole numbers, of at "
            f"most {LONGEST}."
        )
    return tuple(int(n) for n in each)


class Ranged:
    """What data in [0, 1] become inside, and back: ``signed`` is [-1, 1], ``unit`` leaves them."""

    def __init__(self, range: Range) -> None:
        self.low, self.high = (-1.0, 1.0) if range == "signed" else (0.0, 1.0)

    def normalize(self, data: Tensor) -> Tensor:
        """Data, float in [0, 1] or uint8, as values."""
        unit = data.float() / 255 if data.dtype == uint8 else data
        return self.low + (self.high - self.low) * unit

    def denormalize(self, values: Tensor) -> Tensor:
        """Values as data, not clamped: a field may leave the range of its data."""
        return (values - self.low) / (self.high - self.low)


@runtime_checkable
class Modality(Protocol):
    """``low`` and ``high`` are what data in [0, 1] become inside; ``formats`` the suffixes of files
    that ``save`` writes, the usual one first.
    """

    coord_dim: int
    value_dim: int
    low: float
    high: float
    formats: tuple[str, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """Of the contexts that an encoder of whole grids reads; () where there are none."""
        ...

    def observe(
        self,
        data: Tensor,
        index: Tensor | None = None,
        label: Tensor | None = None,
        points: int | None = None,
        generator: Generator | None = None,
        together: bool = False,
        whole: bool = False,
        **meta: Any,
    ) -> Batch:
        """What training sees. together: points at the same places of every signal; whole: the
        context is a grid, whatever ``points`` says of the target; meta: what data of this kind need
        beside their numbers.
        """
        ...

    def encoding(self, data: Tensor, **meta: Any) -> Signal:
        """What a code is found from, outside training."""
        ...

    def grid(
        self, resolution: Resolution | None = None, cameras: Cameras | None = None
    ) -> Coords: ...

    def normalize(self, data: Tensor) -> Tensor: ...

    def denormalize(self, values: Tensor) -> Tensor: ...

    def shape(self, resolution: Resolution | None = None) -> tuple[int, ...]:
        """The axes of a datum (of views: of one view) at a resolution."""
        ...

    def assemble(self, values: Values, resolution: Resolution | None = None) -> Tensor: ...

    def save(self, data: Tensor, path: str | Path, **meta: Any) -> Path | None:
        """One datum as the usual file of its kind; None where there is nothing to write."""
        ...

    def picture(self, datum: Tensor) -> Tensor | None:
        """How a datum looks: (3, height, width) in [0, 1]; None where it cannot be shown."""
        ...
