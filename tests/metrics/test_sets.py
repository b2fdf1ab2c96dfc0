"""Metrics of sets: published vectors, slow references in float64, theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Generator, Tensor

from draws import normal, one_sentence
from fieldloom.errors import InputError
from fieldloom.metrics import sets
from fieldloom.metrics.sets import frechet, kid, kid_error, nearest, prdc
from vectors import load

PRDC = ("precision", "recall", "density", "coverage")


# Vectors.


def test_prdc_of_mnif() -> None:
    vectors = load("mnif_metrics")
    found = prdc(vectors["real"], vectors["fake"])
    assert {name: found[name] for name in PRDC} == {
        name: pytest.approx(float(vectors[name]), rel=1e-9) for name in PRDC
    }


def test_frechet_of_mnif() -> None:
    vectors = load("mnif_metrics")
    real, fake = vectors["real"], vectors["fake"]
    # The published code took the means and their distance in float32, ours are float64.
    coarse = real.numpy().mean(0) - fake.numpy().mean(0)
    exact = (real.double().mean(0) - fake.double().mean(0)).numpy()
    expected = float(vectors["fid"]) - float(coarse @ coarse) + float(exact @ exact)
    assert frechet(real, fake) == pytest.approx(expected, rel=1e-9)
    assert frechet(real, fake) == pytest.approx(float(vectors["fid"]), rel=1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_neighbourhoods_of_vectors(k: int) -> None:
    vectors = load("feature_metrics")
    found = prdc(vectors["real"], vectors["fake"], k)
    for name in PRDC:
        assert found[name] == pytest.approx(float(vectors[f"k{k}.{name}"]), rel=1e-9)
    p, r = found["precision"], found["recall"]
    assert found["f1"] == pytest.approx(2 * p * r / (p + r))


def test_frechet_and_kid_of_vectors() -> None:
    v = load("feature_metrics")
    assert frechet(v["real"], v["fake"]) == pytest.approx(float(v["frechet"]), rel=1e-9)
    assert frechet(v["low_real"], v["low_fake"]) == pytest.approx(float(v["low_frechet"]), rel=1e-9)
    assert kid(v["real"], v["fake"]) == pytest.approx(float(v["kid"]), rel=1e-9)


# Sets.


def test_identical_sets() -> None:
    real = normal(50, 5)
    fake = real[torch.randperm(50, generator=Generator().manual_seed(0))]
    assert frechet(real, fake) == pytest.approx(0, abs=1e-12)
    found = prdc(real, fake)
    assert set(found.values()) == {1}  # of density: each ball holds its centre and 2 inside
    distances, indices = nearest(fake, real)  # a generator that copies its training set
    assert (distances == 0).all()
    assert (real[indices] == fake).all()


def test_kid_error_is_the_jackknife():
    real, fake = normal(13, 4), normal(9, 4, seed=1) + 0.3
    keep = lambda x: [x[torch.arange(len(x)) != i] for i in range(len(x))]
    left = [kid(some, fake) for some in keep(real)], [kid(real, some) for some in keep(fake)]
    slow = math.sqrt(sum((len(x) - 1) * np.var(x) for x in left))
    assert kid_error(real, fake) == pytest.approx(slow, rel=1e-9)
    with pytest.raises(InputError, match="at least 3") as error:
        kid_error(real[:2], fake)
    assert one_sentence(error)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_kid_error_is_the_deviation_of_kid(shift: float) -> None:
    pairs = [(normal(40, 8, seed=2 * i), normal(40, 8, seed=2 * i + 1) + shift) for i in range(20)]
    deviation = np.std([kid(a, b) for a, b in pairs])
    assert (
        0.7 < np.mean([kid_error(a, b) for a, b in pairs]) / deviation < 2.2
    )  # of equal ones it is too large


def test_collapsed_generator() -> None:
    real = normal(200, 5)
    for spread in (0.0, 1e-3):
        found = prdc(real, real[:1] + spread * normal(100, 5, seed=1))
        assert found["precision"] == 1  # blind to collapse
        assert found["recall"] <= 0.01
        assert found["coverage"] <= 0.1


def test_far_generator_has_no_f1() -> None:
    found = prdc(normal(30, 4), normal(30, 4) + 100)
    assert set(found.values()) == {0.0}


def test_duplicates_in_the_data_have_empty_balls() -> None:
    real = normal(4, 40).repeat_interleave(5, 0) + 1000  # every 3rd neighbour is 0 away
    assert prdc(real, real)["precision"] == 0  # strict "<", also after rounding
    assert prdc(real, real, k=5)["precision"] == 1


def test_frechet_of_two_gaussians() -> None:
    mean, std = torch.tensor([1.0, -2, 0, 0.5]), torch.tensor([0.5, 1, 2, 3])
    fake = normal(20_000, 4, seed=1) * std + mean
    closed = float(mean.square().sum() + (1 - std).square().sum())
    assert frechet(normal(20_000, 4), fake) == pytest.approx(closed, rel=0.03)


def by_sqrtm(real: np.ndarray, fake: np.ndarray) -> float:
    """The trace term by the symmetric form, which scipy can also do when it is singular."""
    c, d = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    values, basis = scipy.linalg.eigh(c)
    root = basis * np.sqrt(values.clip(0)) @ basis.T
    trace = np.sqrt(scipy.linalg.eigvalsh(root @ d @ root).clip(0)).sum()
    gap = real.mean(0) - fake.mean(0)
    return float(gap @ gap + np.trace(c) + np.trace(d) - 2 * trace)


@pytest.mark.parametrize(("n", "m"), [(60, 50), (60, 5), (4, 50), (6, 5), (8, 8), (9, 8)])
def test_frechet_of_any_rank(n: int, m: int) -> None:
    mix = normal(8, 8, seed=2)
    real, fake = normal(n, 8) @ mix, normal(m, 8, seed=1) + 1
    assert frechet(real, fake) == pytest.approx(by_sqrtm(real.numpy(), fake.numpy()), rel=1e-6)
    assert frechet(real, fake) == pytest.approx(frechet(fake, real), rel=1e-12)
    if min(n, m) > 8:
        product_root = scipy.linalg.sqrtm(np.cov(real.T.numpy()) @ np.cov(fake.T.numpy()))
        spread = real.var(0).sum() + fake.var(0).sum()
        gap = (real.mean(0) - fake.mean(0)).square().sum()
        expected = float(gap + spread) - 2 * np.trace(product_root).real
        assert frechet(real, fake) == pytest.approx(expected, rel=1e-9)


def test_kid_is_unbiased() -> None:
    scores = [kid(normal(20, 3, seed=i), normal(30, 3, seed=100 + i)) for i in range(60)]
    assert min(scores) < 0 < max(scores)
    assert abs(np.mean(scores)) < 3 * np.std(scores) / math.sqrt(len(scores))


def test_nearest_is_brute_force() -> None:
    queries, references = normal(7, 3).float(), normal(9, 3, seed=1).float()
    table = [[math.dist(q, r) for r in references.tolist()] for q in queries.tolist()]
    distances, indices = nearest(queries, references)
    assert indices.tolist() == [row.index(min(row)) for row in table]
    np.testing.assert_allclose(distances, [min(row) for row in table], rtol=1e-12)


def test_nearest_without_self() -> None:
    points = normal(12, 3)
    distances, indices = nearest(points, points, exclude_self=True)
    table = torch.cdist(points, points).fill_diagonal_(math.inf)
    assert indices.tolist() == table.argmin(1).tolist()
    torch.testing.assert_close(distances, table.amin(1))


@pytest.mark.parametrize("block", [1, 37, 200])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal(23, 6), normal(17, 6, seed=1)

    def all_of_them() -> list[Tensor]:
        own = nearest(real, real, exclude_self=True)
        numbers = [kid(real, fake), *prdc(real, fake).values()]
        return [*nearest(fake, real), *own, torch.tensor(numbers)]

    whole = all_of_them()
    monkeypatch.setattr(sets, "BLOCK", block)
    torch.testing.assert_close(all_of_them(), whole)


def test_far_from_the_origin() -> None:
    real, fake = normal(40, 4), normal(30, 4, seed=1)
    assert frechet(real + 1e6, fake + 1e6) == pytest.approx(frechet(real, fake), rel=1e-6)
    assert prdc(real + 1e6, fake + 1e6) == prdc(real, fake)


def test_errors_of_sets() -> None:
    one, three, wide = normal(1, 4), normal(3, 4), normal(5, 6)
    wrong = [
        lambda: frechet(one, three),
        lambda: frechet(three, wide),
        lambda: kid(three, one),
        lambda: prdc(three, normal(9, 4)),
        lambda: prdc(three, three, k=0),
        lambda: nearest(three, wide),
        lambda: nearest(one, one, exclude_self=True),
        lambda: nearest(three, normal(4, 4), exclude_self=True),
        lambda: frechet(three, three * math.nan),
    ]
    for call in wrong:
        with pytest.raises(InputError) as error:
            call()
        assert one_sentence(error), error.value
