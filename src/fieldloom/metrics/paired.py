"""Metrics of reconstructions and their originals: data (batch, channel, *axes) in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.metrics.losses import PerSignal

Signals = Float[Tensor, "batch channel *axes"]

BLOCK = 2**18  # numbers of the images that are compared at a time, so that they fit the cache


def psnr(predicted: Signals, true: Signals) -> PerSignal:
    """Peak signal-to-noise ratio in dB, at most 80: -10 log10(max(mse, 1e-8))."""
    mse = (predicted - true).square().flatten(1).mean(1)
    return -10 * mse.clamp_min(1e-8).log10()


SILENCE, INAUDIBLE = 0.5, 1e-12
"""The value of silence in [0, 1]; powers below this part of full scale (-120 dB) count as that."""


def snr(predicted: Signals, true: Signals) -> PerSignal:
    """Signal-to-noise ratio of sound in dB: 10 log10(sum (x - silence)^2 / sum (x^ - x)^2).

    The energies are sums over samples and channels, as BSS Eval takes them (Vincent et al., 2006);
    silence is 0.5. Powers of less than -120 dB of full scale count as that: no ratio exceeds 120,
    and that of a silent original, which has no energy, is 0 at best.
    """
    powers = ((2 * x).square().flatten(1).mean(1) for x in (true - SILENCE, predicted - true))
    signal, noise = (power.clamp_min(INAUDIBLE).log10() for power in powers)
    return 10 * (signal - noise)


FIDELITY = {"psnr": psnr, "snr": snr}
"""Ratios in dB by which fits are logged and said: a modality's ``fidelity`` names its own."""


def ws_psnr(predicted: Signals, true: Signals, areas: Float[Tensor, " rows"]) -> PerSignal:
    """PSNR of maps of the sphere, each row weighted by its area (WS-PSNR: Sun et al., 2017).

    areas: of the rows, with a mean of 1. In dB, at most 80.
    """
    squares = (predicted - true).square() * areas.to(true).unsqueeze(1)
    return -10 * squares.flatten(1).mean(1).clamp_min(1e-8).log10()


def ssim(predicted: Signals, true: Signals) -> PerSignal:
    """Structural similarity, at most 1 (Wang et al., 2004); its window: see ``ssim_protocol``."""
    from skimage.metrics import structural_similarity  # late: importing it takes long

    side = _window(tuple(true.shape[2:]))
    window = {"win_size": side} if side < 11 else {"gaussian_weights": True, "sigma": 1.5}
    scores = [
        structural_similarity(
            a, b, channel_axis=0, data_range=1.0, use_sample_covariance=False, **window
        )
        for a, b in zip(_arrays(predicted), _arrays(true), strict=True)
    ]
    return torch.tensor(scores, dtype=true.dtype, device=true.device)


def ssim_between(
    a: Float[Tensor, "n channel height width"], b: Float[Tensor, "m channel height width"]
) -> Float[Tensor, "n m"]:
    """``ssim`` of every image of a (row) with every one of b (column), in float64 on the CPU."""
    windows = [_window_matrix(length, _window(tuple(b.shape[2:]))) for length in b.shape[2:]]
    smooth = lambda x: windows[0] @ x @ windows[1].T
    steady, faint = 0.01**2, 0.03**2
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    rows = [(one, smooth(one), smooth(one.square())) for one in a]
    columns = []
    for part in b.split(max(1, BLOCK // max(1, b.shape[1:].numel()))):
        mean, power = smooth(part), smooth(part.square())
        column = []
        for one, own_mean, own_power in rows:
            product, squares = own_mean * mean, own_mean.square() + mean.square()
            alike = (2 * product + steady) * (2 * (smooth(one * part) - product) + faint)
            score = alike / ((squares + steady) * (own_power + power - squares + faint))
            column.append(score.flatten(1).mean(1))
        columns.append(torch.stack(column))
    return torch.cat(columns, 1)


def ssim_protocol(size: tuple[int, ...]) -> str:
    """The window with which ``ssim`` compares data of this size."""
    side = _window(size)
    return f"uniform {side}" if side < 11 else "gaussian 11, sigma 1.5"


PIXELS_PER_DEGREE = 67.0
"""Of the viewer of ``flip``: a screen of 3840 pixels on 0.7 m, seen from 0.7 m."""


def flip(predicted: Signals, true: Signals) -> PerSignal:
    """How strongly each image differs from its original to one who flips between the two.

    The mean over pixels of the LDR-FLIP error, from 0 (no difference) to 1, of images (batch,
    1 | 3, height, width) of sRGB values, clamped to [0, 1]; grey is three equal channels. Source:
    Andersson et al., HPG 2020, by the package flip-evaluator.

    Raises InputError without that package, and for images of other channels.
    """
    evaluate = load_flip()
    if true.shape[1] not in (1, 3):
        raise InputError(f"FLIP of images of {true.shape[1]} channels: it is of 1 or 3.")
    pairs = [x.detach().cpu().float().clamp(0, 1).expand(-1, 3, -1, -1) for x in (true, predicted)]
    given = {"ppd": PIXELS_PER_DEGREE}
    errors = [
        evaluate(a, b, "LDR", applyMagma=False, parameters=given)[1]
        for a, b in zip(*(x.movedim(1, 3).contiguous().numpy() for x in pairs), strict=True)
    ]
    return torch.tensor(errors, dtype=true.dtype, device=true.device)


def load_flip() -> Callable[..., Any]:
    """The function of flip-evaluator. Raises InputError where it is not installed."""
    try:
        from flip_evaluator import evaluate
    except ImportError as reason:
        raise InputError(
            "Metric 'flip' needs the package flip-evaluator: pip install 'fieldloom[detector]'."
        ) from reason
    return evaluate


def iou(predicted: Signals, true: Signals, threshold: float = 0.5) -> PerSignal:
    """Intersection over union of what is above the threshold, in [0, 1]; two empty sets give 1."""
    a, b = (predicted > threshold).flatten(1), (true > threshold).flatten(1)
    both, either = (a & b).sum(1), (a | b).sum(1)
    return torch.where(either > 0, both / either.clamp_min(1), 1.0).to(true.dtype)


def accuracy(predicted: Signals, true: Signals, threshold: float = 0.5) -> PerSignal:
    """The fraction of the values on the true side of the threshold, in [0, 1]."""
    same = (predicted > threshold) == (true > threshold)
    return same.flatten(1).to(true.dtype).mean(1)


def _window(size: tuple[int, ...]) -> int:
    """The side of the window: 11, or the largest odd number that fits into the shortest axis."""
    shortest = min(size, default=0)
    if shortest < 3:
        raise InputError(f"SSIM on data of size {size}: every axis needs at least 3 points.")
    return min(11, shortest - 1 + shortest % 2)


def _window_matrix(length: int, side: int) -> Tensor:
    """The window of ``ssim`` at each position where it lies within an axis: (positions, length)."""
    away = torch.arange(side, dtype=torch.float64) - side // 2
    window = torch.ones_like(away) if side < 11 else (-(away / 1.5).square() / 2).exp()
    matrix = torch.zeros(length - side + 1, length, dtype=torch.float64)
    for start, row in enumerate(matrix):
        row[start : start + side] = window / window.sum()
    return matrix


def _arrays(data: Tensor) -> list:
    return list(data.detach().cpu().double().numpy())
