"""Small sets of signals, and their distances by a slow reference."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from fieldloom.metrics.cloud_distances import chamfer, normalize_clouds
from fieldloom.metrics.paired import ssim


def pictures(count: int, seed: int = 0, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, 9, 8, generator=Generator().manual_seed(seed))


def clouds(count: int, seed: int = 0) -> Tensor:
    x = torch.randn(count, 24, 3, dtype=torch.float64, generator=Generator().manual_seed(seed))
    return 0.4 * x / x.norm(dim=2, keepdim=True) * torch.linspace(0.5, 1, count)[:, None, None]


def without(signals: Tensor, *places: int) -> Tensor:
    changed = signals.clone()
    changed[list(places)] = math.nan
    return changed


def far(a: Tensor, b: Tensor, measure: str) -> float:
    """The distance of two signals; infinite where one failed."""
    if a.isnan().any() or b.isnan().any():
        return math.inf
    if measure == "ssim":
        return (1 - ssim(a[None], b[None]).item()) / 2
    if measure == "pixels":
        return (a.double() - b.double()).square().sum().sqrt().item()
    return chamfer(normalize_clouds(a[None], "cloud"), normalize_clouds(b[None], "cloud")).item()
