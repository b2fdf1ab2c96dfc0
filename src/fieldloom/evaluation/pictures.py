"""Sets of pictures: what a detector sees of images and of rendered views."""

from __future__ import annotations

import warnings

from torch import Tensor

from fieldloom.evaluation.figures import Figure
from fieldloom.metrics.features import DETECTORS, Detector
from fieldloom.metrics.sets import frechet, kid, prdc
from fieldloom.permit import NOTHING, Permit
from fieldloom.registry import build
from fieldloom.settings import PICTURES, Evaluation


def detector_of(how: Evaluation, smallest: int, permit: Permit = NOTHING) -> Detector | None:
    """The detector of the set metrics of pictures, where any is asked for."""
    if not set(PICTURES) & set(how.metrics):
        return None
    if smallest <= 3:
        warnings.warn("set metrics need more than 3 data and samples: left out.", stacklevel=2)
        return None
    spec = {"name": how.detector} | ({"weights": how.weights} if how.weights else {})
    return build("detector", spec, {"detector": DETECTORS}, permit)


def seen_by(detector: Detector, filter: str) -> str:
    return f"{detector.name}, resized {detector.filter}; data resized {filter}"


def compare_sets(
    how: Evaluation, detector: Detector, real: Tensor, fake: Tensor, of: str, filter: str
) -> list[Figure]:
    """Set metrics of pictures (n, channel, height, width)."""
    seen = seen_by(detector, filter)
    real, fake = detector(real).cpu(), detector(fake).cpu()
    figures = []
    if "frechet" in how.metrics:
        figures.append(Figure(detector.figure, frechet(real, fake), of, seen))
    if "kid" in how.metrics:
        figures.append(Figure("kid", kid(real, fake), of, seen))
    if "precision-recall" in how.metrics:
        found = prdc(real, fake)
        figures += [Figure(name, value, of, f"{seen}, k = 3") for name, value in found.items()]
    return figures
