"""Shapes: reconstructed surfaces, and sets of them, as clouds of points on the surfaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.evaluation.batches import in_batches, read_parts
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.meshes import measure_fit
from fieldloom.evaluation.results import Metric, ReportImage, Score
from fieldloom.geometry.mesh import sample_surface
from fieldloom.metrics.cloud_distances import chamfer, find_failures
from fieldloom.metrics.cloud_features import CLOUD_DETECTORS
from fieldloom.metrics.cloud_protocols import PROTOCOLS, CloudProtocol, cloud_metrics
from fieldloom.metrics.cloud_sets import jsd
from fieldloom.metrics.sets import frechet, kid, prdc
from fieldloom.modalities import Voxels
from fieldloom.modalities.grid import Resolution
from fieldloom.progress import track
from fieldloom.settings import CLOUD_SETS, SHAPE_SETS, Evaluation
from fieldloom.types import Code

SURFACE = 2048
"""Points of a surface that the Chamfer distance of a reconstruction is measured with."""

SURFACES = ("chamfer", "empty")
"""Names of the scores of surfaces."""

HELD = 1 << 27
"""Values of decoded shapes that are in memory at a time: half a GiB."""


class ShapeEvaluator(Evaluator):
    """Occupancies or distances, on grids or at scattered samples.

    drawn: images (3, height, width) of a mesh and of its fit, once these were compared.
    """

    upper_bound_by = ("psnr", "iou", "chamfer")
    drawn: tuple[Tensor, ...] = ()

    @property
    def shapes(self) -> Voxels:
        return cast(Voxels, self.modality)

    @property
    def is_scattered(self) -> bool:
        """Whether data are samples at coordinates, not grids."""
        return self.source.data.coords is not None

    @property
    def has_surfaces(self) -> bool:
        """Whether data have surfaces: those of grids, or points of scattered samples."""
        return len(self.source.data.shape) == 5 or self.source.data.surface is not None

    @property
    def compares_sets(self) -> bool:
        """Whether the recipe has metrics of sets of shapes, and the data have surfaces."""
        return bool(set(SHAPE_SETS) & set(self.settings.metrics)) and self.has_surfaces

    # -- reconstruction

    def paired_scores(self, true: Tensor, raw: Tensor) -> list[Score]:
        return super().paired_scores(true, raw) + self.surface_scores(true, raw)

    def paired_metrics(self, scores: Sequence[Score], of: str) -> list[Metric]:
        plain = [x for x in scores if x.name not in SURFACES]
        surfaces = {x.name: x.values for x in scores if x.name in SURFACES}
        metrics = super().paired_metrics(plain, of)
        if surfaces:
            metrics += surface_metrics(surfaces["chamfer"], surfaces["empty"], of)
        if "mesh" in self.settings.metrics:
            metrics += self.mesh_metrics()
        return metrics

    def mesh_metrics(self) -> list[Metric]:
        """The surface of the one shape that a system fits, against its mesh; else nothing."""
        if self.system.family.has_code or len(self.source.originals) != 1:
            return []
        code = self.system.family.conditioner.origin(1).detach()
        made, true = self.system.mesh(code, self.settings.resolution), self.source.originals[0]()
        self.drawn = tuple(self.shapes.draw(mesh, 512) for mesh in (true, made))
        return measure_fit(self.system, code, made, true)

    def surface_scores(self, true: Tensor, raw: Tensor) -> list[Score]:
        """The Chamfer distance of the surfaces of grids (n, 1, *axes), NaN where one is missing,
        and whether the decoded one is; nothing of other data.
        """
        if "chamfer" not in self.settings.metrics or true.ndim != 5:
            return []
        real, made = (surface_clouds(self.shapes, x, SURFACE) for x in (true, raw))
        fine = ~(find_failures(made) | find_failures(real))
        values = torch.full((len(made),), math.nan, dtype=made.dtype)
        if fine.any():
            values[fine] = chamfer(made[fine], real[fine])
        return [Score("chamfer", values), Score("empty", find_failures(made))]

    def error_images(self, true: Tensor, raw: Tensor) -> Sequence[ReportImage]:
        """The surface of a single mesh's fit, beside the mesh; nothing of other shapes."""
        if not self.drawn:
            return []
        caption = "The mesh (left) and its fit (right)"
        return [ReportImage("reconstructions.png", caption, torch.stack(self.drawn))]

    # -- samples of the prior

    def check_samples(self) -> None:
        if self.compares_sets:
            self.check_points(protocol_of(self.settings)[0].points)

    @property
    def kept_samples(self) -> int:
        """As of all data; of scattered data, whose grids are large, only those of a report."""
        kept = super().kept_samples
        few = grids_at_a_time(self.shapes, self.settings.resolution)
        return min(kept, few) if self.is_scattered else kept

    def sample_metrics(
        self, codes: Code, samples: Tensor, training: Iterable[Tensor]
    ) -> list[Metric]:
        if not self.compares_sets:
            return []
        points = protocol_of(self.settings)[0].points
        true = self.read_for_measure(self.held_out, points)
        if self.found.described is not None:
            made = torch.cat(list(self.found.described()))
        elif len(samples) == len(codes):
            made = surface_clouds(self.shapes, samples, points)
        else:
            made = self.decode_clouds(codes, points, self.settings.resolution)
        return shape_set_metrics(self.settings, made, true)

    def describe_part(self, samples: Tensor) -> Tensor | None:
        """The clouds (n, points, 3) of decoded samples."""
        points = protocol_of(self.settings)[0].points
        return surface_clouds(self.shapes, samples, points) if self.compares_sets else None

    def has_shape_of_data(self, samples: Tensor) -> bool:
        return not self.is_scattered and super().has_shape_of_data(samples)

    # -- samples compared with baselines

    @property
    def measures(self) -> tuple[str, ...]:
        return ("chamfer",) if self.has_surfaces else ()

    def check_points(self, points: int) -> None:
        """Raise InputError where the source keeps fewer points of each surface."""
        surface = self.source.data.surface
        if surface is not None and surface.shape[1] < points:
            raise InputError(
                f"surfaces of {points} points are asked for: the run's source keeps "
                f"{surface.shape[1]} of each (source.surface, when it was trained)."
            )

    def decode_for_measure(self, codes: Code, points: int) -> Tensor:
        return self.decode_clouds(codes, points)

    def read_for_measure(self, indices: Tensor, points: int) -> Tensor:
        """Clouds (n, points, 3) of data; for scattered samples the surface points of the source.

        NaN where there is no surface. Raises InputError where the source has fewer points.
        """
        self.check_points(points)
        surface = self.source.data.surface
        if surface is None:
            parts = read_parts(self.source, indices)
            return torch.cat([surface_clouds(self.shapes, part, points) for part in parts])
        return to_unit_cube(self.shapes, surface[indices, :points].double())

    def decode_clouds(
        self, codes: Code, points: int, resolution: Resolution | None = None
    ) -> Tensor:
        """The ``surface_clouds`` of decoded codes, with few grids in memory at a time."""
        clouds = []
        for part in codes.split(grids_at_a_time(self.shapes, resolution)):
            decode = lambda some: self.system.decode(some, resolution)
            grids = in_batches(decode, "decoding", part)
            clouds.append(surface_clouds(self.shapes, grids, points))
        return torch.cat(clouds)


