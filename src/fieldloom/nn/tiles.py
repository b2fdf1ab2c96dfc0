"""Linear layers whose weight depends on where a point lies.

Source: Levels-of-Experts, Hao et al., NeurIPS 2022, equations 3 to 5.

A layer has one matrix a tile; the tiles repeat over space, and a point takes the matrix of its
tile, or a blend of those around it. Points are brought into the order of their tiles, so that each
matrix is one product with a run of rows: no weight is ever gathered for a point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.nn import routes
from fieldloom.nn.routes import Order, inverse


def cells(q: Tensor, tiles: Sequence[int]) -> Tensor:
    """The tile that each position lies in (eq. 5): (n, d) -> (n,) int64."""
    counts = q.new_tensor(tiles)
    indices = torch.remainder(q.detach().floor(), counts).long()
    return (indices * indices.new_tensor(strides(tiles))).sum(-1)


def strides(tiles: Sequence[int]) -> list[int]:
    """Of the row-major order of the tiles: the first axis is the slowest."""
    return [math.prod(tiles[axis + 1 :]) for axis in range(len(tiles))]


def corners(q: Tensor, tiles: Sequence[int]) -> tuple[list[list[int]], Tensor]:
    """The tiles that positions (n, d) lie between, and how much of each (eq. 4).

    Returns for each corner the tile that it makes of every tile that a position lies in
    (corners, tiles), and the coefficients (n, corners), which add up to 1. Axes of one tile have
    one corner: there the published formula is wrong.
    """
    offset, weights = q - q.floor(), []
    for step in steps(tiles):
        weight = q.new_ones(len(q))
        for axis, one in enumerate(step):
            if tiles[axis] > 1:
                weight = weight * (offset[:, axis] if one else 1 - offset[:, axis])
        weights.append(weight)
    return neighbours(tuple(tiles)), torch.stack(weights, -1)


def steps(tiles: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """From the tile that a position lies in to those that it lies between."""
    return product(*((0, 1) if count > 1 else (0,) for count in tiles))


@cache
def neighbours(tiles: tuple[int, ...]) -> list[list[int]]:
    """The tile that each step leads to from every tile: (corners, tiles)."""
    table = []
    for step in steps(tiles):
        moved = (
            [(p + s) % n for p, s, n in zip(place, step, tiles, strict=True)]
            for place in product(*map(range, tiles))
        )
        table.append([sum(map(math.prod, zip(m, strides(tiles), strict=True))) for m in moved])
    return table


def tiled(
    x: Tensor,
    order: Order,
    weight: Tensor,
    bias: Tensor | None = None,
    blend: tuple[list[list[int]], Tensor] | None = None,
) -> Tensor:
    """Rows of x times the matrices of their groups: (n, in) -> (n, out), in the new order.

    weight: (matrices, in, out). bias: (out,), shared, or None.
    blend:  for each corner the matrix that it makes of each matrix of the order, and how much of it
            each row takes (n, corners), in the new order; None: the order's own alone.

    y_r = sum_c share_rc W[corner_c(matrix of r)] x_r + b   (eq. 3)
    """
    table, fractions = blend or ([list(range(len(weight)))], None)
    if torch.is_autocast_enabled(x.device.type):  # which knows nothing of products into slices
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        fractions = None if fractions is None else fractions.to(dtype)
    if x.is_cpu and not short(order, len(x)):
        return Tiled.apply(x, weight, bias, fractions, order, table)
    return composed(x, weight, bias, fractions, order, table)


def composed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    fractions: Tensor | None,
    order: Order,
    table: list[list[int]],
) -> Tensor:
    """As ``tiled``, of operations that torch can differentiate any number of times."""
    rows = x if order.indices is None else x.index_select(0, order.indices)
    y: Tensor | None = None
    for corner, own in enumerate(table):
        part = grouped(rows, order, weight, own)
        if fractions is not None:
            part = part * fractions[:, corner : corner + 1]
        y = part if y is None else y + part
    assert y is not None
    return y if bias is None else y + bias


def grouped(rows: Tensor, order: Order, weight: Tensor, own: list[int]) -> Tensor:
    """One matrix product a run: of short runs a batched one, of long ones a single call on an
    accelerator, a loop on a CPU.
    """
    if short(order, len(rows)):
        return batched(rows, order, weight, own)
    if rows.is_cpu or not single(rows, weight):
        return torch.cat([rows[a:b] @ weight[own[matrix]] for a, b, matrix in order.runs])
    ends = torch.tensor([b for _, b, _ in order.runs], dtype=torch.int32, device=rows.device)
    taken = torch.tensor([own[matrix] for _, _, matrix in order.runs], device=weight.device)
    y = F.grouped_mm(rows.contiguous(), weight.index_select(0, taken), offs=ends)
    if y.requires_grad:
        y.register_hook(lambda grad: grad.contiguous())  # it refuses an expanded one
    return y


def short(order: Order, n: int) -> bool:
    """Whether runs are many, short and of much the same length, each of a matrix of its own: the
    weights of a batch of small signals.
    """
    runs = order.runs
    if len(runs) * routes.LEAST <= n or max(b - a for a, b, _ in runs) * len(runs) > 2 * n:
        return False
    return len({matrix for *_, matrix in runs}) == len(runs)


def batched(rows: Tensor, order: Order, weight: Tensor, own: list[int]) -> Tensor:
    """Runs filled up to one length, with rows whose products are thrown away."""
    where = rows.device
    first, last, matrix = torch.tensor(order.runs, device=where).unbind(1)
    taken = torch.tensor(own, device=where)[matrix]
    each = int((last - first).max())
    place = first.unsqueeze(1) + torch.arange(each, device=where)
    inside = place < last.unsqueeze(1)
    filled = rows.index_select(0, place.clamp(max=len(rows) - 1).flatten()).unflatten(0, (-1, each))
    y = torch.bmm(filled, weight.index_select(0, taken)).flatten(0, 1)
    return y.index_select(0, inside.flatten().nonzero().squeeze(1))


def single(rows: Tensor, weight: Tensor) -> bool:
    """Whether torch's ``grouped_mm`` takes these: no doubles, rows of multiples of 16 bytes."""
    wide = all(n * rows.element_size() % 16 == 0 for n in weight.shape[-2:])
    return hasattr(F, "grouped_mm") and wide and rows.dtype != torch.float64


