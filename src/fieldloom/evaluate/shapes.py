"""Sets of shapes: from grids to surfaces to clouds of points, judged by a published protocol."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from fieldloom.evaluate.figures import Evaluation, Figure
from fieldloom.geometry.mesh import sample
from fieldloom.metrics.clouds import PROTOCOLS, failed, jsd, judge
from fieldloom.metrics.clouds_features import Statistics
from fieldloom.metrics.sets import frechet
from fieldloom.modalities import Voxels
from fieldloom.progress import track


def clouds_of(modality: Voxels, data: Tensor, points: int) -> Tensor:
    """Points on the surfaces of grids (n, 1, *axes): (n, points, 3), NaN where there is none.

    They lie in [-0.5, 0.5]^3 where the modality's coordinates do in [-1, 1], as in IM-NET's and
    mNIF's evaluation. The same generator serves every shape, so that a shape gives one cloud.
    """
    span = modality.placement.high - modality.placement.low
    middle = (modality.placement.high + modality.placement.low) / 2
    clouds = []
    for datum in track(data, "surfaces", len(data), "shapes"):
        found = modality.mesh(datum)
        if found is None:
            clouds.append(torch.full((points, 3), torch.nan, dtype=torch.float64))
        else:
            drawn, _ = sample(found, points, Generator().manual_seed(0))
            clouds.append((drawn - middle) / span)
    return torch.stack(clouds)


def judged(how: Evaluation, modality: Voxels, samples: Tensor, reference: Tensor) -> list[Figure]:
    """The figures of the recipe's protocol: samples against held-out shapes, both as grids."""
    protocol = PROTOCOLS[how.protocol]
    note = how.protocol
    if how.points is not None and how.points != protocol.points:
        note = f"{how.protocol} with {how.points} points instead of {protocol.points}"
        protocol = replace(protocol, points=how.points)
    made, true = (clouds_of(modality, x, protocol.points) for x in (samples, reference))
    bad = failed(true)
    true = true[~bad]
    of = f"{len(made)} samples, {len(true)} test shapes, {protocol.points} points each"
    figures = []
    if "shapes" in how.metrics:
        plain = replace(protocol, figures=tuple(f for f in protocol.figures if f != "jsd"))
        figures += [Figure(name, v, of, note) for name, v in judge(made, true, plain).items()]
        if "jsd" in protocol.figures:
            reach = 2 * float(true.norm(dim=-1).max())  # the farthest reference point to 0.5
            spread = jsd(made / reach, true / reach)
            figures.append(Figure("jsd", spread, of, f"{note}, clouds divided by {reach:.4g}"))
    if "cloud-frechet" in how.metrics:
        detector, there = Statistics(0.5), made[~failed(made)]
        if len(there) > 1:
            value = frechet(detector(true), detector(there))
            note = f"{detector.name}, not FPD; {len(made) - len(there)} failures left out"
            figures.append(Figure(f"cloud.{detector.figure}", value, of, note))
    return figures
