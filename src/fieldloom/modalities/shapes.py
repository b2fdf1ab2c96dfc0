"""Shapes: occupancy (or a clipped distance) in a cube, on a grid or at scattered points.

Data lie in [0, 1]: 1 inside, 0 outside, and the surface where they cross 0.5.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from fieldloom import atomic, export
from fieldloom.errors import InputError
from fieldloom.geometry.isosurface import isosurface, project_to_level, sample_near_level
from fieldloom.geometry.mesh import Mesh, denormalize_mesh
from fieldloom.geometry.preview import preview, turntable
from fieldloom.modalities.grid import Context, Grid, Placement
from fieldloom.modalities.modality import Range, Resolution, index_of, random_bytes
from fieldloom.types import Batch, Coords, Data, Function, Signal, Values

LEVEL = 0.5
"""The level of the surface."""

SAMPLES = 100_000
"""Points of a shape whose values are random."""

CROWDED, ROUGH = 0.95, 64
"""The share of a cube's blocks that distances of a shape leave near its surface, at most; samples
of each axis where more are near."""


class Voxels(Grid):
    """Occupancy (batch, 1, depth, height, width) on a grid; decoded data become meshes.

    size, coords, range, context: as in ``Grid``; None is the size of voxels, and 64 of meshes.
    up: the axis that points upwards in images; None: as the source suggests by the format of its
        files, or 2.
    truncation: where data are distances, that at which they reach 0 and 1, in the coordinates'
        unit: surfaces are then found without evaluating a field far from them. Sources of one mesh
        suggest it.
    """

    def __init__(
        self,
        size: int | tuple[int, ...] | None = 32,
        coords: Placement = Placement(),  # noqa: B008 (frozen)
        range: Range = "signed",
        up: int | None = None,
        context: Context = Context(),  # noqa: B008 (frozen)
        truncation: float | None = None,
    ) -> None:
        super().__init__(3, size, 1, coords, range, context=context)
        if up not in (None, 0, 1, 2):
            raise InputError(f"modality.up = {up}: one of 0, 1, 2.")
        if truncation is not None and not 0 < truncation < math.inf:
            raise InputError(f"modality.truncation = {truncation}: a distance, above 0.")
        self.up, self.up_given = 2 if up is None else up, up is not None
        self.truncation, self.kind = truncation, "shapes"
        self.formats = (".glb", *(x for x in export.MESHES if x != ".glb"), ".npy")

    def sample(self, function: Function, resolution: Resolution | None = None) -> Tensor:
        """A datum (1, *axes), whose surface is that of a function: with ``truncation`` it is exact
        near the surface only, which takes a tenth of the time.

        Where nearly all of the cube would be near it, as of a field that is hardly trained, the
        datum has at most 64 samples along each axis, and a warning says so.

        function: the datum at any coordinates, (1, points, 3) -> (1, points, 1).
        """
        shape = self.shape(resolution)
        if self.truncation is None or min(shape) < 2:
            return function(self.grid(shape)).reshape(1, *shape)
        x, y, z = (self.placement.axis(n) for n in shape)
        slope, reach = 0.5 / self.truncation, 0.9 * self.truncation
        above = lambda points: function(points) - LEVEL
        found = sample_near_level(above, (x, y, z), slope, reach, CROWDED)
        if found is not None:
            return LEVEL + found[None]
        rough = tuple(min(n, ROUGH) for n in shape)
        asked, given = (" x ".join(map(str, n)) for n in (shape, rough))
        warnings.warn(
            "the field is near its surface nearly everywhere, as one that is hardly trained: its "
            f"surface is drawn from {given} samples instead of {asked}; more steps may mend it.",
            stacklevel=2,
        )
        return function(self.grid(rough)).reshape(1, *rough)

    def mesh(
        self,
        datum: Tensor,
        frame: Tensor | None = None,
        function: Function | None = None,
        project: int = 0,
    ) -> Mesh | None:
        """The surface of a datum (1, *axes): None where there is none.

        Vertices are in the modality's coordinates, or, with ``frame`` (centre and scale, (4,)), in
        those of the original. function: the datum at any coordinates, (1, points, 3) -> (1, points,
        1); ``project`` Newton steps move the vertices onto its level set, each by at most a cell.
        """
        x, y, z = (self.placement.axis(n).numpy() for n in datum.shape[1:])
        found = isosurface(datum[0].detach().cpu().double().numpy(), (x, y, z), LEVEL)
        if found is not None and function is not None and project:
            cell = (self.placement.high - self.placement.low) / min(datum.shape[1:])
            found = project_to_level(found, function, LEVEL, project, max_step=cell)
        return found if found is None or frame is None else denormalize_mesh(found, frame)

    def save(self, data: Data, path: str | Path) -> Path | None:
        """Write the mesh of a datum as GLB, PLY, OBJ or STL (GLB for other suffixes).

        The mesh is in the coordinates of the original, by the data's frame. ``.npy`` writes the
        numbers instead. Returns None, and writes nothing, where the datum has no surface.
        """
        path, (datum,) = atomic.as_path(path), data.tensor
        if path.suffix == ".npy":
            return export.npy(datum, path)
        found = self.mesh(datum, None if data.frame is None else data.frame[0])
        if found is None:
            return None
        path = path if path.suffix in export.MESHES else path.with_suffix(".glb")
        return export.mesh(found.vertices, found.faces, path)

    def to_image(self, datum: Tensor, size: int = 128) -> Tensor:
        """A shaded image of the surface: (3, size, size) in [0, 1]."""
        return self.draw(self.mesh(datum), size)

    def draw(self, mesh: Mesh | None, size: int = 128) -> Tensor:
        """A shaded image of a mesh: (3, size, size) in [0, 1]; crossed out where there is none."""
        return _as_tensor(preview(mesh, size, up=self.up))

    def turn(self, datum: Tensor, frames: int = 36, size: int = 192) -> list[Tensor]:
        """Images of one turn around the upward axis: (3, size, size) in [0, 1] each."""
        return [_as_tensor(x) for x in turntable(self.mesh(datum), frames, size, self.up)]


class Points(Voxels):
    """Occupancy or distance at scattered points: values (batch, points, 1) at coordinates.

    Observations are the given points; data are decoded on a grid of ``size``, as voxels are.
    """

    def __init__(
        self,
        size: int | tuple[int, ...] = 32,
        coords: Placement = Placement(),  # noqa: B008 (frozen)
        range: Range = "signed",
        up: int | None = None,
        truncation: float | None = None,
    ) -> None:
        super().__init__(size, coords, range, up, truncation=truncation)
        self.axes = ()  # scattered: nothing for an encoder of whole grids

    def observe(
        self,
        data: Data | Tensor,
        points: int | None = None,
        generator: Generator | None = None,
        together: bool = False,
        keep_grid: bool = False,
    ) -> Batch:
        """Data (batch, points, 1) at coords (batch, points, 3), as a batch of signals."""
        data = Data.of(data)
        self.check_data(data)
        values = self.normalize(data.tensor)
        signal = Signal(self.coords_of(data).to(values), values, index_of(data), label=data.label)
        if points is not None and points < values.shape[1]:
            signal = signal.subset(points, generator, together)
        return Batch(signal, signal)

    def random_data(self, count: int, generator: Generator | None = None) -> Data:
        """Random values at ``SAMPLES`` random points of the cube."""
        low, high = self.placement.low, self.placement.high
        coords = low + (high - low) * torch.rand(count, SAMPLES, 3, generator=generator)
        return Data(random_bytes((count, SAMPLES, 1), generator), coords=coords)

    def check_data(self, data: Data) -> None:
        """Raise InputError for other data than (batch, points, 1) at coords (batch, points, 3)."""
        coords, right = data.coords, len(data.shape) == 3 and data.shape[2] == 1
        if coords is None or not right or coords.shape[2] != 3:
            raise InputError(
                "modality 'points' needs values (batch, points, 1) and their coordinates "
                "(batch, points, 3): take a source with samples, as 'meshes' with samples = 10000."
            )

    def tiles(self, data: Data, most: int) -> dict[int, Tensor]:
        return {}  # scattered samples show no surface

    def coords_of(self, data: Data) -> Coords:
        if data.coords is None:
            raise InputError("samples of shapes need coords, their coordinates.")
        return data.coords

    def as_observed(self, values: Values, data: Data) -> Data:
        return replace(data, values=self.denormalize(values))


def _as_tensor(array: object) -> Tensor:
    return torch.as_tensor(array).permute(2, 0, 1).float() / 255
