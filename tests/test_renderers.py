"""Volume rendering against exact integrals; samples, pieces, chance; descent through it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldloom.assembly import build
from fieldloom.conditioners.mixture import Mixture
from fieldloom.encoders import Cavia, Fit, reconstruction_loss
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields.mlp import Siren
from fieldloom.geometry.cameras import look_at, rays
from fieldloom.metrics.losses import mse
from fieldloom.objectives import Reconstruction
from fieldloom.renderers import (
    DENSITIES,
    Plucker,
    Rendered,
    Volume,
    composite,
    interval_lengths,
    plucker,
    sample_pdf,
    transmittance,
)
from fieldloom.system import System
from fieldloom.types import Batch, Cameras, Data, Function, Signal
from given import seeded

NEAR, FAR = 0.5, 2.5
ALONG_X = torch.tensor([[[0.0, 0, 0, 1, 0, 0]]], dtype=torch.float64)
"""One ray: from the origin along x, so that t is x."""
COLOUR = torch.tensor([0.2, -0.6, 0.9], dtype=torch.float64)
PLAIN: dict[str, Any] = dict(near=NEAR, far=FAR, density="relu", last=1e-12)
"""The raw density is the density; nothing after the far end."""


def scene(density: Callable[[Tensor], Tensor], colour: Tensor = COLOUR) -> Function:
    """A field of one colour and a density of the points (batch, n, 3) -> (batch, n)."""

    def function(points: Tensor) -> Tensor:
        raw = density(points[..., :3]).unsqueeze(-1)
        return torch.cat([colour.to(raw).expand(*raw.shape[:-1], -1), raw], -1)

    return function


def stretched(length: float) -> Tensor:
    """The ray along x with a direction of another length."""
    return torch.cat([ALONG_X[..., :3], length * ALONG_X[..., 3:]], -1)


def some_rays(batch: int = 2, count: int = 40, dtype: torch.dtype = torch.float32) -> Tensor:
    """Origins about 1.5 from the world's, directions roughly to it, of any length."""
    origin = torch.nn.functional.normalize(torch.randn(batch, count, 3, dtype=dtype), dim=-1)
    direction = -origin + 0.2 * torch.randn(batch, count, 3, dtype=dtype)
    return torch.cat([1.5 * origin, direction], -1)


# -- closed forms


@pytest.mark.parametrize("length", [1.0, 0.3, 4.0])
def test_constant_density(length: float) -> None:
    """Opacity 1 - exp(-sigma L), L the length in the world: exact for any number of samples."""
    sigma, ray = 0.8, stretched(length)
    left = math.exp(-sigma * (FAR - NEAR) * length)
    for samples in (2, 3, 17):
        render = Volume(samples=samples, **PLAIN)
        seen = render.march(scene(lambda x: torch.full_like(x[..., 0], sigma)), ray)
        assert seen.opacity.item() == pytest.approx(1 - left, rel=1e-8)
        expected = (1 - left) * COLOUR + left  # white is 1
        torch.testing.assert_close(seen.colour[0, 0], expected, rtol=1e-8, atol=1e-9)


def test_linear_density() -> None:
    """sigma = a x: transmittance exp(-a (x^2 - near^2) / 2); the error falls with the samples."""
    a = 0.7
    left = math.exp(-a * (FAR**2 - NEAR**2) / 2)
    errors = []
    for samples in (9, 17, 33, 65, 129):
        seen = Volume(samples=samples, **PLAIN).march(scene(lambda x: a * x[..., 0]), ALONG_X)
        errors.append(abs(seen.opacity.item() - (1 - left)))
    # each sample stands for the stretch after it, so the rule is of the first order
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.2
    assert errors[-1] < 2e-3


