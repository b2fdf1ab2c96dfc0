"""The base class of modalities: maps between data and sets of observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from fieldloom import atomic, export
from fieldloom.errors import InputError, quote
from fieldloom.geometry.mesh import Mesh
from fieldloom.types import Batch, Cameras, Coords, Data, Function, Signal, Values, as_unit_floats

Resolution = int | tuple[int, ...]
LONGEST = 1 << 40
"""The largest number of samples of an axis."""

Range = Literal["signed", "unit"] | tuple[float, float]
Extent = tuple[tuple[int | float, int | float], ...]
"""(first, last) of each axis, in the array's order, as fractions of the whole."""


def sizes_of(resolution: Any, axes: int) -> tuple[int, ...]:
    """Samples of each axis, from one number for all or one for each.

    Raises InputError for other values, and for sizes out of range.
    """
    each = tuple(resolution) if isinstance(resolution, tuple | list) else (resolution,) * axes
    whole = all(isinstance(n, Integral) and not isinstance(n, bool) for n in each)
    if len(each) != axes or not whole or not all(0 < n <= LONGEST for n in each):
        raise InputError(
            f"resolution {quote(resolution)} is not one or {axes} positive whole numbers, of at "
            f"most {LONGEST}."
        )
    return tuple(int(n) for n in each)


