"""How two signals are compared: images, or clouds of points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from fieldloom.metrics.cloud_distances import distances, normalize_clouds
from fieldloom.metrics.cloud_features import CLOUD_DETECTORS, DEFAULT_CLOUD_DETECTOR
from fieldloom.metrics.detectors import Gabor
from fieldloom.metrics.paired import ssim_between

ROUNDING = 1e-12
"""The step that (1 - SSIM) / 2 is rounded to, so that the distance of two images does not depend on
the others that they are compared with, and is 0 from an image to itself."""


class Measure(NamedTuple):
    """How signals are compared: images (n, channel, height, width), or clouds (n, points, 3).

    between:     distances (n, m) of every signal of one set to every one of another.
    features:    (n, d), for a Frechet distance.
    description: of both, for a report.
    """

    between: Callable[[Tensor, Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    description: str


def _pixels(a: Tensor, b: Tensor) -> Tensor:
    # Not by a matrix product, which would give equal images a distance above 0.
    exact = "donot_use_mm_for_euclid_dist"
    rows = a.flatten(1).double()
    parts = [torch.cdist(rows, part.flatten(1).double(), 2.0, exact) for part in b.split(1024)]
    return torch.cat(parts, 1)


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    return ((1 - ssim_between(a, b)) / 2 / ROUNDING).round().clamp_min(0) * ROUNDING


def _chamfer(a: Tensor, b: Tensor) -> Tensor:
    one = normalize_clouds(a, "cloud")
    return distances(one, one if b is a else normalize_clouds(b, "cloud"), "chamfer", True)


def _gabor(images: Tensor) -> Tensor:
    return Gabor()(images.float())


MEASURES: Mapping[str, Measure] = {
    "ssim": Measure(_ssim, _gabor, "(1 - SSIM) / 2; frechet: of gabor's features, not FID"),
    "pixels": Measure(
        _pixels, _gabor, "Euclidean distance of values; frechet: of gabor's features, not FID"
    ),
    "chamfer": Measure(
        _chamfer,
        CLOUD_DETECTORS[DEFAULT_CLOUD_DETECTOR](0.5),
        "squared Chamfer distance of clouds, each less its mean and over one deviation; frechet: "
        f"of {DEFAULT_CLOUD_DETECTOR} of clouds as they are, not FPD",
    ),
}


class DistinctSignals(NamedTuple):
    """A set of signals, with each distinct one once.

    distinct: (k, ...), without failures. indices: (n,), where in ``distinct`` each signal of the
    set is; -1 for a failure.
    """

    distinct: Tensor
    indices: Tensor

    @property
    def failures(self) -> int:
        return int((self.indices < 0).sum())


def find_distinct(signals: Tensor) -> DistinctSignals:
    """The distinct signals of a set; one that is not finite throughout is a failure."""
    flat = signals.flatten(1)
    fine = flat.isfinite().all(1)
    distinct, inverse = flat[fine].unique(dim=0, return_inverse=True)
    indices = torch.full((len(signals),), -1)
    indices[fine] = inverse
    return DistinctSignals(distinct.unflatten(1, signals.shape[1:]), indices)


def pairwise_distances(
    measure: Measure, a: DistinctSignals, b: DistinctSignals
) -> Float[Tensor, "n m"]:
    """Distances of every signal of a to every one of b; a failure is infinitely far from all."""
    if len(a.distinct) and len(b.distinct):
        found = measure.between(a.distinct, a.distinct if b is a else b.distinct)
    else:
        found = torch.zeros(len(a.distinct), len(b.distinct), dtype=torch.float64)
    return pad(found, (0, 1, 0, 1), value=math.inf)[a.indices][:, b.indices]


def signal_features(measure: Measure, a: DistinctSignals) -> Float[Tensor, "n d"]:
    """Features of every signal, NaN of a failure."""
    found = measure.features(a.distinct) if len(a.distinct) else torch.zeros(0, 1)
    return pad(found.double(), (0, 0, 0, 1), value=math.nan)[a.indices]
