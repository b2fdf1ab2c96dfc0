"""Samplers of diffusion models: from noise to a code, step by step.

``denoise(x, t)`` estimates the clean x_0 from the noisy x at time t. ``abar`` are the T numbers
abar_t as floats and one more, 1, at index -1: the clean end, "time -1". ``times`` are those that
the sampler visits, from the noisiest on. Everything stays on the device of ``x``, (batch, tokens,
width), except that noise is drawn on the CPU: samples of a seed do not depend on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Generator, Tensor

Denoise = Callable[[Tensor, int], Tensor]
CLEAN = -1
"""The time after the last step."""


def sample_ddpm(
    denoise: Denoise,
    x: Tensor,
    abar: Sequence[float],
    times: Sequence[int],
    generator: Generator | None = None,
) -> Tensor:
    """Ancestral sampling (arXiv:2006.11239, algorithm 2), with variances beta_t ("fixed large").

    Fewer times than T make each step one of the shorter chain (arXiv:2102.09672, eq. 19). Noise is
    left out at t = 0 alone, as diffusers does it: where the last time is a later one, its noise
    stays.
    """
    for t, s in pairwise([*times, CLEAN]):
        clean = denoise(x, t)
        alpha, beta = abar[t] / abar[s], 1 - abar[t] / abar[s]
        # eq. 7: the mean of q(x_s | x_t, x_0)
        mean = sqrt(abar[s]) * beta * clean + sqrt(alpha) * (1 - abar[s]) * x
        x = mean / (1 - abar[t])
        if t > 0:
            x = x + sqrt(beta) * torch.randn(x.shape, generator=generator).to(x)
    return x


def sample_ddim(
    denoise: Denoise,
    x: Tensor,
    abar: Sequence[float],
    times: Sequence[int],
    generator: Generator | None = None,
) -> Tensor:
    """Deterministic sampling (arXiv:2010.02502, eq. 12 with sigma_t = 0); nothing is drawn."""
    for t, s in pairwise([*times, CLEAN]):
        clean = denoise(x, t)
        noise = (x - sqrt(abar[t]) * clean) / sqrt(1 - abar[t])
        x = sqrt(abar[s]) * clean + sqrt(1 - abar[s]) * noise
    return x


def sample_dpm_solver(
    denoise: Denoise,
    x: Tensor,
    abar: Sequence[float],
    times: Sequence[int],
    generator: Generator | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2); nothing is drawn.

    With alpha_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t) and lambda_t = log(alpha_t / sigma_t).
    The first step has only one estimate, and the last one goes to lambda = infinity: both are of
    first order, which is DDIM's step.
    """
    log_snr = lambda t: math.inf if t == CLEAN else math.log(abar[t] / (1 - abar[t])) / 2
    before, h_before = x, 0.0
    for t, s in pairwise([*times, CLEAN]):
        clean = denoise(x, t)
        h = log_snr(s) - log_snr(t)
        estimate = clean
        if h_before > 0 and s != CLEAN:
            # (1 + 1 / (2 r)) clean - 1 / (2 r) before, with r = h_before / h
            estimate = clean + h / (2 * h_before) * (clean - before)
        ratio = sqrt((1 - abar[s]) / (1 - abar[t]))
        x = ratio * x - sqrt(abar[s]) * math.expm1(-h) * estimate
        before, h_before = clean, h
    return x


SAMPLERS = {"ddpm": sample_ddpm, "ddim": sample_ddim, "dpm++": sample_dpm_solver}