def surface_metrics(distances: Tensor, missing: Tensor, of: str) -> list[Metric]:
    """The mean Chamfer distance, and how many decoded shapes have no surface.

    distances: (n,), NaN where there is none; missing: (n,), of decoded shapes alone.
    """
    there = distances[~distances.isnan()]
    value = there.mean().item() if len(there) else math.inf
    absent = len(distances) - len(there)
    how = f"squared, {SURFACE} points a surface; {absent} without surface left out"
    without = float(missing.sum())
    return [Metric("chamfer", value, of, how), Metric("empty", without, of, "without a surface")]


def surface_clouds(modality: Voxels, data: Tensor, points: int) -> Tensor:
    """Points on the surfaces of grids (n, 1, *axes): (n, points, 3); NaN where there is none, and
    where a grid is not finite.

    They lie in [-0.5, 0.5]^3 where the modality's coordinates do in [-1, 1], as in IM-NET's and
    mNIF's evaluation. The same generator serves every shape, so that a shape gives one cloud.
    """
    clouds = []
    for datum in track(data, "surfaces", len(data), "shapes"):
        mesh = modality.mesh(datum) if datum.isfinite().all() else None
        if mesh is None:
            clouds.append(torch.full((points, 3), torch.nan, dtype=torch.float64))
        else:
            cloud, _ = sample_surface(mesh, points, Generator().manual_seed(0))
            clouds.append(to_unit_cube(modality, cloud))
    return torch.stack(clouds)


