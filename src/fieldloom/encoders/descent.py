"""Encoders that train with the family: CAVIA's few steps of descent, and auto-decoding's table.

Each code descends on the loss of its own signal: the sum over the batch is differentiated, so that
the step of a signal does not depend on the size of the batch.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from fieldloom import memory
from fieldloom.encoders.encoder import Encoder, reconstruction_loss
from fieldloom.encoders.fit import Fit
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code, LossFn, Signal, draw_normal


class Cavia(Encoder):
    """A few gradient steps on the code, differentiated through in training (arXiv:1810.03642).

    z <- z - rate * clamp(s, *clamp) * d loss / d z, from the conditioner's origin.

    steps:   number of inner steps.
    second_order: whether training differentiates through the inner gradients.
    rate:    the step size.
    rates:   ``learned`` adds s, one rate for each channel of a code, shared by the steps (meta-SGD,
             arXiv:1707.09835), starting in U(0.005, 0.1); ``fixed`` is s = 1.
    clamp:   the range that s is clamped to.
    relative: whether a step is multiplied by the squared norm of the weight that it changes, which
             suits weights that the field normalizes (IPC; each factor of a code counts as a
             weight).
    noise:   std of Gaussian noise on the origin in training (mNIF released: 1e-4 on latents).
    reduction: ``signal``, or ``batch``: the inner loss is averaged over the batch as mNIF's
             released code does, so that in training a step depends on the size of its batch.
    checkpoint: whether training drops the graph of every step and computes it again in the backward
             pass: the same gradients, in the memory of one step. For renderers with many points a
             ray.
    batch:   the batch size by which reduction ``batch`` divides outside training, where a
             signal's code must not depend on the other signals; None: the number of signals.
    """

    def __init__(
        self,
        code_shape: tuple[int, int],
        steps: int = 3,
        second_order: bool = True,
        rate: float = 1.0,
        rates: Literal["learned", "fixed"] = "learned",
        clamp: tuple[float, float] = (0.0, 1.0),
        relative: bool = False,
        noise: float = 0.0,
        reduction: Literal["signal", "batch"] = "signal",
        checkpoint: bool = False,
        batch: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if steps < 0 or rate <= 0 or noise < 0 or clamp[0] > clamp[1]:
            raise InputError(
                f"cavia: steps = {steps}, rate = {rate}, noise = {noise}, clamp = {list(clamp)}: "
                "not negative, and clamp from the least to the most."
            )
        memory.require(steps * memory.OBJECT)  # of the graph that is differentiated
        self.steps, self.second_order, self.rate = steps, second_order, rate
        self.clamp, self.noise, self.batch, self.relative = clamp, noise, batch, relative
        self.independent, self.divisible = reduction == "signal", True
        self.checkpoint = checkpoint
        self.capturable = not checkpoint  # which reads the generator's state
        self.rates: nn.Parameter | None = None
        if rates == "learned":
            first = torch.empty(code_shape[1]).uniform_(0.005, 0.1, generator=generator)
            self.rates = nn.Parameter(first)

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        code = family.conditioner.origin(len(signal))
        if self.training and self.noise:
            code = code + self.noise * draw_normal(code.shape, None, code.device).to(code)
        return self.descend(code, signal, family, render, loss_fn)

    def descend(
        self, code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        """The codes after all steps from these (batch, tokens, width)."""
        differentiated = self.training and torch.is_grad_enabled()
        render = render if self.training else render.deterministic()
        step = self.rate if self.rates is None else self.rate * self.rates.clamp(*self.clamp)
        if not self.independent:
            trained = signal.whole or len(signal)
            step = step / (trained if self.training else self.batch or len(signal))

        def inner_step(code: Code) -> Code:
            twice = differentiated and self.second_order
            # of torch's attentions only the plain one can be differentiated twice
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if twice else nullcontext():
                if not differentiated or not code.requires_grad:  # descent needs a leaf of its own
                    code = code.detach().clone().requires_grad_()
                loss = reconstruction_loss(code, signal, family, render, loss_fn).sum()
                (grad,) = torch.autograd.grad(loss, code, create_graph=twice)
            scaled = step * family.conditioner.squared_norms(code) if self.relative else step
            return code - scaled * grad

        for _ in range(self.steps):
            if differentiated and self.checkpoint:
                code = checkpoint(inner_step, code, use_reentrant=False)
            else:
                code = inner_step(code)
        return code


class AutoDecode(Encoder):
    """A learned table of the training signals' codes; unseen signals are fitted (arXiv:1901.05103).

    signals: rows of the table.
    std:     of the initial codes around the origin (mNIF released: 0; GEM: 0.01).
    unseen:  how the code of a signal outside the table is found.

    The table is the optimizer group ``codes``, whose gradient the loop multiplies by the batch
    size.
    """

    capturable = True

    def __init__(
        self,
        code_shape: tuple[int, int],
        signals: int,
        std: float = 0.01,
        unseen: Encoder | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if signals < 1:
            raise InputError(
                "encoder 'autodecode' needs the number of training signals: give a source."
            )
        if std < 0:
            raise InputError(f"encoder.std = {std:g}: not negative.")
        self.table = nn.Parameter(std * torch.randn(signals, *code_shape, generator=generator))
        self.unseen = unseen or Fit()
        self.splits_batches = self.unseen.splits_batches

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        if self.training:
            return self.stored_codes(signal.index, family)
        return self.unseen(signal, family, render, loss_fn)

    def stored_codes(self, index: Tensor, family: Family) -> Code:
        rows = self.table[index] if self.rows is None else self.rows.read(index)
        return family.conditioner.origin(len(index)) + rows

    def code_parameters(self) -> list[nn.Parameter]:
        return [self.table]
