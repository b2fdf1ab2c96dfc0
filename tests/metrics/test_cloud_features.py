"""Features of point clouds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator

from clouds import ellipsoids, normal, with_failures
from fieldloom.errors import InputError
from fieldloom.metrics.cloud_features import CloudStatistics
from fieldloom.metrics.sets import frechet
from vectors import EXACT


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


def test_features_rank_generators():
    detector, real = CloudStatistics(0.5), ellipsoids(60, 100)
    known, fresh = detector(real), ellipsoids(60, 100, seed=1)
    far = lambda clouds: frechet(known, detector(clouds))
    noise = normal(60, 100, 3, seed=2)
    blurred = [far(fresh + size * noise) for size in (0.0, 0.02, 0.05, 0.1)]
    assert blurred == sorted(blurred)
    assert blurred[1] > 1.5 * blurred[0]
    fewer = [far(fresh[:modes].repeat(60 // modes, 1, 1)) for modes in (60, 10, 1)]
    assert fewer == sorted(fewer)
    assert fewer[2] > 3 * fewer[0]
    assert far(real) == pytest.approx(0, abs=1e-9)


def test_the_detector_sees_no_failures():
    clouds = ellipsoids(4, 10)
    with pytest.raises(InputError, match="2 of 4 clouds are NaN"):
        CloudStatistics()(with_failures(clouds, 0, 3))
    with pytest.raises(InputError, match="Clouds of 1 point"):
        CloudStatistics()(clouds[:, :1])
    for radius in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="radius = "):
            CloudStatistics(radius)
