"""Sets of shapes: from grids to surfaces to clouds of points, judged by a published protocol."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.figures import Evaluation, Figure
from fieldloom.geometry.mesh import sample
from fieldloom.metrics.clouds import PROTOCOLS, CloudProtocol, cloud_metrics, find_failures, jsd
from fieldloom.metrics.clouds_features import Statistics
from fieldloom.metrics.sets import frechet
from fieldloom.modalities import Voxels
from fieldloom.modalities.grid import Resolution
from fieldloom.modalities.sources import Source
from fieldloom.progress import track
from fieldloom.system import System
from fieldloom.types import Code

HELD = 1 << 27
"""Values of decoded shapes that are held at a time: half a GiB."""


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
    assert isinstance(system.modality, Voxels)
    clouds = []
    for part in codes.split(together(system.modality, resolution)):
        grids = in_batches(lambda some: system.decode(some, resolution), part, "decoding")
        clouds.append(clouds_of(system.modality, grids, points))
    return torch.cat(clouds)


def has_surfaces(source: Source) -> bool:
    """Whether ``surfaces_of`` finds any: in grids, or beside scattered samples."""
    return source.data.ndim == 5 or "surface" in source.meta


def surfaces_of(modality: Voxels, source: Source, indices: Tensor, points: int) -> Tensor:
    """Clouds of data, as ``clouds_of`` gives them; of scattered samples the points beside them.

    Raises InputError where a source has fewer points of its surfaces.
    """
    check_surfaces(source, points)
    if "surface" not in source.meta:
        return clouds_of(modality, source.read(indices), points)
    return in_unit(modality, source.meta["surface"][indices, :points].double())


def check_surfaces(source: Source, points: int) -> None:
    """Raise InputError where ``surfaces_of`` would; for before the work."""
    held = source.meta.get("surface")
    if held is not None and held.shape[1] < points:
        raise InputError(
            f"surfaces of {points} points are asked for: the run's source keeps {held.shape[1]} of "
            "each (source.surface, when it was trained)."
        )


def protocol_of(how: Evaluation) -> tuple[CloudProtocol, str]:
    """The recipe's protocol, by its number of points, and what to call it."""
    protocol = PROTOCOLS[how.protocol]
    if how.points is None or how.points == protocol.points:
        return protocol, how.protocol
    note = f"{how.protocol} with {how.points} points instead of {protocol.points}"
    return replace(protocol, points=how.points), note


def judged(how: Evaluation, made: Tensor, true: Tensor) -> list[Figure]:
    """The figures of the recipe's protocol: clouds of samples against those of held-out shapes."""
    protocol, note = protocol_of(how)
    true = true[~find_failures(true)]
    of = f"{len(made)} samples, {len(true)} test shapes, {protocol.points} points each"
    figures = []
    if "shapes" in how.metrics:
        plain = replace(protocol, metrics=tuple(m for m in protocol.metrics if m != "jsd"))
        figures += [
            Figure(name, v, of, note) for name, v in cloud_metrics(made, true, plain).items()
        ]
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
