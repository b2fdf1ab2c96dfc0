"""Arrangements of tiles: scales, Gray codes, affine maps, against the equations."""

from __future__ import annotations

import math

import pytest
import torch

from fieldloom.conditioners import FlatWeights, Mixture, Shared
from fieldloom.family import Family
from fieldloom.fields import ARRANGEMENTS, Experts, Fourier, Tiling
from fieldloom.fields.arrangements import RandomAffine
from fieldloom.nn import dispatch as dispatching
from levels_of_experts import chosen, drawn, field_of, hierarchy, points, slow

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(params=[0, 128], ids=["sorted-together", "sorted-apart"])
def least(request, monkeypatch):
    """Points that must share the tiles of several layers, for these to be sorted by at once."""
    monkeypatch.setattr(dispatching, "MIN_ROWS", request.param)


def test_a_gray_code_changes_one_layer_at_every_boundary():
    middles = ((torch.arange(64, dtype=torch.float64) + 0.5) / 64)[:, None]
    gray = chosen(ARRANGEMENTS["gray"](), [(2,)] * 5, middles)
    changes = (gray[:, 1:] != gray[:, :-1]).sum(0)
    assert changes.tolist() == [0, 1] * 31 + [0]  # at every multiple of 1/32
    tree = chosen(ARRANGEMENTS["quad-tree"](), [(2,)] * 5, middles)
    changes = (tree[:, 1:] != tree[:, :-1]).sum(0)
    assert changes[31] == 5  # in the middle all at once
    assert changes[1::2].min() == 1
    # and every cell of the 32 is told from the others by both
    for code in (gray, tree):
        assert len({tuple(column) for column in code.T.tolist()}) == 32


def test_a_gray_code_changes_one_layer_at_every_boundary_of_each_axis():
    axis = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    unit = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
    gray = chosen(ARRANGEMENTS["gray"](), [(2, 2)] * 4, unit).view(4, 16, 16)
    assert ((gray[:, 1:] != gray[:, :-1]).sum(0) == 1).all()
    assert ((gray[:, :, 1:] != gray[:, :, :-1]).sum(0) == 1).all()


@pytest.mark.parametrize("name", ["coarse-to-fine", "fine-to-coarse"])
@pytest.mark.parametrize(
    "tiles", [[(3,), (2,), (5,)], [(2, 3), (4, 1), (1, 2)], [(2, 1, 3), (2, 2, 2)]]
)
def test_cells_are_told_apart_by_their_tiles(name, tiles):
    """As many combinations as the tiles' product, a cell of the finest layer each."""
    counts = [math.prod(layer[axis] for layer in tiles) for axis in range(len(tiles[0]))]
    middles = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in counts]
    unit = torch.stack(torch.meshgrid(*middles, indexing="ij"), -1).flatten(0, -2)
    combinations = chosen(ARRANGEMENTS[name](), tiles, unit).T.tolist()
    assert len({tuple(c) for c in combinations}) == len(combinations) == math.prod(counts)


def test_scales_of_arrangements_by_hand():
    tiles = [(4, 2), (4, 2), (2, 1)]

    def scales(name, **own):
        return [tiling.scale.tolist() for tiling in ARRANGEMENTS[name](**own)(tiles)]

    assert scales("coarse-to-fine") == [[4, 2], [16, 4], [32, 4]]
    assert scales("coarse-to-fine", growth=2.0) == [[4, 2], [8, 4], [16, 8]]
    assert scales("coarse-to-fine", finest=10.0) == [[4, 2], [10, 4], [10, 4]]
    assert scales("fine-to-coarse") == [[32, 4], [8, 2], [2, 1]]
    assert scales("aligned") == [[32, 4]] * 3
    last = ARRANGEMENTS["fine-to-coarse"](growth=2.0)([(4,), (4,), (4,), (1,)])
    assert [tiling.scale.item() for tiling in last[:3]] == [16, 8, 4]  # untiled layers do not count
    first = ARRANGEMENTS["coarse-to-fine"](growth=2.0)([(1,), (4,), (4,)])
    assert [tiling.scale.item() for tiling in first[1:]] == [4, 8]
    assert scales("interleaved", scale=64.0) == [[64, 64]] * 3
    assert scales("chunked") == [[4, 2], [4, 2], [2, 1]]
    assert scales("given", scales=(1.0, 2.0, 3.0)) == [[1, 1], [2, 2], [3, 3]]
    offsets = ARRANGEMENTS["given"](scales=(1.0, 2.0), offsets=(0.25, 0.5))([(2,), (2,)])
    assert [tiling.offset.tolist() for tiling in offsets] == [[0.25], [0.5]]


