"""What a process knows of a batch whose other signals other processes compute at the same time.

Some objectives compare the signals of a batch: a critic's batch norms, the distances of codes. A
process that computes a part of such a batch is within ``computing``, where sums over all of it,
and their gradients of any order, are exact. What is random is drawn for the whole batch by every
process, which takes its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Portion:
    """The signals of a batch that this process computes.

    rows:   (n,), their places in the batch, ascending.
    whole:  the number of all its signals.
    rank, count: which of the processes that compute the batch this one is, and how many they are.
    add_up: replaces a tensor by its sum over these processes, who call it in the same order.
    """

    rows: Tensor
    whole: int
    rank: int
    count: int
    add_up: Callable[[Tensor], None]

    def add(self, x: Tensor) -> Tensor:
        """The sum of x over the processes, on each of them; it can be differentiated."""
        found: Tensor = Sum.apply(x, self)
        return found

    def gather(self, x: Tensor) -> Tensor:
        """One row a signal, (n, ...), to those of the whole batch in its order: (whole, ...)."""
        return self.add(x.new_zeros(self.whole, *x.shape[1:]).index_copy(0, self.here(x), x))

    def gather_processes(self, x: Tensor) -> Tensor:
        """x of any shape to (count, *shape), that of each process."""
        rank = torch.tensor([self.rank], device=x.device)
        return self.add(x.new_zeros(self.count, *x.shape).index_copy(0, rank, x.unsqueeze(0)))

    def here(self, x: Tensor) -> Tensor:
        """The rows on the device of x."""
        return self.rows.to(x.device)


class Sum(torch.autograd.Function):
    """The sum of a tensor over processes.

    Each process differentiates its part of a loss that all add up, so that the gradient of the sum
    is the sum of the gradients: again a ``Sum``, which can itself be differentiated (R1 needs it;
    torch's ``SyncBatchNorm`` has no second gradients, and none on a CPU).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, portion: Portion) -> Tensor:
        ctx.portion = portion
        total = x.detach().clone(memory_format=torch.contiguous_format)
        portion.add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.portion.add(grad), None


_portion: ContextVar[Portion | None] = ContextVar("portion", default=None)


def current_portion() -> Portion | None:
    """What this process computes of a batch; None: all of it, or its signals are independent."""
    return _portion.get()


@contextmanager
def computing(portion: Portion | None) -> Iterator[None]:
    """A context in which this process computes that part of a batch. None: it is alone."""
    token = _portion.set(portion)
    try:
        yield
    finally:
        _portion.reset(token)


def batch_size(count: int) -> int:
    """The signals of the batch of which ``count`` are here."""
    portion = _portion.get()
    return count if portion is None else portion.whole


def own_rows(x: Tensor) -> Tensor:
    """Of something that has one row for each signal of the batch, the rows of those here."""
    portion = _portion.get()
    return x if portion is None else x.index_select(0, portion.here(x))


def draw_rows(draw: Callable[[Sequence[int]], Tensor], shape: Sequence[int]) -> Tensor:
    """What ``draw`` gives for a shape whose first axis are the signals here.

    Where they are a portion, it draws for the whole batch, so that their number changes nothing.
    """
    portion = _portion.get()
    if portion is None or not shape or shape[0] != len(portion.rows):
        return draw(shape)
    return own_rows(draw((portion.whole, *shape[1:])))