def test_changing_colour_and_depth() -> None:
    """Constant sigma, colour x: the integral of x sigma exp(-sigma (x - near)), and so the depth.

    The exact one is near + 1/sigma - (far + 1/sigma) exp(-sigma L).
    """
    sigma, length = 1.5, FAR - NEAR
    exact = NEAR + 1 / sigma - (FAR + 1 / sigma) * math.exp(-sigma * length)
    left = math.exp(-sigma * length)

    def function(points: Tensor) -> Tensor:
        x = points[..., :1]
        return torch.cat([x, x, x, torch.full_like(x, sigma)], -1)

    errors = []
    for samples in (33, 65, 129, 257):
        render = Volume(samples=samples, background="none", **PLAIN)
        seen = render.march(function, ALONG_X)
        torch.testing.assert_close(seen.colour[..., 0], seen.depth)
        errors.append(abs(seen.depth.item() - exact))
        whole = render.depth(function, ALONG_X)
        assert whole.shape == (1, 1, 1)
        assert whole.item() == pytest.approx(seen.depth.item() + left * FAR, abs=1e-7)
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.2
    assert errors[-1] < 5e-3


@pytest.mark.parametrize("range", ["signed", "unit"])
def test_backgrounds(range: str) -> None:
    """Behind emptiness: white is 1, black the least colour, none is nothing at all."""
    behind = {"white": 1.0, "black": -1.0 if range == "signed" else 0.0, "none": 0.0}
    for name, value in behind.items():
        render = Volume(background=name, range=range, **PLAIN)
        empty = render.march(scene(lambda x: -torch.ones_like(x[..., 0])), ALONG_X)
        assert empty.opacity.item() == 0
        assert empty.colour.tolist() == [[[value] * 3]]
        # half of it seen through a fog of constant density
        half = math.log(2) / (FAR - NEAR)
        fog = render.march(scene(lambda x, s=half: torch.full_like(x[..., 0], s)), ALONG_X)
        torch.testing.assert_close(fog.colour[0, 0], (COLOUR + value) / 2, rtol=1e-8, atol=1e-9)


def test_opaque() -> None:
    """What cannot be seen through shows its first colour and hides everything else."""
    red = torch.tensor([1.0, -1, -1], dtype=torch.float64)

    def function(points: Tensor) -> Tensor:
        x = points[..., :1]
        colour = torch.where(x < 1.5, red, -red)
        return torch.cat([colour, torch.where(x > 1.2, 1e4, 0.0)], -1)

    for background in ("white", "black", "none"):
        render = Volume(samples=101, background=background, **PLAIN)
        seen = render.march(function, ALONG_X)
        assert seen.opacity.item() == pytest.approx(1, abs=1e-8)
        torch.testing.assert_close(seen.colour[0, 0], red, rtol=1e-7, atol=1e-7)
        assert render.depth(function, ALONG_X).item() == pytest.approx(1.2, abs=0.021)
    nothing = Volume(**PLAIN).depth(scene(lambda x: torch.zeros_like(x[..., 0])), ALONG_X)
    assert nothing.item() == FAR


@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
def test_a_wall(length: float) -> None:
    """A plane x = 1.3 is met at t = 1.3 / |d_x|, whatever the length of the direction."""
    wall = scene(lambda x: torch.where(x[..., 0] > 1.3, 1e5, 0.0))
    ray = torch.tensor([[[0.0, 0.3, -1, 1, 0.5, 0.2]]], dtype=torch.float64)
    ray[..., 3:] *= length
    render = Volume(0.2, 4.0, samples=401, density="relu")
    step = 3.8 / 400
    assert 0 <= render.depth(wall, ray).item() - 1.3 / length <= step


def test_colours() -> None:
    """Raw colours as they are, or a sigmoid's values taken to the range."""
    raw = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    dense = scene(lambda x: torch.full_like(x[..., 0], 1e5), raw)
    for range, low in (("signed", -1.0), ("unit", 0.0)):
        plain = Volume(range=range, **PLAIN)(dense, ALONG_X)
        squashed = Volume(range=range, colour="sigmoid", **PLAIN)(dense, ALONG_X)
        torch.testing.assert_close(plain[0, 0], raw, rtol=1e-7, atol=1e-7)
        expected = low + (1 - low) / (1 + (-raw).exp())
        torch.testing.assert_close(squashed[0, 0], expected, rtol=1e-7, atol=1e-7)


