"""How close a reconstruction is to its original: data (batch, channel, *axes) in [0, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor

from fieldloom.errors import InputError

Data = Float[Tensor, "batch channel *axes"]
PerSignal = Float[Tensor, " batch"]


def psnr(predicted: Data, true: Data) -> PerSignal:
    """Peak signal-to-noise ratio in dB, at most 80: -10 log10(max(mse, 1e-8))."""
    mse = (predicted - true).square().flatten(1).mean(1)
    return -10 * mse.clamp_min(1e-8).log10()


def ssim(predicted: Data, true: Data) -> PerSignal:
    """Structural similarity, at most 1; ``ssim_protocol`` names its window (Wang et al., 2004)."""
    side = _window(tuple(true.shape[2:]))
    window = {"win_size": side} if side < 11 else {"gaussian_weights": True, "sigma": 1.5}
    scores = [
        structural_similarity(
            a, b, channel_axis=0, data_range=1.0, use_sample_covariance=False, **window
        )
        for a, b in zip(_arrays(predicted), _arrays(true), strict=True)
    ]
    return torch.tensor(scores, dtype=true.dtype, device=true.device)


def ssim_protocol(size: tuple[int, ...]) -> str:
    """The window with which ``ssim`` compares data of this size."""
    side = _window(size)
    return f"uniform {side}" if side < 11 else "gaussian 11, sigma 1.5"


def iou(predicted: Data, true: Data, threshold: float = 0.5) -> PerSignal:
    """Intersection over union of what is above the threshold, in [0, 1]; two empty sets give 1."""
    a, b = (predicted > threshold).flatten(1), (true > threshold).flatten(1)
    both, either = (a & b).sum(1), (a | b).sum(1)
    return torch.where(either > 0, both / either.clamp_min(1), 1.0).to(true.dtype)


def accuracy(predicted: Data, true: Data, threshold: float = 0.5) -> PerSignal:
    """Share of the values on the right side of the threshold, in [0, 1]."""
    same = (predicted > threshold) == (true > threshold)
    return same.flatten(1).to(true.dtype).mean(1)


def _window(size: tuple[int, ...]) -> int:
    """The side of the window: 11, or the largest odd number that fits into the shortest axis."""
    shortest = min(size, default=0)
    if shortest < 3:
        raise InputError(f"SSIM on data of size {size}: every axis needs at least 3 points.")
    return min(11, shortest - 1 + shortest % 2)


def _arrays(data: Tensor) -> list:
    return list(data.detach().cpu().double().numpy())
