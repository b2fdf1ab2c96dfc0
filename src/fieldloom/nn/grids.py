"""Features of points between the vertices of regular grids, whose rows a table holds.

A vertex is found by its place, where a grid has a row for each, or by a hash of its place, where it
has fewer. Sources: arXiv:2201.05989 (multiresolution hash grids), arXiv:2301.10241 (planes).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
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


@lru_cache(maxsize=64)
def place_lattices(
    lattices: Lattices, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tensors of these grids on a device, made once for it.

    Axes, cells and factors of vertices, (d, grids, 1) or (d, grids), and the first row of each grid
    with the last that a hash may give, (2, grids, 1).

    A factor is the stride of an axis, or its prime, which wraps around in 32 bits, as published.
    """
    factors = [
        [math.prod(n + 1 for n in own[axis + 1 :]) for axis in range(len(own))]
        if grid < lattices.placed
        else [(p + 2**31) % 2**32 - 2**31 for p in PRIMES[: len(own)]]
        for grid, own in enumerate(lattices.cells)
    ]
    firsts = [sum(lattices.rows[:grid]) for grid in range(len(lattices.rows))]
    bounds = [[first, rows - 1] for first, rows in zip(firsts, lattices.rows, strict=True)]
    with torch.inference_mode(False):  # else gradients could never use them
        axes, *others = (
            torch.tensor(x, dtype=torch.int32, device=device).T.contiguous()
            for x in (lattices.axes, lattices.cells, factors, bounds)
        )
        cells, strides, ends = (x.unsqueeze(-1) for x in others)
        return axes.long(), cells, strides, ends


def find_vertices(unit: Tensor, lattices: Lattices, smooth: bool = False) -> tuple[Tensor, Tensor]:
    """The vertices around points (n, coord) in [0, 1], and their interpolation coefficients.

    smooth: the coefficients of each axis are x^2 (3 - 2 x), whose slope is 0 at the vertices.

    Returns rows of the table, int32, and coefficients that add up to 1: (grids, n, 2^d) each.
    Outside of [0, 1] the values at the border continue.
    """
    axes, cells, factors, (first, last) = place_lattices(lattices, unit.device)
    across, placed = unit.clamp(0, 1).T, lattices.placed
    rows: list[Tensor] = []  # of one corner after another, (placed grids, n)
    hashes: list[Tensor] = []  # (other grids, n)
    products: list[Tensor] = []  # (grids, n)
    for axis in range(len(axes)):
        q = across[axes[axis]] * cells[axis]
        lower = torch.minimum(q.detach().int(), cells[axis] - 1)
        upper = q - lower
        if smooth:
            upper = upper * upper * (3 - 2 * upper)
        sides, near = (1 - upper, upper), lower * factors[axis]
        ends = near, near + factors[axis]
        if axis == 0:
            rows, hashes = [x[:placed] for x in ends], [x[placed:] for x in ends]
            products = list(sides)
            continue
        rows = [x + end[:placed] for x in rows for end in ends]
        hashes = [x ^ end[placed:] for x in hashes for end in ends]
        products = [x * side for x in products for side in sides]
    found = torch.stack([torch.cat(x) for x in zip(rows, hashes, strict=True)], -1)
    found[placed:] &= last[placed:].unsqueeze(-1)
    return found.add_(first.unsqueeze(-1)), torch.stack(products, -1)


def interpolate(coords: Tensor, table: Tensor, lattices: Lattices, smooth: bool = False) -> Tensor:
    """Features of points from each grid: coords (batch, points, coord) in [0, 1], table (1 | batch,
    rows, features) -> (batch, points, grids, features).
    """
    batch, points, _ = coords.shape
    index, coefficients = find_vertices(coords.flatten(0, 1), lattices, smooth)
    if len(table) > 1:  # each signal its own
        first = torch.arange(batch, device=coords.device) * table.shape[1]
        index = index + first.repeat_interleave(points).unsqueeze(-1)
    grids, _, corners = index.shape
    rows, coefficients = index.view(-1, corners), coefficients.view(-1, corners)
    sparse = id(table) in _sparse.get() and table.is_cpu
    found = Lookup.apply(table, coefficients.to(table.dtype), rows, sparse)
    return found.view(grids, batch, points, table.shape[-1]).permute(1, 2, 0, 3)


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
"""Rows that are read, for each row of a table, below which a gradient is sparse: sorting one index
takes as long as clearing, searching and adding some five rows."""


class Lookup(torch.autograd.Function):
    """y_n = sum_k c_nk T[i_nk], T the rows of all tables (1 | batch, rows, features).

    ``embedding_bag`` has no second derivative, and on a CPU its first one sorts all indices.
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, coefficients: Tensor, index: Tensor, sparse: bool
    ) -> Tensor:
        ctx.save_for_backward(table, coefficients, index)
        ctx.sparse = sparse
        rows = table.flatten(0, 1)
        return F.embedding_bag(index, rows, per_sample_weights=coefficients, mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        table, coefficients, index = ctx.saved_tensors
        to_table, to_coefficients = None, None
        if ctx.needs_input_grad[1]:
            to_coefficients = (table.flatten(0, 1)[index] * grad.unsqueeze(1)).sum(-1)
        if ctx.needs_input_grad[0]:
            twice = torch.is_grad_enabled()
            if not twice and not table.is_cpu:
                to_table = bag_gradient(table, coefficients, index, grad)
            elif not twice and ctx.sparse and index.numel() < FEW * table.shape[1]:
                to_table = sparse_gradient(table, coefficients, index, grad)
            else:
                each = (coefficients.unsqueeze(-1) * grad.unsqueeze(1)).flatten(0, 1)
                zero = torch.zeros_like(table).flatten(0, 1)
                to_table = add_rows(zero, index.flatten(), each).view_as(table)
        return to_table, to_coefficients, None, None


def bag_gradient(table: Tensor, coefficients: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the table by ``embedding_bag``, in whose sums the order is fixed."""
    with torch.enable_grad():
        rows = table.detach().flatten(0, 1).requires_grad_()
        found = F.embedding_bag(index, rows, per_sample_weights=coefficients, mode="sum")
    return torch.autograd.grad(found, rows, grad)[0].view_as(table)


def sparse_gradient(table: Tensor, coefficients: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """The gradient of a table (1, rows, features) as a sparse tensor of the rows that were read."""
    rows, place = torch.unique(index, return_inverse=True)
    each = (coefficients.unsqueeze(-1) * grad.unsqueeze(1)).flatten(0, 1)
    values = add_rows(each.new_zeros(len(rows), each.shape[-1]), place.flatten(), each)
    where = torch.stack([torch.zeros_like(rows), rows]).long()
    return torch.sparse_coo_tensor(
        where, values, table.shape, is_coalesced=True, check_invariants=False
    )


def add_rows(rows: Tensor, index: Tensor, each: Tensor) -> Tensor:
    """``rows`` (n, features) with each row (m, features) added to that of its index (m,).

    Two numbers are added as one complex number: on a CPU that halves the time.
    """
    if rows.shape[-1] == 2 and rows.is_cpu and rows.dtype in (torch.float32, torch.float64):
        sums = torch.view_as_complex(rows).index_add(0, index, torch.view_as_complex(each))
        return torch.view_as_real(sums)
    return rows.index_add(0, index, each)