def test_densities() -> None:
    """Never negative, never falling; each at a few values worked out by hand."""
    raw = torch.linspace(-30, 30, 601, dtype=torch.float64)
    known = {
        "elu": [(-1.0, 0.1 * math.exp(-1)), (0.0, 0.1), (2.0, 2.1), (30.0, 10.0)],
        "relu": [(-1.0, 0.0), (2.0, 2.0)],
        "softplus": [(1.0, math.log(2)), (3.0, math.log(1 + math.exp(2)))],
        "exp": [(-2.0, math.exp(-2)), (1.0, math.e)],
    }
    for name, pairs in known.items():
        activate = DENSITIES[name]
        for kind in (torch.float64, torch.float32):
            values = activate(raw.to(kind))
            assert values.isfinite().all()
            assert values.min() >= 0, name
            assert values.diff().min() >= 0, name
        for x, y in pairs:
            assert activate(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(y), name


def test_last_stretch() -> None:
    """Two samples, two stretches: what each choice of ``last`` makes of the second."""
    sigma, length = 0.4, 3.0
    ray = stretched(length)
    options = {**PLAIN, "samples": 2}
    for last, stretch in ((1e-3, 1e-3), ("step", FAR - NEAR), (0.7, 0.7), (1e10, math.inf)):
        render = Volume(**{**options, "last": last})
        seen = render.march(scene(lambda x: torch.full_like(x[..., 0], sigma)), ray)
        left = math.exp(-sigma * length * (FAR - NEAR + stretch))
        assert seen.opacity.item() == pytest.approx(1 - left, rel=1e-8)
    # the default closes a ray behind any density at all
    assert Volume(NEAR, FAR).last == 1e10


def test_bounded_transmittance() -> None:
    """Without the bound 1e-10 is gained at each sample; with it no opacity passes 1."""
    empty = scene(lambda x: torch.where(x[..., 0] > 2.4, 1e9, 0.0))
    opacity = {
        bounded: Volume(samples=201, bounded=bounded, **PLAIN).march(empty, ALONG_X).opacity.item()
        for bounded in (False, True)
    }
    assert opacity[False] > 1 + 1e-9
    assert opacity[True] <= 1 + 2e-10


def test_scale_of_the_world() -> None:
    """Points are divided by it; distances are not."""
    asked = []

    def function(points: Tensor) -> Tensor:
        asked.append(points)
        return scene(lambda x: torch.full_like(x[..., 0], 0.3))(points)

    given = some_rays()
    plain, scaled = (Volume(NEAR, FAR, scale=s).march(function, given) for s in (1.0, 4.0))
    torch.testing.assert_close(asked[0], 4 * asked[1])
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_length_of_a_direction() -> None:
    """A direction twice as long over half the t is the same ray, and the depth half as large."""
    density = lambda x: (3 * x).sin().square().sum(-1)
    given = some_rays(dtype=torch.float64)
    twice = torch.cat([given[..., :3], 2 * given[..., 3:]], -1)
    options = dict(samples=20, density="relu", last="step", directions=True)
    one = Volume(NEAR, FAR, **options).march(scene(density), given)
    two = Volume(NEAR / 2, FAR / 2, **options).march(scene(density), twice)
    torch.testing.assert_close(one.colour, two.colour)
    torch.testing.assert_close(one.depth, 2 * two.depth)


def test_directions() -> None:
    """The field sees unit directions beside its points, those of their own rays."""
    given = some_rays()
    render = Volume(NEAR, FAR, samples=5, directions=True)
    assert render.domain(6, 3) == (3, 3, 4)
    asked = []

    def function(points: Tensor) -> Tensor:
        asked.append(points)
        return torch.zeros(*points.shape[:2], 4)

    render(function, given)
    points, seen = asked[0].unflatten(1, (-1, 5)).split(3, -1)
    unit = torch.nn.functional.normalize(given[..., 3:], dim=-1)
    torch.testing.assert_close(seen, unit.unsqueeze(2).expand_as(seen))
    offset = points - given[..., None, :3]
    cosine = torch.nn.functional.cosine_similarity(offset, seen, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


@pytest.mark.parametrize("density", ["elu", "softplus", "exp", "relu"])
def test_gradients_are_those_of_finite_differences(density: str) -> None:
    """Of colours and depths, by the field's parameters and by the rays."""
    render = Volume(
        NEAR, FAR, samples=4, last=1e-3, density=density, colour="sigmoid", background="black"
    )

    def seen(first: Tensor, second: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        found = render.march(lambda points: (points @ first).tanh() @ second, given)
        return found.colour, found.depth

    inputs = (0.5 * torch.randn(3, 6), 0.5 * torch.randn(6, 4), some_rays(1, 2))
    assert torch.autograd.gradcheck(seen, [x.double().requires_grad_() for x in inputs])


def test_composites_are_made_of_transmittances() -> None:
    """T_(k+1) = T_k (1 - alpha_k), and what is not absorbed by any sample passes all of them."""
    t = torch.rand(4, 9, dtype=torch.float64).sort(-1).values
    density, colour = torch.rand(4, 9, dtype=torch.float64), torch.rand(4, 9, 3).double()
    delta = interval_lengths(t, 0.3)
    torch.testing.assert_close(delta.sum(-1), t[:, -1] - t[:, 0] + 0.3)
    seen = composite(colour, density, t, delta, background=0.25)
    passing = (-density * delta).exp()
    before = torch.cat([torch.ones_like(passing[:, :1]), passing.cumprod(-1)], -1)
    torch.testing.assert_close(transmittance(1 - passing), before[:, :-1], rtol=0, atol=1e-8)
    torch.testing.assert_close(seen.opacity, 1 - before[:, -1], rtol=0, atol=1e-8)
    # the continuous form: transmittance exp(-integral of the density)
    optical_depth = (density * delta).sum(-1)
    torch.testing.assert_close(seen.opacity, 1 - (-optical_depth).exp(), rtol=0, atol=1e-8)
    without = composite(colour, density, t, delta)
    behind = 0.25 * (1 - seen.opacity).unsqueeze(-1)
    torch.testing.assert_close(seen.colour, without.colour + behind)


# -- samples


def test_samples_without_chance() -> None:
    t = Volume(NEAR, FAR, 9).ray_samples(some_rays())
    assert t.shape == (2, 40, 9)
    torch.testing.assert_close(t[1, 7], torch.linspace(NEAR, FAR, 9))


def test_jitter_draws_in_strata() -> None:
    """Each sample keeps to its own stratum, uniform in it, and no two rays are alike."""
    count, given = 5, torch.zeros(4, 2000, 6)
    t = Volume(NEAR, FAR, count).ray_samples(given, seeded())
    even = torch.linspace(NEAR, FAR, count)
    middle = (even[1:] + even[:-1]) / 2
    edges = torch.cat([even[:1], middle, even[-1:]])
    share = (t - edges[:-1]) / (edges[1:] - edges[:-1])
    assert share.min() >= -1e-5
    assert share.max() <= 1 + 1e-5
    # 8000 draws: the standard error of a uniform mean is 0.0032
    assert (share.mean((0, 1)) - 0.5).abs().max() < 0.016
    assert (share.var((0, 1)) - 1 / 12).abs().max() < 0.005
    assert len(t.flatten(0, 1).unique(dim=0)) == 8000


def test_when_there_is_chance() -> None:
    """With a generator always; without one only where ``jitter`` is set and gradients are kept."""
    given, field = some_rays(), scene(lambda x: x.square().sum(-1))
    picture = lambda render, generator=None: render(field, given, generator)
    plain, jitter = Volume(NEAR, FAR), Volume(NEAR, FAR, jitter=True)
    reference = picture(plain)
    with torch.no_grad():
        assert torch.equal(picture(jitter), reference)
        assert not torch.equal(picture(plain, seeded()), reference)
    assert not torch.equal(picture(jitter), reference)
    assert not torch.equal(picture(jitter), picture(jitter))
    assert torch.equal(picture(jitter.deterministic()), reference)
    assert jitter.stochastic  # it is as it was
    assert plain.deterministic() is plain
    assert torch.equal(picture(plain), reference)
    once, again, other = (picture(plain, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    with torch.no_grad():
        assert torch.equal(jitter.depth(field, given), plain.depth(field, given))


@pytest.mark.parametrize("fine", [0, 8])
def test_pieces(fine: int) -> None:
    """However few points go at a time, the picture is the same, and no call is larger."""
    given, largest = some_rays(3, 50), []

    def function(points: Tensor) -> Tensor:
        largest.append(points.shape[0] * points.shape[1])
        return scene(lambda x: (2 * x).sin().sum(-1))(points)

    whole = Volume(NEAR, FAR, 12, fine=fine, density="relu")
    reference = whole(function, given)
    depth = whole.depth(function, given)
    for pieces in (1, 500, 1 << 20):
        render = Volume(NEAR, FAR, 12, fine=fine, density="relu", pieces=pieces)
        with torch.no_grad():
            largest.clear()
            torch.testing.assert_close(render(function, given), reference)
            assert max(largest) <= max(pieces, 3 * (12 + fine))
            torch.testing.assert_close(render.depth(function, given), depth)
        assert render.evaluations == 12 + (12 + fine if fine else 0)


@pytest.mark.parametrize("random", [False, True])
def test_sample_pdf(random: bool) -> None:
    """Their distribution is that of the weights, each spread evenly over its stretch."""
    t = torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0], dtype=torch.float64)
    weights = torch.tensor([0.1, 0.5, 0.0, 0.3, 0.1], dtype=torch.float64)
    edges = torch.tensor([0.0, 0.5, 1.5, 3.0, 4.5, 5.0], dtype=torch.float64)
    summed = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0)])
    count = 4000
    drawn = sample_pdf(t[None], weights[None], count, random, seeded() if random else None)[0]
    assert drawn.shape == (count,)
    assert (drawn.diff() >= 0).all()
    assert edges[0] <= drawn[0]
    assert drawn[-1] <= edges[-1]
    places = torch.bucketize(drawn, edges, right=True).clamp(1, 5)
    share = (drawn - edges[places - 1]) / (edges[places] - edges[places - 1])
    expected = summed[places - 1] + share * weights[places - 1]
    found = (torch.arange(count) + 0.5) / count
    # Kolmogorov: 1.63 / sqrt(n) is passed once in a hundred seeds; without chance 1 / n suffices
    bound = 1.63 / math.sqrt(count) if random else 1e-4
    assert (found - expected).abs().max() < bound


