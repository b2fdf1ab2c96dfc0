"""Sets of images: metrics in the features of a detector, of images and of rendered views."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from fieldloom.evaluation.results import Metric
from fieldloom.metrics.detectors import DETECTORS, Detector
from fieldloom.metrics.sets import frechet, kid, prdc
from fieldloom.permit import NOTHING, Permit
from fieldloom.registry import build
from fieldloom.settings import IMAGE_SETS, Evaluation


def build_detector(
    settings: Evaluation, smallest: int, permit: Permit = NOTHING
) -> Detector | None:
    """The detector of the set metrics of images; None where no such metric is asked for.

    smallest: how many images the smaller of the two sets has. Up to 3 are too few: None, with a
    warning. Raises InputError where the detector cannot be had.
    """
    if not set(IMAGE_SETS) & set(settings.metrics):
        return None
    if smallest <= 3:
        warnings.warn("set metrics need more than 3 data and samples: left out.", stacklevel=2)
        return None
    weights = {"weights": settings.weights} if settings.weights else {}
    spec = {"name": settings.detector} | weights
    return build("detector", spec, {"detector": DETECTORS}, permit)


def describe_detector(detector: Detector, filter: str) -> str:
    """What features are, for a metric. filter: with which the source resized its images."""
    return f"{detector.name}, resized {detector.filter}; data resized {filter}"


def image_set_metrics(
    settings: Evaluation,
    detector: Detector,
    real: Iterable[Tensor],
    fake: Tensor,
    of: str,
    filter: str,
) -> list[Metric]:
    """The set metrics that are asked for, of images (n, channel, height, width) in [0, 1].

    real: a part at a time, since a training set may be larger than memory.
    """
    how = describe_detector(detector, filter)
    true, made = torch.cat([detector(part).cpu() for part in real]), detector(fake).cpu()
    metrics = []
    if "frechet" in settings.metrics:
        metrics.append(Metric(detector.metric, frechet(true, made), of, how))
    if "kid" in settings.metrics:
        metrics.append(Metric("kid", kid(true, made), of, how))
    if "precision-recall" in settings.metrics:
        found = prdc(true, made)
        metrics += [Metric(name, value, of, f"{how}, k = 3") for name, value in found.items()]
    return metrics
