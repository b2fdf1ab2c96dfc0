"""A stage of training: its section of a recipe, and what is a function of (seed, step) alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fieldloom.engine.device import Precision
from fieldloom.errors import InputError, quote
from fieldloom.registry import build

FASTEST = 1e6
"""The highest learning rate: what a step is multiplied by must still be a float32."""


def _check(rate: float, *decays: float, **others: float) -> None:
    """Raise InputError for a rate, for decays of averages, or for others, that are out of range."""
    if not 0 <= rate <= FASTEST:
        raise InputError(f"optimizer: rate = {rate:g}: from 0 to {FASTEST:g}.")
    if not all(0 <= decay < 1 for decay in decays):
        said = ", ".join(f"{decay:g}" for decay in decays)
        raise InputError(f"optimizer: betas and momentum lie in [0, 1), not at {said}.")
    for name, value in others.items():
        if not 0 <= value <= FASTEST:
            raise InputError(f"optimizer: {name} = {value:g}: from 0 to {FASTEST:g}.")


def adamw(
    parameters: list[nn.Parameter],
    rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    _check(rate, *betas, eps=eps, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, rate, betas, eps, weight_decay)


def adam(
    parameters: list[nn.Parameter],
    rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    _check(rate, *betas, eps=eps)
    return torch.optim.Adam(parameters, rate, betas, eps)


def sgd(
    parameters: list[nn.Parameter], rate: float = 1e-2, momentum: float = 0.0
) -> torch.optim.Optimizer:
    _check(rate, momentum)
    return torch.optim.SGD(parameters, rate, momentum)


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": adamw,
    "adam": adam,
    "sgd": sgd,
}

MOMENTS: Mapping[type, tuple[str, ...]] = {
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "step"),
    torch.optim.Adam: ("exp_avg", "exp_avg_sq", "step"),
    torch.optim.SGD: ("momentum_buffer",),
}
"""What an optimiser keeps of each parameter: tensors of its shape, and the number of its steps."""


Schedule = Literal["cosine", "constant", "step"]


@dataclass(frozen=True)
class Stage:
    """A section ``[train.X]`` of a recipe.

    steps, batch: optimiser steps, signals in each.
    optimizer: name and arguments; groups: what differs for a group of an objective's parameters
               (``groups.codes = { name = "sgd", rate = 1e-4, schedule = "constant" }``).
    schedule:  ``cosine`` to 0 over the steps, ``constant``, or ``step``: multiplied by ``factor``
               after every ``every`` steps (below 1: a fraction of all). warmup: linear, over so
               many steps.
    clip:      the largest norm of the gradient of a player. ema: decay of averaged weights, which
               become the result; 0 keeps none.
    points:    so many random points of each signal a step; None takes all. together: the same
               points of every signal of a batch.
    precision: of the forward pass; micro: signals at a time, None lets the machine's cache decide.
    partial:   every epoch ends with its remainder as a smaller batch, as released code often has
               it; otherwise batches run across the ends of epochs.
    save_every, log_every: steps between checkpoints and between lines of the log.
    """

    steps: int = 1000
    batch: int = 32
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "adamw"})
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedule: Schedule = "cosine"
    every: int | float = 1000
    factor: float = 0.1
    warmup: int = 0
    clip: float | None = None
    ema: float = 0.0
    points: int | None = None
    together: bool = False
    precision: Precision = "float32"
    micro: int | None = None
    partial: bool = False
    save_every: int = 1000
    log_every: int = 50

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "save_every", "log_every", "points", "micro")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"train: {name} = {value}: at least 1.")
        if not 0 < self.factor <= 1 or self.every <= 0:
            raise InputError(
                f"train: factor = {self.factor}, every = {self.every}: above 0, a factor at most 1."
            )
        if not 0 <= self.ema < 1 or self.warmup < 0 or (self.clip is not None and self.clip <= 0):
            raise InputError("train: ema is in [0, 1), warmup at least 0, clip positive.")


def parse_stage(name: str, spec: Any) -> Stage:
    """The checked section ``[train.name]``."""
    if not isinstance(spec, Mapping):
        raise InputError(f"train.{name} = {quote(spec)} is not right: it is a table.")
    return build(f"train.{name}", {"name": "stage", **spec}, {f"train.{name}": {"stage": Stage}})


def order(seed: int, step: int, count: int, batch: int, partial: bool = False) -> Tensor:
    """Places in the data of a step's signals: each epoch is a permutation from (seed, epoch)."""

    def epoch(number: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng((seed, number)).permutation(count))

    if partial:
        number, place = divmod(step, -(-count // batch))
        return epoch(number)[place * batch : (place + 1) * batch]
    parts, first = [], step * batch
    while batch > 0:
        number, place = divmod(first, count)
        parts.append(epoch(number)[place : place + batch])
        first, batch = first + len(parts[-1]), batch - len(parts[-1])
    return torch.cat(parts)


def seed_everything(*key: int) -> None:
    """Seed torch's generators: seed, stage, step, player, micro-batch (from 1; 0, 0: the data)."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def rate_at(step: int, stage: Stage, schedule: str) -> float:
    """What the learning rate is multiplied by at a step."""
    warm = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    if schedule == "constant":
        return warm
    if schedule == "step":
        every = stage.every if stage.every >= 1 else stage.every * stage.steps
        return warm * stage.factor ** (step // every)
    return warm * 0.5 * (1 + math.cos(math.pi * step / stage.steps))