def test_sample_pdf_of_an_empty_ray() -> None:
    """No weight at all: even over the strata, and finite."""
    t = torch.linspace(0, 1, 5).expand(2, 3, 5)
    drawn = sample_pdf(t, torch.zeros(2, 3, 5), 200, False, None)
    assert drawn.isfinite().all()
    # five strata of equal chance, the outer ones half as long as the inner ones
    places = torch.bucketize(drawn[1, 2], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    assert torch.bincount(places).tolist() == [40] * 5


def shell_errors(**renders: dict[str, int]) -> dict[str, float]:
    """Mean error of the depth of a thin, dense, hollow ball, for several numbers of samples."""
    torch.manual_seed(0)
    given = some_rays(1, 200, torch.float64)
    shell = scene(lambda x: 60.0 * ((x.norm(dim=-1) - 0.6).abs() < 0.05))
    exact = Volume(samples=3001, **PLAIN).depth(shell, given)
    assert (exact < FAR - 0.5).double().mean() > 0.2  # the shell is hit
    assert (exact > FAR - 1e-6).double().mean() > 0.1  # and missed
    return {
        name: (Volume(**samples, **PLAIN).depth(shell, given) - exact).abs().mean().item()
        for name, samples in renders.items()
    }


def test_fine_samples_help_their_coarse_ones() -> None:
    errors = shell_errors(coarse=dict(samples=32), fine=dict(samples=32, fine=64))
    assert errors["fine"] < 0.7 * errors["coarse"]


def test_fine_samples_are_worth_their_price() -> None:
    """At equal evaluations: 32 + (32 + 64) of two passes, or 128 at even steps."""
    errors = shell_errors(even=dict(samples=128), fine=dict(samples=32, fine=64))
    assert errors["fine"] < 0.7 * errors["even"]


def test_fine_samples_are_no_way_for_gradients() -> None:
    """Where to look is chosen without a gradient: the second pass alone has one."""
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    given = some_rays(1, 3, torch.float64)
    render = Volume(NEAR, FAR, 5, fine=4, density="softplus", last="step")
    places = []

    def function(points: Tensor) -> Tensor:
        places.append(points)
        return scene(lambda x: weight * x.square().sum(-1))(points)

    (gradient,) = torch.autograd.grad(render(function, given).sum(), weight)
    assert [p.shape[1] for p in places] == [15, 27]
    assert not places[1].requires_grad
    # the same places, composited directly
    t = (places[1].unflatten(1, (3, 9)) - given[..., None, :3])[..., 0] / given[..., None, 3]
    assert (t.diff(dim=-1) >= -1e-12).all()
    raw = scene(lambda x: weight * x.square().sum(-1))(places[1]).unflatten(1, (3, 9))
    direct = render.composite_raw(raw, t, given[..., 3:].norm(dim=-1, keepdim=True)).colour
    (expected,) = torch.autograd.grad(direct.sum(), weight)
    torch.testing.assert_close(gradient, expected)


def test_bad_arguments() -> None:
    for wrong in (
        dict(near=-0.1),
        dict(near=FAR),
        dict(samples=1),
        dict(fine=-1),
        dict(scale=0.0),
        dict(pieces=0),
    ):
        with pytest.raises(InputError, match="renderer"):
            Volume(**{**dict(near=NEAR, far=FAR), **wrong})
    for render in (Volume(NEAR, FAR), Plucker()):
        with pytest.raises(InputError, match="modality 'views'"):
            render.domain(2, 3)


def test_plucker_coordinates() -> None:
    """The same wherever on the ray its origin lies, and however long its direction."""
    given = some_rays(dtype=torch.float64)
    origin, direction = given.split(3, -1)
    line = plucker(given)
    moved = plucker(torch.cat([origin + 3.7 * direction, 0.2 * direction], -1))
    torch.testing.assert_close(moved, line)
    unit, moment = line.split(3, -1)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones_like(unit[..., 0]))
    # every point of the line has this moment; the distance to the origin is its length
    torch.testing.assert_close((moment * unit).sum(-1), torch.zeros_like(unit[..., 0]))
    along = -(origin * unit).sum(-1, keepdim=True)
    torch.testing.assert_close(moment.norm(dim=-1), (origin + along * unit).norm(dim=-1))
    opposite = plucker(torch.cat([origin, -direction], -1))
    torch.testing.assert_close(opposite, -line)
    assert Plucker().domain(6, 3) == (6, 0, 3)


