"""Samples where the grid expects something: exact integrals, what is skipped, contracted space."""

import math

import pytest
import torch

import fieldloom
from fieldloom.engine.run import load
from fieldloom.errors import InputError, Interrupted
from fieldloom.renderers import Occupancy
from given import seeded
from posed_images import HEIGHT, WIDTH, blender

NEAR, FAR = 0.0, 2.0
ALONG_X = torch.tensor([[[-1.0, 0.01, 0.01, 1, 0, 0]]], dtype=torch.float64)
"""One ray: x = t - 1, through the domain."""
PLAIN = dict(near=NEAR, far=FAR, density="relu", colour="identity", directions=False,
             resolution=8, bins=16, background="none")  # fmt: skip


class Slab:
    """A field that is red, of a density where low < x < high; it counts the points it is asked."""

    def __init__(self, density=1.5, low=-2.0, high=2.0):
        self.density, self.low, self.high, self.seen = density, low, high, []

    def __call__(self, points):
        x = points[..., 0]
        self.seen.append(points)
        inside = ((x > self.low) & (x < self.high)).to(points)
        red = torch.tensor([0.9, 0.1, 0.2]).to(points).expand(*x.shape, 3)
        return torch.cat([red, (self.density * inside).unsqueeze(-1)], -1)

    @property
    def count(self):
        return sum(points.shape[1] for points in self.seen)


def fill(render, field):
    """Let the grid know the density at the middle of every cell."""
    side = (torch.arange(render.resolution) + 0.5) * 2 / render.resolution - 1
    x = side.view(-1, 1, 1).expand((render.resolution,) * 3).flatten()
    render.grid.copy_(field(torch.stack([x, x, x], -1).unsqueeze(0))[0, :, 3])
    field.seen.clear()
    return render


@pytest.mark.parametrize("samples", [1 + 1, 3, 16])
def test_a_slab_is_exact(samples):
    """Opacity 1 - exp(-sigma L), from samples within the slab alone."""
    field = Slab(1.5, -0.5, 0.25)
    render = fill(Occupancy(samples=samples, **PLAIN), field)
    seen = render.march(field, ALONG_X)
    assert seen.opacity.item() == pytest.approx(1 - math.exp(-1.5 * 0.75), rel=1e-9)
    assert field.count == samples
    x = field.seen[0][..., 0]
    assert ((x > -0.5) & (x < 0.25)).all()
    whole = Occupancy(samples=samples, **PLAIN).march(Slab(1.5), ALONG_X)  # nothing is known yet
    assert whole.opacity.item() == pytest.approx(1 - math.exp(-1.5 * 2), rel=1e-9)


def test_length_of_a_direction():
    field = Slab(1.5, -0.5, 0.25)
    render = fill(Occupancy(**PLAIN | dict(far=FAR / 4)), field)
    fast = torch.cat([ALONG_X[..., :3], 4 * ALONG_X[..., 3:]], -1)
    assert render.march(field, fast).opacity.item() == pytest.approx(1 - math.exp(-1.5 * 0.75))


def test_what_is_hidden_gets_few_samples():
    field = Slab(400.0, -0.5, 1.0)
    render = fill(Occupancy(samples=16, even=0.25, **PLAIN), field)
    render.march(field, ALONG_X)
    before = (field.seen[0][..., 0] < -0.25).sum()  # the first two of its twelve bins
    assert 12 <= before <= 13


def test_empty_rays_cost_nothing():
    field = Slab(1.5, -0.5, 0.25)
    render = fill(Occupancy(samples=4, **PLAIN | dict(background="white")), field)
    beside = torch.tensor([[[0.5, 0.5, -1.0, 0, 0, 1]]], dtype=torch.float64)  # at x = 0.5
    seen = render.march(field, torch.cat([beside, ALONG_X, beside], 1))
    assert field.count == 4
    assert seen.colour[0, 0].tolist() == [1, 1, 1]
    assert seen.opacity[0, [0, 2]].tolist() == [0, 0]
    alone = render.march(field, ALONG_X)
    torch.testing.assert_close(seen.colour[:, 1:2], alone.colour)
    with torch.no_grad():
        assert render.depth(field, beside).item() == FAR
    assert field.count == 2 * 4
    render.march(field, beside)  # where training meets nothing all are evaluated, so that it learns
    assert field.count == 3 * 4


