"""How close decoded values are to their originals.

``asked`` are the names of the metrics that a recipe asks for, ``of`` what the data are, for the
metric; ``raw`` are decoded values that were not clamped.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from fieldloom.evaluation.image_sets import describe_frechet
from fieldloom.evaluation.results import Metric
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


def image_metrics(
    asked: Collection[str],
    originals: Tensor,
    raw: Tensor,
    of: str,
    detector: Detector | None,
    filter: str,
    prefix: str = "",
    unit: str = "datum",
) -> list[Metric]:
    """PSNR (not clamped; the mean of each datum's), of images also SSIM, FLIP and Frechet distance.

    prefix: of the metrics' names (``novel.`` for views that were held out). unit: what a datum is.
    filter: with which the source resized its images.
    """
    metrics = []
    if "psnr" in asked:
        value = psnr(raw, originals).mean().item()
        metrics.append(Metric(f"{prefix}psnr", value, of, f"dB, mean per {unit}"))
    if "ssim" in asked and originals.ndim == 4:
        value = ssim(raw.clamp(0, 1), originals).mean().item()
        metrics.append(Metric(f"{prefix}ssim", value, of, ssim_protocol(tuple(raw.shape[2:]))))
    if "flip" in asked and originals.ndim == 4:
        value = flip(raw, originals).mean().item()
        metrics.append(Metric(f"{prefix}flip", value, of, FLIP_HOW))
    if detector is not None and "frechet" in asked and len(originals) > 1:
        true, made = detector(originals), detector(raw.clamp(0, 1))
        value, how = frechet(true, made), describe_frechet(detector, filter, *true.shape)
        metrics.append(Metric(f"{prefix}r{detector.metric}", value, of, how))
    return metrics


def frame_metrics(asked: Collection[str], originals: Tensor, raw: Tensor, of: str) -> list[Metric]:
    """SSIM of videos (n, channel, time, height, width): the mean of their frames'."""
    if "ssim" not in asked:
        return []
    made, true = (x.movedim(2, 1).flatten(0, 1) for x in (raw.clamp(0, 1), originals))
    how = f"mean of frames, {ssim_protocol(tuple(raw.shape[3:]))}"
    return [Metric("ssim", ssim(made, true).mean().item(), of, how)]


SNR_HOW = "dB, energies of all samples and channels, mean per datum"
AREA_HOW = "dB, rows weighted by their area, mean per datum"


def sound_metrics(asked: Collection[str], originals: Tensor, raw: Tensor, of: str) -> list[Metric]:
    """SNR of sound (not clamped; the mean of each datum's)."""
    if "snr" not in asked:
        return []
    return [Metric("snr", snr(raw, originals).mean().item(), of, SNR_HOW)]


def value_metrics(asked: Collection[str], originals: Tensor, raw: Tensor, of: str) -> list[Metric]:
    """Squared error, accuracy and IoU of values."""
    metrics = []
    if "mse" in asked:
        value = (raw - originals).square().mean().item()
        metrics.append(Metric("mse", value, of, "of values in [0, 1], mean"))
    if "accuracy" in asked:
        value = accuracy(raw, originals).mean().item()
        metrics.append(Metric("accuracy", value, of, "fraction of cells on the right side of 0.5"))
    if "iou" in asked:
        value = iou(raw, originals).mean().item()
        metrics.append(Metric("iou", value, of, "of cells above 0.5, mean per datum"))
    return metrics
