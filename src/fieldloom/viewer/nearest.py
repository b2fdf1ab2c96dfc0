"""The training data that are nearest to a function, by the measure that evaluations use."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fieldloom.evaluation import Evaluator, evaluator_of
from fieldloom.evaluation.measures import (
    MEASURES,
    DistinctSignals,
    find_distinct,
    pairwise_distances,
)
from fieldloom.modalities.modality import spread
from fieldloom.modalities.sources import Source
from fieldloom.system import System
from fieldloom.types import Code
from fieldloom.viewer.refusals import Refused
from fieldloom.viewer.worker import stop_if_unwanted

NUMBERS, PART = 1 << 25, 1 << 22
"""Numbers of the training data that are compared, and of those that are read at a time."""
POINTS = 512
"""Points of a cloud on a surface."""


class Nearest:
    """The training data of a run, in the form that its measure takes, read once."""

    def __init__(self, system: System, source: Source) -> None:
        self.evaluator: Evaluator = evaluator_of(system, source)
        self.source = source
        self.measure = self.evaluator.measures[0] if self.evaluator.measures else None
        surface = source.data.surface
        self.points = POINTS if surface is None else min(POINTS, surface.shape[1])
        each = math.prod(source.data.shape[1:])
        self.places = spread(len(source.train), max(1, NUMBERS // each))
        self.step = max(1, PART // each)
        self.parts: list[DistinctSignals] = []

    def is_of(self, system: System, source: Source) -> bool:
        """Whether it compares with these data what this system decodes."""
        return self.source is source and self.evaluator.system is system

    def read(self) -> list[DistinctSignals]:
        """The training data that are compared, a part after the other."""
        for first in range(self.step * len(self.parts), len(self.places), self.step):
            stop_if_unwanted()
            some = self.source.train[self.places[first : first + self.step]]
            if self.measure is None:
                part = self.source.read(some).tensor
            else:
                part = self.evaluator.read_for_measure(some, self.points)
            self.parts.append(find_distinct(part))
        return self.parts

    def find(self, code: Code, count: int) -> list[tuple[int, float]]:
        """(index in the training part, distance) of the nearest, the nearest first.

        Raises Refused where the function cannot be compared.
        """
        if self.measure is None:
            own = self.evaluator.system.decode(code).tensor.cpu()
        else:
            own = self.evaluator.decode_for_measure(code, self.points)
        if own.shape[1:] != self.source.data.shape[1:] and self.measure != "chamfer":
            raise Refused(409, "what is drawn here cannot be compared with data number by number.")
        distances = torch.cat([self.compare(own, part) for part in self.read()])
        nearest = distances.topk(min(count, len(distances)), largest=False)
        pairs = zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True)
        return [(self.places[i], far) for i, far in pairs if math.isfinite(far)]

    def compare(self, own: Tensor, part: DistinctSignals) -> Tensor:
        """Distances from one signal (1, ...) to those of a part: (n,)."""
        stop_if_unwanted()
        measure = MEASURES[self.measure or "pixels"]
        return pairwise_distances(measure, find_distinct(own), part)[0]

    def describe(self, code: Code, count: int) -> dict[str, Any]:
        """What a browser gets: names are added by who knows the parts."""
        told = {"ssim": "(1 - SSIM) / 2", "chamfer": "Chamfer distance"}
        return {
            "found": self.find(code, count),
            "measure": told.get(self.measure or "", "Euclidean distance of values"),
            "compared": len(self.places),
            "of": len(self.source.train),
        }
