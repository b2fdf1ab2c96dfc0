"""Optimisers; the order of data, seeds and learning rates as functions of (seed, step) alone.

Arguments that mean the same in all optimisers:

rate: the learning rate, which the stage's schedule multiplies.
betas: decays of the averages of gradients and of their squares.
eps: what is added to the root of the latter.
weight_decay: the part, times the rate, by which weights shrink at every step.
momentum: decay of the average of steps; 0: none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from fieldloom.engine.device import fuses_optimizers
from fieldloom.engine.matrixwise import Muon
from fieldloom.engine.rowwise import RowAdam
from fieldloom.errors import InputError
from fieldloom.settings import Stage

LARGEST = 1e6
"""The largest learning rate and weight decay: a step must still be a float32."""


def _check(rate: float, *decays: float, **others: float) -> None:
    """Raise InputError for a rate, for decays of averages, or for others, that are out of range."""
    if not 0 <= rate <= LARGEST:
        raise InputError(f"optimizer: rate = {rate:g}: from 0 to {LARGEST:g}.")
    if not all(0 <= decay < 1 for decay in decays):
        reason = ", ".join(f"{decay:g}" for decay in decays)
        raise InputError(f"optimizer: betas and momentum lie in [0, 1), not at {reason}.")
    for name, value in others.items():
        if not 0 <= value <= LARGEST:
            raise InputError(f"optimizer: {name} = {value:g}: from 0 to {LARGEST:g}.")


def fuses(parameters: list[nn.Parameter], asked: bool = False) -> bool | None:
    """Whether one kernel updates all of them: where it does not, torch chooses."""
    return asked or fuses_optimizers(parameters[0].device) or None


def adamw(
    parameters: list[nn.Parameter],
    rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Adam with weight decay that is not part of the gradient (arXiv:1711.05101)."""
    _check(rate, *betas, eps=eps, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, rate, betas, eps, weight_decay, fused=fuses(parameters))


def adam(
    parameters: list[nn.Parameter],
    rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """Adam (arXiv:1412.6980).

    fused: one pass over the weights on a CPU too. It pays for millions of them, and rounds apart.
    """
    _check(rate, *betas, eps=eps)
    return torch.optim.Adam(parameters, rate, betas, eps, fused=fuses(parameters, fused))


def row_adam(
    parameters: list[nn.Parameter],
    rate: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-15,
) -> torch.optim.Optimizer:
    """Adam on the rows that a step reaches, for tables; defaults of arXiv:2201.05989, section 4."""
    _check(rate, *betas, eps=eps)
    return RowAdam(parameters, rate, betas, eps)


def sgd(
    parameters: list[nn.Parameter], rate: float = 1e-2, momentum: float = 0.0
) -> torch.optim.Optimizer:
    """Gradient descent, with or without momentum."""
    _check(rate, momentum)
    return torch.optim.SGD(parameters, rate, momentum, fused=fuses(parameters))


def muon(
    parameters: list[nn.Parameter],
    rate: float = 1e-3,
    momentum: float = 0.95,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Muon on matrices, with momentum, and AdamW with betas and eps on all other parameters.

    Its steps have the size of AdamW's (arXiv:2502.16982, section 2.2). Needs torch 2.9.
    """
    _check(rate, momentum, *betas, eps=eps, weight_decay=weight_decay)
    return Muon(parameters, rate, momentum, betas, eps, weight_decay, fuses(parameters))


def soap(
    parameters: list[nn.Parameter],
    rate: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    every: int = 10,
    largest: int = 4096,
) -> torch.optim.Optimizer:
    """SOAP (arXiv:2409.11321): Adam in the eigenbases of Shampoo's preconditioner.

    Its first step only begins the preconditioner. Needs the extra ``optimizers``.

    every: steps between two updates of the eigenbases.
    largest: axes that are longer have no preconditioner. One takes n^2 numbers and n^3 operations.
    """
    _check(rate, *betas, eps=eps, weight_decay=weight_decay)
    if every < 1 or largest < 1:
        raise InputError(f"optimizer: every = {every}, largest = {largest}: at least 1 each.")
    try:
        from fieldloom.engine.soap import Soap
    except ModuleNotFoundError:
        raise InputError(
            "optimizer 'soap' needs the package pytorch_optimizer: "
            "pip install 'fieldloom[optimizers]'."
        ) from None
    return Soap(
        parameters,
        rate,
        betas,
        weight_decay=weight_decay,
        precondition_frequency=every,
        max_precondition_dim=largest,
        eps=eps,
    )


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": adamw,
    "adam": adam,
    "row-adam": row_adam,
    "sgd": sgd,
    "muon": muon,
    "soap": soap,
}

MIXING = ("muon", "soap")
"""Optimizers whose step of a row of a table depends on the other rows: not for a table of codes."""

MOMENTS: Mapping[type, tuple[str, ...]] = {
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "step"),
    torch.optim.Adam: ("exp_avg", "exp_avg_sq", "step"),
    torch.optim.SGD: ("momentum_buffer",),
}
"""What torch's optimizers keep of each parameter: tensors of its shape, and the number of its
steps. Our own classes have a method ``moments_of``."""


def moments_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, torch.Size]:
    """The tensors that an optimizer keeps of a parameter, as checkpoints hold: name -> shape."""
    if type(optimizer) not in MOMENTS:
        return optimizer.moments_of(parameter)  # type: ignore[attr-defined]
    shapes = {"step": torch.Size()}
    return {name: shapes.get(name, parameter.shape) for name in MOMENTS[type(optimizer)]}


@lru_cache(maxsize=2)  # a batch may cross the end of an epoch
def permute(seed: int, epoch: int, count: int) -> Tensor:
    """The order of an epoch's signals, which all its steps share: nobody may write into it."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(count))


def order(seed: int, step: int, count: int, batch: int, partial: bool = False) -> Tensor:
    """Indices of a step's signals in the data: each epoch is a permutation by (seed, epoch)."""
    if partial:
        epoch, part = divmod(step, -(-count // batch))
        return permute(seed, epoch, count)[part * batch : (part + 1) * batch].clone()
    parts, first = [], step * batch
    while batch > 0:
        epoch, start = divmod(first, count)
        parts.append(permute(seed, epoch, count)[start : start + batch])
        first, batch = first + len(parts[-1]), batch - len(parts[-1])
    return torch.cat(parts)


def seed_everything(*key: int) -> None:
    """Seed torch's generators by (seed, stage, step, player, micro-step).

    Players and micro-steps count from 1; 0, 0 is for what the data of the step are sampled by.
    """
    torch.manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """One seed of a key, below 2^63."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def rate_at(step: int, stage: Stage, schedule: str) -> float:
    """The factor of the learning rate at a step, at least 0 and at most 1."""
    warm = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    if schedule == "constant":
        return warm
    every = stage.every if stage.every >= 1 else stage.every * stage.steps
    if schedule == "step":
        return warm * stage.factor ** (step // every)
    cosine = warm * 0.5 * (1 + math.cos(math.pi * step / stage.steps))
    return cosine * math.sqrt(every / max(every, step)) if schedule == "inverse-sqrt" else cosine
