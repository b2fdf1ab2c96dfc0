"""How close decoded data are to their originals."""

from __future__ import annotations

from math import inf

from torch import Tensor

from fieldloom.evaluation.figures import Evaluation, Figure
from fieldloom.evaluation.pictures import seen_by
from fieldloom.evaluation.shapes import clouds_of
from fieldloom.metrics.clouds import chamfer, find_failures
from fieldloom.metrics.features import Detector
from fieldloom.metrics.paired import accuracy, iou, psnr, ssim, ssim_protocol
from fieldloom.metrics.sets import frechet
from fieldloom.modalities import Modality, Voxels

SURFACE = 2048
"""Points of a surface that a reconstruction's Chamfer distance is measured with."""


def pictured(
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


def filmed(
    how: Evaluation, modality: Modality, originals: Tensor, raw: Tensor, of: str
) -> list[Figure]:
    """SSIM of films (n, channel, time, height, width): the mean of their frames'."""
    if "ssim" not in how.metrics or originals.ndim != 5 or isinstance(modality, Voxels):
        return []
    made, true = (x.movedim(2, 1).flatten(0, 1) for x in (raw.clamp(0, 1), originals))
    note = f"mean of frames, {ssim_protocol(tuple(raw.shape[3:]))}"
    return [Figure("ssim", ssim(made, true).mean().item(), of, note)]


def shaped(
    how: Evaluation, modality: Modality, originals: Tensor, raw: Tensor, of: str
) -> list[Figure]:
    """Squared error, accuracy and IoU of values; of grids the surfaces' Chamfer distance."""
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
    if "chamfer" in how.metrics and isinstance(modality, Voxels) and originals.ndim == 5:
        true, made = (clouds_of(modality, x, SURFACE) for x in (originals, raw))
        empty = find_failures(made) | find_failures(true)
        value = chamfer(made[~empty], true[~empty]).mean().item() if not empty.all() else inf
        note = f"squared, {SURFACE} points a surface; {int(empty.sum())} without surface left out"
        figures.append(Figure("chamfer", value, of, note))
        figures.append(Figure("empty", float(find_failures(made).sum()), of, "without a surface"))
    return figures
