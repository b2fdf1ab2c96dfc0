"""Interpolation in grids against a loop over levels, corners and axes, in float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from fieldloom.fields.grids import DenseGrid, HashGrid, KPlanes, TriPlane
from fieldloom.nn import grids
from fieldloom.nn.grids import Lattices, find_vertices, interpolate, sparse_gradients

PRIMES = (1, 2_654_435_761, 805_459_861)  # arXiv:2201.05989, eq. 4
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
GRIDS = {
    "hash": HashGrid(levels=4, coarsest=2, growth=1.7, log2_hashmap_size=5),
    "smooth hash": HashGrid(
        levels=3, coarsest=3, finest=11, log2_hashmap_size=3, features=3, interpolation="smooth"
    ),
    "dense": DenseGrid(levels=3, coarsest=2, growth=1.5),
    "tri-plane": TriPlane((3, (4, 2, 5)), features=2),
    "k-planes": KPlanes(((2, 5, 3), 4), features=4, interpolation="smooth"),
}


def look_up(p: Tensor, table: Tensor, lattices: Lattices, smooth: bool) -> Tensor:
    """The features of one place p (coord,) from each grid: (grids, features)."""
    found, first = [], 0
    for grid, (axes, cells) in enumerate(zip(lattices.axes, lattices.cells, strict=True)):
        total = torch.zeros(table.shape[-1], dtype=p.dtype)
        for step in product((0, 1), repeat=len(axes)):
            share, vertex = torch.ones((), dtype=p.dtype), []
            for axis, n, one in zip(axes, cells, step, strict=True):
                q = p[axis].clamp(0, 1) * n
                low = min(int(q.detach()), n - 1)
                x = q - low
                x = 3 * x**2 - 2 * x**3 if smooth else x
                share = share * (x if one else 1 - x)
                vertex.append(low + one)
            if grid < lattices.placed:
                row = 0
                for v, n in zip(vertex, cells, strict=True):
                    row = row * (n + 1) + v
            else:
                row = 0
                for v, prime in zip(vertex, PRIMES, strict=False):
                    row ^= v * prime
                row %= lattices.rows[grid]
            total = total + share * table[first + row]
        found.append(total)
        first += lattices.rows[grid]
    return torch.stack(found)


def derivatives(y: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The gradients of a sum of y, and those of a sum of their squares."""
    weight = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)
    first = torch.autograd.grad((y * weight).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), inputs)
    return [*first, *second]


