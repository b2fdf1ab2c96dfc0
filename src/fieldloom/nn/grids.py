"""Features of points between the vertices of regular grids, whose rows a table holds.

A vertex is found by its place, where a grid has a row for each, or by a hash of its place, where it
has fewer. Sources: arXiv:2201.05989 (multiresolution hash grids), arXiv:2301.10241 (planes).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)
"""Of the spatial hash, one an axis: the paper's (eq. 4), then those of its released code."""


class Lattices(NamedTuple):
    """Regular grids over some of the coordinates, whose vertices are rows of one table.

    axes:   of each grid, the coordinates that it is over; as many for all grids.
    cells:  of each grid, its cells of each axis (N): there are N + 1 vertices.
    rows:   of each grid, its rows of the table.
    placed: how many grids, the first ones, have a row for every vertex; the rows of the others
            (a power of two) are found by a hash.
    """

    axes: tuple[tuple[int, ...], ...]
    cells: tuple[tuple[int, ...], ...]
    rows: tuple[int, ...]
    placed: int


Number = int | Tensor


class Block(NamedTuple):
    """Grids whose vertices are found together; numbers of them are int32 (grids, 1), or one int.

    axes:    of each axis of the grids, which coordinates it is: an index into these.
    cells:   of each axis. bounds: of each axis, the first and the last cell.
    factors: of each axis, its stride, or its prime, which wraps around in 32 bits, as published.
    first:   the first row of the grid.
    last:    the last that a hash may give; None: the grids have a row for each vertex.
    """

    axes: list[slice | Tensor]
    cells: list[Number]
    bounds: list[tuple[Any, Any]]
    factors: list[Number]
    first: Number
    last: Number | None


CACHED = 1 << 15
"""Points times grids of a block on a CPU: its numbers stay in the cache of a core."""


@lru_cache(maxsize=64)
def place_blocks(lattices: Lattices, device: torch.device, most: int) -> tuple[Block, ...]:
    """These grids in blocks of at most this number, on a device, made once for it.

    Those with a row for each vertex are in other blocks than those that are hashed.
    """
    kinds = range(lattices.placed), range(lattices.placed, len(lattices.rows))
    parts = [kind[i : i + most] for kind in kinds for i in range(0, len(kind), most)]
    with torch.inference_mode(False):  # else gradients could never use them
        return tuple(_place_block(lattices, part, device) for part in parts)


def _place_block(lattices: Lattices, grids: range, device: torch.device) -> Block:
    def place(numbers: Iterable[int]) -> Number:
        held = torch.tensor(list(numbers), dtype=torch.int32, device=device).unsqueeze(-1)
        return int(held) if len(grids) == 1 and device.type == "cpu" else held

    hashed, axes = grids[0] >= lattices.placed, range(len(lattices.axes[0]))
    own = [lattices.axes[grid] for grid in grids]
    which = [[all_axes[axis] for all_axes in own] for axis in axes]
    cells = [[lattices.cells[grid][axis] for grid in grids] for axis in axes]
    strides = [
        [math.prod(n + 1 for n in lattices.cells[grid][axis + 1 :]) for grid in grids]
        for axis in axes
    ]
    primes = [[(p + 2**31) % 2**32 - 2**31] * len(grids) for p in PRIMES[: len(axes)]]
    return Block(
        axes=[
            slice(x[0], x[0] + 1) if len(set(x)) == 1 else torch.tensor(x, device=device)
            for x in which
        ],
        cells=[place(n) for n in cells],
        bounds=[(place(0 for _ in n), place(x - 1 for x in n)) for n in cells],
        factors=[place(x) for x in (primes if hashed else strides)],
        first=place(sum(lattices.rows[:grid]) for grid in grids),
        last=place(lattices.rows[grid] - 1 for grid in grids) if hashed else None,
    )