def test_a_ray_that_meets_nothing_does_not_depend_on_the_others():
    """Thin fog, which counts as empty in all cells but the solid ones."""
    fog, solid = Slab(0.05), Slab(1.5, 0.0)
    render = fill(Occupancy(**PLAIN | dict(background="white")), solid)
    beside = torch.tensor([[[-0.5, 0.5, -1.0, 0, 0, 1]]], dtype=torch.float64)  # at x = -0.5
    with torch.no_grad():
        alone = render(fog, beside)
        together = render(fog, torch.cat([beside, ALONG_X], 1))
    assert alone.tolist() == [[[1, 1, 1]]]
    assert torch.equal(together[:, :1], alone)


@pytest.mark.parametrize("empty", [0.0, 0.01, 0.999])
def test_what_counts_as_empty(empty):
    """Fog that takes 0.9 % of the light in each bin is seen at 0 alone; at 0.999 only a wall is."""
    bins, length = 128, 2 / 128
    density = -math.log1p(-0.009) / length
    grid = PLAIN | dict(bins=bins, background="white", empty=empty)

    def opacity(field):
        with torch.no_grad():
            return fill(Occupancy(samples=16, **grid), field).march(field, ALONG_X).opacity.item()

    fog, wall = opacity(Slab(density)), opacity(Slab(100.0, -0.5))
    assert fog == pytest.approx(0 if empty else 1 - (1 - 0.009) ** bins, abs=1e-6)
    assert wall == pytest.approx(0.0 if empty == 0.999 else 1.0, abs=1e-6)


def test_samples_move_with_chance_alone():
    field, render = Slab(), Occupancy(samples=8, **PLAIN)
    ray = ALONG_X.expand(1, 5, 6)
    still = render.deterministic()
    assert torch.equal(still(field, ray), still(field, ray))
    render(field, ray, seeded())
    jittered = field.seen[-1].view(5, 8, 3)
    assert jittered[0, 0, 0] != jittered[1, 0, 0]
    strata = torch.arange(9) / 4 - 1.0
    assert ((jittered[..., 0] >= strata[:-1]) & (jittered[..., 0] <= strata[1:])).all()


def test_looks_find_what_is_there_and_forget():
    field = Slab(3.0, 0.0, 1.0)
    render, same = (Occupancy(decay=0.5, **PLAIN) for _ in range(2))
    for one in (render, same):
        torch.manual_seed(5)
        one.look(field)
    assert torch.equal(render.grid, same.grid)
    known = (render.grid >= 0).view(8, 8, 8)
    assert known.all()  # 2048 looks are one into each of the 512 cells
    assert (render.grid.view(8, 8, 8)[4:] == 3).all()
    assert (render.grid.view(8, 8, 8)[:4] == 0).all()
    render.look(Slab(0.0))
    assert (render.grid.view(8, 8, 8)[4:] == 1.5).all()
    render.look(Slab(1e6))
    assert (render.grid.view(8, 8, 8)[4:] == (1.5 + 3 / 0.25) / 2).all()  # opaque in a cell