class Modality:
    """The base class: data (batch, channel, *axes) that are observed where ``grid`` says.

    A subclass states ``coord_dim`` and ``channels``, and writes ``shape`` and ``grid``. The rest
    has a default, which a subclass may override: the observations that training sees (``observe``),
    and those that are encoded (``encoding``), how values become data again (``assemble``), how data
    are saved and shown (``save``, ``to_image``). Where only some kinds of data have a property
    (cameras, surfaces, strips), the base class answers for all others.

    range:     of normalized values: ``signed`` is [-1, 1], ``unit`` [0, 1], or what 0 and 1 of the
               data become: of data less their mean, by their deviation, (-mean / std,
               (1 - mean) / std). ``low`` and ``high`` are its ends.
    kind:      how data are evaluated and drawn, a key of ``evaluation.EVALUATORS`` and of
               ``drawing.DRAWERS``: ``grids`` (by the error of their values), ``images``,
               ``audio``, ``video``, ``shapes`` or ``views``.
    unit:      what is decoded at a time, for costs: a ``datum``, or a ``view``.
    coord_dim: dimension of the coordinates that a renderer sees.
    value_dim: dimension of an observation: the channels.
    grid_dim:  dimension of the grid that observations fill, where it is not ``coord_dim``: 2 for
               views, whose rays fill images.
    formats:   the suffixes of files that ``save`` writes, the default first.
    axes:      of the contexts that an encoder of whole grids reads; () where there are none.
    extent:    length of the coordinates' interval.
    partial:   whether less than the whole datum is encoded.
    rate:      samples or frames per second of the first axis, where there is one.
    fidelity:  the ratio in dB by which fits are logged and said, a key of
               ``metrics.paired.FIDELITY``: ``psnr``, or ``snr`` of sound.
    held:      views of each datum that are held out for evaluation; 0 of other data.
    unit_length: the length of 1 in the field's coordinates, in the unit of the data's cameras.
    """

    kind: str = "grids"
    unit: str = "datum"
    coord_dim: int
    channels: int
    formats: tuple[str, ...] = (".npy",)
    axes: tuple[int, ...] = ()
    extent: float = 2.0
    partial: bool = False
    rate: float | None = None
    fidelity: str = "psnr"
    held: int = 0
    unit_length: float = 1.0

    def __init__(self, range: Range = "signed") -> None:
        ends = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0)}
        self.low, self.high = ends[range] if isinstance(range, str) else range
        if not -LONGEST < self.low < self.high < LONGEST:  # nor no number
            raise InputError(
                f"modality.range = [{self.low:g}, {self.high:g}]: what 0 and 1 of the data become."
            )

    @property
    def value_dim(self) -> int:
        return self.channels

    @property
    def grid_dim(self) -> int:
        return self.coord_dim

    # -- what a subclass writes

    def shape(self, resolution: Resolution | None = None) -> tuple[int, ...]:
        """The axes of a datum (of views: of one view) at a resolution; None: as trained.

        Raises InputError for a resolution that does not fit (``sizes_of`` checks one).
        """
        raise NotImplementedError

    def grid(self, resolution: Resolution | None = None, cameras: Cameras | None = None) -> Coords:
        """Coordinates of a whole datum: (1 | batch, points, coord) float32, row-major.

        Raises InputError for cameras of data that are not views.
        """
        raise NotImplementedError

    # -- what follows from it

    def normalize(self, data: Tensor) -> Tensor:
        """Data, float in [0, 1] or uint8, scaled to the range of values."""
        unit = as_unit_floats(data)
        return self.low + (self.high - self.low) * unit

    def denormalize(self, values: Tensor) -> Tensor:
        """Values scaled back to data in [0, 1], not clamped: a field may exceed the range."""
        return (values - self.low) / (self.high - self.low)

    def observe(
        self,
        data: Data | Tensor,
        points: int | None = None,
        generator: Generator | None = None,
        together: bool = False,
        keep_grid: bool = False,
    ) -> Batch:
        """A training batch of these data.

        points: number of random observations of each signal; None: all.
        generator: of all that is random; None: torch's own. A thread that reads ahead has its own.
        together: whether every signal has the same ones.
        keep_grid: whether the context is the whole grid in any case.
        """
        data = Data.of(data)
        self.check_data(data)
        values = self.normalize(data.tensor.flatten(2).mT)
        coords = self.coords_of(data).to(values).expand(len(data), -1, -1)
        whole = Signal(coords, values, index_of(data), data.shape[2:], label=data.label)
        if points is None or points >= values.shape[1]:
            return Batch(whole, whole)
        some = whole.subset(points, generator, together)
        return Batch(whole if keep_grid else some, some)

    def check_data(self, data: Data) -> None:
        """Raise InputError for data of another kind or shape than (batch, channel, *axes).

        A subclass whose ``observe`` takes other data overrides this, too.
        """
        if data.cameras is not None:
            raise InputError("data: cameras are of views: these data have none.")
        if data.coords is not None:
            raise InputError("data: coords are of scattered samples: these data are grids.")
        shape, channels, axes = data.shape, self.channels, len(self.shape())
        if len(shape) == 2 + axes and shape[1] == channels and 0 not in shape[2:]:
            return
        last = shape[-1] == channels
        hint = ""
        if len(shape) == axes and channels == 1:
            hint = ": batch and channel are missing, as data[None, None] adds them"
        elif len(shape) == 1 + axes and shape[0] == channels:
            hint = ": the batch axis is missing, as data[None] adds it"
        elif len(shape) == 1 + axes and last:
            hint = ": channels come last there, and the batch is missing: data.movedim(-1, 0)[None]"
        elif len(shape) == 1 + axes and channels == 1:
            hint = ": the channel axis is missing, as data[:, None] adds it"
        elif len(shape) == 2 + axes and last:
            hint = ": channels come last there, as data.movedim(-1, 1) moves them"
        names = ", ".join(["axis"] * axes)
        raise InputError(f"data of the shape {shape} is not (batch, {channels}, {names}){hint}.")

    def encoding(self, data: Data | Tensor) -> Signal:
        """The signal that is encoded outside training."""
        return self.observe(data).context

    def coords_of(self, data: Data) -> Coords:
        """Coordinates of all observations of these data: (1 | batch, points, coord)."""
        return self.grid(data.shape[2:])

    def assemble(
        self,
        values: Values,
        resolution: Resolution | None = None,
        cameras: Cameras | None = None,
    ) -> Data:
        """Values (batch, points, channel) at the points of ``grid`` as data, not clamped."""
        return Data(self.denormalize(values).mT.unflatten(2, self.shape(resolution)))

    def as_observed(self, values: Values, data: Data) -> Data:
        """Values at ``coords_of(data)`` in the shape of these data, not clamped."""
        decoded = self.denormalize(values)
        return replace(data, values=decoded.mT.reshape(len(decoded), *data.shape[1:]))

    def save(self, data: Data, path: str | Path) -> Path | None:
        """Write one datum (a batch of 1) to a file; returns its path.

        Returns None where there is nothing to write: a shape without a surface.
        """
        path = atomic.as_path(path)
        return export.npy(data.tensor[0], path.with_suffix(".npy"))

    def to_image(self, datum: Tensor) -> Tensor | None:
        """An image of a datum: (3, height, width) in [0, 1]; None where there is none."""
        return None

    def images(self, data: Tensor) -> Tensor | None:
        """Data as images (batch, channel, height, width), first views of views; None for others."""
        return None

    def tiles(self, data: Data, most: int) -> dict[int, Tensor]:
        """At most ``most`` of the data, evenly spaced: index -> image (3, height, width) in [0, 1].

        Of a single video or scene they are its frames or views; there are none of data that cannot
        be shown.
        """
        indices = spread(len(data), most)
        images = map(self.to_image, data.part(indices).as_float().tensor)
        return {i: x for i, x in zip(indices, images, strict=True) if x is not None}

    # -- what only some kinds of data have

    def one_view(self, data: Data) -> Data:
        """The first view, of those held out if there are any; other data as they are."""
        return data

    def cameras(self, count: int | None = None) -> Cameras | None:
        """The default cameras of views; None for other data."""
        return None

    def steepness(self, shape: tuple[int, ...], window: Extent | None = None) -> float:
        """The factor of logits in data of these axes, by which edges stay as wide as one sample.

        window: the part of the extent that the axes cover. 1 as trained, and of all data but grids
        of ``coverage``.
        """
        return 1.0

    def rows(
        self,
        resolution: Resolution | None = None,
        window: Extent | None = None,
        frame: float | None = None,
    ) -> tuple[tuple[int, ...], Callable[[slice], Coords]]:
        """The axes of a datum, and a function from a slice of its rows to their coordinates.

        Coordinates are (1, points, coord). Only ``Grid`` can draw a part: a window, or a frame.
        Raises InputError for a part of other data.
        """
        if frame is not None or any(tuple(ends) != (0, 1) for ends in window or ()):
            raise InputError("a window or a frame is of images and video: these data are neither.")
        shape = self.shape(resolution)
        coords = self.grid(shape).unflatten(1, shape)
        return shape, lambda rows: coords[:, rows].flatten(1, -2)

    def areas(self, rows: int) -> Tensor | None:
        """The areas of the rows of a map of the sphere, mean 1: (rows,); None of other data."""
        return None

    def sample(self, function: Function, resolution: Resolution | None = None) -> Tensor:
        """A datum with the surface of a function. Raises InputError for data but shapes."""
        raise InputError("meshes are of shapes: this run's data are none.")

    def mesh(
        self,
        datum: Tensor,
        frame: Tensor | None = None,
        function: Function | None = None,
        project: int = 0,
    ) -> Mesh | None:
        """The surface of a shape. Raises InputError for data that are not shapes."""
        raise InputError("meshes are of shapes: this run's data are none.")


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices of ``count`` things, evenly spaced, the first among them."""
    few = min(count, most)
    return [i * count // few for i in range(few)]


def find_device(generator: Generator | None, like: Tensor) -> torch.device:
    """Where random numbers are drawn: by the generator, or else on the tensor's device."""
    return like.device if generator is None else generator.device


def index_of(data: Data) -> Tensor:
    """The index of each datum in its set, (batch,); 0, 1, 2 ... where it is not known."""
    if data.index is not None:
        return data.index
    return torch.arange(len(data), device=data.tensor.device)
