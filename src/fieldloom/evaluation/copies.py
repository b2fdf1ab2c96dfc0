"""What was copied: the nearest training fields of samples, in weights and in signals."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldloom.evaluation.measures import MEASURES, apart, see
from fieldloom.metrics.sets import nearest

Codes = Float[Tensor, "_ tokens width"]
"""Codes of one kind, sets of which may differ in size."""


class Nearest(NamedTuple):
    """For each query the distance to the nearest known one and its place: (n,), (n,).

    Of a failure they are infinite and -1.
    """

    distances: Float[Tensor, " n"]
    indices: Int[Tensor, " n"]


def nearest_signals(queries: Tensor, known: Tensor, measure: str) -> Nearest:
    """In signal space, by the measure."""
    found, indices = apart(MEASURES[measure], see(queries), see(known)).min(1)
    return Nearest(found, indices.masked_fill(found.isinf(), -1))


def nearest_codes(queries: Codes, known: Codes) -> Nearest:
    """In weight space: Euclidean, of codes as they are stored, with no alignment."""
    flat = queries.flatten(1)
    fine = flat.isfinite().all(1)
    found = torch.full((len(flat),), math.inf, dtype=torch.float64)
    indices = torch.full((len(flat),), -1)
    if fine.any():
        found[fine], indices[fine] = nearest(flat[fine], known.flatten(1))
    return Nearest(found, indices)


class Novelty(NamedTuple):
    """How far samples are from what was trained on, beside how far held-out fields are.

    ratio:  of the medians; a memory has 0, a perfect generator about 1.
    nearer: the fraction of samples that are nearer than every held-out field; a perfect generator's
            is 1 / (held-out fields + 1) on average.
    """

    samples: Nearest
    held: Nearest | None

    @property
    def ratio(self) -> float:
        if self.held is None:
            return math.nan
        return float(self.samples.distances.median() / self.held.distances.median())

    @property
    def nearer(self) -> float:
        if self.held is None:
            return math.nan
        return float((self.samples.distances < self.held.distances.min()).double().mean())