@pytest.mark.parametrize("own_tables", [1, 2])
@pytest.mark.parametrize("name", GRIDS)
def test_interpolation_is_a_loop_over_corners(name, own_tables):
    """Values, first and second derivatives by table and places, beyond the border too."""
    grid, smooth = GRIDS[name], GRIDS[name].interpolation == "smooth"
    lattices, generator = grid.lattices(3), torch.Generator().manual_seed(0)
    if name == "hash":
        assert 0 < lattices.placed < 4  # levels of both kinds
    coords = torch.rand(2, 4, 3, generator=generator, dtype=torch.float64) * 1.2 - 0.1
    coords[0, 0], coords[0, 1] = 0.0, 1.0
    shape = (own_tables, sum(lattices.rows), grid.features)
    table = torch.randn(shape, generator=generator, dtype=torch.float64)
    coords.requires_grad_()
    table.requires_grad_()
    fast = interpolate(coords, table, lattices, smooth)
    slow = torch.stack(
        [
            torch.stack([look_up(p, table[min(i, own_tables - 1)], lattices, smooth) for p in own])
            for i, own in enumerate(coords)
        ]
    )
    torch.testing.assert_close(fast, slow, **CLOSE)
    pairs = zip(derivatives(fast, coords, table), derivatives(slow, coords, table), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_corners_add_up_and_lie_in_their_grid():
    lattices = HashGrid(levels=6, coarsest=3, log2_hashmap_size=7).lattices(2)
    index, coefficients = (torch.cat(x, 1) for x in find_vertices(torch.rand(50, 2), lattices))
    torch.testing.assert_close(coefficients.sum(0), torch.ones(6, 50))
    ends = torch.tensor(lattices.rows).cumsum(0)
    assert (index.amax((0, 2)) < ends).all()
    assert (index.amin((0, 2)) >= ends - torch.tensor(lattices.rows)).all()


def test_grids_that_inference_placed_first_serve_gradients():
    lattices = DenseGrid(levels=2, coarsest=5).lattices(2)
    coords, table = torch.rand(1, 4, 2), torch.rand(1, sum(lattices.rows), 4)
    with torch.inference_mode():
        before = interpolate(coords, table, lattices)
    after = interpolate(coords.requires_grad_(), table.requires_grad_(), lattices)
    torch.testing.assert_close(after, before.clone())
    after.sum().backward()
    assert coords.grad.abs().sum() > 0


def test_a_sparse_gradient_is_the_dense_one(monkeypatch):
    lattices = HashGrid(levels=3, coarsest=4, log2_hashmap_size=6).lattices(2)
    coords, table = torch.rand(1, 5, 2), torch.randn(1, sum(lattices.rows), 2, requires_grad=True)
    interpolate(coords, table, lattices).square().sum().backward()
    dense, table.grad = table.grad, None
    monkeypatch.setattr(grids, "FEW", 10.0)
    with sparse_gradients([table]):
        found = interpolate(coords, table, lattices)
    found.square().sum().backward()
    assert table.grad.is_sparse
    assert table.grad._nnz() < table.shape[1]
    torch.testing.assert_close(table.grad.to_dense(), dense)
    with sparse_gradients([table]):  # a second derivative takes the dense path
        found = interpolate(coords, table, lattices)
    (grad,) = torch.autograd.grad(found.square().sum(), table, create_graph=True)
    assert not grad.is_sparse
    torch.testing.assert_close(grad, dense)
    monkeypatch.setattr(grids, "FEW", 0.0)  # and so does a batch that reads much
    with sparse_gradients([table]):
        found = interpolate(coords, table, lattices)
    assert not torch.autograd.grad(found.square().sum(), table)[0].is_sparse


def test_an_accelerators_gradient_is_that_of_a_cpu():
    lattices = HashGrid(levels=3, coarsest=4, log2_hashmap_size=6).lattices(2)
    index, coefficients = (torch.cat(x, 1) for x in find_vertices(torch.rand(9, 2), lattices))
    table = torch.randn(1, sum(lattices.rows), 2, requires_grad=True)
    found = grids.Lookup.apply(table, False, index, coefficients)
    weight = torch.randn_like(found)
    (ours,) = torch.autograd.grad((found * weight).sum(), table)
    bag = grids.bag_gradient(table[0], [(index, coefficients)], weight.transpose(0, 1))
    torch.testing.assert_close(bag, ours[0])


def test_a_table_may_begin_at_any_number_of_a_code():
    """Codes of an odd number of weights have tables that begin at odd ones."""
    lattices = GRIDS["hash"].lattices(2)
    count = 2 * sum(lattices.rows)
    codes = torch.randn(2, count + 1, dtype=torch.float64, requires_grad=True)
    p = torch.rand(2, 5, 2, dtype=torch.float64)
    both = interpolate(p, codes[:, :count].unflatten(1, (-1, 2)), lattices)
    last = interpolate(p[1:], codes[1:, :count].unflatten(1, (-1, 2)), lattices)
    assert torch.equal(last, both[1:])
    grads = [torch.autograd.grad(y.square().sum(), codes)[0][1] for y in (both, last)]
    torch.testing.assert_close(*grads)


def test_no_points_have_no_features():
    lattices = DenseGrid(levels=2, coarsest=5).lattices(2)
    table = torch.rand(1, sum(lattices.rows), 4)
    assert interpolate(torch.rand(3, 0, 2), table, lattices).shape == (3, 0, 2, 4)


@pytest.mark.parametrize("name", ["hash", "k-planes"])
def test_a_place_that_is_no_number_has_features_that_are_none(name):
    """As of any other field; infinite places have the values of the border."""
    grid = GRIDS[name]
    lattices = grid.lattices(3)
    table = torch.rand(1, sum(lattices.rows), grid.features)
    coords = torch.tensor([[[0.3, torch.nan, 0.2], [0.3, torch.inf, -torch.inf], [0.3, 1.0, 0.0]]])
    found = interpolate(coords, table, lattices)[0].flatten(1)
    assert found[0].isnan().any()
    assert torch.equal(found[1], found[2])


def test_what_is_looked_up_does_not_depend_on_the_blocks(monkeypatch):
    lattices = HashGrid(levels=6, coarsest=3, log2_hashmap_size=7).lattices(2)
    coords, table = torch.rand(1, 50, 2), torch.randn(1, sum(lattices.rows), 2, requires_grad=True)
    found = []
    for points in (1, 150, 1000):  # grids alone, by threes, all together
        monkeypatch.setattr(grids, "CACHED", points)
        y = interpolate(coords, table, lattices)
        found.append((y, torch.autograd.grad(y.square().sum(), table)[0]))
    for other in found[1:]:
        assert torch.equal(other[0], found[0][0])
        assert torch.equal(other[1], found[0][1])