# -- descent through the renderer


def radiance(width: int = 6) -> Family:
    siren = Siren(3, 4, width=8, depth=3, frequency=5.0)
    return Family(siren, Mixture(siren.slots, experts=4, width=width)).double()


def pictures(count: int = 3, points: int = 7) -> Signal:
    values = torch.rand(count, points, 3, dtype=torch.float64, generator=seeded()) * 2 - 1
    torch.manual_seed(1)
    return Signal(some_rays(count, points, torch.float64), values, torch.arange(count))


@pytest.mark.parametrize("fine", [0, 3])
@pytest.mark.parametrize("second_order", [True, False], ids=["second", "first"])
@pytest.mark.parametrize(("noise", "reduction"), [(0.0, "signal"), (0.1, "batch")])
def test_checkpointed_descent(fine: int, second_order: bool, noise: float, reduction: str) -> None:
    """Forgetting the graph of every step changes neither codes nor gradients, jitter included."""
    family, signal = radiance(), pictures()
    render = Volume(NEAR, FAR, 6, fine=fine, jitter=True, density="softplus", last="step")
    found = {}
    for forget in (False, True):
        encoder = Cavia(
            family.code_shape,
            second_order=second_order,
            rate=5.0,
            noise=noise,
            reduction=reduction,
            checkpoint=forget,
            generator=seeded(),
        ).double()
        objective = Reconstruction(family, encoder, render, mse).train()
        named = dict(objective.named_parameters())
        torch.manual_seed(3)
        code = encoder(signal, family, render, mse)
        after = torch.rand(())  # as many draws, so that what follows is the same
        torch.manual_seed(3)
        loss, _ = objective.loss("field", Batch(signal, signal))
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        assert code.abs().amax() > 1e-3
        found[forget] = (code, after, loss, *gradients)
    assert all(g is not None for g in found[False])
    assert any(g.abs().amax() > 1e-6 for g in found[False][3:])
    for plain, forgetful in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(forgetful, plain, rtol=1e-12, atol=1e-14)


