"""What a datum is: data <-> a set of observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError, quote
from fieldloom.geometry.mesh import Mesh
from fieldloom.types import Batch, Cameras, Coords, Data, Function, Signal, Values

Resolution = int | tuple[int, ...]
LONGEST = 1 << 40
"""Samples of an axis, at most."""

Range = Literal["signed", "unit"]
Extent = tuple[tuple[int | float, int | float], ...]
"""(first, last) of each axis, in the array's order, as fractions of the whole."""


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


class Modality:
    """The base class. What only some kinds of data have (cameras, surfaces) is answered here for
    those that have none.

    kind:      which evaluator and which drawing the data have: ``images``, ``audio``, ``video``,
               ``grids`` of more axes, ``shapes``, or ``views``.
    unit:      what is decoded at a time, for metrics of speed: a ``datum``, or a ``view``.
    coord_dim: of the coordinates that a renderer is given; value_dim: of an observation.
    grid_dim:  of the points of the grid that observations fill, where that is not ``coord_dim``: 2
               of views, whose rays fill pictures.
    range:     what data in [0, 1] become inside: ``signed`` is [-1, 1], ``unit`` leaves them;
               ``low`` and ``high`` are its ends.
    formats:   the suffixes of files that ``save`` writes, the usual one first.
    axes:      of the contexts that an encoder of whole grids reads; () where there are none.
    extent:    length of the coordinates' interval.
    partial:   whether codes are found from less than the whole datum.
    held:      views of each datum that are kept apart for evaluation; 0 of other data.
    """

    kind: str
    unit: str = "datum"
    coord_dim: int
    grid_dim: int
    value_dim: int
    channels: int
    formats: tuple[str, ...]
    axes: tuple[int, ...] = ()
    extent: float = 2.0
    partial: bool = False
    held: int = 0

    def __init__(self, range: Range) -> None:
        self.low, self.high = (-1.0, 1.0) if range == "signed" else (0.0, 1.0)

    def normalize(self, data: Tensor) -> Tensor:
        """Data, float in [0, 1] or uint8, as values."""
        unit = data.float() / 255 if data.dtype == torch.uint8 else data
        return self.low + (self.high - self.low) * unit

    def denormalize(self, values: Tensor) -> Tensor:
        """Values as data, not clamped: a field may leave the range of its data."""
        return (values - self.low) / (self.high - self.low)

    def observe(
        self,
        data: Data | Tensor,
        points: int | None = None,
        generator: Generator | None = None,
        together: bool = False,
        keep_grid: bool = False,
    ) -> Batch:
        """What training sees.

        points: so many observations of each signal, at random; None: all. together: the same ones
            of every signal. keep_grid: the context is a grid, whatever ``points`` says of the
            target.
        """
        raise NotImplementedError

    def encoding(self, data: Data | Tensor) -> Signal:
        """What a code is found from, outside training."""
        raise NotImplementedError

    def shape(self, resolution: Resolution | None = None) -> tuple[int, ...]:
        """The axes of a datum (of views: of one view) at a resolution; None: as trained."""
        raise NotImplementedError

    def grid(self, resolution: Resolution | None = None, cameras: Cameras | None = None) -> Coords:
        """Where a whole datum is observed: (1 | batch, points, coord) float32."""
        raise NotImplementedError

    def coords_of(self, data: Data) -> Coords:
        """Where these data are observed: (1 | batch, points, coord)."""
        raise NotImplementedError

    def assemble(
        self,
        values: Values,
        resolution: Resolution | None = None,
        cameras: Cameras | None = None,
    ) -> Data:
        """Values at the points of ``grid`` as data, not clamped."""
        raise NotImplementedError

    def as_observed(self, values: Values, data: Data) -> Data:
        """Values at ``coords_of(data)`` in the shape of these data, not clamped."""
        made = self.denormalize(values)
        return replace(data, values=made.mT.reshape(len(made), *data.shape[1:]))

    def save(self, data: Data, path: str | Path) -> Path | None:
        """One datum (a batch of 1) as the usual file of its kind; None: nothing to write."""
        raise NotImplementedError

    def picture(self, datum: Tensor) -> Tensor | None:
        """How a datum looks: (3, height, width) in [0, 1]; None where it cannot be shown."""
        raise NotImplementedError

    def images(self, data: Tensor) -> Tensor | None:
        """Data as pictures (batch, channel, height, width), as they are, of views the first ones;
        None where they are none.
        """
        return None

    def one_view(self, data: Data) -> Data:
        """Of views the first one that is held out, or else the first; other data as they are."""
        return data

    def cameras(self, count: int | None = None) -> Cameras | None:
        """The cameras that data are looked at with where none are given; None of other data."""
        return None

    def rows(
        self,
        resolution: Resolution | None = None,
        window: Extent | None = None,
        frame: float | None = None,
    ) -> tuple[tuple[int, ...], Callable[[slice], Coords]]:
        """How a datum, or a part of it, is drawn in strips: its axes, and what gives the
        coordinates (1, points, coord) of some of its rows. Raises InputError where data are no
        grids.
        """
        raise InputError("strips are of grids: this run's data are none.")

    def mesh(
        self,
        datum: Tensor,
        frame: Tensor | None = None,
        function: Function | None = None,
        project: int = 0,
    ) -> Mesh | None:
        """The surface of a shape. Raises InputError where data are none."""
        raise InputError("meshes are of shapes: this run's data are none.")
