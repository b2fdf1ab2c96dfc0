"""Published protocols for sets of point clouds, and generators of known worth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from clouds import ellipsoids, with_failures
from fieldloom.errors import InputError
from fieldloom.metrics.cloud_distances import distances, find_failures
from fieldloom.metrics.cloud_protocols import (
    METRICS,
    NEIGHBOURS,
    PROTOCOLS,
    CloudProtocol,
    cloud_metrics,
)
from fieldloom.metrics.cloud_sets import matching, two_sample
from vectors import load, same

SMALL = replace(PROTOCOLS["pointflow"], points=64)


# Vectors.


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


# Failures.


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
