"""Sets of shapes: from grids to surfaces to clouds of points, judged by a published protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.figures import Figure, Shown
from fieldloom.evaluation.reconstruction import image_metrics, value_metrics
from fieldloom.geometry.mesh import sample
from fieldloom.metrics.clouds import (
    PROTOCOLS,
    CloudProtocol,
    chamfer,
    cloud_metrics,
    find_failures,
    jsd,
)
from fieldloom.metrics.clouds_features import Statistics
from fieldloom.metrics.features import Detector
from fieldloom.metrics.sets import frechet
from fieldloom.modalities import Voxels
from fieldloom.modalities.grid import Resolution
from fieldloom.progress import track
from fieldloom.settings import SHAPES, Evaluation
from fieldloom.system import System
from fieldloom.types import Code, Data

SURFACE = 2048
"""Points of a surface that a reconstruction's Chamfer distance is measured with."""

HELD = 1 << 27
"""Values of decoded shapes that are held at a time: half a GiB."""


class Shapes(Evaluator):
    """Occupancies or distances, on a grid or at scattered samples; sets of their surfaces."""

    ceiling = ("psnr", "iou", "chamfer")

    @property
    def scattered(self) -> bool:
        """Whether data are samples at coordinates, not grids."""
        return self.source.data.coords is not None

    @property
    def has_surfaces(self) -> bool:
        """Whether data have surfaces: in grids, or beside scattered samples."""
        return len(self.source.data.shape) == 5 or self.source.data.surface is not None

    @property
    def measures(self) -> tuple[str, ...]:
        return ("chamfer",) if self.has_surfaces else ()

    @property
    def judged(self) -> bool:
        """Whether metrics of sets of shapes are asked for, and can be had."""
        return bool(set(SHAPES) & set(self.how.metrics)) and self.has_surfaces

    def paired(self, true: Tensor, raw: Tensor, of: str, detector: Detector | None) -> list[Figure]:
        found = image_metrics(self.how, true, raw, of, detector, self.source.filter)
        found += value_metrics(self.how, true, raw, of)
        return found + self.surface_metrics(true, raw, of)

    def surface_metrics(self, true: Tensor, raw: Tensor, of: str) -> list[Figure]:
        """Of grids the Chamfer distance of their surfaces."""
        if "chamfer" not in self.how.metrics or true.ndim != 5:
            return []
        real, made = (clouds_of(voxels_of(self.system), x, SURFACE) for x in (true, raw))
        empty = find_failures(made) | find_failures(real)
        value = chamfer(made[~empty], real[~empty]).mean().item() if not empty.all() else math.inf
        note = f"squared, {SURFACE} points a surface; {int(empty.sum())} without surface left out"
        return [
            Figure("chamfer", value, of, note),
            Figure("empty", float(find_failures(made).sum()), of, "without a surface"),
        ]

    def errors_of(self, true: Tensor, raw: Tensor) -> Sequence[Shown]:
        return []

    def check(self) -> None:
        if self.judged:
            self.check_signals(protocol_of(self.how)[0].points)

    def check_signals(self, points: int) -> None:
        """Raise InputError where the source keeps fewer points of each surface."""
        held = self.source.data.surface
        if held is not None and held.shape[1] < points:
            raise InputError(
                f"surfaces of {points} points are asked for: the run's source keeps "
                f"{held.shape[1]} of each (source.surface, when it was trained)."
            )

    def decode(self, codes: Code) -> Data:
        """Of scattered samples the grids are large: only a few are there to be looked at."""
        few = together(voxels_of(self.system), self.how.resolution) if self.scattered else None
        return super().decode(codes[:few])

    def compare(self, codes: Code, samples: Tensor, detector: Detector | None) -> list[Figure]:
        if not self.judged:
            return []
        points = protocol_of(self.how)[0].points
        true = self.references(self.held, points)
        if len(samples) == len(codes):
            made = clouds_of(voxels_of(self.system), samples, points)
        else:
            made = decoded_clouds(self.system, codes, points, self.how.resolution)
        return protocol_metrics(self.how, made, true)

    def comparable(self, samples: Tensor) -> bool:
        return not self.scattered and super().comparable(samples)

    def signals(self, codes: Code, points: int) -> Tensor:
        """Clouds (n, points, 3) of what codes decode to; NaN where there is no surface."""
        return decoded_clouds(self.system, codes, points)

    def references(self, indices: Tensor, points: int) -> Tensor:
        """Clouds (n, points, 3) of data; of scattered samples the points kept beside them.

        NaN where there is no surface. Raises InputError where a source keeps fewer points.
        """
        self.check_signals(points)
        surface, modality = self.source.data.surface, voxels_of(self.system)
        if surface is None:
            return clouds_of(modality, self.source.read(indices).tensor, points)
        return in_unit(modality, surface[indices, :points].double())


