"""The fit of one mesh: its surface and its inside against the mesh that it was trained on."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

from fieldloom.evaluation.results import Metric
from fieldloom.geometry.boundary import find_boundary
from fieldloom.geometry.inside import bounding_share, distance, inside, sample_boundary
from fieldloom.geometry.mesh import Mesh, Samples, sample_surface
from fieldloom.modalities.sources.meshdata import BETA, SOLID
from fieldloom.system import System
from fieldloom.types import Code

POINTS = 20_000
"""Points of each surface, from which distances to the other are measured, and of the box."""
DENSE = 50_000
"""Points of each surface, with the nearest of which normals are compared."""


def measure_fit(system: System, code: Code, made: Mesh | None, true: Mesh) -> list[Metric]:
    """How close a code's surface is to a mesh, both in the modality's coordinates.

    mesh.chamfer: the mean distance from points of each surface to the other, in fractions of the
    longest side of the mesh's box; infinite where nothing was made. mesh.normals: the mean cosine
    between the normals of points of each surface and of the nearest point of the other, without
    sign (normal consistency of arXiv:1812.03828, section 4). mesh.iou: of the insides at random
    points of the box, where the mesh has an inside. Of such a mesh only the surface between inside
    and outside counts.
    """
    size, of = float(np.ptp(true.vertices, axis=0).max()), "the mesh and its fit"
    boundary, generator = find_boundary(true), Generator().manual_seed(0)
    solid, metrics = bounding_share(true, boundary, BETA) >= SOLID, []
    if solid:
        own = sample_boundary(true, DENSE, boundary, BETA, generator)
    else:
        own = sample_surface(true, DENSE, generator)
    far, cosine = (math.inf, 0.0) if made is None else compare_surfaces(made, true, own)
    how = f"mean distance both ways, of the longest side, {POINTS:,} points of each surface"
    metrics.append(Metric("mesh.chamfer", far / size, of, how))
    how = f"mean cosine of nearest points, unsigned, {DENSE:,} points of each surface"
    metrics.append(Metric("mesh.normals", cosine, of, how))
    if solid:
        low, high = (torch.from_numpy(f(true.vertices, axis=0)) for f in (np.min, np.max))
        unit = torch.rand(POINTS, 3, generator=generator, dtype=torch.float64)
        points = (low + unit * (high - low)).float()
        there = inside(true, points, BETA, boundary)
        found = system.values_of(code)(points[None])[0, :, 0] > 0.5
        value = float((there & found).sum() / (there | found).sum().clamp(min=1))
        metrics.append(Metric("mesh.iou", value, of, f"{POINTS:,} points of the mesh's box"))
    return metrics


def compare_surfaces(made: Mesh, true: Mesh, samples: Samples) -> tuple[float, float]:
    """The mean distance between two surfaces, both ways, and the mean cosine of their normals.

    samples: points of the true surface, and their normals. A cosine is 0 where the other surface is
    further away than a tenth of the longest side.
    """
    from scipy.spatial import KDTree  # imported here, since it takes a quarter of a second

    (a, of_a), (b, of_b) = sample_surface(made, DENSE, Generator().manual_seed(1)), samples
    far = (distance(true, a[:POINTS]).mean() + distance(made, b[:POINTS]).mean()) / 2

    near = 0.1 * float(np.ptp(true.vertices, axis=0).max())

    def agree(points: Tensor, own: Tensor, others: Tensor, normals: Tensor) -> Tensor:
        tree = KDTree(others.numpy())
        _, nearest = tree.query(points.numpy(), distance_upper_bound=near)
        normals = torch.cat([normals, normals.new_zeros(1, 3)])  # of points that have none near
        return (own * normals[torch.from_numpy(nearest)]).sum(1).abs().mean()

    return float(far), float(agree(a, of_a, b, of_b) + agree(b, of_b, a, of_a)) / 2
