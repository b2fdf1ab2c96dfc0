"""Linear layers whose weight depends on where a point lies.

Source: Levels-of-Experts, Hao et al., NeurIPS 2022, equations 3 to 5.

A layer has one matrix per tile; the tiles repeat over space, and a point is multiplied by the
matrix of its tile, or by a blend of those around it. Points are sorted by their tiles, so that each
matrix is multiplied by one segment of rows, and weights are never gathered per point. What is here
reads where segments end: an accelerator would wait for that, and has ``kernels.grouped``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from fieldloom.constants import row
from fieldloom.nn import dispatch
from fieldloom.nn.dispatch import Segments, invert


def tile_indices(q: Tensor, tiles: Sequence[int]) -> Tensor:
    """The index of the tile that each position lies in (eq. 5): (n, d) -> (n,) int64."""
    indices = torch.remainder(q.detach().floor(), row(tiles, q)).long()
    return (indices * row(strides(tiles), indices)).sum(-1)


def strides(tiles: Sequence[int]) -> list[int]:
    """Strides of the row-major order of the tiles: the first axis is the slowest."""
    return [math.prod(tiles[axis + 1 :]) for axis in range(len(tiles))]


def blend_corners(q: Tensor, tiles: Sequence[int]) -> tuple[list[list[int]], Tensor]:
    """The tiles around each position (n, d), and their interpolation coefficients (eq. 4).

    Returns the table of corner indices (corners, tiles), see ``corner_table``, and the coefficients
    (n, corners), which add up to 1. An axis of one tile has one corner, where the published formula
    is wrong.
    """
    offset, weights = q - q.floor(), []
    for step in corner_steps(tiles):
        weight = q.new_ones(len(q))
        for axis, one in enumerate(step):
            if tiles[axis] > 1:
                weight = weight * (offset[:, axis] if one else 1 - offset[:, axis])
        weights.append(weight)
    return corner_table(tuple(tiles)), torch.stack(weights, -1)


def corner_steps(tiles: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The offset in tiles of each corner from the tile that a position lies in: at most 2^d."""
    return product(*((0, 1) if count > 1 else (0,) for count in tiles))


@cache
def corner_table(tiles: tuple[int, ...]) -> list[list[int]]:
    """For each corner and tile, the index of the tile's neighbour at that corner: (corners, tiles).

    Tiles repeat periodically.
    """
    table = []
    for step in corner_steps(tiles):
        neighbours = (
            [(i + s) % n for i, s, n in zip(tile, step, tiles, strict=True)]
            for tile in product(*map(range, tiles))
        )
        table.append([sum(map(math.prod, zip(x, strides(tiles), strict=True))) for x in neighbours])
    return table


def tiled_linear(
    x: Tensor,
    segments: Segments,
    weight: Tensor,
    bias: Tensor | None = None,
    blend: tuple[list[list[int]], Tensor] | None = None,
) -> Tensor:
    """Multiply the rows of x by the matrices of their segments: (n, in) -> (n, out).

    The result is in the order of the segments.
    weight: (matrices, in, out). bias: (out,), shared, or None.
    blend:  the table of corner indices (corners, matrices), and the coefficients (n, corners) in
            the order of the segments; None: only the matrix of its segment applies to a row.

    y_r = sum_c fraction_rc W[corner_c(matrix of r)] x_r + b   (eq. 3)
    """
    table, fractions = blend or ([list(range(len(weight)))], None)
    if torch.is_autocast_enabled(x.device.type):  # autocast does not cover products into slices
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        fractions = None if fractions is None else fractions.to(dtype)
    if not are_short(segments, len(x)):
        return TiledLinear.apply(x, weight, bias, fractions, segments, table)
    return compose_tiled_linear(x, weight, bias, fractions, segments, table)


def compose_tiled_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    fractions: Tensor | None,
    segments: Segments,
    table: list[list[int]],
) -> Tensor:
    """``tiled_linear`` composed of operations that torch can differentiate any number of times."""
    rows = x if segments.permutation is None else x.index_select(0, segments.permutation)
    y: Tensor | None = None
    for corner, own in enumerate(table):
        part = segment_matmul(rows, segments, weight, own)
        if fractions is not None:
            part = part * fractions[:, corner : corner + 1]
        y = part if y is None else y + part
    assert y is not None
    return y if bias is None else y + bias


def segment_matmul(rows: Tensor, segments: Segments, weight: Tensor, own: list[int]) -> Tensor:
    """Multiply each segment of rows (n, in) by its matrix: (n, out).

    own: one row of the table of corner indices. Short segments become one batched product, long
    ones a loop.
    """
    if are_short(segments, len(rows)):
        return padded_matmul(rows, segments, weight, own)
    return torch.cat([rows[a:b] @ weight[own[matrix]] for a, b, matrix in segments.bounds])


def are_short(segments: Segments, n: int) -> bool:
    """Whether there are many short segments of similar lengths, each with its own matrix.

    This is the case for a batch of small signals.
    """
    bounds = segments.bounds
    longest = max((b - a for a, b, _ in bounds), default=0)
    if len(bounds) * dispatch.MIN_ROWS <= n or longest * len(bounds) > 2 * n:
        return False
    return len({matrix for *_, matrix in bounds}) == len(bounds)