def to_unit_cube(modality: Voxels, points: Tensor) -> Tensor:
    """Points in the modality's coordinates, in [-0.5, 0.5]^3."""
    low, high = modality.placement.low, modality.placement.high
    return (points - (high + low) / 2) / (high - low)


def grids_at_a_time(modality: Voxels, resolution: Resolution | None = None) -> int:
    """The number of decoded shapes that are in memory at a time."""
    return max(1, HELD // math.prod(modality.shape(resolution)))


def protocol_of(settings: Evaluation) -> tuple[CloudProtocol, str]:
    """The protocol with the recipe's number of points, and its description for metrics."""
    protocol = PROTOCOLS[settings.protocol]
    if settings.points is None or settings.points == protocol.points:
        return protocol, settings.protocol
    note = f"{settings.protocol} with {settings.points} points instead of {protocol.points}"
    return replace(protocol, points=settings.points), note


def shape_set_metrics(settings: Evaluation, made: Tensor, true: Tensor) -> list[Metric]:
    """Metrics of the recipe's protocol: clouds of samples against those of held-out shapes.

    made, true: (n, points, 3), NaN where there is no surface; such true shapes are left out.
    """
    protocol, note = protocol_of(settings)
    true = true[~find_failures(true)]
    of = f"{len(made)} samples, {len(true)} test shapes, {protocol.points} points each"
    metrics = []
    if "shapes" in settings.metrics:
        plain = replace(protocol, metrics=tuple(name for name in protocol.metrics if name != "jsd"))
        values = cloud_metrics(made, true, plain)
        metrics += [Metric(name, value, of, note) for name, value in values.items()]
        if "jsd" in protocol.metrics:
            diameter = 2 * float(true.norm(dim=-1).max())  # the farthest reference point to 0.5
            value = jsd(made / diameter, true / diameter)
            metrics.append(Metric("jsd", value, of, f"{note}, clouds divided by {diameter:.4g}"))
    return metrics + cloud_feature_metrics(settings, made, true, of)


def cloud_feature_metrics(
    settings: Evaluation, made: Tensor, true: Tensor, of: str
) -> list[Metric]:
    """The metrics that are asked for in the features of clouds; none of fewer than 2 clouds.

    made, true: as of ``shape_set_metrics``; samples without a surface are left out, and counted.
    """
    there = made[~find_failures(made)]
    if not set(CLOUD_SETS) & set(settings.metrics) or min(len(true), len(there)) < 2:
        return []
    detector = CLOUD_DETECTORS[settings.cloud_detector](0.5)
    how = f"{detector.name}, not FPD; {len(made) - len(there)} failures left out"
    real, fake = detector(true), detector(there)
    metrics = []
    if "cloud-frechet" in settings.metrics:
        metrics.append(Metric("cloud.frechet", frechet(real, fake), of, how))
    if "cloud-kid" in settings.metrics:
        metrics.append(Metric("cloud.kid", kid(real, fake), of, how))
    if "cloud-precision-recall" in settings.metrics and min(len(real), len(fake)) > 3:
        found = prdc(real, fake)
        metrics += [Metric(f"cloud.{k}", v, of, f"{how}, k = 3") for k, v in found.items()]
    return metrics
