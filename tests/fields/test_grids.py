"""Fields on grids: planes against products and sums, levels, heads, and what is refused."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch.nn import functional as F

from fieldloom.assembly import TABLES, build
from fieldloom.errors import InputError
from fieldloom.fields import GRIDS, GridMlp, Head
from fieldloom.fields.grids import DenseGrid, HashGrid, KPlanes, TriPlane
from fieldloom.metrics.cost import count_macs
from fieldloom.registry import build as build_part


def planes_by_grid_sample(grid, coords, table):
    """The features of every plane of every scale, by torch: scale -> [(features, points)]."""
    scales, rest = [], table
    for cells in grid.cells:
        found = []
        for a, b in combinations(range(3), 2):
            count = (cells + 1) ** 2
            plane, rest = rest[:count].view(cells + 1, cells + 1, -1).permute(2, 0, 1), rest[count:]
            where = coords[:, [b, a]].view(1, 1, -1, 2)  # x, the last axis, first
            sampled = F.grid_sample(plane[None], where, align_corners=True)
            found.append(sampled[0, :, 0])
        scales.append(found)
    assert not len(rest)
    return scales


@pytest.mark.parametrize("kind", [KPlanes, TriPlane])
def test_planes_are_products_and_sums(kind):
    grid = kind((4, 7), features=3)
    field = GridMlp(3, 2, grid=grid)
    coords = torch.rand(20, 3, dtype=torch.float64) * 2 - 1
    table = torch.randn(field.slots["grid.weight"].shape, dtype=torch.float64)
    scales = planes_by_grid_sample(grid, coords, table)
    if kind is KPlanes:
        expected = [xy * xz * yz for xy, xz, yz in scales]
    else:
        expected = [xy + xz + yz for xy, xz, yz in scales]
    encoded = field.encode(coords[None], {"grid.weight": table[None]})
    torch.testing.assert_close(encoded[0], torch.cat(expected).T)


def test_levels_of_the_paper():
    """arXiv:2201.05989, eqs. 2 and 3: N_l = floor(N_min b^l), from N_min to N_max."""
    hashed = HashGrid(levels=16, coarsest=16, finest=512, log2_hashmap_size=14).lattices(3)
    cells = [own[0] for own in hashed.cells]
    assert (cells[0], cells[1], cells[-1]) == (16, 20, 512)
    assert hashed.rows[0] == 17**3
    assert hashed.rows[-1] == 2**14
    assert hashed.placed == sum((n + 1) ** 3 <= 2**14 for n in cells) == 2
    dense = DenseGrid(levels=3, coarsest=4, growth=2.0).lattices(2)
    assert dense.rows == (25, 81, 289)
    assert dense.placed == 3


def test_smooth_features_have_no_slope_at_vertices():
    grid = DenseGrid(levels=1, coarsest=4, interpolation="smooth")
    field = GridMlp(1, 1, grid=grid)
    table = torch.randn(1, *field.slots["grid.weight"].shape)
    coords = torch.tensor([[[-0.5], [0.0], [0.3]]], requires_grad=True)
    (slope,) = torch.autograd.grad(field.encode(coords, {"grid.weight": table}).sum(), coords)
    assert (slope[0, :2] == 0).all()
    assert slope[0, 2] != 0


def test_the_density_of_a_radiance_head_does_not_see_directions():
    field = GridMlp(3, 4, 3, grid=DenseGrid(levels=2), width=8, depth=5, head=Head("radiance"))
    weights = {name: slot.init(None)[None] for name, slot in field.slots.items()}
    coords = torch.rand(1, 6, 6)
    turned = torch.cat([coords[..., :3], -coords[..., 3:]], -1)
    one, other = field(coords, weights), field(turned, weights)
    assert one.shape == (1, 6, 4)
    assert torch.equal(one[..., 3], other[..., 3])
    assert not torch.equal(one[..., :3], other[..., :3])


def test_multiply_accumulates_do_not_count_what_is_looked_up():
    field = GridMlp(2, 3, grid=HashGrid(levels=4), width=16, depth=3)
    assert count_macs(field.slots, 0, 1) == 8 * 16 + 16 * 16 + 16 * 3


def test_a_grid_of_a_recipe_and_an_encodings_grid_are_told_apart():
    known = {"coord_dim": 2, "value_dim": 3}
    for name in GRIDS:
        field = build_part("field", {"name": "grid-mlp", "grid": name}, TABLES, **known)
        assert type(field.grid) is GRIDS[name]
    spec = {"name": "fourier-mlp", "encoding": {"grid": {"size": 3}}}
    assert build_part("field", spec, TABLES, **known).encoding.grid.size == 3


def test_tables_are_a_group_of_their_own():
    system = build("loe", "small-table1-hash", modality={"size": 8})
    from fieldloom.assembly import objective_of

    groups = objective_of(system).players["field"]
    assert list(groups) == ["shared", "tables"]
    assert [p is system.family.conditioner.base["grid.weight"] for p in groups["tables"]] == [True]


WRONG = [
    (lambda: HashGrid(levels=0), "levels = 0"),
    (lambda: HashGrid(levels=65), "at most 64 levels"),
    (lambda: HashGrid(log2_hashmap_size=31), "log2_hashmap_size = 31"),
    (lambda: HashGrid(growth=0.5), "growth = 0.5"),
    (lambda: HashGrid(finest=3), "finest = 3: from 16, coarsest, to"),
    (lambda: HashGrid(levels=64, growth=2.0).lattices(2), "finest level has more than 8388608"),
    (lambda: HashGrid().lattices(8), "8 coordinates, more than 7"),
    (lambda: DenseGrid(features=0), "features = 0"),
    (lambda: DenseGrid(finest=3), "finest = 3"),
    (lambda: DenseGrid(growth=float("nan")), "growth = nan: a finite number of at least 1"),
    (lambda: HashGrid(growth=float("inf")), "growth = inf: a finite number of at least 1"),
    (lambda: HashGrid(finest=10**400), "finest = 1000.* to 8388608"),
    (lambda: HashGrid(levels=1, finest=512), "finest = 512: of one level it is coarsest, 16"),
    (lambda: TriPlane().lattices(1), "pairs of coordinates"),
    (lambda: KPlanes((4, (3, 3))).lattices(3), "one a coordinate"),
    (lambda: GridMlp(2, 3, 3), "radiance"),
    (lambda: GridMlp(2, 3, depth=1), "depth = 1"),
    (lambda: GridMlp(2, 3, low=1.0), "low comes before high"),
    (lambda: GridMlp(3, 4, head=Head("radiance"), depth=5, offset=0.5), "no offset"),
    (lambda: GridMlp(2, 3, grid=DenseGrid(1, coarsest=2**16)), "rows, more than"),
]


@pytest.mark.parametrize(("make", "said"), WRONG)
def test_wrong_grids_are_refused_in_one_sentence(make, said):
    with pytest.raises(InputError, match=said):
        make()
