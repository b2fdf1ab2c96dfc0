"""Detectors for point clouds: the features that set metrics compare."""

from __future__ import annotations

import math
from itertools import product
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.metrics.cloud_distances import Clouds, find_failures
from fieldloom.metrics.point_network import published_network

BLOCK = 2**18  # points of a batch
LEVELS = 12  # quantiles of a feature's distribution over the points
NODES = 4  # of the occupancy, an axis
FAINT = 1e-3  # of the radius: closer points count as one


class CloudDetector(Protocol):
    """Features (n, d), in float64 on the CPU, of clouds (n, points, 3).

    Neither the order of the points nor the other clouds matter; the number of points does. Metrics
    are comparable for the same ``name``, radius and number of points. Raises InputError for clouds
    of another shape and for failures (NaN), which have no features.
    """

    name: str

    def __init__(self, radius: float = 1.0) -> None: ...

    def __call__(self, clouds: Tensor) -> Float[Tensor, "_ d"]: ...


class PointsV1:
    """256 features of a cloud: what a PointNet sees that was trained to tell meshes apart.

    It was trained on 390 CC0 meshes of furniture, plants, vehicles and animals, to tell from a
    cloud which mesh it is, of which class, and how noisy, smooth or incomplete it is; whichever
    axis is up (``benchmarks/points.py``). The weights come with the package. The Frechet distance
    of the features is NOT the FPD, which another network defines.

    radius: the unit of the clouds: 0.5 for shapes in [-0.5, 0.5]^3. Clouds are not moved or scaled
            otherwise, so that place and size count.
    """

    name = "points-v1"

    def __init__(self, radius: float = 1.0) -> None:
        self.radius = check_radius(radius)

    @torch.no_grad()
    def __call__(self, clouds: Tensor) -> Float[Tensor, "_ d"]:
        """Features (n, 256), of at least 0, in float64 on the CPU, as ``CloudDetector`` says.

        Raises InputError where the package's weights are not the published ones, too.
        """
        check_clouds(clouds)
        network = published_network()
        parts = clouds.split(max(1, BLOCK // 8 // clouds.shape[1]))
        return torch.cat(
            [network(sort_points(part.cpu().double() / self.radius)) for part in parts]
        )


class CloudStatistics:
    """211 statistics of the points of a cloud, which need no weights.

    They say where points lie; ``docs/shapes.md`` says what they, and ``PointsV1``, rank wrongly.
    Their Frechet distance is NOT the FPD, which is defined by a PointNet++ classifier whose weights
    are not bundled; the two are not comparable.

    moments:   mean and covariance                                                   9 features
    quantiles: of x, y, z, the distance to the mean, and the logarithm of the
               distance to the nearest other point, 12 each                          60
    occupancy: root of the fraction of points at each of 4^3 nodes of the box           64
    waves:     mean of cos and sin along 13 directions, wavelengths 4, 2 and 1       78

    radius: the unit of the clouds. Nodes and waves are fixed in the box [-1, 1]^3 of this unit: 0.5
            for shapes in [-0.5, 0.5]^3. Points outside count at its border.

    In a denser cloud points are nearer: metrics compare at equal radius and number of points.
    """

    name = "cloud-statistics"

    def __init__(self, radius: float = 1.0) -> None:
        self.radius = check_radius(radius)
        self.vectors = wave_vectors(octaves=3)

    @torch.no_grad()
    def __call__(self, clouds: Tensor) -> Float[Tensor, "_ d"]:
        """Features (n, 211), in float64 on the CPU, as ``CloudDetector`` says."""
        check_clouds(clouds)
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


DEFAULT_CLOUD_DETECTOR = "cloud-statistics"
CLOUD_DETECTORS: dict[str, type[CloudDetector]] = {
    "cloud-statistics": CloudStatistics,
    "points-v1": PointsV1,
}


def check_radius(radius: float) -> float:
    """The radius. Raises InputError where it is no number above 0."""
    if not (radius > 0 and math.isfinite(radius)):
        raise InputError(f"radius = {radius}: a number above 0.")
    return radius


def check_clouds(clouds: Tensor) -> None:
    """Raise InputError unless these are clouds (n, points, 3) of 2 points or more, none NaN."""
    if clouds.ndim != 3 or clouds.shape[2] != 3:
        raise InputError(f"Clouds of shape {tuple(clouds.shape)}: a detector takes (n, points, 3).")
    lost = int(find_failures(clouds).sum())
    if lost:
        raise InputError(
            f"{lost} of {len(clouds)} clouds are NaN: leave failures out, and say how many "
            "there were."
        )
    if clouds.shape[1] < 2:
        raise InputError("Clouds of 1 point: the detector needs at least 2.")


def sort_points(clouds: Clouds) -> Clouds:
    """Clouds with their points by x, then y, then z: sums over them then ignore their order."""
    for axis in (2, 1, 0):
        order = clouds[..., axis].argsort(dim=1, stable=True)
        clouds = clouds.gather(1, order[..., None].expand_as(clouds))
    return clouds


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
