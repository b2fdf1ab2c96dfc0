"""Data too large to be held as floats: metrics and images from strips of their rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.evaluation.reconstruction import AREA_HOW, SNR_HOW
from fieldloom.evaluation.results import Metric, ReportImage, Result
from fieldloom.metrics.paired import INAUDIBLE, SILENCE, ssim, ssim_protocol
from fieldloom.modalities.sources import Source
from fieldloom.progress import Progress
from fieldloom.settings import Evaluation
from fieldloom.system import System
from fieldloom.types import Code, as_unit_floats

LIMIT = 1 << 22
"""Values of a datum beyond which it is measured by strips, each of no more."""

LONGEST, CROP = 1024, 512
"""Pixels of the longer side of the images of a report: of the whole, and of a part of it."""

WINDOW = 11
"""Rows of the windows that SSIM compares (``metrics.paired.ssim``)."""

WHOLE = {"accuracy", "iou", "chamfer"}
"""Metrics of shapes, which are found on the whole grid."""


def is_large(system: System, source: Source, settings: Evaluation) -> bool:
    """Whether data are measured in strips: large grids of a run without codes."""
    shape = source.data.shape[1:]
    if system.family.has_code or WHOLE & set(settings.metrics):
        return False
    return math.prod(shape) > LIMIT and (len(shape) == 2 or min(shape[-2:]) >= WINDOW)


def measure_in_strips(
    system: System, source: Source, indices: Tensor, codes: Code, settings: Evaluation, of: str
) -> Result:
    """Metrics of the data at these indices, decoded from ``codes`` in the same order; images of the
    first.
    """
    found = [measure_datum(system, source, indices[i : i + 1], codes[i : i + 1], settings)
             for i in range(len(indices))]  # fmt: skip
    mean = lambda numbers: sum(numbers) / len(numbers)
    metrics = []
    if "flip" in settings.metrics:
        warnings.warn(
            f"data of more than {LIMIT:,} values are measured in strips: 'flip' is left out.",
            stacklevel=2,
        )
    if "psnr" in settings.metrics:
        metrics.append(Metric("psnr", mean([x.psnr for x in found]), of, "dB, mean per datum"))
    if "snr" in settings.metrics and system.modality.fidelity == "snr":
        metrics.append(Metric("snr", mean([x.snr for x in found]), of, SNR_HOW))
    if "ws-psnr" in settings.metrics and found[0].weighted is not None:
        value = mean([decibels(x.weighted) for x in found if x.weighted is not None])
        metrics.append(Metric("ws-psnr", value, of, AREA_HOW))
    if "ssim" in settings.metrics and found[0].ssim_how:
        metrics.append(Metric("ssim", mean([x.ssim for x in found]), of, found[0].ssim_how))
    if "mse" in settings.metrics:
        value = mean([x.mse for x in found])
        metrics.append(Metric("mse", value, of, "of values in [0, 1], mean"))
    nothing = torch.empty(0, *source.data.shape[1:])
    return Result(metrics, nothing, nothing, codes, images=found[0].images)


class DatumMetrics(NamedTuple):
    """Metrics of one datum.

    power:    the mean square of its values' distance from silence.
    weighted: of maps on the sphere, the squared error weighted by area.
    ssim_how: the windows of its SSIM, empty where it has none.
    """

    mse: float
    power: float
    weighted: float | None
    ssim: float
    ssim_how: str
    images: Sequence[ReportImage]

    @property
    def psnr(self) -> float:
        """As ``metrics.paired.psnr``: in dB, at most 80."""
        return decibels(self.mse)

    @property
    def snr(self) -> float:
        """As ``metrics.paired.snr``: in dB."""
        signal, noise = (math.log10(max(4 * x, INAUDIBLE)) for x in (self.power, self.mse))
        return 10 * (signal - noise)


def decibels(mse: float) -> float:
    """PSNR in dB, at most 80, of a mean squared error."""
    return -10 * math.log10(max(mse, 1e-8))


def measure_datum(
    system: System, source: Source, index: Tensor, code: Code, settings: Evaluation
) -> DatumMetrics:
    """Compare a grid of the source, at index (1,), with its decoded code (1, tokens, width)."""
    stored = source.take(index).tensor[0]
    axes = tuple(stored.shape[1:])
    squares = power = weighted = 0.0
    areas = system.modality.areas(axes[0])
    ssims = StripSsim(axes) if "ssim" in settings.metrics and len(axes) in (2, 3) else None
    images = StripImages(axes, len(stored)) if can_be_drawn(axes, len(stored)) else None
    with Progress("measuring", axes[0], unit="rows") as progress:
        for first, made in system.strips(code, axes, values=LIMIT):
            true = as_unit_floats(stored[:, first : first + made.shape[1]])
            error = (made - true).square()
            squares += error.sum(dtype=torch.float64).item()
            power += (true - SILENCE).square().sum(dtype=torch.float64).item()
            if areas is not None:
                rows = error.sum((0, 2), dtype=torch.float64)
                weighted += (rows * areas[first : first + len(rows)]).sum().item()
            if ssims is not None:
                ssims.add(true, made)
            if images is not None:
                images.add(first, true, made)
            progress.update(first + made.shape[1])
    return DatumMetrics(
        squares / stored.numel(),
        power / stored.numel(),
        None if areas is None else weighted / stored.numel(),
        math.nan if ssims is None else ssims.mean,
        "" if ssims is None else describe_ssim(axes),
        [] if images is None else [*images.draw_pairs(), images.draw_error()],
    )


def can_be_drawn(axes: tuple[int, ...], channels: int) -> bool:
    """Whether data are images or videos, in grey or in colours."""
    return len(axes) in (2, 3) and channels in (1, 3)


def describe_ssim(axes: tuple[int, ...]) -> str:
    """The windows of SSIM in words, and for a video that it is the mean of its frames."""
    plain = ssim_protocol(axes[-2:])
    return plain if len(axes) == 2 else f"mean of frames, {plain}"


def draw_error(original: Tensor, raw: Tensor) -> list[ReportImage]:
    """The error map of a datum (channel, *axes), where one can be drawn; raw: not clamped."""
    axes = tuple(original.shape[1:])
    if not can_be_drawn(axes, len(original)):
        return []
    images = StripImages(axes, len(original))
    images.add(0, original, raw)
    return [images.draw_error()]


class StripSsim:
    """The SSIM of an image, or the mean of a video's frames', from strips as they come.

    Of an image it is the mean over all windows that lie inside. Each strip is joined to the last
    rows of the one before, so that every row of windows is seen once.
    """

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.is_video = len(axes) == 3
        self.total, self.count = 0.0, 0
        self.rest: Tensor | None = None

    @property
    def mean(self) -> float:
        return self.total / self.count

    def add(self, true: Tensor, made: Tensor) -> None:
        """Strips (channel, rows, ...) of the original and of what was made, not clamped."""
        pair = torch.stack([made.clamp(0, 1), true])
        if self.is_video:
            frames = ssim(*pair.movedim(2, 1))
            self.total, self.count = self.total + frames.sum().item(), self.count + len(frames)
            return
        pair = pair if self.rest is None else torch.cat([self.rest, pair], 2)
        rows = pair.shape[2] - WINDOW + 1
        if rows > 0:
            self.total += rows * ssim(pair[:1], pair[1:]).item()
            self.count += rows
            pair = pair[:, :, rows:]
        self.rest = pair.clone()


class BoxMeans:
    """Means over boxes of an image that comes as strips of rows: at most ``LONGEST`` pixels.

    axes: rows and columns of the image. side: of a box; those at the far edges may be cut.
    """

    def __init__(self, axes: tuple[int, ...], channels: int) -> None:
        self.axes, self.side = axes, -(-max(axes) // LONGEST)
        self.total = torch.zeros(channels, *(-(-n // self.side) for n in axes))

    def add(self, first: int, rows: Tensor) -> None:
        """Rows (channel, rows, columns) from row ``first`` on."""
        filled = F.pad(rows, (0, -rows.shape[2] % self.side))
        across = filled.unflatten(2, (-1, self.side)).sum(3)
        self.total.index_add_(1, torch.arange(first, first + rows.shape[1]) // self.side, across)

    def mean(self) -> Tensor:
        """(channel, rows / side, columns / side), rounded up."""
        down, across = (
            (axis - self.side * torch.arange(boxes)).clamp(max=self.side)
            for axis, boxes in zip(self.axes, self.total.shape[1:], strict=True)
        )
        return self.total / (down[:, None] * across)


class StripImages:
    """The images of a report: a large image, or a video's middle frame, and its original.

    The whole image and its error are shown as means over boxes, a part in the middle as it is.
    """

    def __init__(self, axes: tuple[int, ...], channels: int) -> None:
        self.axes, self.channels = axes[-2:], channels
        self.frames = axes[0] if len(axes) == 3 else 0
        self.whole = BoxMeans(self.axes, 2 * channels)
        self.wrong = BoxMeans(self.axes, 1)
        self.crop = [slice((n - min(n, CROP)) // 2, (n + min(n, CROP)) // 2) for n in self.axes]
        self.part: list[Tensor] = []

    def add(self, first: int, true: Tensor, made: Tensor) -> None:
        """Strips (channel, rows, ...) from row (of a video: frame) ``first`` on, not clamped."""
        error = (made - true).abs().mean(0, keepdim=True)
        if not self.frames:
            self.wrong.add(first, error)
            self._add_pair(first, true, made)
            return
        self.wrong.add(0, error.sum(1) / self.frames)
        middle = self.frames // 2 - first
        if 0 <= middle < true.shape[1]:
            self._add_pair(0, true[:, middle], made[:, middle])

    def _add_pair(self, first: int, true: Tensor, made: Tensor) -> None:
        both = torch.cat([true, made.clamp(0, 1)])
        self.whole.add(first, both)
        down, across = self.crop
        inside = slice(max(0, down.start - first), max(0, down.stop - first))
        self.part.append(both[:, inside, across].clone())

    def draw_pairs(self) -> list[ReportImage]:
        """The original and its reconstruction; where these are shrunk, also a part of full size."""
        what = f"The middle one of {self.frames} frames" if self.frames else "The original"
        beside = f"{what} (left) and its reconstruction (right)"
        whole, part = self.whole.mean().unflatten(0, (2, -1)), torch.cat(self.part, 1)
        if self.whole.side == 1:
            return [ReportImage("reconstructions.png", beside, whole)]
        small, large = (" x ".join(map(str, x.shape[-2:])) for x in (whole, part))
        return [
            ReportImage("reconstructions.png", f"{beside}, shrunk to {small}", whole),
            ReportImage(
                "crop.png", f"The {large} pixels in their middle", part.unflatten(0, (2, -1))
            ),
        ]

    def draw_error(self) -> ReportImage:
        """The mean absolute error, times a power of two that makes most of it visible."""
        error = self.wrong.mean()
        high = error.flatten().sort().values[int(0.995 * (error.numel() - 1))].item()
        factor = 2 ** max(0, math.floor(-math.log2(max(high, 2**-16))))
        of = "of all frames, " if self.frames else ""
        side = self.wrong.side
        boxes = f"of boxes of {side} x {side} pixels, " if side > 1 else ""
        how = f"Absolute error, mean {of}{boxes}of channels"
        how += f", {factor} times as bright" if factor > 1 else ""
        return ReportImage("error.png", how, (factor * error)[None], "reconstruction")
