"""Stacks of fields that are fitted together: their size, Adam, plateaus and stopping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code

BETAS, EPS = (0.9, 0.999), 1e-8
"""Constants of Adam."""

LEAST_FALL = 1e-8
"""The least decrease of a learning rate; a smaller one is not made (torch's ``eps``)."""

CPU_LAYER = 2 << 20
"""Bytes of one hidden layer of a stack on a CPU."""

ACCELERATOR, LAYERS = 4 << 30, 32
"""Bytes of a stack on an accelerator, and the hidden layers assumed to be in memory at a time."""


def stack_size(family: Family, render: Renderer, points: int, on_cpu: bool) -> int:
    """How many fields, of ``points`` points each, are fitted as one stack: at least 1.

    On a CPU one hidden layer of the stack, points x width numbers a field, takes ``CPU_LAYER``
    bytes: fewer fields leave each operation's fixed cost to too few numbers, more push what one
    operation wrote out of the cache before the next one reads it. Measured (benchmarks/bulk.py, one
    thread of a shared machine): SIRENs 2-32-32-1 on 784 points do 430 field-steps/s alone, 1,500 in
    stacks of 20, 470 in one stack of 500. On an accelerator more is faster: there memory is the
    limit, of ``LAYERS`` layers (forward, backward) and the optimizer's five tensors a code.
    """
    layer = 4 * points * render.evaluations * family.widest
    if on_cpu:
        return max(1, CPU_LAYER // layer)
    tokens, numbers = family.code_shape
    return max(1, ACCELERATOR // (LAYERS * layer + 5 * 4 * tokens * numbers))


@dataclass(frozen=True)
class Plateau:
    """A field's learning rate falls where its loss no longer does (torch's ReduceLROnPlateau).

    The mean loss of each pass is compared with the best one before (``Fit`` defines a pass). It is
    better where it is below (1 - threshold) times that one.

    patience: passes that may not be better; after more, the rate falls.
    factor: by which it is multiplied then. least: the rate that it falls to at most.
    threshold: the part by which a loss must be below the best one to be better.
    stop: number of passes without a new lowest loss, after which a field stops; None: never.
    """

    patience: int = 10
    factor: float = 0.1
    threshold: float = 1e-4
    least: float = 0.0
    stop: int | None = None

    def __post_init__(self) -> None:
        wrong = self.patience < 0 or not 0 < self.factor < 1 or not 0 <= self.threshold < 1
        if wrong or self.least < 0 or (self.stop is not None and self.stop < 1):
            raise InputError(
                f"plateau: patience = {self.patience}, factor = {self.factor:g}, threshold = "
                f"{self.threshold:g}, least = {self.least:g}, stop = {self.stop}: factor in (0, 1),"
                " threshold in [0, 1), stop at least 1, none negative."
            )


@dataclass
class Stack:
    """The optimizer's state of signals that are fitted together: one row of each tensor a signal.

    place: the signal's index in its batch. rate: of Adam, 0 where a signal has stopped; first,
    second: the moments of Adam. lowest: the loss of ``best``, the best code so far. summed: losses
    since the last pass; level: the mean loss that counts as the plateau's best; record: the lowest
    mean loss; bad, stale: passes since each of these two. (Saved states of paused work have these
    names, which therefore stay.)
    """

    place: Tensor
    code: Tensor
    first: Tensor
    second: Tensor
    rate: Tensor
    best: Tensor
    lowest: Tensor
    summed: Tensor
    level: Tensor
    record: Tensor
    bad: Tensor
    stale: Tensor

    @classmethod
    def begin(cls, code: Code, rate: float | Tensor) -> Stack:
        zero, ever = code.new_zeros(len(code)), code.new_full((len(code),), torch.inf)
        never = torch.zeros_like(zero, dtype=torch.long)
        return cls(
            place=torch.arange(len(code), device=code.device),
            code=code,
            first=torch.zeros_like(code),
            second=torch.zeros_like(code),
            rate=zero + rate,
            best=code,
            lowest=ever,
            summed=zero,
            level=ever,
            record=ever,
            bad=never,
            stale=never,
        )

    def state(self) -> dict[str, Tensor]:
        """All of it, by name: what ``restore`` takes."""
        return {field.name: getattr(self, field.name).clone() for field in fields(self)}

    @classmethod
    def restore(cls, state: Mapping[str, Tensor]) -> Stack:
        return cls(*(state[field.name].clone() for field in fields(cls)))

    def take(self, rows: Tensor) -> Stack:
        """The signals of these rows, by their indices."""
        return Stack(*(getattr(self, field.name)[rows] for field in fields(self)))

    def keep_best(self, losses: Tensor) -> None:
        """Remember each code whose loss (batch,) is the lowest so far."""
        better = losses < self.lowest
        self.lowest = torch.where(better, losses, self.lowest)
        self.best = torch.where(better[:, None, None], self.code, self.best)

    def step(self, grad: Tensor, number: int, weight_decay: float) -> None:
        """One step of Adam (arXiv:1412.6980, algorithm 1) or AdamW (arXiv:1711.05101).

        grad: shaped as the code. number: of the step, from 1.
        """
        rate = self.rate[:, None, None]
        self.first.lerp_(grad, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
        spread = (self.second / (1 - BETAS[1] ** number)).sqrt_().add_(EPS)
        moved = self.code * (1 - rate * weight_decay) if weight_decay else self.code
        moved = moved - self.first / spread * (rate / (1 - BETAS[0] ** number))
        # what has stopped stays, even where its grad is no number
        self.code = torch.where(rate > 0, moved, self.code)

    def lower_rates(self, losses: Tensor, plateau: Plateau) -> None:
        """Lower the rates of signals on a plateau; stop those that have been there too long."""
        better = losses < self.level * (1 - plateau.threshold)
        self.level = torch.where(better, losses, self.level)
        self.bad = torch.where(better, 0, self.bad + 1)
        impatient = self.bad > plateau.patience
        lowered = (self.rate * plateau.factor).clamp_min(plateau.least)
        fall = impatient & (self.rate - lowered > LEAST_FALL)
        self.rate = torch.where(fall, lowered, self.rate)
        self.bad = torch.where(impatient, 0, self.bad)
        lower = losses < self.record
        self.record = torch.where(lower, losses, self.record)
        self.stale = torch.where(lower, 0, self.stale + 1)
        if plateau.stop is not None:
            self.rate = torch.where(self.stale >= plateau.stop, 0, self.rate)
