"""A diffusion prior on codes."""

from __future__ import annotations

from functools import cached_property
from math import sqrt
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from fieldloom import memory
from fieldloom.codecs import Codec
from fieldloom.constants import place
from fieldloom.errors import InputError, name_argument
from fieldloom.priors.prior import Prior
from fieldloom.priors.samplers import SAMPLERS
from fieldloom.priors.schedules import (
    Spacing,
    accumulate_alphas,
    clipped_times,
    cosine_betas,
    leading_times,
    linear_betas,
    trailing_times,
)
from fieldloom.types import Code

STEP_BYTES = 64
"""Bytes per step of the forward process while its schedule is computed."""


class Diffusion(Prior):
    """Denoising diffusion over encoded codes (arXiv:2006.11239).

    denoiser: (noisy code, time, label) -> the prediction (see ``fieldloom.denoisers``).
    steps:    number of steps of the forward process (T).
    schedule: ``cosine`` (arXiv:2102.09672, eq. 17) or ``linear``.
    betas:    first and last beta of the linear schedule; None is (1e-4, 0.02) * 1000 / steps, so
              that no signal is left at the end, for any number of steps.
    predict:  what the denoiser predicts: the clean code ``x0`` (mNIF), the noise ``eps``, or ``v``
              (arXiv:2202.00512).
    label_dropout: fraction of training labels that are replaced by "any class", for guidance.

    Raises InputError for numbers out of these ranges, and for ``eps`` with ``cosine``.
    """

    trained = True
    capturable = True

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
        memory.require(steps * STEP_BYTES)
        self.denoiser, self.steps, self.label_dropout = denoiser, steps, label_dropout
        self.predict, self.schedule = predict, schedule
        self.ends = betas or (min(0.1 / steps, 0.5), min(20 / steps, 0.999))

    @cached_property
    def betas(self) -> Tensor:
        """beta_t of the forward process: (steps,) float32."""
        if self.schedule == "cosine":
            return cosine_betas(self.steps)
        return linear_betas(self.steps, *self.ends)

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """abar_t, the cumulative products of 1 - beta: (steps,) float32."""
        return accumulate_alphas(self.betas)

    def add_noise(self, clean: Code, noise: Tensor, time: Tensor) -> Code:
        """The noisy code sqrt(abar_t) x0 + sqrt(1 - abar_t) eps, at times (batch,)."""
        abar = self._alphas_at(time, clean)
        return abar.sqrt() * clean + (1 - abar).sqrt() * noise

    def _alphas_at(self, time: Tensor, clean: Code) -> Tensor:
        """abar_t at times (batch,), with the codes' device and dtype: (batch, 1, 1)."""
        return place(self.alphas_cumprod, clean.device, clean.dtype)[time].view(-1, 1, 1)

    def target(self, clean: Code, noise: Tensor, time: Tensor) -> Code:
        """The denoiser's training target: x0, eps, or v = sqrt(abar) eps - sqrt(1 - abar) x0."""
        if self.predict == "x0":
            return clean
        if self.predict == "eps":
            return noise
        abar = self._alphas_at(time, clean)
        return abar.sqrt() * noise - (1 - abar).sqrt() * clean

    def estimate_clean(self, predicted: Tensor, x: Code, abar: float) -> Code:
        """The clean code of a prediction at the noisy code x: ``target`` solved for x0."""
        if self.predict == "x0":
            return predicted
        if self.predict == "eps":
            return (x - sqrt(1 - abar) * predicted) / sqrt(abar)
        return sqrt(abar) * x - sqrt(1 - abar) * predicted

    def loss(self, code: Code, label: Tensor | None = None) -> Tensor:
        """Unweighted squared error at a uniform time, the mean over each code: (batch,)."""
        clean = self.codec.encode(code)
        time = torch.randint(self.steps, (len(code),), device=code.device)
        noise = torch.randn_like(clean)
        if self.classes:
            label = torch.full_like(time, self.classes) if label is None else label
            dropped = torch.rand(len(code), device=code.device) < self.label_dropout
            label = label.masked_fill(dropped, self.classes)
        predicted = self._predict(self.add_noise(clean, noise, time), time, label)
        return (predicted - self.target(clean, noise, time)).square().flatten(1).mean(1)

    def denoise(self, code: Code, time: Tensor, label: Tensor, tokens: int = 4096) -> Code:
        """The denoiser's prediction, computed for about ``tokens`` tokens of codes at a time.

        The activations of a transformer then fit into memory for any number of codes; smaller
        pieces are not faster.
        """
        each = max(1, tokens // max(1, code.shape[1]))
        pieces = zip(code.split(each), time.split(each), label.split(each), strict=True)
        return torch.cat([self._predict(*piece) for piece in pieces])

    def _predict(self, noisy: Code, time: Tensor, label: Tensor | None) -> Code:
        """The denoiser's prediction. Raises InputError where it has another shape than codes."""
        predicted = self.denoiser(noisy, time, label)
        if predicted.shape != noisy.shape:
            raise InputError(
                f"denoiser {type(self.denoiser).__name__} gave the shape {tuple(predicted.shape)}, "
                f"where (batch, tokens, width) of the noisy codes is {tuple(noisy.shape)}."
            )
        return predicted

    def times(self, sampler: str, steps: int | None, spacing: Spacing) -> list[int]:
        """The times that a sampler visits, from the noisiest on.

        Raises InputError for an unknown sampler, and for a number of steps out of range.
        """
        if sampler not in SAMPLERS:
            raise InputError(
                f"{name_argument('sampler', sampler)} is none of {', '.join(SAMPLERS)}."
            )
        if steps is None:
            steps = self.steps if sampler == "ddpm" else min(50, self.steps)
        if not 1 <= steps <= self.steps:
            raise InputError(
                f"{name_argument('steps', steps)} is not right: it is from 1 to {self.steps}."
            )
        if sampler == "dpm++":
            return clipped_times(self.alphas_cumprod, steps, spacing)
        return (leading_times if spacing == "leading" else trailing_times)(steps, self.steps)

    def draw(
        self,
        count: int,
        label: Tensor | None,
        generator: Generator | None,
        guidance: float = 1.0,
        steps: int | None = None,
        sampler: str = "ddim",
        spacing: Spacing = "trailing",
    ) -> Code:
        """Run the sampler backwards from noise.

        guidance: uncond + g (cond - uncond); 1 is plain conditional sampling.
        steps:    None is 50 at most for ``ddim`` and ``dpm++``, all of them for ``ddpm``.
        spacing:  the times of fewer steps: ``leading`` as in published DDIM, or ``trailing``, which
                  includes the noisiest time, where x starts.
        """
        times = self.times(sampler, steps, spacing)
        if guidance != 1 and label is None:
            raise InputError(
                f"{name_argument('guidance', guidance)} needs {name_argument('label')} to guide to."
            )
        device = next(self.denoiser.parameters()).device
        any_class = torch.full((count,), self.classes, device=device)
        label = any_class if label is None else label.to(device)
        # clamped, since extreme betas round to 0 and 1, and samplers divide by abar and 1 - abar
        abar = [*self.alphas_cumprod.double().clamp(1e-30, 1 - 1e-12).tolist(), 1.0]

        def estimate(x: Tensor, t: int) -> Tensor:
            time = torch.full((count,), t, device=device)
            predicted = self.denoise(x, time, label)
            if guidance != 1:  # classifier-free guidance (arXiv:2207.12598, eq. 6)
                unconditional = self.denoise(x, time, any_class)
                predicted = unconditional + guidance * (predicted - unconditional)
            return self.estimate_clean(predicted, x, abar[t])

        # noise is drawn on the CPU, so that samples of a seed do not depend on the device
        x = torch.randn(count, *self.code_shape, generator=generator).to(device)
        return SAMPLERS[sampler](estimate, x, abar, times, generator)

    def skip(
        self, count: int, label: Tensor | None, generator: Generator | None, **options: Any
    ) -> None:
        noisy = 0
        if options.get("sampler") == "ddpm":
            how = options.get("steps"), options.get("spacing", "trailing")
            noisy = sum(t > 0 for t in self.times("ddpm", *how))
        for _ in range(1 + noisy):  # where x starts, and the noise of steps
            torch.randn(count, *self.code_shape, generator=generator)
