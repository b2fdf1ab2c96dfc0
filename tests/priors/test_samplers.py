"""Samplers: against diffusers' schedulers, and what holds without an oracle."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Generator

from diffusions import diffusion
from fieldloom.errors import InputError
from fieldloom.priors.samplers import SAMPLERS


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
    with pytest.raises(InputError, match="steps=61 is not right: it is from 1 to 60"):
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
