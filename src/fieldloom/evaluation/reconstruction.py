"""How close decoded data are to their originals."""

from __future__ import annotations

from torch import Tensor

from fieldloom.evaluation.figures import Figure
from fieldloom.evaluation.pictures import seen_by
from fieldloom.metrics.features import Detector
from fieldloom.metrics.paired import accuracy, iou, psnr, ssim, ssim_protocol
from fieldloom.metrics.sets import frechet
from fieldloom.settings import Evaluation


def image_metrics(
    how: Evaluation,
    originals: Tensor,
    raw: Tensor,
    of: str,
    detector: Detector | None,
    filter: str,
    prefix: str = "",
    unit: str = "datum",
) -> list[Figure]:
    """PSNR (not clamped; the mean of each datum's), SSIM, Frechet distance.

    prefix: of the figures' names (``novel.`` for views that were held out). unit: what a datum is.
    """
    figures = []
    if "psnr" in how.metrics:
        value = psnr(raw, originals).mean().item()
        figures.append(Figure(f"{prefix}psnr", value, of, f"dB, mean per {unit}"))
    if "ssim" in how.metrics and originals.ndim == 4:
        value = ssim(raw.clamp(0, 1), originals).mean().item()
        figures.append(Figure(f"{prefix}ssim", value, of, ssim_protocol(tuple(raw.shape[2:]))))
    if detector is not None and "frechet" in how.metrics and len(originals) > 1:
        value = frechet(detector(originals), detector(raw.clamp(0, 1)))
        figures.append(Figure(f"{prefix}r{detector.figure}", value, of, seen_by(detector, filter)))
    return figures


def video_metrics(how: Evaluation, originals: Tensor, raw: Tensor, of: str) -> list[Figure]:
    """SSIM of videos (n, channel, time, height, width): the mean of their frames'."""
    if "ssim" not in how.metrics:
        return []
    made, true = (x.movedim(2, 1).flatten(0, 1) for x in (raw.clamp(0, 1), originals))
    note = f"mean of frames, {ssim_protocol(tuple(raw.shape[3:]))}"
    return [Figure("ssim", ssim(made, true).mean().item(), of, note)]


def value_metrics(how: Evaluation, originals: Tensor, raw: Tensor, of: str) -> list[Figure]:
    """Squared error, accuracy and IoU of values."""
    figures = []
    if "mse" in how.metrics:
        value = (raw - originals).square().mean().item()
        figures.append(Figure("mse", value, of, "of values in [0, 1], mean"))
    if "accuracy" in how.metrics:
        value = accuracy(raw, originals).mean().item()
        figures.append(Figure("accuracy", value, of, "fraction of cells on the right side of 0.5"))
    if "iou" in how.metrics:
        value = iou(raw, originals).mean().item()
        figures.append(Figure("iou", value, of, "of cells above 0.5, mean per datum"))
    return figures