def test_orders_of_descent_differ() -> None:
    """The two orders of gradient are not the same, with or without checkpoints."""
    family, signal = radiance(), pictures()
    render = Volume(NEAR, FAR, 6, density="softplus", last="step")
    found = {}
    for order in (True, False):
        encoder = Cavia(
            family.code_shape, second_order=order, rate=5.0, checkpoint=True, generator=seeded()
        )
        loss, _ = (
            Reconstruction(family, encoder.double(), render, mse)
            .train()
            .loss("field", Batch(signal, signal))
        )
        (found[order],) = torch.autograd.grad(loss, family.conditioner.project.weight)
    assert (found[True] - found[False]).abs().amax() > 1e-6


def test_checkpoints_are_of_training_alone() -> None:
    """Evaluation gives the same codes; training evaluates the field again on the way back."""
    family, signal = radiance(), pictures()
    render = Volume(NEAR, FAR, 6)
    plain, forgetful = (
        Cavia(family.code_shape, checkpoint=c, generator=seeded()).double().eval()
        for c in (False, True)
    )
    with torch.no_grad():
        code = forgetful(signal, family, render, mse)
        assert not code.requires_grad
        assert torch.equal(code, plain(signal, family, render, mse))
    asked = []

    class Counted(Volume):
        def march(self, *given: Any) -> Rendered:
            asked.append(None)
            return super().march(*given)

    for encoder, again in ((plain, False), (forgetful, True)):
        asked.clear()
        encoder.train()(signal, family, Counted(NEAR, FAR, 6), mse).sum().backward()
        assert (len(asked) > encoder.steps) == again  # what was forgotten is made again


