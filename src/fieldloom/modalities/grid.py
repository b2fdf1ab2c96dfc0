"""Regular grids of n axes: audio, images, video, voxels and maps on the sphere are one class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fieldloom import atomic
from fieldloom.errors import InputError, quote
from fieldloom.modalities import media
from fieldloom.modalities.modality import (
    LONGEST,
    Extent,
    Modality,
    Range,
    Resolution,
    find_device,
    index_of,
    sizes_of,
    spread,
)
from fieldloom.registry import HUGE
from fieldloom.types import (
    Batch,
    Cameras,
    Coords,
    Data,
    Signal,
    as_unit_floats,
    draw_uniform,
)

AXES = 62
"""The largest number of a grid's axes: tensors have 64, with those of batch and channels."""

FEW = 1 << 20
"""The largest grid whose points are drawn without replacement, and that is kept."""
KEPT = 4
"""Grids that are kept: of the data and of a smaller context, and the coordinates of their axes."""


@dataclass(frozen=True)
class Placement:
    """The positions of an axis's samples in [low, high].

    low, high: the ends of the axis.
    place: where samples stand between them. ``centre``: at the centres of equal cells; ``corner``:
    both ends are included (a single sample is at the low end); ``left`` and ``right``: at one side
    of the cells.
    order: of an image's two coordinates: as its axes (row, column), or ``reversed`` (x, y).
    """

    place: Literal["centre", "corner", "left", "right"] = "centre"
    low: float = -1.0
    high: float = 1.0
    order: Literal["axes", "reversed"] = "axes"

    def axis(self, count: int, first: float = 0.0, last: float = 1.0) -> Tensor:
        """The coordinates of ``count`` samples, float64: (count,).

        first, last: the part of the axis that they cover, as fractions of it.
        """
        steps = torch.arange(count, dtype=torch.float64)
        unit = {
            "centre": (steps + 0.5) / count,
            "corner": steps / max(count - 1, 1),
            "left": steps / count,
            "right": (steps + 1) / count,
        }[self.place]
        return self.low + (self.high - self.low) * (first + (last - first) * unit)


@dataclass(frozen=True)
class Context:
    """The input of an encoder, where it is less than the datum that should be predicted.

    size: samples of each axis, to which the datum is downsampled before it is encoded.
    hide: the fraction of hidden points, drawn anew for each datum; or its range, which is sampled
          uniformly in training. Outside training the mean fraction is hidden, always at the same
          points.
    """

    size: int | tuple[int, ...] | None = None
    hide: float | tuple[float, float] = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.fractions[0] <= self.fractions[1] < 1:
            raise InputError(f"modality.context.hide = {self.hide}: a fraction in [0, 1), or two.")

    @property
    def fractions(self) -> tuple[float, float]:
        return self.hide if isinstance(self.hide, tuple) else (self.hide, self.hide)


