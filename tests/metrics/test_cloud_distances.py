"""Distances of point clouds: published vectors, slow references, failures."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from clouds import NAMES, ellipsoids, normal, with_failures
from fieldloom.errors import InputError
from fieldloom.metrics import cloud_distances
from fieldloom.metrics.cloud_distances import (
    DISTANCES,
    NORMALISATIONS,
    chamfer,
    distances,
    emd,
    find_failures,
    normalize_clouds,
)
from fieldloom.metrics.cloud_protocols import PROTOCOLS, cloud_metrics
from fieldloom.metrics.cloud_sets import jsd, matching, two_sample
from vectors import load, same

SMALL = replace(PROTOCOLS["pointflow"], points=64)


# Vectors.


@pytest.mark.parametrize("name", NAMES)
def test_published_distances(name):
    v, (measure, squared) = load("pointcloud_metrics"), NAMES[name]
    sets = {"r": v["ref"], "s": v["sample"]}
    for a, b in ("rs", "rr", "ss"):
        same(distances(sets[a], sets[b], measure, squared), v[f"{name}_{a}{b}"])
    paired = {"chamfer": chamfer, "emd": emd}[measure]
    same(paired(v["ref"], v["sample"][:10], squared), v[f"{name}_rs"].diagonal().clone())


def test_published_normalisation():
    v = load("pointcloud_metrics")
    same(normalize_clouds(v["sample"], "cloud"), v["sample_z"])
    same(normalize_clouds(v["ref"], "cloud"), v["ref_z"])


# Slow references.


def slow_chamfer(a: Tensor, b: Tensor, squared: bool) -> float:
    lengths = (a[:, None] - b[None]).double().norm(dim=2)
    lengths = lengths.square() if squared else lengths
    return float(lengths.amin(1).mean() + lengths.amin(0).mean())


@pytest.mark.parametrize("squared", [True, False])
def test_chamfer_is_all_differences(squared):
    """Of sizes that differ, of twins, and in float32 far from the origin, where products cancel."""
    a, b = normal(3, 50, 3).float() + 1000, normal(3, 70, 3, seed=1).float() + 1000
    b[0, :20] = a[0, :20]
    a[2] = a[2, 0]
    slow = [slow_chamfer(x, y, squared) for x, y in zip(a, b, strict=True)]
    found = chamfer(a, b, squared)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, slow, rtol=1e-12)
    assert chamfer(a, a, squared).tolist() == [0, 0, 0]


@pytest.mark.parametrize("squared", [True, False])
def test_emd_is_the_best_of_all_matches(squared):
    a, b = normal(4, 5, 3), normal(4, 5, 3, seed=1)
    costs = torch.cdist(a, b) ** (2 if squared else 1)
    best = [
        min(sum(float(c[i, p[i]]) for i in range(5)) / 5 for p in permutations(range(5)))
        for c in costs
    ]
    np.testing.assert_allclose(emd(a, b, squared), best, rtol=1e-12)


@pytest.mark.parametrize("measure", DISTANCES)
def test_blocks_and_order_change_nothing(measure, monkeypatch):
    a, b = with_failures(ellipsoids(5, 20), 2), ellipsoids(7, 20, seed=1)
    whole, square = distances(a, b, measure, True), distances(a, a, measure, True)
    monkeypatch.setattr(cloud_distances, "BLOCK", 40)  # two clouds
    assert torch.equal(distances(a, b, measure, True), whole)
    assert torch.equal(distances(b, a, measure, True), whole.T)
    assert torch.equal(distances(a, a, measure, True), square)
    assert torch.equal(distances(a, a.clone(), measure, True), square)  # each pair twice


def test_one_set_computes_each_pair_once(monkeypatch):
    calls = []
    prepare, pair, seconds = DISTANCES["chamfer"]
    counted = lambda x, y, squared: calls.append(1) or pair(x, y, squared)
    monkeypatch.setitem(DISTANCES, "chamfer", (prepare, counted, seconds))
    a = ellipsoids(6, 20)
    distances(a, a, "chamfer", True)
    assert len(calls) == 21
    distances(a, a.clone(), "chamfer", True)
    assert len(calls) == 21 + 36


def test_progress_is_shown_where_it_takes_long(monkeypatch, capsys):
    a = ellipsoids(3, 20)
    distances(a, a, "chamfer", True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(cloud_distances, "LONG", 0.0)
    distances(a, a, "chamfer", True)
    assert "chamfer distances" in capsys.readouterr().err


def test_normalisations():
    raw = with_failures(normal(4, 30, 3) * torch.tensor([1.0, 2, 3]) + 5, 3).float()
    assert torch.equal(normalize_clouds(raw, "none")[:3], raw[:3].double())
    boxed = normalize_clouds(raw, "box")
    torch.testing.assert_close(boxed[:3].amax(1), -boxed[:3].amin(1))
    extent = boxed[:3].amax(1) - boxed[:3].amin(1)
    torch.testing.assert_close(extent.amax(1), torch.ones(3, dtype=torch.float64))
    before = raw[:3].amax(1) - raw[:3].amin(1)
    torch.testing.assert_close((extent / before).std(1), torch.zeros(3).double(), atol=1e-6, rtol=0)
    for how in NORMALISATIONS:
        assert find_failures(normalize_clouds(raw, how)).tolist() == [False] * 3 + [True]
        point = normalize_clouds(torch.full((1, 4, 3), 0.5), how)
        assert point.unique().tolist() == [0.5 if how == "none" else 0]


def test_a_size_and_a_place_do_not_count_once_normalized():
    clouds = ellipsoids(5)
    moved = clouds * 3 + torch.tensor([1.0, -2, 4])
    same(normalize_clouds(moved, "box"), normalize_clouds(clouds, "box"))
    same(normalize_clouds(clouds * 3 + 2, "cloud"), normalize_clouds(clouds, "cloud"))
    # the deviation of all coordinates together sees a place that differs between the axes
    assert normalize_clouds(moved, "cloud").std() < 0.5 * normalize_clouds(clouds, "cloud").std()


# Failures.


def test_a_failure_is_far_from_everything():
    a, b = ellipsoids(3, 20), with_failures(ellipsoids(3, 20, seed=1), 1)
    for paired in (chamfer, emd):
        assert paired(a, b).isinf().tolist() == [False, True, False]
        assert paired(b, b).tolist() == [0, math.inf, 0]
    found = distances(a, b, "chamfer", True)
    assert found.isinf().all(0).tolist() == [False, True, False]
    assert not found[:, [0, 2]].isinf().any()


# Wrong input.


def test_clouds_that_are_none():
    good = ellipsoids(2, 10)
    for bad in (good[..., :2], good[:0], good[:, :0]):
        with pytest.raises(InputError, match=r"the shape is \(n, points, 3\)"):
            distances(good, bad, "chamfer", True)
    part = good.clone()
    part[0, 3, 1] = math.nan
    endless = good.clone()
    endless[1] = math.inf
    for bad in (part, endless):
        for call in (
            find_failures,
            lambda x: cloud_metrics(x, good, SMALL),
            lambda x: normalize_clouds(x, "box"),
        ):
            with pytest.raises(InputError, match="1 of 2 clouds hold NaN or infinite points"):
                call(bad)
    for call in (jsd, lambda s, r: cloud_metrics(s, r, SMALL)):
        with pytest.raises(InputError, match="1 of 2 reference clouds are NaN"):
            call(good, with_failures(good, 1))


def test_distances_that_do_not_fit():
    r, s = ellipsoids(3, 10), ellipsoids(4, 10, seed=1)
    rr, rs, ss = (distances(a, b, "chamfer", True) for a, b in ((r, r), (r, s), (s, s)))
    with pytest.raises(InputError, match=r"shapes \(n, n\), \(n, m\) and \(m, m\)"):
        two_sample(ss, rs, rr)
    for k in (0, -1, 2, 7):
        with pytest.raises(InputError, match="an odd number of neighbours, 1 to 6"):
            two_sample(rr, rs, ss, k)
    two_sample(rr, rs, ss, 5)
    with pytest.raises(InputError, match="empty or NaN"):
        matching(rs * math.nan)
    with pytest.raises(InputError, match="empty or NaN"):
        matching(rs[:0])
    rr[0, 1] = math.inf
    with pytest.raises(InputError, match="References lie infinitely far apart"):
        two_sample(rr, rs, ss)