def views_system(encoder: dict[str, Any]) -> System:
    """Functa's recipe for views at a tiny size: jitter in training."""
    return build(
        "functa",
        "multiview128",
        modality={"size": 8, "held": 0, "rays": 24},
        renderer={"near": NEAR, "far": FAR, "samples": 6},
        field={"width": 8, "depth": 3},
        conditioner={"width": 6},
        encoder=encoder,
    )


@pytest.mark.parametrize("name", ["cavia", "fit"])
def test_codes_are_not_drawn(name: str) -> None:
    """Outside training a code is a function of its signal alone: no chance, no company."""
    system = views_system({"name": name, "steps": 3})
    assert system.render.stochastic
    one = system.modality.cameras(2)
    cameras = Cameras(one.c2w.expand(3, -1, -1, -1), one.intrinsics.expand(3, -1, -1))
    data = Data(torch.rand(3, 2, 3, 8, 8), cameras=cameras)
    codes = system.encode(data)
    torch.testing.assert_close(system.encode(data), codes)
    torch.testing.assert_close(system.encode(data.part(slice(1, 2))), codes[1:2])


# -- Fit(points=) and Signal.thinned


def test_thinned() -> None:
    """The same places in every signal whatever the batch; whole signals stay as they are."""
    signal = pictures(4, 50)
    mask = torch.rand(4, 50, generator=seeded()) < 0.5
    signal = Signal(signal.coords, signal.values, signal.index, (5, 10), mask, torch.arange(4))
    few = signal.thin(20)
    assert few.coords.shape == (4, 20, 6)
    assert few.values.shape == (4, 20, 3)
    assert few.grid is None
    assert torch.equal(few.index, signal.index)
    assert few.label is not None
    assert torch.equal(few.label, torch.arange(4))
    match = (few.coords[:, :, None] == signal.coords[:, None]).all(-1)
    places = match.double().argmax(-1)
    assert match.any(-1).all()
    assert (places == places[0]).all()
    assert len(places[0].unique()) == 20
    assert torch.equal(few.values, signal.values[:, places[0]])
    assert few.mask is not None
    assert torch.equal(few.mask, mask[:, places[0]])
    alone = signal.part(slice(2, 3)).thin(20)
    assert torch.equal(alone.coords, few.coords[2:3])
    for many in (50, 51):
        assert signal.thin(many) is signal


