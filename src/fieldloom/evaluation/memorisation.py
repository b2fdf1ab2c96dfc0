"""Memorisation: the nearest training fields of samples, in weights and in signals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldloom.evaluation.measures import MEASURES, find_distinct, pairwise_distances
from fieldloom.metrics.sets import nearest

CodeSet = Float[Tensor, "_ tokens width"]
"""Codes of one system; two sets may differ in size."""


class NearestNeighbours(NamedTuple):
    """For each query the distance to its nearest neighbour, and the index of it: (n,), (n,).

    They are infinite and -1 for a query that failed.
    """

    distances: Float[Tensor, " n"]
    indices: Int[Tensor, " n"]


def nearest_in_parts(
    queries: Sequence[Tensor], known: Iterable[Tensor], measure: str
) -> list[NearestNeighbours]:
    """For each set of queries, the nearest of the known signals, by a measure of ``MEASURES``.

    known: signals in parts, each of which is seen once; indices are in their order.
    """
    sets = [find_distinct(one) for one in queries]
    found = [
        NearestNeighbours(torch.full((len(x),), math.inf).double(), torch.full((len(x),), -1))
        for x in queries
    ]
    first = 0
    for part in known:
        distinct = find_distinct(part)
        for own, best in zip(sets, found, strict=True):
            distances, indices = pairwise_distances(MEASURES[measure], own, distinct).min(1)
            closer = distances < best.distances
            best.distances[closer] = distances[closer].double()
            best.indices[closer] = indices[closer] + first
        first += len(part)
    return found


def nearest_codes(queries: CodeSet, known: CodeSet) -> NearestNeighbours:
    """The nearest of the known codes to each query, by Euclidean distance.

    Codes are compared as they are stored; equivalent weights are not aligned.
    """
    flat = queries.flatten(1)
    fine = flat.isfinite().all(1)
    found = torch.full((len(flat),), math.inf, dtype=torch.float64)
    indices = torch.full((len(flat),), -1)
    if fine.any():
        found[fine], indices[fine] = nearest(flat[fine], known.flatten(1))
    return NearestNeighbours(found, indices)


class Novelty(NamedTuple):
    """How far samples are from training fields, compared with held-out fields.

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
