"""Products of rows with the matrix of their group, without waiting: no size is read by the host.

The rows of a group are contiguous once they are sorted; where groups end is known to the device
alone. Rows are divided into blocks of one size, each of one group, of which there are at most
rows / size + groups: a number that does not depend on the data. Groups may be empty.

torch's ``grouped_mm`` is no help: in float32 on CUDA it copies the ends to the host, and loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldloom.constants import row
from fieldloom.nn.dispatch import Groups


class GroupedOperations(NamedTuple):
    """Two functions of numbers, each the derivative of the other: autograd does not look inside.

    multiply(x, weight (groups, in, out), bias (out,) | None, groups, reads) -> (n, out): row i of
        the sorted order times the matrix of its group. ``reads``: x is in the order before sorting,
        and the result in the sorted one; otherwise the other way round.
    correlate(a, b, groups, reads) -> (groups, in, out): the sum over the rows of each group of
        a^T b. ``reads``: a is in the order before sorting, and b sorted; otherwise the reverse.
    """

    multiply: Callable[[Tensor, Tensor, Tensor | None, Groups, bool], Tensor]
    correlate: Callable[[Tensor, Tensor, Groups, bool], Tensor]


# -- of torch operations, block by block


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups, reads: bool) -> Tensor:
    size = usual_size(groups)
    rows, _ = rows_of(groups, size)
    filled = (groups.read(x) if reads else x)[rows]
    products = torch.bmm(filled, weight.index_select(0, groups.blocks(size).group))
    y = products.flatten(0, 1).index_select(0, places(groups, size))
    y = y if bias is None else (y + bias).to(y.dtype)
    return y if reads else groups.write(y)


def correlate(a: Tensor, b: Tensor, groups: Groups, reads: bool) -> Tensor:
    size = usual_size(groups)
    rows, inside = rows_of(groups, size)
    a, b = (groups.read(a), b) if reads else (a, groups.read(b))
    each = torch.bmm((a[rows] * inside.unsqueeze(-1)).mT, b[rows])
    # a product with zeros and ones: adding by index would not always add in the same order
    index = torch.arange(groups.count, device=a.device)
    owner = (index.unsqueeze(1) == groups.blocks(size).group).to(each.dtype)
    return (owner @ each.flatten(1)).unflatten(1, each.shape[1:])


def usual_size(groups: Groups) -> int:
    """Rows of a block: as many as a group has on average, so that padding at most doubles them."""
    return max(16, groups.n // groups.count)


def rows_of(groups: Groups, size: int) -> tuple[Tensor, Tensor]:
    """The sorted rows of every block (blocks, size), and which of them belong to its group."""
    blocks = groups.blocks(size)
    rows = blocks.first.unsqueeze(1) + torch.arange(size, device=blocks.first.device)
    return rows.clamp(max=groups.n - 1), rows < blocks.last.unsqueeze(1)


def places(groups: Groups, size: int) -> Tensor:
    """Where each sorted row lies among the rows of all blocks: (n,)."""
    row = torch.arange(groups.n, device=groups.ends.device)
    group = torch.searchsorted(groups.ends, row, right=True)
    return groups.blocks(size).begin[group] * size + row - groups.starts[group]


BLOCKWISE = GroupedOperations(multiply, correlate)


# -- and their derivatives


class Multiply(torch.autograd.Function):
    """y_i = x_p(i) W_g(i) + b, p the order and g the group of sorted rows; y_p(i) = x_i W_g(i)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        groups: Groups,
        reads: bool,
        operations: GroupedOperations,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rest = groups, reads, operations
        ctx.dtype = None if bias is None else bias.dtype
        return operations.multiply(x, weight, bias, groups, reads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        groups, reads, operations = ctx.rest
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        grad = grad.contiguous()
        to_x = to_weight = None
        if of_x:
            to_x = Multiply.apply(grad, weight.mT, None, groups, not reads, operations)
        if of_weight:
            to_weight = Correlate.apply(x, grad, groups, reads, operations)
        to_bias = grad.sum(0, dtype=ctx.dtype) if of_bias else None
        return to_x, to_weight, to_bias, None, None, None


class Correlate(torch.autograd.Function):
    """C_g = sum of a^T b over the rows of group g: da = b (dC)^T, db = a dC."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        groups: Groups,
        reads: bool,
        operations: GroupedOperations,
    ) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.rest = groups, reads, operations
        return operations.correlate(a, b, groups, reads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, b = ctx.saved_tensors
        groups, reads, operations = ctx.rest
        grad = grad.contiguous()
        to_a = to_b = None
        if ctx.needs_input_grad[0]:
            to_a = Multiply.apply(b, grad.mT, None, groups, not reads, operations)
        if ctx.needs_input_grad[1]:
            to_b = Multiply.apply(a, grad, None, groups, reads, operations)
        return to_a, to_b, None, None, None


def grouped_linear(
    x: Tensor,
    groups: Groups,
    weight: Tensor,
    bias: Tensor | None = None,
    blend: tuple[list[list[int]], Tensor] | None = None,
    operations: GroupedOperations = BLOCKWISE,
) -> Tensor:
    """``tiles.tiled_linear`` on an accelerator: (n, in) -> (n, out), in the order of the groups.

    weight: (groups, in, out). bias: (out,), shared, or None. blend: as there, corners of groups.
    """
    if not len(x):
        return x.new_zeros(0, weight.shape[-1])
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    x = x.contiguous()
    if blend is None:
        return Multiply.apply(x, weight, bias, groups, True, operations)
    y: Tensor | None = None
    for own, fraction in zip(blend[0], blend[1].to(x.dtype).split(1, 1), strict=True):
        matrices = weight.index_select(0, row(own, groups.ends))
        part = Multiply.apply(x, matrices, None, groups, True, operations)
        y = part * fraction if y is None else torch.addcmul(y, part, fraction)
    assert y is not None
    return y if bias is None else y + bias.to(y.dtype)
