"""Noise schedules of diffusion, and the times that samplers of fewer steps visit.

Times count from 0, the least noise, to T - 1. abar_t is the product of 1 - beta up to time t:
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (arXiv:2006.11239, eq. 4).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["trailing", "leading"]

LEAST_LOG_SNR = -5.1
"""log(sqrt(abar) / sqrt(1 - abar)) from which DPM-Solver++ starts: a cosine schedule ends at minus
infinity, where its steps are not defined. The value is that of diffusers."""


def cosine_betas(steps: int) -> Tensor:
    """min(1 - f(t + 1) / f(t), 0.999), f(t) = cos^2((t / T + 0.008) / 1.008 * pi / 2): (T,).

    Source: arXiv:2102.09672, eq. 17. Computed in float64, returned as float32.
    """
    signal = [math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(steps + 1)]
    betas = [min(1 - after / before, 0.999) for before, after in pairwise(signal)]
    return torch.tensor(betas, dtype=torch.float32)


def linear_betas(steps: int, first: float, last: float) -> Tensor:
    """From ``first`` to ``last`` evenly (arXiv:2006.11239, section 4): (T,) float32."""
    return torch.linspace(first, last, steps, dtype=torch.float32)


def accumulate_alphas(betas: Tensor) -> Tensor:
    """abar_t, the cumulative products of 1 - beta: (T,) float32.

    The product is computed in float32, as in diffusers, so that runs that were trained with its
    numbers continue with the same ones to the bit.
    """
    return (1 - betas).cumprod(0)


def trailing_times(steps: int, total: int, last: int | None = None) -> list[int]:
    """``steps`` times, evenly back from the noisiest, T - 1 (arXiv:2305.08891, table 2).

    last: start at the time ``last`` - 1 instead, with the same spacing; times below 0 are left out,
    so that there may be fewer.
    """
    times = [round((last or total) - i * total / steps) - 1 for i in range(steps)]
    return [time for time in times if time >= 0]


def leading_times(steps: int, total: int) -> list[int]:
    """``steps`` times, evenly down to 0, as published for DDIM; the noisiest is not among them."""
    return [i * total // steps for i in reversed(range(steps))]


def clipped_times(alphas: Tensor, steps: int, spacing: Spacing) -> list[int]:
    """Times of DPM-Solver++, whose log signal-to-noise ratio is at least ``LEAST_LOG_SNR``.

    alphas: abar_t, (T,).
    """
    abar = alphas.double()
    last = max(1, int(((abar / (1 - abar)).log() / 2 >= LEAST_LOG_SNR).sum()))
    if spacing == "trailing":
        return trailing_times(steps, len(alphas), last)
    steps = min(steps, max(1, last - 1))
    return [i * max(1, last // (steps + 1)) for i in range(steps, 0, -1)]
