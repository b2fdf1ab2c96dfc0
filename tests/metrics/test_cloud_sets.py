"""Sets of point clouds: published vectors, slow references, theory."""

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import Tensor

from clouds import NAMES, ellipsoids, normal
from fieldloom.errors import InputError
from fieldloom.metrics import cloud_sets
from fieldloom.metrics.cloud_distances import chamfer, distances, emd, normalize_clouds
from fieldloom.metrics.cloud_protocols import PROTOCOLS, cloud_metrics
from fieldloom.metrics.cloud_sets import jsd, matching, two_sample
from vectors import load

# Vectors.


@pytest.mark.parametrize("name", NAMES)
def test_published_matching(name):
    v = load("pointcloud_metrics")
    found = matching(v[f"{name}_rs"])
    assert found["mmd"] == pytest.approx(float(v[f"{name}.lgan_mmd"]), rel=1e-9)
    assert found["mmd.sample"] == pytest.approx(float(v[f"{name}.lgan_mmd_smp"]), rel=1e-9)
    assert found["coverage"] == float(v[f"{name}.cov_exact"])


@pytest.mark.parametrize(("name", "k"), [*product(NAMES, (1, 3, 5))])
def test_published_two_sample_tests(name, k):
    v = load("pointcloud_metrics")
    found = two_sample(v[f"{name}_rr"], v[f"{name}_rs"], v[f"{name}_ss"], k)
    assert set(found) == {f"{k}nna", f"{k}nna.reference", f"{k}nna.sample"}
    published = {f"{k}nna": "acc", f"{k}nna.reference": "acc_t", f"{k}nna.sample": "acc_f"}
    for ours, theirs in published.items():
        assert found[ours] == pytest.approx(float(v[f"{name}.{k}nn.{theirs}"]), abs=1e-6)
    if k == 1:
        assert found["1nna"] == pytest.approx(float(v[f"{name}.acc1nn_exact"]), rel=1e-12)


def test_published_jsd():
    v = load("pointcloud_metrics")
    for resolution in (8, 28):
        assert jsd(v["sample"], v["ref"], resolution) == pytest.approx(
            float(v[f"jsd_res{resolution}"]), rel=1e-9
        )
    nodes = cloud_sets._nodes(8)
    np.testing.assert_allclose(nodes, v["grid_res8"].numpy(), atol=1e-7)
    counts = cloud_sets._histogram(v["ref"], KDTree(nodes)) * v["ref"].numel() / 3
    np.testing.assert_allclose(counts, v["count_ref_res8"].numpy())


# Slow references.


def slow_two_sample(rr: Tensor, rs: Tensor, ss: Tensor, k: int) -> dict[str, float]:
    """Every item asks its k nearest others, one by one."""
    n, m = rs.shape
    far = {(i, j): float(rr[i, j]) for i, j in product(range(n), range(n))}
    far |= {(i, n + j): float(rs[i, j]) for i, j in product(range(n), range(m))}
    far |= {(n + j, i): float(rs[i, j]) for i, j in product(range(n), range(m))}
    far |= {(n + i, n + j): float(ss[i, j]) for i, j in product(range(m), range(m))}
    right = []
    for i in range(n + m):
        others = sorted((j for j in range(n + m) if j != i), key=lambda j: far[i, j])[:k]
        right.append((sum(j < n for j in others) > k / 2) == (i < n))
    halves = {f"{k}nna.reference": sum(right[:n]) / n, f"{k}nna.sample": sum(right[n:]) / m}
    return {f"{k}nna": sum(right) / (n + m)} | halves


@pytest.mark.parametrize("k", [1, 3, 7])
def test_two_sample_is_its_loop(k):
    x = normal(23, 4)
    r, s = x[:9], x[9:] * 1.3
    given = torch.cdist(r, r), torch.cdist(r, s), torch.cdist(s, s)
    kept = [d.clone() for d in given]
    found = two_sample(*given, k)
    assert found == pytest.approx(slow_two_sample(*given, k))
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))  # left as they were


def slow_jsd(a: Tensor, b: Tensor, resolution: int) -> float:
    line = torch.linspace(-0.5, 0.5, resolution, dtype=torch.float64)
    nodes = [n for n in torch.cartesian_prod(line, line, line) if n.norm() <= 0.5 + 1e-9]
    shares = []
    for clouds in (a, b):
        counts = [0] * len(nodes)
        for point in clouds.reshape(-1, 3):
            counts[min(range(len(nodes)), key=lambda i: float((nodes[i] - point).norm()))] += 1
        shares.append([c / sum(counts) for c in counts])
    total = 0.0
    for p, q in zip(*shares, strict=True):
        total += sum(s / 2 * math.log2(2 * s / (p + q)) for s in (p, q) if s)
    return total


def test_jsd_is_its_loop():
    """With an odd number of nodes, where some lie on the ball itself."""
    a, b = ellipsoids(2, 15), ellipsoids(3, 15, seed=1)
    assert jsd(a, b, 5) == pytest.approx(slow_jsd(a, b, 5), rel=1e-9)
    assert len(cloud_sets._nodes(5)) == 33
    assert jsd(a, a) == 0
    left, right = a.abs() * torch.tensor([-1.0, 1, 1]) - 0.02, b.abs() + 0.02
    assert jsd(left * 0.9, right * 0.9, 4) == pytest.approx(1)


# Wrong input.


def test_sets_that_do_not_fit():
    a = ellipsoids(2, 10)
    with pytest.raises(InputError, match="2 and 1 clouds"):
        chamfer(a, a[:1])
    with pytest.raises(InputError, match="10 and 9 points: EMD"):
        emd(a, a[:, :9])
    with pytest.raises(InputError, match="2049 points: EMD takes at most 2048"):
        emd(normal(1, 2049, 3), normal(1, 2049, 3))
    with pytest.raises(InputError, match="did you mean 'chamfer'"):
        distances(a, a, "chamfers", True)
    with pytest.raises(InputError, match="unknown normalisation 'boxes'; did you mean 'box'"):
        normalize_clouds(a, "boxes")
    with pytest.raises(InputError, match="hold 10 points: the protocol judges 2048"):
        cloud_metrics(a, a, PROTOCOLS["mnif"])


def test_jsd_keeps_to_its_ball():
    inside = ellipsoids(4)
    with pytest.raises(InputError, match="of the references' points leave the ball"):
        jsd(inside, inside * 3)
    with pytest.warns(UserWarning, match="100.0% of the samples' points leave the ball"):
        assert jsd(inside + 2, inside) > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edge = torch.tensor([[[0.3, 0.4, 0.0], [0.0, 0.0, 0.5]]])  # on it, but for rounding
        assert jsd(edge, edge) == 0
    with pytest.raises(InputError, match="resolution = 1"):
        jsd(inside, inside, 1)
