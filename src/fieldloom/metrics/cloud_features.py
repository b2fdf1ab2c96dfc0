"""A detector for point clouds: the features that set metrics compare."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.metrics.cloud_distances import Clouds, find_failures

BLOCK = 2**18  # points of a batch
LEVELS = 12  # quantiles of a feature's distribution over the points
NODES = 4  # of the occupancy, an axis
FAINT = 1e-3  # of the radius: closer points count as one


class CloudStatistics:
    """211 statistics of the points of a cloud, which need no weights.

    Their Frechet distance ranks generators. It is NOT the FPD, which is defined by a PointNet++
    classifier whose weights are not bundled; the two are not comparable.

    moments:   mean and covariance                                                   9 features
    quantiles: of x, y, z, the distance to the mean, and the logarithm of the
               distance to the nearest other point, 12 each                          60
    occupancy: root of the fraction of points at each of 4^3 nodes of the box           64
    waves:     mean of cos and sin along 13 directions, wavelengths 4, 2 and 1       78

    radius: the unit of the clouds. Nodes and waves are fixed in the box [-1, 1]^3 of this unit: 0.5
            for shapes in [-0.5, 0.5]^3. Points outside count at its border.

    Neither the order of the points nor the other clouds matter; the number of points does (in a
    denser cloud they are nearer). Metrics are comparable at equal radius and number of points.
    """

    name = "cloud-statistics"
    metric = "frechet"

    def __init__(self, radius: float = 1.0) -> None:
        if not (radius > 0 and math.isfinite(radius)):
            raise InputError(f"radius = {radius}: a number above 0.")
        self.radius = radius
        self.vectors = wave_vectors(octaves=3)

    @torch.no_grad()
    def __call__(self, clouds: Clouds) -> Float[Tensor, "_ d"]:
        """Features (n, 211), in float64 on the CPU.

        Raises InputError for failures (NaN), which have no features, and for clouds of one point.
        """
        lost = int(find_failures(clouds).sum())
        if lost:
            raise InputError(
                f"{lost} of {len(clouds)} clouds are NaN: leave failures out, and say how many "
                "there were."
            )
        if clouds.shape[1] < 2:
            raise InputError("Clouds of 1 point: the detector needs at least 2.")
        parts = clouds.split(max(1, BLOCK // clouds.shape[1]))
        return torch.cat([self._features(part) for part in parts])

    def _features(self, clouds: Tensor) -> Tensor:
        points = clouds.cpu().double() / self.radius
        return torch.cat(
            [_moments(points), _quantiles(points), _occupancy(points), self._waves(points)], 1
        )

    def _waves(self, points: Tensor) -> Tensor:
        phase = points @ self.vectors.T
        return torch.cat([phase.cos().mean(1), phase.sin().mean(1)], 1)


def wave_vectors(octaves: int) -> Float[Tensor, "waves 3"]:
    """The 13 directions of {-1, 0, 1}^3 up to their sign, at wavelengths 4, 2, 1 ... along an axis.

    The longest wave has one period over twice the box [-1, 1]^3, so that it differs at both ends.
    """
    directions = [v for v in product((-1, 0, 1), repeat=3) if v > (0, 0, 0)]
    base = torch.tensor(directions, dtype=torch.float64)
    return torch.cat([math.pi / 2 * 2**octave * base for octave in range(octaves)])


def _moments(points: Tensor) -> Tensor:
    mean = points.mean(1)
    centred = points - mean[:, None]
    covariance = centred.mT @ centred / points.shape[1]
    row, column = torch.triu_indices(3, 3)
    return torch.cat([mean, covariance[:, row, column]], 1)


def _quantiles(points: Tensor) -> Tensor:
    """LEVELS evenly spaced quantiles over the points, for each of five numbers of a point."""
    radii = (points - points.mean(1, keepdim=True)).norm(dim=2, keepdim=True)
    gaps = (_gaps(points) + FAINT).log()[..., None]
    fraction = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    return torch.cat([points, radii, gaps], 2).quantile(fraction, 1).permute(1, 2, 0).flatten(1)


def _gaps(points: Tensor) -> Tensor:
    """The distance of every point to the nearest other one of its cloud: (n, points)."""
    from scipy.spatial import KDTree

    found = [KDTree(cloud).query(cloud, 2)[0][:, 1] for cloud in points.numpy()]
    return torch.from_numpy(np.stack(found))


def _occupancy(points: Tensor) -> Tensor:
    """The root of the fraction of points at each node, linearly interpolated between 8 nodes.

    The interpolation makes the feature continuous; the root gives small fractions more weight.
    """
    nodes = torch.linspace(-1, 1, NODES, dtype=torch.float64)
    away = (points.clamp(-1, 1)[..., None] - nodes).abs() * (NODES - 1) / 2
    x, y, z = (1 - away).clamp_min(0).unbind(2)
    fractions = torch.einsum("npi,npj,npk->nijk", x, y, z) / points.shape[1]
    return fractions.flatten(1).clamp_min(0).sqrt()
