"""How close decoded values are to their originals: scores of parts of a set, joined in the end.

``asked`` are the names of the metrics that a recipe asks for; ``raw`` are decoded values that were
not clamped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from fieldloom.evaluation.image_sets import describe_frechet
from fieldloom.evaluation.results import FeaturePair, Metric, Score
from fieldloom.metrics.detectors import Detector
from fieldloom.metrics.paired import (
    PIXELS_PER_DEGREE,
    accuracy,
    flip,
    iou,
    psnr,
    snr,
    ssim,
    ssim_protocol,
)
from fieldloom.metrics.sets import frechet

FLIP_HOW = f"LDR-FLIP at {PIXELS_PER_DEGREE:g} pixels per degree, mean of pixels and images"


def image_scores(
    asked: Collection[str], originals: Tensor, raw: Tensor, prefix: str = "", unit: str = "datum"
) -> list[Score]:
    """PSNR (not clamped) of each datum, of images also SSIM and FLIP.

    prefix: of the names (``novel.`` for views that were held out). unit: what a datum is.
    """
    scores = []
    if "psnr" in asked:
        scores.append(Score(f"{prefix}psnr", psnr(raw, originals), f"dB, mean per {unit}"))
    if "ssim" in asked and originals.ndim == 4:
        protocol = ssim_protocol(tuple(raw.shape[2:]))
        scores.append(Score(f"{prefix}ssim", ssim(raw.clamp(0, 1), originals), protocol))
    if "flip" in asked and originals.ndim == 4:
        scores.append(Score(f"{prefix}flip", flip(raw, originals), FLIP_HOW))
    return scores


def frame_scores(asked: Collection[str], originals: Tensor, raw: Tensor) -> list[Score]:
    """SSIM of each frame of videos (n, channel, time, height, width)."""
    if "ssim" not in asked:
        return []
    made, true = (x.movedim(2, 1).flatten(0, 1) for x in (raw.clamp(0, 1), originals))
    return [Score("ssim", ssim(made, true), f"mean of frames, {ssim_protocol(raw.shape[3:])}")]


SNR_HOW = "dB, energies of all samples and channels, mean per datum"
AREA_HOW = "dB, rows weighted by their area, mean per datum"


def sound_scores(asked: Collection[str], originals: Tensor, raw: Tensor) -> list[Score]:
    """SNR of each sound (not clamped)."""
    return [Score("snr", snr(raw, originals), SNR_HOW)] if "snr" in asked else []


def value_scores(asked: Collection[str], originals: Tensor, raw: Tensor) -> list[Score]:
    """Squared error, accuracy and IoU of values."""
    scores = []
    if "mse" in asked:  # of a set of one part it is the mean of all its values, to the bit
        error = (raw - originals).square().mean().double().expand(len(raw))
        scores.append(Score("mse", error, "of values in [0, 1], mean"))
    if "accuracy" in asked:
        how = "fraction of cells on the right side of 0.5"
        scores.append(Score("accuracy", accuracy(raw, originals), how))
    if "iou" in asked:
        scores.append(Score("iou", iou(raw, originals), "of cells above 0.5, mean per datum"))
    return scores


def join_scores(parts: Sequence[Sequence[Score]]) -> list[Score]:
    """The scores of parts of a set as those of the set."""
    together = zip(*parts, strict=True)
    return [one[0]._replace(values=torch.cat([x.values for x in one])) for one in together]


def mean_metrics(scores: Sequence[Score], of: str) -> list[Metric]:
    """The means of scores. of: the data in words."""
    return [Metric(x.name, x.values.mean().item(), of + x.of, x.how) for x in scores]


def frechet_of_pairs(
    parts: Sequence[FeaturePair], detector: Detector, filter: str, of: str
) -> list[Metric]:
    """The Frechet distance of decoded images to their originals; none of fewer than 2.

    parts: features of parts of the set. filter: with which the source resized its images.
    """
    if not parts:
        return []
    true, made = torch.cat([x.true for x in parts]), torch.cat([x.made for x in parts])
    if len(true) < 2:
        return []
    value, how = frechet(true, made), describe_frechet(detector, filter, *true.shape)
    return [Metric(f"{parts[0].prefix}r{detector.metric}", value, of + parts[0].of, how)]
