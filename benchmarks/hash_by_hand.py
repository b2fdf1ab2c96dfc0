"""A hash grid by hand in plain PyTorch: what a fit of a picture, a video or a sound must beat.

Levels, hash and perceptron as in arXiv:2201.05989; Adam on all of the tables at every step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRIMES = (1, 2654435761, 805459861)
LEVELS, ROWS, POINTS = 12, 1 << 18, 1 << 14


class HashGrid(nn.Module):
    """(points, dimensions) in [0, 1] -> (points, channels)."""

    def __init__(self, dimensions: int, finest: int, channels: int) -> None:
        super().__init__()
        growth = (finest / 16) ** (1 / (LEVELS - 1))
        self.cells = [int(16 * growth**level) for level in range(LEVELS)]
        self.tables = nn.Parameter(1e-4 * (2 * torch.rand(LEVELS, ROWS, 2) - 1))
        self.corners = torch.tensor(list(product((0, 1), repeat=dimensions)))
        self.primes = torch.tensor(PRIMES[:dimensions])
        layers = [nn.Linear(2 * LEVELS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(64, channels))

    def forward(self, places: Tensor) -> Tensor:
        features = []
        for table, cells in zip(self.tables, self.cells, strict=True):
            scaled = places[:, None] * cells
            vertices = scaled.floor().long() + self.corners
            weights = (1 - (scaled - vertices).abs()).prod(-1, keepdim=True)
            if (cells + 1) ** places.shape[1] <= ROWS:
                strides = (cells + 1) ** torch.arange(places.shape[1])
                rows = (vertices * strides).sum(-1)
            else:
                hashed = vertices * self.primes
                rows = hashed[..., 0]
                for axis in range(1, places.shape[1]):
                    rows = rows ^ hashed[..., axis]
                rows = rows % ROWS
            features.append((weights * F.embedding(rows, table)).sum(1))
        return self.network(torch.cat(features, 1))


def fit(data: Tensor, seconds: float, seed: int) -> tuple[Callable[[Tensor], Tensor], int, float]:
    """Fit data (channel, *axes) in [0, 1] for so many CPU seconds; rates fall as a cosine of them.

    Returns the values (points, channel) at flat indices, the steps, and the real CPU seconds.
    """
    torch.manual_seed(seed)
    axes = torch.tensor(data.shape[1:])
    flat = data.flatten(1)
    model = HashGrid(len(axes), int(axes.max()) // 2, len(data))
    adam = torch.optim.Adam(model.parameters(), 1e-2, betas=(0.9, 0.99), eps=1e-15)
    began, steps, spent = time.process_time(), 0, 0.0

    def values(chosen: Tensor) -> Tensor:
        where = torch.stack(torch.unravel_index(chosen, tuple(axes.tolist())), 1)
        return model((where + 0.5) / axes)

    while spent < seconds:
        adam.param_groups[0]["lr"] = 5e-3 * (1 + math.cos(math.pi * spent / seconds))
        chosen = torch.randint(flat.shape[1], (POINTS,))
        loss = (values(chosen) - flat[:, chosen].mT).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        steps, spent = steps + 1, time.process_time() - began
    return torch.no_grad()(values), steps, spent