class Tiled(torch.autograd.Function):
    """``composed`` for a CPU, in runs that stay in its cache: a gathered copy of all rows is never
    written to memory, forward or backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        fractions: Tensor | None,
        order: Order,
        table: list[list[int]],
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, fractions)
        ctx.order, ctx.table = order, table
        y = x.new_empty(_count(x, order), weight.shape[-1])
        for a, b, matrix in order.runs:
            rows, out = _rows(x, order, a, b), y[a:b]
            if fractions is None:
                _product(rows, weight[table[0][matrix]], bias, out)
                continue
            for corner, own in enumerate(table):
                scaled = rows * fractions[a:b, corner : corner + 1]
                if corner == 0:
                    _product(scaled, weight[own[matrix]], bias, out)
                else:
                    out.addmm_(scaled, weight[own[matrix]])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, fractions = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative will be asked for
            return _twice(ctx, grad)
        order, table, needed = ctx.order, ctx.table, ctx.needs_input_grad
        to_x = torch.empty_like(x) if needed[0] else None  # every row is met once
        to_weight = torch.zeros_like(weight) if needed[1] else None
        to_fractions = torch.empty_like(fractions) if fractions is not None and needed[3] else None
        for a, b, matrix in order.runs:
            rows, here = _rows(x, order, a, b), grad[a:b]
            back: Tensor | None = None
            for corner, own in enumerate(table):
                place = own[matrix]
                part = None if fractions is None else fractions[a:b, corner : corner + 1]
                if to_weight is not None:
                    to_weight[place].addmm_((rows if part is None else rows * part).mT, here)
                if to_x is None and to_fractions is None:
                    continue
                one = here @ weight[place].mT
                if to_fractions is not None:
                    to_fractions[a:b, corner] = (one * rows).sum(-1)
                one = one if part is None else one.mul_(part)
                back = one if back is None else back.add_(one)
            if to_x is not None and back is not None:
                if order.indices is None:
                    to_x[a:b] = back
                else:
                    to_x.index_copy_(0, order.indices[a:b], back)
        to_bias = grad.sum(0) if bias is not None and needed[2] else None
        return to_x, to_weight, to_bias, to_fractions, None, None


def _twice(ctx: Any, grad: Tensor) -> Any:
    """The gradient, of operations that can be differentiated again.

    Written out: the input may have come from the same matrices, and its own way to them is not
    this layer's.
    """
    x, weight, bias, fractions = ctx.saved_tensors
    order, table = ctx.order, ctx.table
    rows = x if order.indices is None else x.index_select(0, order.indices)
    back: Tensor | None = None
    sums: list[list[Tensor]] = [[] for _ in range(len(weight))]
    each: list[Tensor] = []
    for corner, own in enumerate(table):
        fraction = None if fractions is None else fractions[:, corner : corner + 1]
        scaled = rows if fraction is None else rows * fraction
        for a, b, matrix in order.runs:
            sums[own[matrix]].append(scaled[a:b].mT @ grad[a:b])
        one = grouped(grad, order, weight.mT, own)
        each.append((one * rows).sum(-1))
        one = one if fraction is None else one * fraction
        back = one if back is None else back + one
    assert back is not None
    to_x = back if order.indices is None else back.index_select(0, inverse(order.indices))
    nought = torch.zeros_like(weight[0])
    to_weight = torch.stack([sum(found[1:], found[0]) if found else nought for found in sums])
    to_bias = None if bias is None else grad.sum(0)
    return (
        to_x,
        to_weight,
        to_bias,
        None if fractions is None else torch.stack(each, -1),
        None,
        None,
    )


def _count(x: Tensor, order: Order) -> int:
    return len(x) if order.indices is None else len(order.indices)


def _rows(x: Tensor, order: Order, a: int, b: int) -> Tensor:
    return x[a:b] if order.indices is None else x.index_select(0, order.indices[a:b])


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(rows, weight, out=out)
    else:
        torch.addmm(bias, rows, weight, out=out)
