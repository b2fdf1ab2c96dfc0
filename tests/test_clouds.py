"""Point clouds: published vectors, slow references, failures, and generators of known worth."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.metrics import cloud_distances, cloud_sets
from fieldloom.metrics.cloud_distances import (
    DISTANCES,
    NORMALISATIONS,
    chamfer,
    distances,
    emd,
    find_failures,
    normalize_clouds,
)
from fieldloom.metrics.cloud_features import CloudStatistics
from fieldloom.metrics.cloud_protocols import (
    METRICS,
    NEIGHBOURS,
    PROTOCOLS,
    CloudProtocol,
    cloud_metrics,
)
from fieldloom.metrics.cloud_sets import jsd, matching, two_sample
from fieldloom.metrics.sets import frechet
from vectors import EXACT, load, same

NAMES = {
    "cd": ("chamfer", True),
    "cdl2": ("chamfer", False),
    "emd": ("emd", False),
    "emdsq": ("emd", True),
}
SMALL = replace(PROTOCOLS["pointflow"], points=64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def ellipsoids(count: int, points: int = 64, seed: int = 0) -> Tensor:
    """Random points on ellipsoids of random axes: (count, points, 3), in the ball of radius 0.5."""
    random = Generator().manual_seed(seed)
    x = torch.randn(count, points, 3, dtype=torch.float64, generator=random)
    axes = 0.1 + 0.35 * torch.rand(count, 1, 3, dtype=torch.float64, generator=random)
    return x / x.norm(dim=2, keepdim=True) * axes


def with_failures(clouds: Tensor, *places: int) -> Tensor:
    changed = clouds.clone()
    changed[list(places)] = math.nan
    return changed


# Vectors.


@pytest.mark.parametrize("name", NAMES)
def test_published_distances(name):
    v, (measure, squared) = load("pointcloud_metrics"), NAMES[name]
    sets = {"r": v["ref"], "s": v["sample"]}
    for a, b in ("rs", "rr", "ss"):
        same(distances(sets[a], sets[b], measure, squared), v[f"{name}_{a}{b}"])
    paired = {"chamfer": chamfer, "emd": emd}[measure]
    same(paired(v["ref"], v["sample"][:10], squared), v[f"{name}_rs"].diagonal().clone())


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


def test_published_normalisation():
    v = load("pointcloud_metrics")
    same(normalize_clouds(v["sample"], "cloud"), v["sample_z"])
    same(normalize_clouds(v["ref"], "cloud"), v["ref_z"])


def test_published_jsd():
    v = load("pointcloud_metrics")
    for resolution in (8, 28):
        assert jsd(v["sample"], v["ref"], resolution) == pytest.approx(
            float(v[f"jsd_res{resolution}"]), rel=1e-9
        )
    nodes = cloud_sets._nodes(8)
    np.testing.assert_allclose(nodes, v["grid_res8"].numpy(), atol=1e-7)
    counts = cloud_sets._histogram(v["ref"], cloud_sets.KDTree(nodes)) * v["ref"].numel() / 3
    np.testing.assert_allclose(counts, v["count_ref_res8"].numpy())


def test_the_protocol_of_hyperdiffusion():
    v = load("pointcloud_metrics")
    found = cloud_metrics(v["sample"], v["ref"], replace(PROTOCOLS["hyperdiffusion"], points=64))
    published = {"mmd": "lgan_mmd", "coverage": "lgan_cov"}
    published |= {"1nna": "1nn.acc", "1nna.reference": "1nn.acc_t", "1nna.sample": "1nn.acc_f"}
    assert found == {"failures": 0.0} | {
        f"chamfer.{ours}": pytest.approx(float(v[f"cdz.{theirs}"]), abs=1e-6)
        for ours, theirs in published.items()
    }
    assert found["chamfer.mmd"] == pytest.approx(float(v["cdz.lgan_mmd"]), rel=1e-9)


def test_the_protocol_of_mnif():
    v = load("mnif_metrics")
    sample, reference = v["chamfer_sample"], v["chamfer_ref"]
    found = distances(sample, reference, "chamfer", True)
    same(found.float(), v["chamfer_matrix_sample_x_ref"], rtol=1e-5, atol=1e-7)  # float32 vectors
    assert cloud_metrics(sample, reference, replace(PROTOCOLS["mnif"], points=20)) == {
        "failures": 0.0,
        "chamfer.mmd": pytest.approx(float(v["mmd"]), rel=1e-5),
        "chamfer.coverage": pytest.approx(float(v["cov"]), rel=1e-9),
    }


def test_the_protocol_of_pointflow():
    v = load("pointcloud_metrics")
    found = cloud_metrics(v["sample"], v["ref"], SMALL)
    names = [f"{m}.{f}" for m in ("chamfer", "emd") for f in ("mmd", "coverage", *NEIGHBOURS)]
    assert set(found) == {"failures", "jsd", *names}
    assert found["emd.mmd"] == pytest.approx(float(v["emd.lgan_mmd"]), rel=1e-9)
    assert found["emd.1nna"] == float(v["emd.acc1nn_exact"])
    assert found["chamfer.mmd"] == pytest.approx(float(v["cd.lgan_mmd"]), rel=1e-9)
    assert found["jsd"] == pytest.approx(float(v["jsd_res28"]), rel=1e-9)


def test_collapse_shows_in_the_halves():
    v = load("pointcloud_metrics_degenerate")
    found = cloud_metrics(v["collapse.sample"], v["collapse.ref"], SMALL)
    assert found["chamfer.mmd"] == pytest.approx(float(v["collapse.lgan_mmd"]), rel=1e-9)
    assert found["chamfer.coverage"] == 0.1
    assert found["chamfer.1nna"] == pytest.approx(0.4)
    assert found["chamfer.1nna.reference"] == pytest.approx(0.8)
    assert found["chamfer.1nna.sample"] == 0


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


def test_failures_cost():
    """They cover nothing, are told apart, add no point, and are counted."""
    reference, sample = ellipsoids(12), ellipsoids(12, seed=1)
    broken = with_failures(sample, 0, 5, 7)
    whole, less = (
        cloud_metrics(sample, reference, SMALL),
        cloud_metrics(broken, reference, SMALL),
    )
    kept = cloud_metrics(sample[~find_failures(broken)], reference, SMALL)
    assert (whole["failures"], less["failures"], kept["failures"]) == (0, 3, 0)
    assert less["jsd"] == kept["jsd"]
    for m in ("chamfer", "emd"):
        assert less[f"{m}.mmd"] == kept[f"{m}.mmd"] >= whole[f"{m}.mmd"]
        assert less[f"{m}.coverage"] == kept[f"{m}.coverage"] <= whole[f"{m}.coverage"]
        right = kept[f"{m}.1nna.sample"] * 9 + 3
        assert less[f"{m}.1nna.sample"] == pytest.approx(right / 12)
        assert less[f"{m}.1nna.reference"] == kept[f"{m}.1nna.reference"]
    assert matching(distances(reference, broken, "chamfer", True))["mmd.sample"] == math.inf


@pytest.mark.parametrize("count", [1, 6])
def test_nothing_but_failures(count):
    reference = ellipsoids(count)
    assert cloud_metrics(torch.full_like(reference, math.nan), reference, SMALL) == {
        "failures": count,
        "jsd": 1,
        **{f"{m}.mmd": math.inf for m in ("chamfer", "emd")},
        **{f"{m}.coverage": 0 for m in ("chamfer", "emd")},
        **{f"{m}.{metric}": 1 for m in ("chamfer", "emd") for metric in NEIGHBOURS},
    }


def test_failures_are_no_neighbours():
    """One reference, one sound sample: k = 3 reaches failures, which have no say over either."""
    reference, sample = ellipsoids(1), with_failures(ellipsoids(4, seed=1), 0, 1, 2)
    rr, rs, ss = (
        distances(a, b, "chamfer", True)
        for a, b in ((reference, reference), (reference, sample), (sample, sample))
    )
    found = two_sample(rr, rs, ss, k=3)
    assert found == {"3nna": 0.6, "3nna.reference": 0, "3nna.sample": 0.75}


# Theory.


def test_a_copy_of_the_set():
    reference = ellipsoids(20)
    found = cloud_metrics(reference.flip(0), reference, SMALL)
    for m in ("chamfer", "emd"):
        assert found[f"{m}.mmd"] == 0
        assert found[f"{m}.coverage"] == 1
        assert [found[f"{m}.{metric}"] for metric in NEIGHBOURS] == [0, 0, 0]
    assert found["jsd"] == 0


def test_twins_of_one_reference():
    """References come first at one distance, whatever the sort: every twin is told wrong."""
    reference = ellipsoids(20)
    found = cloud_metrics(reference[:1].repeat(20, 1, 1), reference, SMALL)
    assert found["chamfer.coverage"] == 0.05
    assert found["chamfer.1nna.sample"] == 0
    assert found["chamfer.1nna.reference"] >= 0.75


@pytest.mark.slow
def test_two_draws_of_one_distribution():
    protocol = replace(PROTOCOLS["hyperdiffusion"], normalisation="none", points=64)
    found = cloud_metrics(ellipsoids(70, seed=1), ellipsoids(70), protocol)
    # 140 trials of one half have a deviation of 0.042
    assert found["chamfer.1nna"] == pytest.approx(0.5, abs=0.13)
    # a reference is the nearest of none of m samples by e^-1 where all are equally likely
    assert 0.4 < found["chamfer.coverage"] < 0.75
    other = cloud_metrics(ellipsoids(70, seed=1) * 2, ellipsoids(70), protocol)
    assert other["chamfer.1nna"] > 0.8
    assert other["chamfer.coverage"] < found["chamfer.coverage"]
    assert other["chamfer.mmd"] > 2 * found["chamfer.mmd"]


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


def test_protocols():
    for protocol in PROTOCOLS.values():
        assert protocol.points == 2048
        assert "arXiv" in protocol.source
    assert PROTOCOLS["mnif"].metrics == ("mmd", "coverage")
    everything = CloudProtocol(20, "box", (("chamfer", False),), METRICS[:-1], "test")
    found = cloud_metrics(ellipsoids(3, 20), ellipsoids(4, 20), everything)
    assert set(found) == {"failures", *(f"chamfer.{metric}" for metric in METRICS[:-1])}
    for wrong in (
        dict(normalisation="boxed"),
        dict(measures=(("chamber", True),)),
        dict(metrics=("mdd",)),
    ):
        with pytest.raises(InputError, match="did you mean"):
            replace(everything, **wrong)


# The detector.


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
