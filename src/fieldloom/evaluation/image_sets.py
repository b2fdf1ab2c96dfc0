"""Sets of images: metrics in the features of a detector, of images and of rendered views."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable

from torch import Tensor

from fieldloom.evaluation.data_features import data_features, gather_features
from fieldloom.evaluation.results import Metric
from fieldloom.metrics.detectors import DETECTORS, Detector, choose_detector
from fieldloom.metrics.sets import Moments, frechet, kid, kid_error, prdc
from fieldloom.permit import NOTHING, Permit
from fieldloom.registry import build
from fieldloom.settings import IMAGE_SETS, Evaluation

NEAR, WIDE = 3, 5
"""The k-th neighbour up to which balls reach: of precision and recall, of density and coverage."""


def build_detector(
    settings: Evaluation, smallest: int, permit: Permit = NOTHING
) -> Detector | None:
    """The detector of the set metrics of images; None where no such metric is asked for.

    smallest: how many images the smaller of the two sets has. Up to 3 are too few (for density and
    coverage up to 5): None, with a warning. Raises InputError where the detector cannot be had.
    """
    asked = set(IMAGE_SETS) & set(settings.metrics)
    if not asked:
        return None
    least = WIDE if "density-coverage" in asked else NEAR
    if smallest <= least:
        warnings.warn(
            f"set metrics need more than {least} data and samples: left out.", stacklevel=2
        )
        return None
    weights = {"weights": settings.weights} if settings.weights else {}
    name = choose_detector() if settings.detector is None else settings.detector
    return build("detector", {"name": name} | weights, {"detector": DETECTORS}, permit)


def describe_detector(detector: Detector, filter: str) -> str:
    """What features are, for a metric. filter: with which the source resized its images."""
    return f"{detector.name}, resized {detector.filter}; data resized {filter}"


def describe_frechet(detector: Detector, filter: str, smallest: int, width: int) -> str:
    """As ``describe_detector``, and whether the smaller set is too small for a Frechet distance.

    width: of the features. Of fewer images than features the distance has a large positive bias.
    """
    how = describe_detector(detector, filter)
    if smallest > width:
        return how
    return f"{how}; {smallest} images of {width} features: biased upwards, kid is not"


def image_set_metrics(
    settings: Evaluation,
    detector: Detector,
    real: Iterable[Tensor],
    fake: Iterable[Tensor],
    of: str,
    filter: str,
) -> list[Metric]:
    """The set metrics that are asked for, of images (n, channel, height, width) in [0, 1].

    real: a part at a time, since a set may be larger than memory. fake: features (n, d) of the
    others, a part at a time.
    """
    alone = set(IMAGE_SETS) & set(settings.metrics) == {"frechet"}
    true = gather_features(data_features(detector, real), alone)
    made = gather_features(fake, alone)
    if isinstance(true, Tensor) and isinstance(made, Tensor):
        return feature_set_metrics(settings.metrics, detector, true, made, of, filter)
    return [_frechet_metric(detector, true, made, of, filter)]


def _frechet_metric(
    detector: Detector, true: Tensor | Moments, made: Tensor | Moments, of: str, filter: str
) -> Metric:
    """The Frechet distance of two sets, of features (n, d) or of their moments."""
    sizes = [tuple(x.shape) if isinstance(x, Tensor) else (x.size, len(x.mean))
             for x in (true, made)]  # fmt: skip
    how = describe_frechet(detector, filter, min(n for n, _ in sizes), sizes[0][1])
    return Metric(detector.metric, frechet(true, made), of, how)


def feature_set_metrics(
    asked: Collection[str], detector: Detector, true: Tensor, made: Tensor, of: str, filter: str
) -> list[Metric]:
    """The set metrics that are asked for, of features (n, d) of data and of what was made."""
    how, metrics = describe_detector(detector, filter), []
    if "frechet" in asked:
        metrics.append(_frechet_metric(detector, true, made, of, filter))
    if "kid" in asked:
        metrics.append(Metric("kid", kid(true, made), of, how))
        error = kid_error(true, made)
        metrics.append(Metric("kid.error", error, of, "standard error of kid, by the jackknife"))
    near = prdc(true, made, NEAR) if "precision-recall" in asked else {}
    wide = prdc(true, made, WIDE) if "density-coverage" in asked else {}
    found = {name: (value, NEAR) for name, value in near.items()}
    found |= {name: (wide[name], WIDE) for name in ("density", "coverage") if wide}
    return metrics + [
        Metric(name, value, of, f"{how}, k = {k}") for name, (value, k) in found.items()
    ]
