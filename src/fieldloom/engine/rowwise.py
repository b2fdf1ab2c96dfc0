"""Adam on the rows of a table that a step reads, so that a step's cost does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

    Gradients are dense, or sparse tensors of rows. On a CPU only the rows that are reached are
    touched; elsewhere the arithmetic goes over all of them, and waits for nothing.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: Betas, eps: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

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
                rows, grad = reached(parameter.grad)
                for some, own in zip(rows.split(BLOCK), grad.split(BLOCK), strict=True):
                    step_rows(held, some, own, *how)

    def state_of(self, parameter: nn.Parameter) -> list[Tensor]:
        """A parameter and its moments as rows (n, features), and the rows' counts (n, 1)."""
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["counts"] = parameter.new_zeros(parameter.shape[:-1])
        held = [parameter.detach(), state["exp_avg"], state["exp_avg_sq"]]
        return [x.view(-1, x.shape[-1]) for x in held] + [state["counts"].view(-1, 1)]


BLOCK = 1 << 14
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
    """The rows (n,) of a gradient that are not zero, and the gradient there: (n, features)."""
    if grad.is_sparse:
        grad = grad.coalesce()
        values, index, shape = grad.values(), grad.indices(), grad.shape[:-1]
        rows = index[-1] if len(shape) == 2 and shape[0] == 1 else _flat_index(index, shape)
    else:
        values, rows = grad.reshape(-1, grad.shape[-1]), None
    hit = values.any(-1).nonzero().flatten()  # any number but 0, and what is no number
    if len(hit) < len(values):
        values = take_rows(values, hit)
        rows = hit if rows is None else rows[hit]
    return hit if rows is None else rows, values


def _flat_index(index: Tensor, shape: torch.Size) -> Tensor:
    """Indices (axes, n) of the axes of a shape as one index (n,), row-major."""
    flat = torch.zeros_like(index[0])
    for own, size in zip(index, shape, strict=True):
        flat = flat * size + own
    return flat


def step_rows(held: list[Tensor], rows: Tensor, grad: Tensor, *how: Any) -> None:
    """Adam's step on some rows of ``held``: weights, both moments (n, features), counts (n, 1)."""
    moved = adam([take_rows(x, rows) for x in held], grad, *how)
    for x, new in zip(held, moved, strict=True):
        whole, parts = as_numbers(x), as_numbers(new)
        whole.index_copy_(0, rows, parts)


def step_all(held: list[Tensor], grad: Tensor, *how: Any) -> None:
    """Adam's step on the rows of ``held`` whose gradient is not zero, in operations on all rows."""
    hit = (grad != 0).any(-1, keepdim=True)
    for x, new in zip(held, adam([x.clone() for x in held], grad, *how), strict=True):
        x.copy_(torch.where(hit, new, x))


def adam(own: list[Tensor], grad: Tensor, lr: float, betas: Betas, eps: float) -> list[Tensor]:
    """Adam's step (arXiv:1412.6980, algorithm 1) on weights, both moments and counts, in place."""
    weight, first, second, count = own
    count += 1
    first.lerp_(grad, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    spread = (second / (1 - betas[1] ** count)).sqrt_().add_(eps)
    weight.sub_(first.div(spread).mul_(lr / (1 - betas[0] ** count)))
    return own


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Some rows of x (n, features)."""
    return as_numbers(x).index_select(0, rows).view(x.dtype).view(-1, x.shape[-1])


def as_numbers(x: Tensor) -> Tensor:
    """Rows of two float32 as one float64 each, which a CPU moves four times as fast."""
    pairs = x.shape[-1] == 2 and x.dtype == torch.float32 and x.is_contiguous()
    return x.view(torch.float64).view(-1) if pairs else x
