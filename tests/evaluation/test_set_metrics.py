"""Two sets are compared: slow references, degenerate sets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from compared_sets import clouds, far, pictures, without
from fieldloom.errors import InputError
from fieldloom.evaluation.measures import MEASURES
from fieldloom.evaluation.set_metrics import SET_METRICS, SetPair, bootstrap_metrics, compare_sets
from fieldloom.metrics.cloud_features import CloudStatistics
from fieldloom.metrics.detectors import Gabor
from fieldloom.metrics.sets import frechet

# -- slow references


def slow(made: list[Tensor], true: list[Tensor], measure: str, known: dict) -> dict[str, float]:
    """The figures, signal by signal. known: what was found before of the same tensors."""

    def apart(a: Tensor, b: Tensor) -> float:
        key = (id(a), id(b))
        if key not in known:
            known[key] = 0.0 if a is b and not a.isnan().any() else far(a, b, measure)
        return known[key]

    mmd = sum(min(apart(r, s) for s in made) for r in true) / len(true)
    matched = set()
    for s in made:
        if not s.isnan().any():
            matched.add(min(range(len(true)), key=lambda i: apart(true[i], s)))
    both = [(x, True) for x in true] + [(x, False) for x in made]
    right = []
    for i, (x, real) in enumerate(both):
        others = [j for j in range(len(both)) if j != i]
        near = min(others, key=lambda j: apart(x, both[j][0]))
        lost = math.isinf(apart(x, both[near][0]))
        right.append((lost and not x.isnan().any()) == real if lost else both[near][1] == real)
    there = [s for s in made if not s.isnan().any()]
    detector = CloudStatistics(0.5) if measure == "chamfer" else Gabor()
    for x in [*true, *there]:
        if id(x) not in known:
            known[id(x)] = detector(x[None])
    real, fake = (torch.cat([known[id(x)] for x in own]) for own in (true, there))
    return {
        "mmd": mmd,
        "coverage": len(matched) / len(true),
        "1nna": sum(right) / len(right),
        "1nna.reference": sum(right[: len(true)]) / len(true),
        "1nna.sample": sum(right[len(true) :]) / len(made),
        "frechet": frechet(real, fake),
    }


def sets(measure: str) -> tuple[Tensor, Tensor]:
    """Samples, of which two are alike, one is a reference's copy and one failed; references."""
    make = clouds if measure == "chamfer" else pictures
    made, true = make(7, seed=1), make(7, seed=2)
    made[1], made[2] = made[0], true[3]
    return without(made, 5), true


@pytest.mark.parametrize("measure", MEASURES)
def test_both_protocols_are_their_definitions(measure):
    made, true = sets(measure)
    full, rounds = compare_sets({"made": made}, {"true": true}, measure, seed=3)
    assert [x.protocol for x in (full, rounds)] == ["full", "bootstrap"]
    assert [(x.set, x.reference, x.size, x.failures) for x in (full, rounds)] == [
        ("made", "true", 7, 1)
    ] * 2
    a, b, known = list(made), list(true), {}
    said = slow(a, b, measure, known)
    assert full.metrics == pytest.approx(said, rel=1e-6, abs=1e-9)
    assert tuple(said) == SET_METRICS

    generator, found = Generator().manual_seed(3), []
    for _ in range(32):
        r, s = (torch.randint(7, (32,), generator=generator).tolist() for _ in range(2))
        found.append(slow([a[i] for i in s], [b[i] for i in r], measure, known))
    means = {name: sum(one[name] for one in found) / 32 for name in SET_METRICS}
    assert rounds.metrics == pytest.approx(means, rel=1e-6, abs=1e-9)


def test_twins_raise_1nna_of_a_perfect_generator():
    """Half the mean chance of a twin, 1 - (1 - 1 / pool)^31: 0.1 for pools of 100 and 202."""
    found = []
    for seed in range(8):
        x = torch.randn(302, 8, dtype=torch.float64, generator=Generator().manual_seed(seed))
        r, s = x[:202], x[202:]
        pair = SetPair(torch.cdist(r, r), torch.cdist(r, s), torch.cdist(s, s), r, s)
        found.append(bootstrap_metrics(pair, seed)["1nna"])
    twins = sum(1 - (1 - 1 / pool) ** 31 for pool in (100, 202)) / 4
    assert sum(found) / 8 == pytest.approx(0.5 + twins, abs=0.03)


# -- degenerate sets


@pytest.mark.parametrize("measure", MEASURES)
def test_copies_and_one_sample_again_and_again(measure):
    true = (clouds if measure == "chamfer" else pictures)(6)
    one = true[:1].expand(6, *true.shape[1:])
    copies, same = compare_sets({"copies": true, "one": one}, {"true": true}, measure, ["full"])
    assert copies.metrics == {
        "mmd": 0.0,
        "coverage": 1.0,
        "1nna": 0.0,
        "1nna.reference": 0.0,
        "1nna.sample": 0.0,
        "frechet": pytest.approx(0, abs=1e-9),
    }
    assert same.metrics["coverage"] == 1 / 6
    # each copy hears that reference first, and it hears a copy: both are told wrong. The others
    # hear a reference, which of equals (that one, and its copies) comes first
    assert same.metrics["1nna.sample"] == 0
    assert same.metrics["1nna.reference"] == 5 / 6


@pytest.mark.parametrize("measure", MEASURES)
def test_failures_are_told_apart_and_never_skipped(measure):
    true = (clouds if measure == "chamfer" else pictures)(6)
    none = without(true, *range(6))
    some = without(true, 0, 1, 2)
    for one_set in compare_sets({"none": none}, {"true": true}, measure):
        assert one_set.failures == 6
        assert one_set.metrics["mmd"] == math.inf
        assert one_set.metrics["coverage"] == 0
        assert one_set.metrics["1nna.sample"] == 1
        assert math.isnan(one_set.metrics["frechet"])
    (one_set,) = compare_sets({"some": some}, {"true": true}, measure, ["full"])
    assert (one_set.failures, one_set.metrics["coverage"]) == (3, 0.5)
    assert one_set.metrics["1nna.sample"] == 0.5  # copies are called references
    with pytest.raises(InputError, match="'true' holds 3 failures"):
        compare_sets({"made": true}, {"true": some}, measure)


def test_sizes_are_made_equal_and_names_are_checked():
    a, b = pictures(6), pictures(4, seed=1)
    (cut,) = compare_sets({"made": a}, {"true": b}, "pixels", ["full"])
    (own,) = compare_sets({"made": a[:4]}, {"true": b}, "pixels", ["full"])
    assert cut == own
    assert cut.size == 4
    for ask in (
        lambda: compare_sets({"a": a}, {"b": b}, "emd"),
        lambda: compare_sets({"a": a}, {"b": b}, "ssim", ["half"]),
        lambda: compare_sets({"a": a[:0]}, {"b": b}, "ssim"),
    ):
        with pytest.raises(InputError, match="unknown measure|unknown protocol|'a' is empty"):
            ask()


def test_draws_are_those_of_the_seed():
    ask = lambda seed: compare_sets({"a": pictures(6)}, {"b": pictures(6, 1)}, "pixels", seed=seed)
    assert ask(0) == ask(0)
    assert ask(0)[0] == ask(1)[0]  # whole sets draw nothing
    assert ask(0)[1] != ask(1)[1]
