"""Metrics of sets of samples: every set against every reference, by the same protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from fieldloom.errors import InputError, unknown
from fieldloom.evaluation.measures import (
    MEASURES,
    DistinctSignals,
    find_distinct,
    pairwise_distances,
    signal_features,
)
from fieldloom.metrics.cloud_sets import matching, two_sample
from fieldloom.metrics.sets import frechet

ROUNDS, SIZE = 32, 32
"""The published bootstrap: its rounds, and the samples (and references) of a round."""


class SetPair(NamedTuple):
    """Distances within n references, to m samples, and within these; features of both."""

    rr: Float[Tensor, "n n"]
    rs: Float[Tensor, "n m"]
    ss: Float[Tensor, "m m"]
    real: Float[Tensor, "n d"]
    made: Float[Tensor, "m e"]

    def at(self, r: Int[Tensor, " a"], s: Int[Tensor, " b"]) -> SetPair:
        """The pair of these references and samples, each as often as its index occurs."""
        within = self.rr[r][:, r], self.rs[r][:, s], self.ss[s][:, s]
        return SetPair(*within, self.real[r], self.made[s])


SET_METRICS = ("mmd", "coverage", "1nna", "1nna.reference", "1nna.sample", "frechet")


def set_metrics(pair: SetPair) -> dict[str, float]:
    """``SET_METRICS`` of two sets, as ``matching``, ``two_sample`` and ``frechet`` define them.

    mmd is infinite where all samples failed. frechet is of the samples that did not fail, and NaN
    where there are fewer than 2 of them.
    """
    found = matching(pair.rs) | two_sample(pair.rr, pair.rs, pair.ss)
    there = pair.made[~pair.made.isnan().any(1)]
    enough = min(len(pair.real), len(there)) > 1
    found["frechet"] = frechet(pair.real, there) if enough else math.nan
    return {name: found[name] for name in SET_METRICS}


def whole_set_metrics(pair: SetPair, seed: int) -> dict[str, float]:
    """The metrics of the whole sets; the seed is not used."""
    return set_metrics(pair)


def bootstrap_metrics(
    pair: SetPair, seed: int, rounds: int = ROUNDS, size: int = SIZE
) -> dict[str, float]:
    """Means of the metrics over rounds of ``size`` references and samples, drawn with replacement.

    What is drawn twice has a twin at distance 0, which raises 1-NNA of any generator, and Frechet
    distances of few samples are too large: such metrics compare only with their like. Source: the
    code of "Autoregressive Generation of Neural Field Weights" (Fanselau and Muschal, 2024).
    """
    generator = Generator().manual_seed(seed)
    found = []
    for _ in range(rounds):
        r, s = (torch.randint(len(x), (size,), generator=generator) for x in (pair.rr, pair.ss))
        found.append(set_metrics(pair.at(r, s)))
    return {name: sum(one[name] for one in found) / rounds for name in SET_METRICS}


class Resampling(NamedTuple):
    """How metrics of two sets are computed, by a seed, and a description of it."""

    metrics: Callable[[SetPair, int], dict[str, float]]
    description: str


RESAMPLINGS: Mapping[str, Resampling] = {
    "full": Resampling(whole_set_metrics, "whole sets, once"),
    "bootstrap": Resampling(
        bootstrap_metrics,
        f"means of {ROUNDS} rounds of {SIZE} samples and {SIZE} references with replacement",
    ),
}


class SetComparison(NamedTuple):
    """Metrics of a set against a reference.

    size: signals of either that were compared. failures: of the whole set.
    """

    set: str
    reference: str
    protocol: str
    size: int
    failures: int
    metrics: dict[str, float]


def compare_sets(
    sets: Mapping[str, Tensor],
    references: Mapping[str, Tensor],
    measure: str,
    protocols: Sequence[str] = ("full", "bootstrap"),
    seed: int = 0,
) -> list[SetComparison]:
    """Compare every set with every reference by every protocol of ``RESAMPLINGS``.

    sets, references: name -> images (n, channel, height, width) in [0, 1] or clouds (n, points,
    3). A sample that is not finite is a failure: it is compared, never left out (but of frechet).
    Of a set and a reference that differ in size the first ones of the larger are compared.

    measure: of ``MEASURES``. seed: of the draws, which are alike for all sets of one size.
    Raises InputError for an unknown name, an empty set, and a reference with a failure.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    for name in protocols:
        if name not in RESAMPLINGS:
            raise unknown("protocol", name, RESAMPLINGS)
    for name, signals in [*sets.items(), *references.items()]:
        if not len(signals):
            raise InputError(f"the set '{name}' is empty: at least 1 signal is judged.")
    how, made, real = (
        MEASURES[measure],
        _measure_within(measure, sets),
        _measure_within(measure, references),
    )
    comparisons = []
    for reference, (true, rr, wanted) in real.items():
        if true.failures:
            raise InputError(
                f"the reference '{reference}' holds {true.failures} failures: leave them out."
            )
        for name, (samples, ss, given) in made.items():
            whole = SetPair(rr, pairwise_distances(how, true, samples), ss, wanted, given)
            size = min(len(rr), len(ss))
            pair = whole.at(torch.arange(size), torch.arange(size))
            for protocol in protocols:
                found = RESAMPLINGS[protocol].metrics(pair, seed)
                comparison = SetComparison(name, reference, protocol, size, samples.failures, found)
                comparisons.append(comparison)
    return comparisons


def _measure_within(
    measure: str, sets: Mapping[str, Tensor]
) -> dict[str, tuple[DistinctSignals, Tensor, Tensor]]:
    """The distinct signals of each set, the distances within it, and its features."""
    how = MEASURES[measure]
    distinct = {name: find_distinct(signals) for name, signals in sets.items()}
    return {
        name: (x, pairwise_distances(how, x, x), signal_features(how, x))
        for name, x in distinct.items()
    }
