"""Tiled linear layers against a layer row by row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fieldloom.fields import Experts, Fourier, Head, Tiling
from fieldloom.fields.arrangements import RandomAffine
from fieldloom.fields.encodings import Embedding
from fieldloom.metrics.cost import count_macs
from fieldloom.nn.dispatch import Segments
from fieldloom.nn.tiles import (
    blend_corners,
    compose_tiled_linear,
    tile_indices,
    tiled_linear,
)
from levels_of_experts import drawn, parts_of, points

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


# -- identities


@pytest.mark.parametrize("tiles", [(1,), (2,), (5,), (1, 3), (4, 1, 2), (2, 2, 2, 2)])
def test_the_shares_of_a_blend_add_up_to_one(tiles):
    q = points(1, 200, len(tiles), 9.0)[0]
    table, shares = blend_corners(q, tiles)
    assert shares.shape == (200, 2 ** sum(n > 1 for n in tiles)) == (200, len(table))
    torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[:, 0]))
    assert (shares >= 0).all()
    # the corners of a tile are tiles, each corner a permutation of them
    for own in table:
        assert sorted(own) == list(range(math.prod(tiles)))


def test_matrices_that_a_point_meets():
    """One of a nearest layer, two an axis of several tiles of a linear one: they cost."""
    tiles, own = ((2, 1, 1), 1, (2, 2, 3)), dict(width=4, depth=6, encoding=Fourier(count=1))
    for blend, passes in (("nearest", [1] * 6), ("linear", [2, 1, 8, 1, 1, 1])):
        head = Head("radiance", octaves=1, width=5)
        field = Experts(3, 4, 3, tiling=Tiling(tiles, blend), head=head, **own)
        assert [field.slots[f"{i}.weight"].passes for i in range(6)] == passes
        sizes = [6 * 4, 4 * 4, 4 * 4, 4 * 1, (4 + 9) * 5, 5 * 3]
        expected = sum(a * b for a, b in zip(passes, sizes, strict=True))
        assert count_macs(field.slots, 0, 10) == 10 * expected


# -- other paths to the same numbers


def layer(inputs: int = 8, outputs: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """Rows, their order, matrices, a bias, and a blend of two corners."""
    x = torch.randn(12, inputs, dtype=dtype, requires_grad=True)
    weight = torch.randn(3, inputs, outputs, dtype=dtype, requires_grad=True)
    bias = torch.randn(outputs, dtype=dtype, requires_grad=True)
    shares = torch.rand(12, 2, dtype=dtype, requires_grad=True)
    order = Segments(torch.randperm(12), ((0, 5, 0), (5, 6, 2), (6, 9, 1), (9, 12, 0)))
    return x, order, weight, bias, [[0, 1, 2], [1, 2, 0]], shares


def per_row(x, order, weight, bias, table, shares):
    matrices = [matrix for a, b, matrix in order.bounds for _ in range(a, b)]
    rows = []
    for r, matrix in enumerate(matrices):
        row = x[order.permutation[r]]
        parts = [shares[r, c] * (row @ weight[own[matrix]]) for c, own in enumerate(table)]
        rows.append(sum(parts) + bias)
    return torch.stack(rows)


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("blend", ["nearest", "linear"])
def test_a_layer_row_by_row(blend, expanded):
    """Both orders of derivatives, of slopes that are one number too."""
    x, order, weight, bias, table, shares = layer()
    about = [x, weight, bias] + ([shares] if blend == "linear" else [])
    blended = (table, shares) if blend == "linear" else None
    ones = ([[0, 1, 2]], torch.ones(12, 1))
    ours = lambda: tiled_linear(x, order, weight, bias, blended)
    theirs = lambda: per_row(x, order, weight, bias, *(blended or ones))
    found = []
    for value in (ours, theirs):
        y = value()
        torch.manual_seed(3)
        slope = torch.ones((), dtype=y.dtype).expand_as(y) if expanded else torch.randn_like(y)
        first = torch.autograd.grad(y, about, slope, create_graph=True)
        total = sum((g * torch.randn_like(g)).sum() for g in first)
        found.append([y, *first, *torch.autograd.grad(total, about, materialize_grads=True)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_second_derivatives_where_the_input_is_made_of_the_same_matrices():
    """In two layers of the same W its gradient is not counted again on the way through inputs."""
    x, order, weight, *_ = layer(4, 4, torch.float64)
    found = []
    for way in (
        lambda at: tiled_linear(at, order, weight),
        lambda at: compose_tiled_linear(at, weight, None, None, order, [[0, 1, 2]]),
    ):
        (first,) = torch.autograd.grad(way(way(x)).square().sum(), weight, create_graph=True)
        found.append([first, *torch.autograd.grad(first.square().sum(), weight)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_weights_in_bfloat16_are_near():
    """As ``System.evaluate`` hands them over: all but the first layer's and what is no layer's."""
    for own in (dict(blend="linear"), dict(residual=True, context=3, skip=(2,)),
                dict(grid=Embedding(3, 2)), dict(arrangement=RandomAffine())):  # fmt: skip
        field = Experts(2, 3, width=8, depth=4, **parts_of(dict(tiles=(2, 1, 3, 2)) | own))
        for batch in (1, 2):
            weights, where = drawn(field, batch, torch.float32), points(2, 40, 2).float()
            rounded = {
                n: w.bfloat16() if n[0] in "123" and "tiling" not in n else w
                for n, w in weights.items()
            }
            exact, near = field(where, weights), field(where, rounded).float()
            assert 0 < (near - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("tiles", [(4,), (4, 4), (3, 1, 5)])
def test_a_blended_start_has_less_variance_by_a_closed_form(tiles):
    """E[(1 - f)^2 + f^2] = 2/3 for f uniform in [0, 1]: a factor of 2/3 for every blended axis."""
    draw = torch.Generator().manual_seed(0)
    q = 100 * torch.rand(1000, len(tiles), generator=draw)
    weight = torch.randn(math.prod(tiles), 4096, generator=draw)  # the numbers of many networks
    table, fractions = blend_corners(q, tiles)
    here = tile_indices(q, tiles)
    blended = sum(
        fractions[:, corner, None] * weight[torch.tensor(own)[here]]
        for corner, own in enumerate(table)
    )
    blended_axes = sum(n > 1 for n in tiles)
    assert blended.var() == pytest.approx((2 / 3) ** blended_axes, rel=0.05)
    assert weight[here].var() == pytest.approx(1, rel=0.05)  # nearest
