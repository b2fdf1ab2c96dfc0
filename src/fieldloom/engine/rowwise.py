"""Adam on the rows of a table that a step reads, so that a step's cost does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

Betas = tuple[float, float]


class RowAdam(torch.optim.Optimizer):
    """Adam (arXiv:1412.6980) of each row (the last axis), in the steps whose gradient reaches it.

    A row whose gradient is zero is left as it is, with its moments, as in arXiv:2201.05989, section
    4. So each row counts its own steps (``counts``), by which its bias is corrected: a row that is
    read for the first time late in training takes the same first step as one that is read early.
    Where every row is reached in every step, this is Adam.

    Gradients are dense, or sparse tensors of rows. On a CPU blocks of rows are stepped one after
    another, those that were not reached are left out or put back; elsewhere the arithmetic goes
    over all rows at once, and waits for nothing.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: Betas, eps: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    def moments_of(self, parameter: Tensor) -> dict[str, torch.Size]:
        """What is kept of a parameter: name -> shape."""
        shape = parameter.shape
        return {"exp_avg": shape, "exp_avg_sq": shape, "counts": shape[:-1]}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            how = group["lr"], group["betas"], group["eps"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                held = self.state_of(parameter)
                if not parameter.is_cpu:
                    step_all(held, parameter.grad.view_as(held[0]), *how)
                    continue
                if parameter.grad.is_sparse:
                    rows, grad = reached(parameter.grad)
                    for some, own in zip(rows.split(BLOCK), grad.split(BLOCK), strict=True):
                        step_rows(held, some, own, *how)
                    continue
                grad = parameter.grad.reshape(held[0].shape)
                for *block, own in zip(*(x.split(BLOCK) for x in (*held, grad)), strict=True):
                    step_block(block, own, *how)

    def state_of(self, parameter: nn.Parameter) -> list[Tensor]:
        """A parameter and its moments as rows (n, features), and the rows' counts (n, 1)."""
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["counts"] = parameter.new_zeros(parameter.shape[:-1])
        held = [parameter.detach(), state["exp_avg"], state["exp_avg_sq"]]
        return [x.view(-1, x.shape[-1]) for x in held] + [state["counts"].view(-1, 1)]


BLOCK = 1 << 16
"""Rows that are stepped at a time, so that they stay in a processor's cache."""


def takes_rows(optimizer: torch.optim.Optimizer, clipped: bool) -> bool:
    """Whether an optimizer's gradients may be sparse: clipping is written for dense ones."""
    return isinstance(optimizer, RowAdam) and not clipped


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients of parameters, of sparse ones the rows, each once."""
    found = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # micro-batches read the same rows
        if parameter.grad is not None:
            found.append(parameter.grad._values() if parameter.grad.is_sparse else parameter.grad)
    return found


def reached(grad: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (n,) of a sparse gradient that are not zero, and the gradient there."""
    grad = grad.coalesce()
    values, index, shape = grad.values(), grad.indices(), grad.shape[:-1]
    rows = index[-1] if math.prod(shape[:-1]) == 1 else _flat_index(index, shape)
    hit = is_reached(values)
    if int(hit.count_nonzero()) == len(hit):
        return rows, values
    some = hit.nonzero().flatten()
    return rows[some], take_rows(values, some)


def _flat_index(index: Tensor, shape: torch.Size) -> Tensor:
    """Indices (axes, n) of the axes of a shape as one index (n,), row-major."""
    flat = torch.zeros_like(index[0])
    for own, size in zip(index, shape, strict=True):
        flat = flat * size + own
    return flat


UNSIGNED = 0x7FFFFFFF7FFFFFFF
"""The bits of two float32 but their signs."""


def is_reached(grad: Tensor) -> Tensor:
    """Whether a row of a gradient has any number but 0, and be it none: (n, features) -> (n,)."""
    if grad.shape[-1] == 2 and grad.dtype == torch.float32 and grad.is_contiguous():
        return grad.view(torch.int64).view(-1).bitwise_and(UNSIGNED) != 0
    return grad.any(-1)


def step_block(held: list[Tensor], grad: Tensor, *how: Any) -> None:
    """Adam's step on the rows of ``held`` whose gradient is not zero.

    held: weights, both moments (n, features), counts (n, 1). Where most rows are reached, all are
    stepped, and the others are put back.
    """
    hit = is_reached(grad)
    count = int(hit.count_nonzero())
    if 2 * count > len(hit):
        others = (~hit).nonzero().flatten()
        before = [take_rows(x, others) for x in held]
        adam(held, grad, *how)
        put_rows(held, others, before)
    elif count:
        rows = hit.nonzero().flatten()
        step_rows(held, rows, take_rows(grad, rows), *how)


def step_rows(held: list[Tensor], rows: Tensor, grad: Tensor, *how: Any) -> None:
    """Adam's step on some rows of ``held``: weights, both moments (n, features), counts (n, 1)."""
    put_rows(held, rows, adam([take_rows(x, rows) for x in held], grad, *how))


def step_all(held: list[Tensor], grad: Tensor, *how: Any) -> None:
    """Adam's step on the rows of ``held`` whose gradient is not zero, in operations on all rows."""
    hit = (grad != 0).any(-1, keepdim=True)
    for x, new in zip(held, adam([x.clone() for x in held], grad, *how), strict=True):
        x.copy_(torch.where(hit, new, x))


def adam(own: list[Tensor], grad: Tensor, lr: float, betas: Betas, eps: float) -> list[Tensor]:
    """Adam's step (arXiv:1412.6980, algorithm 1) on weights, both moments and counts, in place.

    Both corrections of the bias are written as in its section 2, as a factor and as a larger eps.
    """
    weight, first, second, count = own
    count += 1
    first.lerp_(grad, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    if weight.is_cpu:
        most = 1 << int(count.max()).bit_length()
        table = correct_bias(most, betas, eps, weight.shape[-1], weight.dtype)
        factor, least = (take_rows(x, count.flatten().int()) for x in table)
    else:
        factor, least = bias_corrections(count, betas, eps)
    # a root of 0 takes long
    spread = (second + torch.finfo(second.dtype).tiny).sqrt_().add_(least)
    weight.addcmul_(first / spread, factor, value=-lr)
    return own


def bias_corrections(count: Tensor, betas: Betas, eps: float) -> tuple[Tensor, Tensor]:
    """By which Adam's step after this many is multiplied, and the eps of its denominator."""
    root = (1 - betas[1] ** count).sqrt()
    return root / (1 - betas[0] ** count), eps * root


@lru_cache(maxsize=8)
def correct_bias(
    most: int, betas: Betas, eps: float, features: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """``bias_corrections`` of all counts below ``most``, for each feature: (most, features)."""
    count = torch.arange(1, most, dtype=torch.float64, device="cpu")
    both = bias_corrections(torch.cat([count[:1], count]), betas, eps)  # no row has a count of 0
    factor, least = (x.to(dtype).unsqueeze(-1).repeat(1, features) for x in both)
    return factor, least


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Some rows of x (n, features)."""
    return as_numbers(x).index_select(0, rows).view(x.dtype).view(-1, x.shape[-1])


def put_rows(held: list[Tensor], rows: Tensor, own: list[Tensor]) -> None:
    """Write some rows into each of ``held``."""
    for x, new in zip(held, own, strict=True):
        as_numbers(x).index_copy_(0, rows, as_numbers(new))


def as_numbers(x: Tensor) -> Tensor:
    """Rows of two float32 as one float64 each, which a CPU moves four times as fast."""
    pairs = x.shape[-1] == 2 and x.dtype == torch.float32 and x.is_contiguous()
    return x.view(torch.float64).view(-1) if pairs else x
