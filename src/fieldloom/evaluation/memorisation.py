"""Memorisation: the nearest training fields of samples, in weights and in signals."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldloom.evaluation.measures import MEASURES, find_distinct, pairwise_distances
from fieldloom.metrics.sets import nearest

CodeSet = Float[Tensor, "_ tokens width"]
"""CodeSet of one kind, sets of which may differ in size."""


class NearestNeighbours(NamedTuple):
    """For each query, the distance to its nearest neighbour, and the index of that one: (n,), (n,).

    Of a failure they are infinite and -1.
    """

    distances: Float[Tensor, " n"]
    indices: Int[Tensor, " n"]


def nearest_signals(queries: Tensor, known: Tensor, measure: str) -> NearestNeighbours:
    """The nearest of the known signals to each query, by a measure of ``MEASURES``."""
    found, indices = pairwise_distances(
        MEASURES[measure], find_distinct(queries), find_distinct(known)
    ).min(1)
    return NearestNeighbours(found, indices.masked_fill(found.isinf(), -1))


def nearest_codes(queries: CodeSet, known: CodeSet) -> NearestNeighbours:
    """The nearest of the known codes to each query: Euclidean, of codes as they are stored, with no
    alignment of equivalent weights.
    """
    flat = queries.flatten(1)
    fine = flat.isfinite().all(1)
    found = torch.full((len(flat),), math.inf, dtype=torch.float64)
    indices = torch.full((len(flat),), -1)
    if fine.any():
        found[fine], indices[fine] = nearest(flat[fine], known.flatten(1))
    return NearestNeighbours(found, indices)


class Novelty(NamedTuple):
    """How far samples are from training fields, beside how far held-out fields are.

    ratio:  of the medians; 0 where training fields are memorised, about 1 of a perfect generator.
    nearer: the fraction of samples that are nearer than every held-out field; on average
            1 / (held-out fields + 1) of a perfect generator.
    """

    samples: NearestNeighbours
    held_out: NearestNeighbours | None

    @property
    def ratio(self) -> float:
        if self.held_out is None:
            return math.nan
        return float(self.samples.distances.median() / self.held_out.distances.median())

    @property
    def nearer(self) -> float:
        if self.held_out is None:
            return math.nan
        return float((self.samples.distances < self.held_out.distances.min()).double().mean())