def test_random_affine_is_drawn_once_and_is_no_parameter():
    field = Experts(
        2,
        3,
        width=4,
        depth=3,
        tiling=Tiling(tiles=(3, 1, 2), arrangement=RandomAffine(spread=0.5)),
        encoding=Fourier(count=2),
    )
    names = [name for name in field.slots if name.endswith("tiling")]
    assert names == ["0.tiling", "2.tiling"]  # the layer of one tile has no use for one
    assert {field.slots[name].role for name in names} == {"fixed"}
    # the same seed draws the same, another one does not
    seeded = lambda name, seed: field.slots[name].init(torch.Generator().manual_seed(seed))
    assert torch.equal(seeded("0.tiling", 1), seeded("0.tiling", 1))
    assert not torch.equal(seeded("0.tiling", 1), seeded("0.tiling", 2))
    for conditioner in (Shared(field.slots), Mixture(field.slots, 2, 3), FlatWeights(field.slots)):
        family = Family(field, conditioner)
        # it is saved with the state and nothing trains it
        assert f"conditioner.base.{names[0]}" in family.state_dict()
        assert not [name for name, _ in family.named_parameters() if "tiling" in name]
        # and it matters
        where = points(1, 50, 2).float()
        before = family(where, conditioner.origin(1))
        conditioner.base["0.tiling"][:, -1] += 1.3
        assert not torch.allclose(family(where, conditioner.origin(1)), before)
        # another family takes it over with the state
        other = Family(field, type(conditioner)(field.slots, *TAKEN.get(type(conditioner), ())))
        other.load_state_dict(family.state_dict())
        torch.testing.assert_close(
            other(where, other.conditioner.origin(1)), family(where, conditioner.origin(1))
        )


TAKEN: dict[type, tuple[int, ...]] = {Mixture: (2, 3)}


def test_random_affine_turns_stretches_and_moves():
    """Rows are points: q = p M + o, M a turn whose columns are stretched to cells of their size."""
    tiles = [(3, 4, 5), (2, 2, 2)]
    for tiling, counts, scale in zip(
        RandomAffine(spread=0.5)(tiles), tiles, hierarchy(tuple(tiles)), strict=True
    ):
        assert tiling.draw is not None
        matrices = torch.stack([tiling.draw(None) for _ in range(200)]).double()
        gram = matrices[:, :-1].mT @ matrices[:, :-1]
        lengths = gram.diagonal(dim1=1, dim2=2).sqrt()
        torch.testing.assert_close(gram, torch.diag_embed(lengths**2), rtol=0, atol=1e-2)
        stretch = (lengths / scale).log2()
        assert 0.9 < stretch.abs().max() / 0.5 <= 1 + 1e-4
        assert stretch.mean().abs() < 0.05
        offsets = matrices[:, -1]
        assert (offsets >= 0).all()
        assert (offsets.amax(0) < torch.tensor(counts)).all()
        assert (offsets.amax(0) > 0.9 * torch.tensor(counts)).all()


@pytest.mark.usefixtures("least")
@pytest.mark.parametrize("blend", ["nearest", "linear"])
def test_random_affine_is_the_equations_at_its_positions(blend):
    case = dict(tiles=((3, 2), (2, 2)), blend=blend)
    field = field_of(axes=2, arrangement=RandomAffine(), **case)
    weights, where = drawn(field, 2), points(2, 6, 2)
    places = [
        lambda unit, m=weights[f"{i}.tiling"][0]: torch.stack(
            [(unit * m[:2, axis]).sum() + m[2, axis] for axis in range(2)]
        )
        for i in range(2)
    ]
    expected = slow(where, weights, places=places, **case)
    torch.testing.assert_close(field(where, weights), expected, **CLOSE)
