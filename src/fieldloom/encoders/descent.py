"""Encoders whose descent is trained: CAVIA, auto-decoding.

Each signal descends on its own error: the sum over the batch is differentiated, so that no signal's
step depends on how many others were in the batch.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from fieldloom import memory
from fieldloom.encoders.encoder import Encoder, error
from fieldloom.encoders.fit import Fit
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code, LossFn, Signal


class Cavia(Encoder):
    """A few gradient steps on the code, differentiated through in training (arXiv:1810.03642).

    z <- z - rate * clamp(s, *clamp) * d error / d z, from the conditioner's origin.

    steps:   of descent.
    second_order: whether training differentiates through the inner gradients.
    rate:    of a step.
    rates:   ``learned`` adds s, one rate for each channel of a code, shared by the steps (meta-SGD,
             arXiv:1707.09835), starting in U(0.005, 0.1); ``fixed`` is s = 1.
    clamp:   where s is held.
    relative: whether a step is multiplied by the squared length of the weight that it changes, as
             weights ask whose length the field normalises away (IPC; factors of a code are weights
             of their own).
    noise:   std of Gaussian noise on the origin in training (mNIF released: 1e-4 on latents).
    reduction: ``signal``, or ``batch``: the inner error is averaged over the batch as mNIF's
             released code does, so that in training a step depends on the size of its batch.
    checkpoint: whether training forgets the graph of every step and makes it again on the way back:
             the same gradients, in the memory of one step. For renderers with many points a ray.
    batch:   what ``batch`` divides by outside training, where a signal's code must not depend on
             its company; None: the signals at hand.
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
        memory.ask(steps * memory.OBJECT)  # of the graph that is differentiated
        self.steps, self.second_order, self.rate = steps, second_order, rate
        self.clamp, self.noise, self.batch, self.relative = clamp, noise, batch, relative
        self.independent = reduction == "signal"
        self.checkpoint = checkpoint
        self.rates: nn.Parameter | None = None
        if rates == "learned":
            drawn = torch.empty(code_shape[1]).uniform_(0.005, 0.1, generator=generator)
            self.rates = nn.Parameter(drawn)

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        code = family.conditioner.origin(len(signal))
        if self.training and self.noise:
            code = code + self.noise * torch.randn_like(code)
        return self.descend(code, signal, family, render, loss_fn)

    def descend(
        self, code: Code, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn
    ) -> Code:
        keep = self.training and torch.is_grad_enabled()
        render = render if self.training else render.deterministic()
        step = self.rate if self.rates is None else self.rate * self.rates.clamp(*self.clamp)
        if not self.independent:
            step = step / (len(signal) if self.training else self.batch or len(signal))

        def descended(code: Code) -> Code:
            twice = keep and self.second_order
            # of torch's attentions only the plain one can be differentiated twice
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if twice else nullcontext():
                if not keep or not code.requires_grad:  # descent needs a leaf of its own
                    code = code.detach().clone().requires_grad_()
                loss = error(code, signal, family, render, loss_fn).sum()
                (gradient,) = torch.autograd.grad(loss, code, create_graph=twice)
            long = step * family.conditioner.norms(code) if self.relative else step
            return code - long * gradient

        for _ in range(self.steps):
            if keep and self.checkpoint:
                code = checkpoint(descended, code, use_reentrant=False)
            else:
                code = descended(code)
        return code


class AutoDecode(Encoder):
    """A learned table of the training signals' codes; unseen signals are fitted (arXiv:1901.05103).

    signals: rows of the table.
    std:     of their start around the origin (mNIF released: 0; GEM: 0.01).
    unseen:  how the code of a signal outside the table is found.

    The table is the optimiser group ``codes``, whose gradient the loop multiplies by the batch
    size.
    """

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
        drawn = torch.randn(signals, *code_shape, generator=generator)
        self.table = nn.Parameter(std * drawn)
        self.unseen = unseen or Fit()
        self.splits_batches = self.unseen.splits_batches

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        if self.training:
            return self.stored_codes(signal.index, family)
        return self.unseen(signal, family, render, loss_fn)

    def stored_codes(self, index: Tensor, family: Family) -> Code:
        return family.conditioner.origin(len(index)) + self.table[index]
