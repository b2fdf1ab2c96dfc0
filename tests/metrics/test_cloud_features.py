"""Features of point clouds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Generator

from clouds import ellipsoids, normal, with_failures
from fieldloom.errors import InputError
from fieldloom.geometry.mesh import as_mesh, sample_surface
from fieldloom.metrics.cloud_features import CLOUD_DETECTORS, CloudStatistics, PointsV1
from fieldloom.metrics.sets import frechet
from vectors import EXACT

PUBLISHED = [2.93269871, 1.74599132, 2.37802765, 0.0, 0.441505096, 0.0]


def test_features_do_not_depend_on_order_or_company():
    detector, clouds = CloudStatistics(radius=0.5), ellipsoids(5, 100)
    features = detector(clouds)
    assert features.shape == (5, 211)
    assert features.isfinite().all()
    shuffled = clouds[:, torch.randperm(100, generator=Generator().manual_seed(0))]
    torch.testing.assert_close(detector(shuffled), features, **EXACT)
    torch.testing.assert_close(detector(clouds[2:3]), features[2:3], **EXACT)
    torch.testing.assert_close(CloudStatistics(1.0)(clouds * 2), features, **EXACT)
    torch.testing.assert_close(detector(clouds.float()).float(), features.float())
    assert detector(torch.zeros(1, 4, 3)).isfinite().all()  # one place


def test_features_are_what_they_say():
    cloud = ellipsoids(1, 24)[0] + 0.1
    moments, quantiles, occupancy, waves = CloudStatistics()(cloud[None])[0].split([9, 60, 64, 78])
    np.testing.assert_allclose(moments[:3], cloud.mean(0))
    covariance = np.cov(cloud.numpy().T, bias=True)
    np.testing.assert_allclose(moments[3:], covariance[np.triu_indices(3)], rtol=1e-9)
    levels = (np.arange(12) + 0.5) / 12
    for axis in range(3):
        expected = np.quantile(cloud[:, axis].numpy(), levels)
        np.testing.assert_allclose(quantiles[axis * 12 : axis * 12 + 12], expected)
    gaps = torch.cdist(cloud, cloud).fill_diagonal_(math.inf).amin(1)
    expected = np.quantile((gaps + 1e-3).log().numpy(), levels)
    np.testing.assert_allclose(quantiles[48:], expected, rtol=1e-6)
    assert occupancy.square().sum() == pytest.approx(1)
    places = torch.tensor([[[1.0, -1, 1 / 3]] * 2, [[3.0, -1, 1 / 3]] * 2], dtype=torch.float64)
    node, beyond = CloudStatistics()(places)[:, 69:133].view(2, 4, 4, 4)
    assert torch.equal(node, beyond)  # out of the box it counts at the border
    assert node[3, 0, 2] == pytest.approx(1)
    assert node.sum() == pytest.approx(1)
    first = np.pi / 2 * cloud[:, 2].numpy()  # (0, 0, 1), the longest wave
    np.testing.assert_allclose(waves[0], np.cos(first).mean(), rtol=1e-9)
    np.testing.assert_allclose(waves[39], np.sin(first).mean(), rtol=1e-9)


@pytest.mark.parametrize("name", CLOUD_DETECTORS)
def test_features_rank_generators(name):
    detector, real = CLOUD_DETECTORS[name](0.5), ellipsoids(60, 100)
    known, fresh = detector(real), ellipsoids(60, 100, seed=1)
    far = lambda clouds: frechet(known, detector(clouds))
    noise = normal(60, 100, 3, seed=2)
    blurred = [far(fresh + size * noise) for size in (0.0, 0.02, 0.05, 0.1)]
    assert blurred == sorted(blurred)
    assert blurred[1] > 1.5 * blurred[0]
    fewer = [far(fresh[:modes].repeat(60 // modes, 1, 1)) for modes in (60, 10, 1)]
    assert fewer == sorted(fewer)
    assert fewer[2] > 3 * fewer[0]
    # the half of one ellipsoid beside the half of another, and ellipsoids of which a part is absent
    mixed = torch.where(fresh[..., :1] > 0, fresh, fresh.roll(1, 0))
    whole = fresh[..., 2:] < torch.tensor([1.0, 0.1, 0.0])[:, None, None, None]
    parts = [
        far(torch.where(there, fresh, fresh * fresh.new_tensor([1, 1, -1]))) for there in whole
    ]
    assert parts == sorted(parts)
    assert parts[1] > 1.5 * parts[0]
    assert far(mixed) > far(fresh)
    assert far(real) == pytest.approx(0, abs=1e-9)


def test_features_of_points_do_not_depend_on_order_or_company():
    detector, clouds = PointsV1(0.5), ellipsoids(5, 100)
    features = detector(clouds)
    assert features.shape == (5, 256)
    assert features.dtype == torch.float64
    shuffled = clouds[:, torch.randperm(100, generator=Generator().manual_seed(0))]
    assert torch.equal(detector(shuffled), features)
    assert torch.equal(detector(clouds), features)
    torch.testing.assert_close(detector(clouds[2:3]), features[2:3], **EXACT)
    torch.testing.assert_close(PointsV1(1.0)(clouds * 2), features, **EXACT)


def test_features_of_points_are_those_that_were_published():
    """Of the corners of a box: they do not change with a version or a machine."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.4, 0.3], dtype=torch.float64)] * 3)
    found = PointsV1(0.5)(corners[None])[0]
    assert found[:6].tolist() == pytest.approx(PUBLISHED, rel=1e-6, abs=1e-9)


def test_another_draw_of_points_changes_features_little():
    """Against what another box of nearly the same shape changes."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).numpy()
    hull = trimesh.convex.convex_hull(corners)
    sides = np.array([[0.3, 0.2, 0.4], [0.3, 0.25, 0.4]])
    boxes = [as_mesh(hull.vertices * side, hull.faces, "box") for side in sides]
    draw = lambda box, seed: sample_surface(box, 2048, Generator().manual_seed(seed))[0]
    clouds = [draw(boxes[0], 0), draw(boxes[0], 1), draw(boxes[1], 0)]
    one, again, other = PointsV1(0.5)(torch.stack(clouds))
    assert (one - again).norm() < 0.25 * (one - other).norm()
    assert (one - again).norm() < 0.1 * one.norm()


@pytest.mark.parametrize("name", CLOUD_DETECTORS)
def test_the_detector_refuses_what_is_no_cloud(name):
    detector, clouds = CLOUD_DETECTORS[name], ellipsoids(4, 10)
    with pytest.raises(InputError, match="2 of 4 clouds are NaN"):
        detector()(with_failures(clouds, 0, 3))
    with pytest.raises(InputError, match="Clouds of 1 point"):
        detector()(clouds[:, :1])
    for wrong in (clouds[0], clouds[..., :2], clouds[None]):
        with pytest.raises(InputError, match=r"Clouds of shape .* takes \(n, points, 3\)\.$"):
            detector()(wrong)
    for radius in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="radius = "):
            detector(radius)