def padded_matmul(rows: Tensor, segments: Segments, weight: Tensor, own: list[int]) -> Tensor:
    """``segment_matmul`` with segments padded to one length; products of padding are dropped."""
    device = rows.device
    first, last, _ = torch.tensor(segments.bounds, device=device).unbind(1)
    taken = [own[matrix] for *_, matrix in segments.bounds]
    each = int((last - first).max())
    index = first.unsqueeze(1) + torch.arange(each, device=device)
    inside = index < last.unsqueeze(1)
    index = index.clamp(max=len(rows) - 1).flatten()
    filled = rows.index_select(0, index).unflatten(0, (-1, each))
    every = taken == list(range(len(weight)))  # no copy of all matrices is needed
    chosen = weight if every else weight.index_select(0, torch.tensor(taken, device=device))
    y = torch.bmm(filled, chosen).flatten(0, 1)
    return y.index_select(0, inside.flatten().nonzero().squeeze(1))


class TiledLinear(torch.autograd.Function):
    """``compose_tiled_linear`` for a CPU: one segment after another, each within the CPU's cache.

    Neither pass writes a gathered copy of all rows to memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        fractions: Tensor | None,
        segments: Segments,
        table: list[list[int]],
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, fractions)
        ctx.segments, ctx.table = segments, table
        y = x.new_empty(_row_count(x, segments), weight.shape[-1])
        for a, b, matrix in segments.bounds:
            rows, out = _segment_rows(x, segments, a, b), y[a:b]
            if fractions is None:
                _linear_into(rows, weight[table[0][matrix]], bias, out)
                continue
            for corner, own in enumerate(table):
                scaled = rows * fractions[a:b, corner : corner + 1]
                if corner == 0:
                    _linear_into(scaled, weight[own[matrix]], bias, out)
                else:
                    out.addmm_(scaled, weight[own[matrix]])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, fractions = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative will be asked for
            return _double_backward(ctx, grad)
        segments, table, needed = ctx.segments, ctx.table, ctx.needs_input_grad
        grad_x = torch.empty_like(x) if needed[0] else None  # every row is written once
        grad_weight = torch.zeros_like(weight) if needed[1] else None
        grad_fractions = (
            torch.empty_like(fractions) if fractions is not None and needed[3] else None
        )
        for a, b, matrix in segments.bounds:
            rows, grad_y = _segment_rows(x, segments, a, b), grad[a:b]
            back: Tensor | None = None
            for corner, own in enumerate(table):
                index = own[matrix]
                part = None if fractions is None else fractions[a:b, corner : corner + 1]
                if grad_weight is not None:
                    grad_weight[index].addmm_((rows if part is None else rows * part).mT, grad_y)
                if grad_x is None and grad_fractions is None:
                    continue
                one = grad_y @ weight[index].mT
                if grad_fractions is not None:
                    grad_fractions[a:b, corner] = (one * rows).sum(-1)
                one = one if part is None else one.mul_(part)
                back = one if back is None else back.add_(one)
            if grad_x is not None and back is not None:
                if segments.permutation is None:
                    grad_x[a:b] = back
                else:
                    grad_x.index_copy_(0, segments.permutation[a:b], back)
        grad_bias = grad.sum(0) if bias is not None and needed[2] else None
        return grad_x, grad_weight, grad_bias, grad_fractions, None, None


def _double_backward(ctx: Any, grad: Tensor) -> Any:
    """The gradients, composed of operations that can be differentiated again.

    They are written out, since autograd would also follow the input back to the same matrices.
    """
    x, weight, bias, fractions = ctx.saved_tensors
    segments, table = ctx.segments, ctx.table
    rows = x if segments.permutation is None else x.index_select(0, segments.permutation)
    back: Tensor | None = None
    sums: list[list[Tensor]] = [[] for _ in range(len(weight))]
    each: list[Tensor] = []
    for corner, own in enumerate(table):
        fraction = None if fractions is None else fractions[:, corner : corner + 1]
        scaled = rows if fraction is None else rows * fraction
        for a, b, matrix in segments.bounds:
            sums[own[matrix]].append(scaled[a:b].mT @ grad[a:b])
        one = segment_matmul(grad, segments, weight.mT, own)
        each.append((one * rows).sum(-1))
        one = one if fraction is None else one * fraction
        back = one if back is None else back + one
    assert back is not None
    permutation = segments.permutation
    grad_x = back if permutation is None else back.index_select(0, invert(permutation))
    zero = torch.zeros_like(weight[0])
    grad_weight = torch.stack([sum(found[1:], found[0]) if found else zero for found in sums])
    grad_bias = None if bias is None else grad.sum(0)
    return (
        grad_x,
        grad_weight,
        grad_bias,
        None if fractions is None else torch.stack(each, -1),
        None,
        None,
    )


def _row_count(x: Tensor, segments: Segments) -> int:
    return len(x) if segments.permutation is None else len(segments.permutation)


def _segment_rows(x: Tensor, segments: Segments, a: int, b: int) -> Tensor:
    return x[a:b] if segments.permutation is None else x.index_select(0, segments.permutation[a:b])


def _linear_into(rows: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(rows, weight, out=out)
    else:
        torch.addmm(bias, rows, weight, out=out)
