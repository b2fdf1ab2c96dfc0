"""Diffusion on codes; the schedules and samplers are those of diffusers."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.priors.codecs import Codec
from fieldloom.priors.prior import Prior
from fieldloom.types import Code

SAMPLERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ddpm": ("scheduling_ddpm", "DDPMScheduler", {"variance_type": "fixed_large"}),
    "ddim": ("scheduling_ddim", "DDIMScheduler", {"set_alpha_to_one": True}),
    # log(sqrt(abar) / sqrt(1 - abar)) is -inf at the end of cosine: clipped, as diffusers advises
    "dpm++": (
        "scheduling_dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        {"lambda_min_clipped": -5.1},
    ),
}


STEP = 64
"""Bytes of a step: what a schedule takes while it is made."""


class Diffusion(Prior):
    """Denoising diffusion over encoded codes (arXiv:2006.11239).

    denoiser: (noisy code, time, label) -> what ``predict`` says.
    steps:    T of the forward process.
    schedule: ``cosine`` (arXiv:2102.09672, eq. 17) or ``linear``.
    betas:    ends of the linear schedule; None is (1e-4, 0.02) * 1000 / steps, so that no signal
              is left at the end, whatever the steps.
    predict:  the clean code ``x0`` (mNIF), the noise ``eps``, or ``v`` (arXiv:2202.00512).
    label_dropout: the share of training labels that are replaced by "any", for guidance.
    """

    trained = True

    def __init__(
        self,
        code_shape: tuple[int, int],
        denoiser: nn.Module,
        classes: int = 0,
        codec: Codec | None = None,
        steps: int = 1000,
        schedule: Literal["cosine", "linear"] = "cosine",
        betas: tuple[float, float] | None = None,
        predict: Literal["x0", "eps", "v"] = "x0",
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__(code_shape, classes, codec)
        if steps < 2 or not 0 <= label_dropout <= 1:
            raise InputError(
                f"diffusion: steps = {steps} >= 2, label_dropout = {label_dropout} in [0, 1]."
            )
        if betas is not None and not 0 < betas[0] <= betas[1] < 1:
            raise InputError(
                f"diffusion: betas = {list(betas)}: between 0 and 1, the smaller one first."
            )
        if predict == "eps" and schedule == "cosine":
            raise InputError(
                "diffusion: predict = 'eps' divides by a signal that schedule = 'cosine' erases; "
                "take predict = 'v' or 'x0', or schedule = 'linear'."
            )
        memory.require(steps * STEP)
        self.denoiser, self.steps, self.label_dropout = denoiser, steps, label_dropout
        self.predict = predict
        first, last = betas or (min(0.1 / steps, 0.5), min(20 / steps, 0.999))
        self.config = {
            "num_train_timesteps": steps,
            "beta_schedule": {"cosine": "squaredcos_cap_v2", "linear": "linear"}[schedule],
            "beta_start": first,
            "beta_end": last,
            "prediction_type": {"x0": "sample", "eps": "epsilon", "v": "v_prediction"}[predict],
        }

    def scheduler(self, sampler: str = "ddpm", spacing: str = "trailing") -> Any:
        """A scheduler of diffusers over this forward process."""
        module, name, own = SAMPLERS[sampler]
        # late, and the scheduler's own module: the package around it takes seconds to import
        scheduler = getattr(import_module(f"diffusers.schedulers.{module}"), name)
        unclipped = {} if sampler == "dpm++" else {"clip_sample": False}
        return scheduler(**self.config, **own, **unclipped, timestep_spacing=spacing)

    @cached_property
    def alphas(self) -> Tensor:
        """The cumulative products of 1 - beta: (steps,) float32."""
        return self.scheduler().alphas_cumprod

    def noisy(self, clean: Code, noise: Tensor, time: Tensor) -> Code:
        """sqrt(abar_t) x0 + sqrt(1 - abar_t) eps."""
        abar = self.alphas.to(clean)[time].view(-1, 1, 1)
        return abar.sqrt() * clean + (1 - abar).sqrt() * noise

    def target(self, clean: Code, noise: Tensor, time: Tensor) -> Code:
        """What the denoiser should answer."""
        if self.predict == "x0":
            return clean
        if self.predict == "eps":
            return noise
        abar = self.alphas.to(clean)[time].view(-1, 1, 1)
        return abar.sqrt() * noise - (1 - abar).sqrt() * clean

    def loss(self, code: Code, label: Tensor | None = None) -> Tensor:
        """Unweighted squared error at a uniform time, the mean over each code: (batch,)."""
        clean = self.codec.encode(code)
        time = torch.randint(self.steps, (len(code),), device=code.device)
        noise = torch.randn_like(clean)
        if self.classes:
            label = torch.full_like(time, self.classes) if label is None else label
            dropped = torch.rand(len(code), device=code.device) < self.label_dropout
            label = label.masked_fill(dropped, self.classes)
        predicted = self.denoiser(self.noisy(clean, noise, time), time, label)
        return (predicted - self.target(clean, noise, time)).square().flatten(1).mean(1)

    def denoised(self, code: Code, time: Tensor, label: Tensor, tokens: int = 4096) -> Code:
        """The denoiser's answer, a few codes at a time: about ``tokens`` of theirs.

        A transformer's activations then fit the memory, whatever the count; smaller pieces are no
        faster.
        """
        each = max(1, tokens // max(1, code.shape[1]))
        pieces = zip(code.split(each), time.split(each), label.split(each), strict=True)
        return torch.cat([self.denoiser(*piece) for piece in pieces])

    def draw(
        self,
        count: int,
        label: Tensor | None,
        generator: Generator | None,
        guidance: float = 1.0,
        steps: int | None = None,
        sampler: str = "ddim",
        spacing: Literal["trailing", "leading"] = "trailing",
    ) -> Code:
        """Run the sampler backwards from noise.

        guidance: uncond + g (cond - uncond); 1 is plain conditional sampling.
        steps:    None is 50 or a little fewer for ``ddim`` and ``dpm++``, all of them for ``ddpm``.
        spacing:  which times fewer steps visit: ``leading`` as published DDIM, ``trailing`` from
                  the very noise that x starts as.
        """
        if sampler not in SAMPLERS:
            raise InputError(f"sampler '{sampler}' is none of {', '.join(SAMPLERS)}.")
        if steps is None:
            few = (n for n in range(min(50, self.steps), 0, -1) if self.steps % n == 0)
            steps = self.steps if sampler == "ddpm" else next(few)
        if not 1 <= steps <= self.steps:
            raise InputError(f"steps = {steps}: from 1 to {self.steps}.")
        if sampler == "ddim" and self.steps % steps:  # diffusers' DDIM jumps by whole T // steps
            divisors = (n for n in range(1, self.steps + 1) if self.steps % n == 0)
            near = min(divisors, key=lambda n: abs(n - steps))
            raise InputError(f"steps = {steps}: ddim takes a divisor of {self.steps}, as {near}.")
        if guidance != 1 and label is None:
            raise InputError(f"guidance = {guidance} needs a label to guide to.")
        device = next(self.denoiser.parameters()).device
        scheduler = self.scheduler(sampler, spacing)
        scheduler.set_timesteps(steps)
        anything = torch.full((count,), self.classes, device=device)
        chosen = anything if label is None else label.to(device)

        def answer(x: Tensor, time: Tensor) -> Tensor:
            conditional = self.denoised(x, time, chosen)
            if guidance == 1:
                return conditional
            free = self.denoised(x, time, anything)
            return free + guidance * (conditional - free)

        # noise is drawn on the CPU, so that a seed means the same on every device
        x = torch.randn(count, *self.code_shape, generator=generator)
        for time in scheduler.timesteps:
            out = answer(x.to(device), time.expand(count).to(device)).cpu()
            x = scheduler.step(out, time, x, **({"generator": generator} if generator else {}))[0]
        return x.to(device)