def find_vertices(
    unit: Tensor, lattices: Lattices, smooth: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """The vertices around points (n, coord) in [0, 1], and their interpolation coefficients.

    smooth: the coefficients of each axis are x^2 (3 - 2 x), whose slope is 0 at the vertices.

    Returns rows of the table, int32, and coefficients that add up to 1: of one block of grids after
    another, (2^d, grids, n) each. Outside of [0, 1] the values at the border continue. The
    coefficients of a place that is no number are none, either.
    """
    across = unit.clamp(0, 1).T.contiguous()
    most = max(1, CACHED // max(1, len(unit))) if unit.is_cpu else len(lattices.rows)
    found = [_corners(across, b, smooth) for b in place_blocks(lattices, unit.device, most)]
    rows, coefficients = ([torch.stack(x) for x in each] for each in zip(*found, strict=True))
    if unit.is_cpu:
        return rows, coefficients
    return [torch.cat(rows, 1)], [torch.cat(coefficients, 1)]


def _corners(across: Tensor, block: Block, smooth: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The rows and the coefficients of a block, one tensor (grids, n) for each corner of a cell.

    across: the coordinates of the points, (coord, n).
    """
    rows: list[Tensor] = []
    products: list[Tensor] = []
    for axis, cells, bounds, factor in zip(*block[:4], strict=True):
        q = across[axis] * cells
        lower = q.detach().int().clamp_(*bounds)
        upper = q - lower
        if smooth:
            upper = upper * upper * (3 - 2 * upper)
        sides, near = (1 - upper, upper), lower.mul_(factor)
        if not rows:
            rows = [near if block.last is not None else near.add_(block.first)]
            rows, products = [*rows, rows[0] + factor], list(sides)
            continue
        ends = near, near + factor
        if block.last is None:
            rows = [x + end for x in rows for end in ends]
        else:
            rows = [x ^ end for x in rows for end in ends]
        products = [x * side for x in products for side in sides]
    if block.last is not None:
        rows = [x.bitwise_and_(block.last).add_(block.first) for x in rows]
    return rows, products


def interpolate(coords: Tensor, table: Tensor, lattices: Lattices, smooth: bool = False) -> Tensor:
    """Features of points from each grid: coords (batch, points, coord) in [0, 1], table (1 | batch,
    rows, features) -> (batch, points, grids, features).
    """
    batch, points, _ = coords.shape
    index, coefficients = find_vertices(coords.flatten(0, 1), lattices, smooth)
    if len(table) > 1:  # each signal its own
        first = torch.arange(batch, device=coords.device) * table.shape[1]
        index = [x + first.repeat_interleave(points) for x in index]
    sparse = id(table) in _sparse.get() and table.is_cpu
    found = Lookup.apply(table, sparse, *index, *(x.to(table.dtype) for x in coefficients))
    return found.unflatten(0, (batch, points))


_sparse: ContextVar[frozenset[int]] = ContextVar("sparse", default=frozenset())


@contextmanager
def sparse_gradients(tables: Iterable[Tensor]) -> Iterator[None]:
    """Within it, ``interpolate`` may give these tables, on a CPU, sparse gradients of their rows.

    It does so where a batch reads few of the rows (``FEW``).
    """
    before = _sparse.set(frozenset(map(id, tables)))
    try:
        yield
    finally:
        _sparse.reset(before)


FEW = 1 / 8
"""Rows that are read, for each row of a table, below which a gradient is sparse: to sort one that
is read takes as long as to clear and to search some eight rows."""


class Lookup(torch.autograd.Function):
    """y_ng = sum_k c_kgn T[i_kgn]: points n, grids g, corners k; T the rows of all tables (1 |
    batch, rows, features). Returns (points, grids, features).

    Arguments are the table, whether its gradient may be sparse, and of blocks of grids all i, then
    all c. ``embedding_bag`` has no second derivative, and on a CPU its first one sorts all indices.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, sparse: bool, *blocks: Tensor) -> Tensor:
        ctx.save_for_backward(table, *blocks)
        ctx.sparse = sparse
        rows, pairs = table.flatten(0, 1), _pairs(blocks)
        return gather(rows, pairs) if narrow(rows) else bag(rows, pairs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        table, *blocks = ctx.saved_tensors
        to_table, rows, pairs = None, table.flatten(0, 1), _pairs(blocks)
        grad = grad.transpose(0, 1)  # (grids, points, features)
        grads = grad.split([i.shape[1] for i, _ in pairs])
        to_coefficients = [
            (rows[i] * own).sum(-1) if needed else None
            for (i, _), own, needed in zip(
                pairs, grads, ctx.needs_input_grad[2 + len(pairs) :], strict=True
            )
        ]
        if ctx.needs_input_grad[0]:
            read = sum(i.numel() for i, _ in pairs)
            if torch.is_grad_enabled():
                each = [
                    (c.unsqueeze(-1) * own).flatten(0, 2)
                    for (_, c), own in zip(pairs, grads, strict=True)
                ]
                index = torch.cat([i.flatten() for i, _ in pairs])
                to_table = add_rows(torch.zeros_like(rows), index, torch.cat(each)).view_as(table)
            elif not table.is_cpu:
                to_table = bag_gradient(rows, pairs, grad).view_as(table)
            elif ctx.sparse and read < FEW * table.shape[1]:
                to_table = sparse_gradient(rows, pairs, grad)
            else:
                to_table = scatter(torch.zeros_like(rows), pairs, grad).view_as(table)
        return to_table, None, *([None] * len(pairs)), *to_coefficients


Pairs = Sequence[tuple[Tensor, Tensor]]
"""Of each block of grids its rows and its coefficients: (corners, grids, points) each."""


def _pairs(blocks: Sequence[Tensor]) -> Pairs:
    half = len(blocks) // 2
    return list(zip(blocks[:half], blocks[half:], strict=True))


def narrow(rows: Tensor) -> bool:
    """Whether a row is one number of a CPU: two numbers are moved and added as a complex one."""
    complex_too = rows.shape[-1] == 2 and rows.dtype in (torch.float32, torch.float64)
    return rows.is_cpu and (complex_too or rows.shape[-1] == 1)


def as_scalars(x: Tensor) -> Tensor:
    """Rows (..., 1 | 2) as one number each: (...). Rows at odd places of a vector are copied."""
    if x.shape[-1] == 1:
        return x.squeeze(-1)
    even = not any(n % 2 for n in (x.storage_offset(), *x.stride()[:-1]))
    return torch.view_as_complex(x if even else x.clone(memory_format=torch.contiguous_format))


def gather(rows: Tensor, pairs: Pairs) -> Tensor:
    """The features of all grids from narrow rows: (points, grids, features)."""
    numbers, found = as_scalars(rows), []
    for index, coefficients in pairs:
        corners = zip(index, coefficients, strict=True)
        parts = (numbers.index_select(0, i.view(-1)).view_as(i).mul_(c) for i, c in corners)
        sums = next(parts)
        for part in parts:
            sums.add_(part)
        found.append(sums)
    whole = torch.cat(found)
    whole = torch.view_as_real(whole) if whole.is_complex() else whole.unsqueeze(-1)
    return whole.transpose(0, 1)


def bag(rows: Tensor, pairs: Pairs) -> Tensor:
    """The features of all grids from any rows: (points, grids, features)."""
    found = []
    for index, coefficients in pairs:
        at, shares = (x.permute(1, 2, 0).flatten(0, 1) for x in (index, coefficients))
        sums = F.embedding_bag(at, rows, per_sample_weights=shares, mode="sum")
        found.append(sums.view(*index.shape[1:], rows.shape[-1]))
    return torch.cat(found).transpose(0, 1)


def bag_gradient(rows: Tensor, pairs: Pairs, grad: Tensor) -> Tensor:
    """The gradient of the rows by ``embedding_bag``, in whose sums the order is fixed.

    grad: (grids, points, features).
    """
    with torch.enable_grad():
        rows = rows.detach().requires_grad_()
        found = bag(rows, pairs)
    return torch.autograd.grad(found, rows, grad.transpose(0, 1))[0]


WIDE = 8
"""Features of a row from which sorting the rows that are read is faster than moving them."""


def scatter(sums: Tensor, pairs: Pairs, grad: Tensor) -> Tensor:
    """Add c_kgn grad_gn to the row i_kgn of ``sums``, in place, in a fixed order.

    grad: (grids, points, features).
    """
    slim, first = narrow(sums), 0
    into, parts = (as_scalars(x) if slim else x for x in (sums, grad.contiguous()))
    for index, coefficients in pairs:
        part = parts[first : first + index.shape[1]]
        first += index.shape[1]
        if sums.shape[-1] >= WIDE:
            scatter_sorted(into, index, coefficients, part)
            continue
        for i, c in zip(index, coefficients, strict=True):
            if slim:
                into.index_add_(0, i.view(-1), (part * c).view(-1))
            else:
                each = (part * c.unsqueeze(-1)).flatten(0, 1)
                into.scatter_add_(0, i.view(-1, 1).long().expand_as(each), each)
    return sums


def scatter_sorted(sums: Tensor, index: Tensor, coefficients: Tensor, grad: Tensor) -> None:
    """As ``scatter`` of one block: the gradient of a bag of rows is a bag of gradients.

    That of a row has the points that read the row, which sorting brings together.
    """
    rows, order = index.flatten().sort(stable=True)
    read, counts = torch.unique_consecutive(rows, return_counts=True)
    found = F.embedding_bag(
        order % index[0].numel(),
        grad.flatten(0, 1),
        offsets=counts.cumsum(0) - counts,
        per_sample_weights=coefficients.flatten()[order],
        mode="sum",
    )
    sums.index_put_((read.long(),), found, accumulate=True)


def sparse_gradient(rows: Tensor, pairs: Pairs, grad: Tensor) -> Tensor:
    """The gradient of the rows as a sparse tensor of those that were read."""
    read, place = torch.unique(torch.cat([i.flatten() for i, _ in pairs]), return_inverse=True)
    sums = rows.new_zeros(len(read), rows.shape[-1])
    places = place.split([i.numel() for i, _ in pairs])
    placed = [(part.view_as(i), c) for part, (i, c) in zip(places, pairs, strict=True)]
    return torch.sparse_coo_tensor(
        torch.stack([torch.zeros_like(read), read]).long(),
        scatter(sums, placed, grad),
        (1, *rows.shape),
        is_coalesced=True,
        check_invariants=False,
    )


def add_rows(rows: Tensor, index: Tensor, each: Tensor) -> Tensor:
    """``rows`` (n, features) with each row (m, features) added to that of its index (m,)."""
    if narrow(rows):
        sums = as_scalars(rows).index_add(0, index, as_scalars(each.contiguous()))
        return torch.view_as_real(sums) if rows.shape[-1] == 2 else sums.unsqueeze(-1)
    return rows.scatter_add(0, index.long().unsqueeze(-1).expand_as(each), each)