def test_fit_to_few_points() -> None:
    """As fitting to the thinned signal: the others are not read; all of them is the plain fit."""
    family, signal = radiance(), pictures(2, 30)
    render = Volume(NEAR, FAR, 5, last=1e-3)
    fit = lambda points, signal: Fit(5, 0.05, points=points)(signal, family, render, mse)
    few = fit(10, signal)
    assert torch.equal(few, fit(None, signal.thin(10)))
    assert torch.equal(fit(30, signal), fit(None, signal))
    assert not torch.allclose(few, fit(None, signal))
    torch.testing.assert_close(fit(10, signal.part(slice(1, 2))), few[1:])
    origin = family.conditioner.origin(2)
    worse = reconstruction_loss(origin, signal.thin(10), family, render, mse)
    assert (reconstruction_loss(few, signal.thin(10), family, render, mse) < worse).all()
    with pytest.raises(InputError, match="points"):
        Fit(points=0)


# -- a picture of a known thing


def test_a_box_where_it_is_projected() -> None:
    """A box of density, seen by a camera: a pixel is dark where its ray meets the box, exactly."""
    low, high = torch.tensor([-0.3, -0.2, -0.25]), torch.tensor([0.2, 0.35, 0.4])
    c2w = look_at(torch.tensor([1.6, -1.1, 0.9]), torch.zeros(3), torch.tensor([0.0, 0, 1]))
    given = rays(c2w, torch.tensor([40.0, 36.0, 15.0, 17.0]), 32, 30)[None]
    box = scene(lambda x: ((x > low) & (x < high)).all(-1) * 1e4, -torch.ones(3))
    render = Volume(1.0, 3.2, samples=300, density="relu")
    with torch.no_grad():
        seen = render(box, given)[0, :, 0]
        depth = render.depth(box, given)[0, :, 0]
    # slabs: the ray is inside from the last entry to the first exit
    origin, direction = given[0].split(3, -1)
    a, b = (low - origin) / direction, (high - origin) / direction
    entry, leave = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
    step = 2.2 / 299
    hit, miss = leave - entry > step, leave < entry
    assert hit.sum() > 100
    assert miss.sum() > 100
    assert (seen[hit] < -0.999).all()
    assert (seen[miss] > 0.999).all()
    assert ((depth - entry)[hit] <= step * 1.01).all()
    assert ((depth - entry)[hit] >= -1e-4).all()
    torch.testing.assert_close(depth[miss], torch.full_like(depth[miss], 3.2))