class Grid(Modality):
    """Data (batch, channel, *axes) in [0, 1] as values at the points of a regular grid.

    axes:     number of axes; coordinates are in the array's order (row, column; time or depth
              first).
    size:     samples of each axis, one number for all or one for each; None: the size of the data,
              which the source suggests, or 64.
    channels: of the data; the dimension of a value.
    coords:   ``{place, low, high, order}``, see ``Placement``: by default centres in [-1, 1].
    range:    of normalized values: ``signed`` is [-1, 1], ``unit`` [0, 1], or two numbers.
    sphere:   whether the two axes are latitude, from north, and longitude, embedded as unit vectors
              (three coordinates). With ``coords.place`` = ``corner`` the poles are rows.
    rate:     samples per second of the first axis, for written files of audio and video.
    context:  ``{size, hide}``, see ``Context``; the default is the whole datum.
    coverage: whether a value is the fraction of its cell that a shape covers (letters, masks), so
              that edges are as wide as a cell at any resolution. It needs a loss of logits.
    """

    def __init__(
        self,
        axes: int = 2,
        size: int | tuple[int, ...] | None = None,
        channels: int = 3,
        coords: Placement = Placement(),
        range: Range = "signed",
        sphere: bool = False,
        rate: float | None = None,
        context: Context = Context(),
        coverage: bool = False,
    ) -> None:
        if not 1 <= axes <= AXES:
            raise InputError(f"modality.axes = {axes}: from 1 to {AXES}.")
        self.native = size is None
        size = 64 if size is None else size
        self.size = size if isinstance(size, tuple) else (size,) * axes
        fits = len(self.size) == axes and 1 <= min(self.size) <= max(self.size) <= LONGEST
        if not fits or channels < 1:
            raise InputError(
                f"modality: size = {size}, channels = {channels}: positive, of at most {LONGEST}; "
                f"one size, or {axes}."
            )
        if sphere and axes != 2:
            raise InputError("modality.sphere has two axes, latitude and longitude.")
        if coords.order == "reversed" and (axes != 2 or sphere):
            raise InputError("modality.coords.order = 'reversed' is of images: (x, y).")
        if rate is not None and not rate > 0:
            raise InputError(f"modality.rate = {rate}: samples a second, above 0.")
        self.sphere, self.channels, self.placement, self.rate = sphere, channels, coords, rate
        self.coord_dim, self.extent = 3 if sphere else axes, coords.high - coords.low
        self.kind = {1: "audio", 2: "images", 3: "video"}.get(axes, "grids")
        self.fidelity = "snr" if self.kind == "audio" else "psnr"
        super().__init__(range)
        self.coverage = coverage
        self._kept: dict[Any, Any] = {}
        self.formats: tuple[str, ...] = media.formats(axes, channels)
        self.context, self.partial = context, context != Context()
        self.axes: tuple[int, ...] = self.size
        if context.size is not None:
            self.axes = self.shape(context.size)
            if any(few > many for few, many in zip(self.axes, self.size, strict=True)):
                raise InputError(
                    f"modality.context.size = {context.size} is more than the data's, {self.size}."
                )

    def observe(
        self,
        data: Data | Tensor,
        points: int | None = None,
        generator: Generator | None = None,
        together: bool = False,
        keep_grid: bool = False,
    ) -> Batch:
        """Data (batch, channel, *axes) as a batch of signals.

        points: number of random points of each signal; None: the whole grid. Only these are read,
            so that data may be memory-mapped. They are drawn without replacement from a grid of at
            most 1,048,576 points (as ``Signal.subset`` draws them), with replacement from a larger
            one.
        together: whether every signal has the same points.
        keep_grid: whether the context is the whole grid in any case.
        """
        data = Data.of(data)
        values = self._values(data)
        batch, axes = len(data), tuple(values.shape[2:])
        index = index_of(data)
        if points is None or points >= math.prod(axes):
            seen = self.normalize(values.flatten(2).mT)
            coords = self._grid_like(seen, axes).expand(batch, -1, -1)
            signal = Signal(coords, seen, index, grid=axes, label=data.label)
        else:
            count = math.prod(axes)
            drawn = _draw_points(1 if together else batch, count, points, generator, values)
            where = torch.unravel_index(drawn, axes)
            row = torch.arange(batch, device=values.device).unsqueeze(1)
            seen = self.normalize(values.movedim(1, -1)[(row, *where)])
            coords = self._coords_at(where, axes, seen)
            signal = Signal(coords.expand(batch, -1, -1), seen, index, label=data.label)
        if self.context == Context() and (signal.grid is not None or not keep_grid):
            return Batch(signal, signal)
        context = self._observe_context(data)
        least, most = self.context.fractions
        if most > 0:
            drawn = torch.rand(batch, 1, generator=generator, device=find_device(generator, values))
            fraction = drawn * (most - least) + least
            context = _hide(context, fraction, generator)
        if not keep_grid and points is not None:
            context = context.sample_known(points, generator)
        return Batch(context, signal)

    def _grid_like(self, values: Tensor, axes: tuple[int, ...]) -> Coords:
        """The whole grid, (1, points, coord), with the values' device and type."""
        make = lambda: self.grid(axes).to(values)
        few = math.prod(axes) <= FEW  # a larger one would fill memory after its last use
        return self._keep((axes, values.device, values.dtype), make) if few else make()

    def _coords_at(self, where: Sequence[Tensor], axes: tuple[int, ...], values: Tensor) -> Coords:
        """The coordinates of grid points, by their indices on each axis."""
        if self.sphere:  # float64, which not every device has
            if math.prod(axes) <= FEW:
                return self._grid_like(values, axes).view(*axes, -1)[tuple(where)]
            where = [index.cpu() for index in where]
            return self._combine_axes(self._axis_coords(axes), where).to(values)
        place = values.device
        move = lambda: [axis.to(place) for axis in self._axis_coords(axes)]
        return self._combine_axes(self._keep((axes, place), move), where).to(values)

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made for this key, or is made now; the last few are kept.

        Training asks for the same at every step, and moving it to a device would wait for that.
        """
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            found = self._kept[key] = make()
        return found

    def tiles(self, data: Data, most: int) -> dict[int, Tensor]:
        if len(data) > 1 or self.kind != "video" or self.channels not in (1, 3):
            return super().tiles(data, most)
        indices = spread(data.shape[2], most)
        frames = as_unit_floats(data.tensor[0][:, indices]).transpose(0, 1).expand(-1, 3, -1, -1)
        return dict(zip(indices, frames, strict=True))

    def encoding(self, data: Data | Tensor) -> Signal:
        """The signal that is encoded: the whole grid, or its ``context``."""
        if self.context == Context():
            return self.observe(data).context
        signal = self._observe_context(Data.of(data))
        fraction = torch.tensor([[sum(self.context.fractions) / 2]])
        return _hide(signal, fraction, Generator().manual_seed(0)) if fraction > 0 else signal

    def _values(self, data: Data) -> Tensor:
        """The values (batch, channel, *axes). Raises InputError for data of another shape."""
        self.check_data(data)
        return data.tensor

    def _observe_context(self, data: Data) -> Signal:
        """The whole grid of the encoder's input, downsampled where ``context.size`` says so."""
        values = self.normalize(self._values(data))
        axes = tuple(values.shape[2:])
        if self.context.size is not None:
            axes, values = self.axes, _average_down(values, self.axes)
        coords = self._grid_like(values, axes).expand(len(data), -1, -1)
        return Signal(coords, values.flatten(2).mT, index_of(data), axes, label=data.label)

    def grid(
        self,
        resolution: Resolution | None = None,
        cameras: Cameras | None = None,
        window: Extent | None = None,
        rows: slice | None = None,
    ) -> Coords:
        """The coordinates of a grid, row-major: (1, points, coord) float32. It has no cameras.

        window: the part of the extent that the resolution covers; it may exceed [0, 1], but not the
            poles of a sphere.
        rows: a slice of the first axis; its coordinates are those of the whole grid to the bit.
        """
        if cameras is not None:
            raise InputError("cameras are of views: these data have none.")
        along = self._axis_coords(self.shape(resolution), window)
        if rows is not None:
            along[0] = along[0][rows]
        where = [torch.arange(len(axis)) for axis in along]
        where = [index.view(-1, *(1,) * i) for i, index in enumerate(reversed(where))][::-1]
        return self._combine_axes(along, where).flatten(0, -2)[None]

    def rows(
        self,
        resolution: Resolution | None = None,
        window: Extent | None = None,
        frame: float | None = None,
    ) -> tuple[tuple[int, ...], Callable[[slice], Coords]]:
        """The axes of a datum, and a function from a slice of its rows to their coordinates.

        Coordinates are (1, points, coord); a row is one index of the first axis, in a video a whole
        frame. window: the part of the extent, as in ``grid``. frame: the image of a video at this
        fraction of its time, to which resolution and window then refer. Raises InputError for a
        frame of data without frames.
        """
        if frame is None:
            shape = self.shape(resolution)
            return shape, lambda rows: self.grid(shape, window=window, rows=rows)
        if len(self.size) != 3:
            raise InputError(f"frame = {quote(frame)}: these data are no video, without frames.")
        if not isinstance(frame, int | float) or not math.isfinite(frame):
            raise InputError(f"frame = {quote(frame)}: it is a number, a fraction of the time.")
        asked = (1, *resolution) if isinstance(resolution, tuple) else resolution
        shape = self.shape(asked)[1:]
        return shape, lambda rows: self._still(frame, shape, window, rows)

    def steepness(self, shape: tuple[int, ...], window: Extent | None = None) -> float:
        """As of ``Modality``: samples per length of the coarsest axis, over those of training.

        Across the edge of a shape, coverage rises from 0 to 1 within one cell. Logits that do so in
        cells of training do it in cells that are r times smaller once they are multiplied by r.
        """
        if not self.coverage:
            return 1.0
        ends = ((0, 1),) * len(shape) if window is None else window
        sizes = zip(shape, self.size[-len(shape) :], ends, strict=True)
        return min(count / size / (last - first) for count, size, (first, last) in sizes)

    def _still(
        self, frame: float, shape: tuple[int, ...], window: Extent | None, rows: slice
    ) -> Coords:
        """Coordinates of rows of the image at a fraction of a video's time: (1, points, 3)."""
        ends = ((0, 1), *(((0, 1), (0, 1)) if window is None else window))
        down = self.grid((1, shape[0], 1), window=ends)[0, rows, 1]
        across = self.grid((1, 1, shape[1]), window=ends)[0, :, 2]
        y, x = torch.meshgrid(down, across, indexing="ij")
        time = self.placement.low + (self.placement.high - self.placement.low) * frame
        return torch.stack([torch.full_like(y, time), y, x], -1).flatten(0, 1)[None]

    def _axis_coords(self, shape: tuple[int, ...], window: Extent | None = None) -> list[Tensor]:
        """The coordinates of the samples of each axis: float32 (samples,).

        On a sphere these are factors of the three components: float64 (samples, 3).
        """
        window = ((0, 1),) * len(shape) if window is None else window
        try:
            ends = [(float(first), float(last)) for first, last in window]
        except (TypeError, ValueError, OverflowError):
            ends = []
        if len(ends) != len(shape) or not all(-HUGE < a < b < HUGE for a, b in ends):
            raise InputError(
                f"window {quote(window)}: (first, last) for each of {len(shape)} axes."
            )
        if not self.sphere:
            axes = zip(shape, ends, strict=True)
            return [self.placement.axis(n, *end).float() for n, end in axes]
        if ends[0][0] < 0 or ends[0][1] > 1:
            raise InputError(f"window {window}: latitude ends at the poles, 0 and 1.")
        place = self.placement.place
        latitude = Placement(place).axis(shape[0], *ends[0]) * -math.pi / 2
        across = Placement("centre" if place == "centre" else "left")  # a circle has no last corner
        longitude = across.axis(shape[1], *ends[1]) * math.pi
        cosine, one = latitude.cos(), torch.ones_like(longitude)
        return [
            torch.stack([cosine, cosine, latitude.sin()], -1),
            torch.stack([longitude.cos(), longitude.sin(), one], -1),
        ]

    def _combine_axes(self, along: Sequence[Tensor], where: Sequence[Tensor]) -> Tensor:
        """Coordinates (*indices, coord) float32 of grid points, from their indices on each axis."""
        given = [axis[index] for axis, index in zip(along, where, strict=True)]
        if self.sphere:
            return (given[0] * given[1]).float()
        if self.placement.order == "reversed":
            given = given[::-1]
        return torch.stack(torch.broadcast_tensors(*given), -1)

    def shape(self, resolution: Resolution | None = None) -> tuple[int, ...]:
        """The samples of each axis at a resolution; None: the training size."""
        return self.size if resolution is None else sizes_of(resolution, len(self.size))

    def save(self, data: Data, path: str | Path) -> Path | None:
        """Write one datum (1, channel, *axes) in [0, 1] to a file; returns its path.

        The path's suffix selects one of ``formats``: PNG, audio or video, or float32 numbers in a
        ``.npy`` array. A datum of another number of samples than ``size`` has the same duration.
        """
        path, (datum,) = atomic.as_path(path), data.tensor
        path = path if path.suffix in self.formats else path.with_suffix(self.formats[0])
        rate = None if self.rate is None else self.rate * datum.shape[1] / self.size[0]
        return media.save(datum, path, rate)

    def to_image(self, datum: Tensor) -> Tensor | None:
        """An image of two axes as it is, the middle frame of three, the waveform of one."""
        return media.to_image(datum)

    def areas(self, rows: int) -> Tensor | None:
        """On a sphere, the cosine of each row's latitude over their mean: (rows,) float32."""
        if not self.sphere:
            return None
        latitudes = Placement(self.placement.place).axis(rows) * math.pi / 2
        cosines = latitudes.cos().clamp_min(0)  # a corner's pole is a rounding error below it
        return (cosines / cosines.mean().clamp_min(1e-12)).float()

    def images(self, data: Tensor) -> Tensor | None:
        return data if len(self.size) == 2 else None


def _average_down(data: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Downsample data (batch, channel, *axes) to these axes, by the mean over each cell."""
    pools: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
    return pools[len(axes) - 1](data, axes)


def _hide(signal: Signal, fraction: Tensor, generator: Generator | None) -> Signal:
    """Hide a random fraction (batch | 1, 1) of each signal's points; the same ones if it is one."""
    shape, place = (len(fraction), signal.coords.shape[1]), find_device(generator, signal.coords)
    drawn = torch.rand(shape, generator=generator, device=place)
    mask = (drawn >= fraction).expand(len(signal), -1)
    return signal.hide(mask.to(signal.coords.device))


def _draw_points(
    batch: int, count: int, points: int, generator: Generator | None, values: Tensor
) -> Tensor:
    """Random indices (batch, points) below ``count``, on the values' device."""
    if count > FEW:
        where = values.device if generator is None else generator.device
        drawn = torch.randint(count, (batch, points), generator=generator, device=where)
        return drawn.to(values.device)
    order = draw_uniform((batch, count), generator, values.device)
    return order.topk(points, dim=1).indices
