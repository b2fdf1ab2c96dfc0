"""Encodings of coordinates: grids of features against hats and grid_sample."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.conditioners import Substitute
from fieldloom.encoders import Cavia
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp
from fieldloom.fields.encodings import Embedding, Encoding
from fieldloom.metrics.losses import mse
from fieldloom.modalities import Grid
from fieldloom.renderers import Direct as DirectRenderer
from levels_of_experts import derivatives, octaves_of, points
from vectors import same

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def hat(p: Tensor, table: Tensor, low: float, high: float) -> Tensor:
    """A grid of features at one place: every cell by a hat of its own along each axis."""
    shares = []
    for at, n in zip(p, table.shape[:-1], strict=True):
        q = ((at - low) / (high - low) * n - 0.5).clamp(0, n - 1)
        shares.append((1 - (q - torch.arange(n, dtype=p.dtype)).abs()).clamp(min=0))
    share = reduce(lambda a, b: (a[:, None] * b).flatten(), shares)
    return share @ table.flatten(0, -2)


@pytest.mark.parametrize("own_tables", [1, 3])
@pytest.mark.parametrize("sizes", [(4,), (3, 5), (1, 4), (2, 3, 4), (2, 1, 2, 2)])
def test_an_embedding_is_its_hats(sizes, own_tables):
    """Values and gradients of the table and of the coordinates, beyond the border too."""
    embedding = Embedding(sizes, channels=2, low=0.0, high=2.0)
    table = torch.randn(own_tables, *sizes, 2, dtype=torch.float64, requires_grad=True)
    where = (points(3, 8, len(sizes), 1.4) + 1).requires_grad_()
    ours = embedding(where, table)
    theirs = torch.stack(
        [
            torch.stack([hat(p, table[min(b, own_tables - 1)], 0.0, 2.0) for p in signal])
            for b, signal in enumerate(where)
        ]
    )
    torch.testing.assert_close(ours, theirs, **CLOSE)
    for a, b in zip(
        derivatives(ours, [table, where], False),
        derivatives(theirs, [table, where], False),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("sizes", [(3, 5), (4, 4), (2, 3, 4)])
def test_an_embedding_is_grid_sample(sizes):
    """Of torch, whose coordinates stand in the other order."""
    embedding = Embedding(sizes, channels=3)
    table = torch.randn(2, *sizes, 3, dtype=torch.float64, requires_grad=True)
    where = points(2, 40, len(sizes), 1.3).requires_grad_()
    one = [1] * (len(sizes) - 1)
    sampled = F.grid_sample(
        table.movedim(-1, 1), where.flip(-1).view(2, *one, 40, -1), padding_mode="border",
        align_corners=False,
    )  # fmt: skip
    theirs, ours = sampled.flatten(2).mT, embedding(where, table)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    for a, b in zip(
        derivatives(ours, [table, where], False),
        derivatives(theirs, [table, where], False),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("own_tables", [1, 2])
def test_an_embedding_is_differentiated_twice(own_tables):
    """As descent on a code that is the table needs it, and penalties of slopes in space."""
    embedding = Embedding((3, 4), channels=2)
    table = torch.randn(own_tables, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    where = points(2, 8, 2, 1.2).requires_grad_()
    theirs = torch.stack(
        [
            torch.stack([hat(p, table[min(b, own_tables - 1)], -1.0, 1.0) for p in signal])
            for b, signal in enumerate(where)
        ]
    )
    for a, b in zip(
        derivatives(embedding(where, table), [table, where], True),
        derivatives(theirs, [table, where], True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **CLOSE)


def test_descent_on_a_grid_of_features():
    """The code is the table; training differentiates through the descent on it."""
    field = FourierMlp(
        2, 3, width=6, depth=3, encoding=Fourier("octaves", count=2, grid=Embedding(4, 2))
    )
    family = Family(field, Substitute(field.slots, "grid"))
    assert family.code_shape == (16, 2)
    encoder = Cavia(family.code_shape, rate=0.1, rates="fixed").train()
    signal = Grid(size=6).observe(torch.rand(2, 3, 6, 6)).target
    code = encoder(signal, family, DirectRenderer(), mse)
    mse(family(signal.coords, code), signal.values).mean().backward()
    assert family.conditioner.start.grad.abs().sum() > 0


def test_what_an_encoding_joins():
    """The coordinates first, then their features, then what the grid holds."""
    where = points(2, 5, 2)
    table = torch.randn(1, 3, 3, 4, dtype=torch.float64)
    for features, width, expected in (
        ("octaves", 8, torch.stack([octaves_of(p, 2) for p in where.flatten(0, 1)]).view(2, 5, 8)),
        ("constant", 2, torch.ones(2, 5, 2, dtype=torch.float64)),
    ):
        own = Fourier(features, 2, include_input=True, grid=Embedding(3, 4))
        encoding = Encoding(2, own)
        assert encoding.width == 2 + width + 4
        coordinates, own, looked_up = encoding(where, {"grid": table}).split([2, width, 4], -1)
        same(coordinates, where)
        same(own, expected)
        same(looked_up, Embedding(3, 4)(where, table))
    plain = Encoding(2, Fourier("none", 0, include_input=True))
    assert plain.width == 2
    same(plain(where, {}), where)