def voxels_of(system: System) -> Voxels:
    return cast(Voxels, system.modality)


def clouds_of(modality: Voxels, data: Tensor, points: int) -> Tensor:
    """Points on the surfaces of grids (n, 1, *axes): (n, points, 3); NaN where there is none, and
    where a grid is not finite.

    They lie in [-0.5, 0.5]^3 where the modality's coordinates do in [-1, 1], as in IM-NET's and
    mNIF's evaluation. The same generator serves every shape, so that a shape gives one cloud.
    """
    clouds = []
    for datum in track(data, "surfaces", len(data), "shapes"):
        found = modality.mesh(datum) if datum.isfinite().all() else None
        if found is None:
            clouds.append(torch.full((points, 3), torch.nan, dtype=torch.float64))
        else:
            drawn, _ = sample(found, points, Generator().manual_seed(0))
            clouds.append(in_unit(modality, drawn))
    return torch.stack(clouds)


def in_unit(modality: Voxels, points: Tensor) -> Tensor:
    """The modality's coordinates -> [-0.5, 0.5]^3."""
    low, high = modality.placement.low, modality.placement.high
    return (points - (high + low) / 2) / (high - low)


def together(modality: Voxels, resolution: Resolution | None = None) -> int:
    """How many decoded shapes are held at a time."""
    return max(1, HELD // math.prod(modality.shape(resolution)))


def decoded_clouds(
    system: System, codes: Code, points: int, resolution: Resolution | None = None
) -> Tensor:
    """As ``clouds_of`` what codes decode to, few grids held at a time."""
    modality = voxels_of(system)
    clouds = []
    for part in codes.split(together(modality, resolution)):
        grids = in_batches(lambda some: system.decode(some, resolution), "decoding", part)
        clouds.append(clouds_of(modality, grids, points))
    return torch.cat(clouds)


def protocol_of(how: Evaluation) -> tuple[CloudProtocol, str]:
    """The recipe's protocol, by its number of points, and what to call it."""
    protocol = PROTOCOLS[how.protocol]
    if how.points is None or how.points == protocol.points:
        return protocol, how.protocol
    note = f"{how.protocol} with {how.points} points instead of {protocol.points}"
    return replace(protocol, points=how.points), note


def protocol_metrics(how: Evaluation, made: Tensor, true: Tensor) -> list[Figure]:
    """The figures of the recipe's protocol: clouds of samples against those of held-out shapes."""
    protocol, note = protocol_of(how)
    true = true[~find_failures(true)]
    of = f"{len(made)} samples, {len(true)} test shapes, {protocol.points} points each"
    figures = []
    if "shapes" in how.metrics:
        plain = replace(protocol, metrics=tuple(m for m in protocol.metrics if m != "jsd"))
        found = cloud_metrics(made, true, plain)
        figures += [Figure(name, value, of, note) for name, value in found.items()]
        if "jsd" in protocol.metrics:
            reach = 2 * float(true.norm(dim=-1).max())  # the farthest reference point to 0.5
            spread = jsd(made / reach, true / reach)
            figures.append(Figure("jsd", spread, of, f"{note}, clouds divided by {reach:.4g}"))
    if "cloud-frechet" in how.metrics:
        detector, there = Statistics(0.5), made[~find_failures(made)]
        if len(there) > 1:
            value = frechet(detector(true), detector(there))
            note = f"{detector.name}, not FPD; {len(made) - len(there)} failures left out"
            figures.append(Figure(f"cloud.{detector.figure}", value, of, note))
    return figures