def test_gradients_are_those_of_finite_differences():
    render = Occupancy(samples=5, **PLAIN | dict(density="softplus")).deterministic()
    ray = ALONG_X.expand(1, 3, 6)
    raw = torch.randn(1, 15, 4, dtype=torch.float64, generator=seeded(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda raw: render(lambda points: raw, ray), raw)


# -- contracted space

WIDE = PLAIN | dict(contract="ball", near=0.1, far=100.0, bins=64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bins_are_even_near_and_in_disparity_far(dtype):
    render, ray = Occupancy(**WIDE), ALONG_X.to(dtype)
    t = render.edges(ray)
    assert t.dtype == dtype
    knee = render.knee(ray).item()
    assert knee == pytest.approx(ALONG_X[0, 0, :3].norm().item() + 1)
    near, far = t[t < knee], 1 / t[t > knee]
    for even in (near.diff(), far.diff()):
        torch.testing.assert_close(even, even[:1].expand_as(even), rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(render.unwarp(render.warp(t, ray), ray), t, rtol=1e-3, atol=1e-5)
    shades = render.shade(t, ray)[0, 0]
    torch.testing.assert_close(shades, torch.linspace(0, 1, 65, dtype=dtype), rtol=0, atol=1e-4)
    assert t[0, 0, 0].item() == pytest.approx(0.1)
    assert t[0, 0, -1].item() == pytest.approx(100.0, rel=1e-3)


def test_lengths_stay_true_in_contracted_space():
    """A thin fog everywhere: its opacity is that of true lengths, before the sky behind it."""
    field, sigma = Slab(0.01), 0.01
    seen = Occupancy(samples=8, **WIDE).march(field, ALONG_X)
    assert (field.seen[0].norm(dim=-1) <= 1).all()
    left = 1 - seen.weights[..., :-1].sum()
    assert left.item() == pytest.approx(math.exp(-sigma * (100 - 0.1)), rel=1e-3)
    assert seen.opacity.item() == pytest.approx(1)  # the last sample is opaque


def test_depth_of_a_wall_far_away():
    wall = lambda x: torch.cat([x[..., :3], (x[..., :1] > 0.9) * 1e4], -1)  # 2 - 1/r = 1.8: r = 5
    render = Occupancy(samples=512, **WIDE | dict(bins=512))
    depth = render.depth(wall, ALONG_X.float()).item()
    assert depth == pytest.approx(6, rel=0.02)


# -- refusals, and training


@pytest.mark.parametrize("wrong", [dict(bins=1), dict(resolution=1), dict(looks=0), dict(even=0.0),
                                   dict(decay=1.5), dict(empty=1.0)])  # fmt: skip
def test_refusals(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Occupancy(**PLAIN | wrong)


def test_several_scenes_are_refused():
    with pytest.raises(InputError, match="of one scene"):
        Occupancy(**PLAIN)(Slab(), ALONG_X.expand(2, 1, 6))
    with pytest.raises(InputError, match="codes of several"):
        fieldloom.build(RECIPE, renderer={"near": 1.0, "far": 2.0}, conditioner={"name": "mixture"})


RECIPE = {
    "modality": {"name": "views", "size": (HEIGHT, WIDTH), "range": "unit", "held": 1},
    "renderer": {"name": "occupancy", "range": "unit", "samples": 4, "bins": 16, "resolution": 8,
                 "looks": 64},
    "field": {"name": "grid-mlp", "grid": {"name": "hash", "levels": 2, "log2_hashmap_size": 8},
              "width": 8, "depth": 4, "head": {"kind": "radiance", "width": 8}},
    "train": {"field": {"steps": 6, "batch": 1, "points": 32, "save_every": 3, "log_every": 1}},
}  # fmt: skip


def test_a_run_goes_on_to_the_same_grid(tmp_path, monkeypatch):
    source = {"name": "transforms", "path": blender(tmp_path / "scene")}
    fieldloom.train(RECIPE, tmp_path / "whole", source=source)
    whole = load(tmp_path / "whole", "cpu").state_dict()
    assert (whole["render.grid"] >= 0).any()
    assert (whole["render.grid"] < 0).any()
    look, count = Occupancy.look, 0

    def stop(self, function):
        nonlocal count
        count += 1
        if count == 5:
            raise Interrupted("stopped")
        look(self, function)

    monkeypatch.setattr(Occupancy, "look", stop)
    with pytest.raises(Interrupted):
        fieldloom.train(RECIPE, tmp_path / "part", source=source)
    monkeypatch.undo()
    fieldloom.train(None, tmp_path / "part", resume=True)
    part = load(tmp_path / "part", "cpu").state_dict()
    assert whole.keys() == part.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, part[name]), name
