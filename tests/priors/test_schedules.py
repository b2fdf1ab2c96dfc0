"""Schedules of noise, to the bit those of diffusers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from diffusions import diffusion
from fieldloom.priors import Diffusion
from vectors import same

SCHEDULERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ddpm": ("ddpm", "DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}),
    "ddim": ("ddim", "DDIMScheduler", {"clip_sample": False}),
    "dpm++": (
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        {"lambda_min_clipped": -5.1},
    ),
}
PREDICTS = [
    (schedule, predict)
    for schedule in ("cosine", "linear")
    for predict in ("x0", "eps", "v")
    if (schedule, predict) != ("cosine", "eps")
]


def oracle(prior: Diffusion, sampler: str, spacing: str) -> Any:
    """The scheduler of diffusers for the same forward process."""
    module, name, own = SCHEDULERS[sampler]
    scheduler = getattr(import_module(f"diffusers.schedulers.scheduling_{module}"), name)
    first, last = prior.ends
    return scheduler(
        num_train_timesteps=prior.steps,
        beta_schedule={"cosine": "squaredcos_cap_v2", "linear": "linear"}[prior.schedule],
        beta_start=first,
        beta_end=last,
        prediction_type={"x0": "sample", "eps": "epsilon", "v": "v_prediction"}[prior.predict],
        timestep_spacing=spacing,
        **own,
    )


def sample_by_oracle(
    prior: Diffusion, sampler: str, spacing: str, steps: int
) -> tuple[Tensor, list[int]]:
    """Codes of seed 0, and the times that were visited."""
    generator, scheduler = Generator().manual_seed(0), oracle(prior, sampler, spacing)
    scheduler.set_timesteps(steps)
    x = torch.randn(4, *prior.code_shape, generator=generator)
    for time in scheduler.timesteps:
        answer = prior.denoiser(x, time.expand(4))
        x = scheduler.step(answer, time, x, generator=generator)[0]
    return x, scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 3, 50, 100, 500, 1000, 4000])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedules_are_those_of_diffusers_to_the_bit(schedule: str, steps: int) -> None:
    """Runs that were trained with its numbers go on with the same ones."""
    prior = diffusion(schedule=schedule, steps=steps)
    scheduler = oracle(prior, "ddpm", "trailing")
    assert torch.equal(prior.betas, scheduler.betas)
    assert torch.equal(prior.alphas_cumprod, scheduler.alphas_cumprod)
    assert prior.alphas_cumprod.dtype == torch.float32


@pytest.mark.parametrize("betas", [(1e-4, 2e-2), (8.5e-4, 0.012), (0.3, 0.3)])
def test_given_betas_are_those_of_diffusers_to_the_bit(betas: tuple[float, float]) -> None:
    prior = diffusion(schedule="linear", steps=500, betas=betas)
    assert torch.equal(prior.alphas_cumprod, oracle(prior, "ddim", "leading").alphas_cumprod)


@pytest.mark.parametrize(("schedule", "predict"), PREDICTS)
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize(
    ("sampler", "total", "steps"),
    [("ddpm", 100, 100), ("ddpm", 1000, 50), ("ddim", 1000, 50), ("ddim", 100, 100),
     ("ddim", 60, 1), ("dpm++", 1000, 50), ("dpm++", 1000, 7), ("dpm++", 500, 130)],
)  # fmt: skip
@torch.no_grad()
def test_samplers_agree_with_diffusers(
    sampler: str, total: int, steps: int, spacing: str, schedule: str, predict: str
) -> None:
    prior = diffusion(steps=total, schedule=schedule, predict=predict)
    expected, times = sample_by_oracle(prior, sampler, spacing, steps)
    assert prior.times(sampler, steps, spacing) == times
    found = prior.sample(
        4, generator=Generator().manual_seed(0), sampler=sampler, steps=steps, spacing=spacing
    )
    same(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
