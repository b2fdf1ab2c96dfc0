"""Regular grids of n axes: sound, images, video, voxels and maps on the sphere are one class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from fieldloom import export
from fieldloom.errors import InputError
from fieldloom.modalities.modality import Cameras, Range, Ranged, Resolution
from fieldloom.types import Batch, Coords, Signal, Values


@dataclass(frozen=True)
class Placement:
    """Where the samples of an axis stand in [low, high].

    ``centre`` puts them in the middle of equal cells, ``corner`` includes both ends (a single
    sample stands at the low end), ``left`` and ``right`` at one side of the cells.
    """

    place: Literal["centre", "corner", "left", "right"] = "centre"
    low: float = -1.0
    high: float = 1.0

    def axis(self, count: int) -> Tensor:
        """The coordinates of ``count`` samples, float64: (count,)."""
        steps = torch.arange(count, dtype=torch.float64)
        unit = {
            "centre": (steps + 0.5) / count,
            "corner": steps / max(count - 1, 1),
            "left": steps / count,
            "right": (steps + 1) / count,
        }[self.place]
        return self.low + (self.high - self.low) * unit


class Grid(Ranged):
    """Data (batch, channel, *axes) in [0, 1] as values at the points of a regular grid.

    axes:     their number; coordinates come in the array's order (row, column; time or depth
        first).
    size:     samples of each axis, one number for all or one an axis.
    channels: of the data; the dimension of a value.
    coords:   ``{place, low, high}``, pixel centres in [-1, 1] where not given; a paper's own where
              a recipe reproduces one.
    range:    what [0, 1] becomes inside: ``signed`` is [-1, 1], ``unit`` leaves it.
    sphere:   two axes, latitude from north and longitude, embedded as unit vectors (three
              coordinates); ``coords.place`` centre, or corner: the poles are rows.
    """

    def __init__(
        self,
        axes: int = 2,
        size: int | tuple[int, ...] = 64,
        channels: int = 3,
        coords: Placement = Placement(),
        range: Range = "signed",
        sphere: bool = False,
    ) -> None:
        self.size = size if isinstance(size, tuple) else (size,) * axes
        if len(self.size) != axes or min(self.size) < 1 or channels < 1:
            raise InputError(
                f"modality: size = {size}, channels = {channels}: positive; one size, or {axes}."
            )
        if sphere and axes != 2:
            raise InputError("modality.sphere has two axes, latitude and longitude.")
        self.sphere, self.channels, self.placement = sphere, channels, coords
        self.coord_dim, self.value_dim = 3 if sphere else axes, channels
        super().__init__(range)
        picture = len(self.size) == 2 and channels in (1, 3)
        self.formats: tuple[str, ...] = (".png", ".npy") if picture else (".npy",)

    def observe(
        self,
        data: Tensor,
        index: Tensor | None = None,
        label: Tensor | None = None,
        points: int | None = None,
        generator: Generator | None = None,
        together: bool = False,
        **meta: Any,
    ) -> Batch:
        """Data (batch, channel, *axes), float in [0, 1] or uint8, as a batch of signals.

        points: so many of the points of each signal, at random; None: the whole grid. together: the
            same points of every signal.
        """
        if data.ndim != len(self.size) + 2 or data.shape[1] != self.channels:
            raise InputError(
                f"data of the shape {tuple(data.shape)} is not (batch, {self.channels}, "
                f"{', '.join(['axis'] * len(self.size))})."
            )
        axes = tuple(data.shape[2:])
        values = self.inward(data.flatten(2).mT)
        coords = self.grid(axes).to(values).expand(len(data), -1, -1)
        if index is None:
            index = torch.arange(len(data), device=data.device)
        signal = Signal(coords, values, index, grid=axes, label=label)
        if points is not None and points < math.prod(axes):
            signal = signal.subset(points, generator, together)
        return Batch(signal, signal)

    def encoding(self, data: Tensor, **meta: Any) -> Signal:
        """What a code is found from: the whole grid."""
        return self.observe(data, **meta).context

    def grid(self, resolution: Resolution | None = None, cameras: Cameras | None = None) -> Coords:
        """The coordinates of a grid, row-major: (1, points, coord) float32."""
        rows = self.shape(resolution)
        if self.sphere:
            centred = self.placement.place == "centre"
            latitude = Placement(self.placement.place).axis(rows[0]) * -math.pi / 2
            across = Placement("centre" if centred else "left")  # a circle has no last corner
            longitude = across.axis(rows[1]) * math.pi
            theta, phi = torch.meshgrid(latitude, longitude, indexing="ij")
            points = [theta.cos() * phi.cos(), theta.cos() * phi.sin(), theta.sin()]
        else:
            axes = [self.placement.axis(n) for n in rows]
            points = list(torch.meshgrid(*axes, indexing="ij"))
        return torch.stack(points, -1).flatten(0, -2)[None].float()

    def shape(self, resolution: Resolution | None = None) -> tuple[int, ...]:
        """The samples of each axis at a resolution: None is the training size."""
        if resolution is None:
            return self.size
        sizes = (resolution,) * len(self.size) if isinstance(resolution, int) else tuple(resolution)
        if len(sizes) != len(self.size) or min(sizes) < 1:
            raise InputError(
                f"resolution {resolution} is not one or {len(self.size)} positive numbers."
            )
        return sizes

    def assemble(self, values: Values, resolution: Resolution | None = None) -> Tensor:
        """Values (batch, points, channel) of a whole grid -> data (batch, channel, *axes).

        Not clamped: a field may leave the range of its data.
        """
        return self.outward(values).mT.unflatten(2, self.shape(resolution))

    def save(self, data: Tensor, path: Path, **meta: Any) -> Path | None:
        """One datum (channel, *axes) in [0, 1] as the usual file of its kind; returns its path.

        Two axes become a PNG; others, or where the path says so, a ``.npy`` array of float32.
        """
        if self.formats[0] == ".png" and path.suffix != ".npy":
            return export.png(data, path.with_suffix(".png"))
        return export.npy(data, path.with_suffix(".npy"))

    def picture(self, datum: Tensor) -> Tensor | None:
        """A picture of two axes as it is, the middle frame of three; of one axis there is none."""
        if self.channels not in (1, 3) or len(self.size) not in (2, 3):
            return None
        middle = datum if datum.ndim == 3 else datum[:, datum.shape[1] // 2]
        return middle.expand(3, -1, -1)
