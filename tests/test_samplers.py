"""Schedules and samplers: against diffusers' schedulers, and what holds without an oracle."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from fieldloom.errors import InputError
from fieldloom.priors import Diffusion
from fieldloom.priors.samplers import SAMPLERS
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


class Smooth(nn.Module):
    """Some function of code and time, in place of a trained network."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, code: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.7 * code.tanh() + 0.2 * torch.sin(0.01 * time)[:, None, None]


def diffusion(**own: Any) -> Diffusion:
    return Diffusion((2, 5), Smooth(), **own)


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


@pytest.mark.parametrize("total", [2, 7, 60, 1000])
def test_any_number_of_steps_visits_times_from_the_noisiest(total: int) -> None:
    """Trailing times begin at T - 1, leading times end at 0; they fall, about evenly."""
    prior = diffusion(steps=total)
    for steps in {1, 2, total // 3, total // 2 + 1, total - 1, total} - {0}:
        for sampler in ("ddim", "ddpm"):
            trailing, leading = (
                prior.times(sampler, steps, spacing) for spacing in ("trailing", "leading")
            )
            assert (trailing[0], leading[-1]) == (total - 1, 0)
            for times in (trailing, leading):
                assert len(times) == steps
                gaps = [a - b for a, b in pairwise(times)]
                assert all(total // steps <= gap <= -(-total // steps) for gap in gaps)
        for spacing in ("trailing", "leading"):
            times = prior.times("dpm++", steps, spacing)
            assert 1 <= len(times) <= steps
            assert 0 <= times[-1] <= times[0] < total
            assert all(a > b for a, b in pairwise(times))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("steps", [1, 37, 60, 77])
@torch.no_grad()
def test_steps_that_do_not_divide_give_codes(sampler: str, spacing: str, steps: int) -> None:
    """Steps that are no divisors, all of them, and one: numbers, as few as there are times."""
    prior = diffusion(steps=77, predict="v")
    found = prior.sample(3, steps=steps, sampler=sampler, spacing=spacing)
    assert found.isfinite().all()


def test_fifty_steps_unless_asked_otherwise() -> None:
    assert len(diffusion(steps=60).times("ddim", None, "trailing")) == 50
    assert len(diffusion(steps=20).times("ddim", None, "trailing")) == 20
    assert len(diffusion(steps=60).times("ddpm", None, "trailing")) == 60
    with pytest.raises(InputError, match="steps = 61: from 1 to 60"):
        diffusion(steps=60).times("ddpm", 61, "trailing")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_stay_on_the_device_of_the_codes(sampler: str) -> None:
    """On ``meta`` nothing can be read back; noise is drawn on the CPU all the same."""
    prior = diffusion(steps=20)
    x, generator = torch.empty(3, 2, 5, device="meta"), Generator().manual_seed(0)
    abar = [*prior.alphas_cumprod.tolist(), 1.0]
    seen: list[str] = []
    denoise = lambda x, t: (seen.append(x.device.type), x.tanh())[1]
    end = SAMPLERS[sampler](denoise, x, abar, prior.times(sampler, 5, "trailing"), generator)
    assert end.device.type == "meta"
    assert set(seen) == {"meta"}
    drawn = not torch.equal(generator.get_state(), Generator().manual_seed(0).get_state())
    assert drawn == (sampler == "ddpm")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("betas", [(1e-9, 1e-9), (0.9, 0.99)])
@torch.no_grad()
def test_betas_that_round_to_all_or_nothing_give_numbers(
    sampler: str, betas: tuple[float, float]
) -> None:
    prior = diffusion(steps=100, schedule="linear", betas=betas, predict="v")
    assert prior.sample(3, sampler=sampler).isfinite().all()
