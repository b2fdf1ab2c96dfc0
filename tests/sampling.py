"""One step of a sampler, from its loop."""

from __future__ import annotations

from torch import Tensor

from fieldloom.priors import Diffusion
from fieldloom.priors.samplers import CLEAN, SAMPLERS


def take_step(
    prior: Diffusion, sampler: str, x: Tensor, answer: Tensor, time: int, after: int
) -> Tensor:
    """x at the time ``after``, -1 for the end, from x at ``time`` and the denoiser's answer."""
    abar, met = [*prior.alphas_cumprod.tolist(), 1.0], []

    def denoise(x: Tensor, t: int) -> Tensor:
        met.append(x)
        return prior.estimate_clean(answer, x, abar[t])

    visited = [time] if after == CLEAN else [time, after]
    end = SAMPLERS[sampler](denoise, x, abar, visited)
    return [*met, end][1]
