"""Point clouds of known shapes, and those that failed."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

NAMES = {
    "cd": ("chamfer", True),
    "cdl2": ("chamfer", False),
    "emd": ("emd", False),
    "emdsq": ("emd", True),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def ellipsoids(count: int, points: int = 64, seed: int = 0) -> Tensor:
    """Random points on ellipsoids of random axes: (count, points, 3), in the ball of radius 0.5."""
    random = Generator().manual_seed(seed)
    x = torch.randn(count, points, 3, dtype=torch.float64, generator=random)
    axes = 0.1 + 0.35 * torch.rand(count, 1, 3, dtype=torch.float64, generator=random)
    return x / x.norm(dim=2, keepdim=True) * axes


def with_failures(clouds: Tensor, *places: int) -> Tensor:
    changed = clouds.clone()
    changed[list(places)] = math.nan
    return changed
