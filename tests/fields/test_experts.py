"""Levels-of-Experts against the paper's equations, point by point in float64.

The reference in ``levels_of_experts`` builds psi(p), the weight at one point, from equations 3 to 5
of Hao et al., NeurIPS 2022, and applies it to that point alone.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fieldloom.assembly import TABLES
from fieldloom.conditioners import Film, FlatWeights, Hyper, Mixture, Shared, Shift
from fieldloom.encoders import Cavia, Fit
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import ARRANGEMENTS, Experts, Fourier, FourierMlp, Head, Siren, Tiling
from fieldloom.fields.arrangements import Chunked, Given
from fieldloom.fields.encodings import Embedding
from fieldloom.metrics.cost import count_macs, count_parameters
from fieldloom.metrics.losses import mse
from fieldloom.modalities import Grid
from fieldloom.nn import dispatch as dispatching
from fieldloom.nn.dispatch import Assignment, dispatch
from fieldloom.nn.tiles import blend_corners, tile_indices, tiled_linear
from fieldloom.objectives import Reconstruction
from fieldloom.registry import build
from fieldloom.renderers import Direct as DirectRenderer
from fieldloom.types import Batch
from levels_of_experts import (
    blending,
    chosen,
    derivatives,
    drawn,
    field_of,
    hierarchy,
    octaves_of,
    points,
    psi,
    slow,
)
from vectors import load, same

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(params=[0, 128], ids=["sorted-together", "sorted-apart"])
def least(request, monkeypatch):
    """Points that must share the tiles of several layers, for these to be sorted by at once."""
    monkeypatch.setattr(dispatching, "MIN_ROWS", request.param)


# -- values and gradients


CASES: dict[str, dict[str, Any]] = {
    "nearest": dict(axes=2, tiles=((2, 1), (3, 3), (1, 1))),
    "linear": dict(axes=2, tiles=((2, 1), (3, 3), (1, 1)), blend="linear"),
    "linear-tiled-end": dict(axes=2, tiles=((2, 2), (1, 3), (2, 1)), blend="linear", centred=False),
    "line": dict(axes=1, tiles=((4,), (1,), (2,)), blend="linear", include_input=True),
    "space": dict(axes=3, tiles=((2, 1, 3), (2, 2, 2), (1, 1, 1)), features="none"),
    "space-time": dict(
        axes=4, tiles=((2, 1, 1, 2), (1, 2, 2, 1)), blend="linear", features="constant"
    ),
    "unit-domain": dict(axes=2, tiles=((2, 2), (2, 2)), low=0.0, high=1.0, offset=0.5),
    "context": dict(
        axes=2, tiles=((2, 2),) * 4, context=3, residual=True, skip=(2,), blend="linear"
    ),
    "relu": dict(axes=2, tiles=((2, 2), (1, 1), (3, 2)), activation="relu", include_input=True),
    "leaky-relu": dict(
        axes=2, tiles=((2, 1),) * 4, activation="leaky-relu", residual=True, blend="linear"
    ),
    "residual-untiled": dict(axes=2, tiles=((3, 1), (1, 1), (2, 2), (1, 1)), residual=True),
    "radiance": dict(
        axes=3, tiles=((2, 2, 2), (1, 1, 1), (2, 1, 2)), head="radiance", view_count=2, skip=(1,)
    ),
}
"""Arguments of Experts; ``axes`` are its coordinates, the directions' three come on top."""

OWNERS = {
    "shared": lambda slots: Shared(slots),
    "shift": lambda slots: Shift(slots, width=3),
    "film": lambda slots: Film(slots, width=3),
    "mixture": lambda slots: Mixture(slots, experts=2, width=3),
    "mixture-of-one-layer": lambda slots: Mixture(slots, experts=2, width=3, only="1.*"),
    "direct": lambda slots: FlatWeights(slots),
    "direct-of-one-layer": lambda slots: FlatWeights(slots, only="0.*"),
    "hyper": lambda slots: Hyper(slots, width=3, hidden=(4,), activation="tanh"),
    "hyper-gates": lambda slots: Hyper(slots, width=3, hidden=(4,), rank=2),
}


def compare(case: dict[str, Any], owner: str, twice: bool, batch: int = 2) -> None:
    field = field_of(**case)
    family = Family(field, OWNERS[owner](field.slots)).double()
    where = points(batch, 5, case["axes"], 1.5)
    if case.get("head") == "radiance":
        where = torch.cat([where, F.normalize(points(batch, 5, 3), dim=-1)], -1)
    where.requires_grad_()
    code = family.conditioner.origin(batch)
    code = (code + 0.3 * torch.randn_like(code)).detach().requires_grad_()
    about = [where, code, *family.parameters()]
    reference = {k: v for k, v in case.items() if k != "axes"}
    found = []
    for function in (field, lambda at, weights: slow(at, weights, **reference)):
        value = function(where, family.conditioner(code))
        found.append([value, *derivatives(value, about, twice)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.usefixtures("least")
@pytest.mark.parametrize("case", CASES)
def test_values_and_all_derivatives_are_the_equations(case):
    """Of shared weights and shared biases, and of each signal's own: two orders of derivatives."""
    for owner in ("shared", "direct"):
        compare(CASES[case], owner, twice=True)


@pytest.mark.usefixtures("least")
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("case", ["nearest", "linear", "residual-untiled"])
def test_every_way_to_own_weights(case, owner):
    compare(CASES[case], owner, twice=case == "linear", batch=3)


@pytest.mark.usefixtures("least")
@pytest.mark.parametrize("case", ["residual-untiled", "context", "radiance"])
def test_any_one_layer_may_be_each_signals_own(case):
    field = field_of(**CASES[case])
    where = points(3, 5, CASES[case]["axes"] + (3 if case == "radiance" else 0))
    reference = {k: v for k, v in CASES[case].items() if k != "axes"}
    layers = [name.removesuffix(".weight") for name in field.slots if name.endswith(".weight")]
    for layer in layers:
        for only in (f"{layer}.*", f"{layer}.weight", f"{layer}.bias"):
            direct = FlatWeights(field.slots, only=only).double()
            code = torch.randn(3, *direct.code_shape, dtype=torch.float64)
            weights = direct(code)
            expected = slow(where, weights, **reference)
            torch.testing.assert_close(field(where, weights), expected, **CLOSE, msg=only)


def test_film_scales_and_shifts_tiled_pre_activations():
    """(1 + s) (psi x + b) + t, and the last layer as it is."""
    field = field_of(**CASES["linear-tiled-end"])
    film = Film(field.slots, width=3).double()
    code, where = torch.randn(2, 1, 3, dtype=torch.float64), points(2, 6, 2)
    weights = film(code)
    scale = [part.chunk(2, -1)[0] for part in film.project(code[:, 0]).split([8, 8], -1)]
    shift = [part.chunk(2, -1)[1] for part in film.project(code[:, 0]).split([8, 8], -1)]
    tiles = CASES["linear-tiled-end"]["tiles"]
    alphas = hierarchy(tiles)
    for b, signal in enumerate(where):
        for j, p in enumerate(signal):
            h = octaves_of(p, 2)
            for i in range(3):
                base = [film.base[f"{i}.{kind}"][0] for kind in ("weight", "bias")]
                h = h @ psi((p + 1) / 2 * alphas[i], base[0], tiles[i], "linear") + base[1]
                if i < 2:
                    h = torch.tanh((1 + scale[i][b]) * h + shift[i][b])
            torch.testing.assert_close(field(where, weights)[b, j], h, **CLOSE)


# -- vectors of the equations, made elsewhere; their matrices are (out, in)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_vectors_of_blends(n):
    vectors = load("loe_blend1d")
    q, identity = vectors["q"], torch.eye(n, dtype=torch.float64)
    same(identity[tile_indices(q[:, None], (n,))], vectors[f"B_nearest_N{n}"])
    table, shares = blend_corners(q[:, None], (n,))
    tile = tile_indices(q[:, None], (n,)).tolist()
    linear = sum(
        share[:, None] * identity[[own[t] for t in tile]]
        for own, share in zip(table, shares.T, strict=True)
    )
    same(linear, vectors[f"B_linear_N{n}"])
    for blend in ("nearest", "linear"):  # the reference of this file too
        same(torch.stack([blending(at, n, blend) for at in q]), vectors[f"B_{blend}_N{n}"])


@pytest.mark.parametrize("blend", ["nearest", "linear"])
@pytest.mark.parametrize("tag", ["2d_2x2", "2d_4x4", "2d_2x3", "3d_2x2x2", "3d_4x4x4"])
def test_vectors_of_a_layer(tag, blend):
    """Values, and the gradients of weights and inputs."""
    vectors = load("loe_layer")
    own = {key: vectors[f"{tag}.{key}"] for key in ("p", "Ns", "alpha", "beta", "b", "gy")}
    tiles = tuple(own["Ns"].tolist())
    weight = vectors[f"{tag}.W"].mT.contiguous().requires_grad_()
    x = vectors[f"{tag}.x"].requires_grad_()
    q = own["p"] * own["alpha"] + own["beta"]
    tile = tile_indices(q, tiles)
    same(tile, vectors[f"{tag}.tile_id"])
    (order,) = dispatch([Assignment(tile, len(weight), own=False)], 1, len(x))
    assert order.segments is not None
    blended = None
    if blend == "linear":
        table, shares = blend_corners(q, tiles)
        blended = table, order.gather(shares)
    y = order.scatter(tiled_linear(x, order.segments, weight, own["b"], blended))
    same(y.detach(), vectors[f"{tag}.y_{blend}"])
    dw, dx = torch.autograd.grad(y, (weight, x), own["gy"])
    same(dw, vectors[f"{tag}.dW_{blend}"].mT)
    same(dx, vectors[f"{tag}.dx_{blend}"])


@pytest.mark.usefixtures("least")
@pytest.mark.parametrize("blend", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("tag", "count", "activation"),
    [("img2d", 3, "relu"), ("img2d_leaky", 2, "leaky-relu"), ("vid3d", 2, "relu")],
)
def test_vectors_of_a_network(tag, count, activation, blend):
    vectors = load("loe_net")
    p, tiles = vectors[f"{tag}.p"], tuple(vectors[f"{tag}.tiles"].tolist())
    stored = [vectors[f"{tag}.W{i}"].mT for i in range(len(tiles))]
    field = Experts(
        p.shape[1],
        stored[-1].shape[-1],
        width=tuple(w.shape[-1] for w in stored[:-1]),
        depth=len(tiles),
        activation=activation,
        tiling=Tiling(tiles=tiles, blend=blend, centred=False, low=0.0, high=1.0),
        encoding=Fourier(count=count, include_input=True),
    )
    same(field.encoding(p[None], {})[0], vectors[f"{tag}.feat"])
    weights = {
        f"{i}.weight": w.reshape(1, *field.slots[f"{i}.weight"].shape) for i, w in enumerate(stored)
    } | {f"{i}.bias": vectors[f"{tag}.b{i}"][None] for i in range(len(tiles))}
    same(field(p[None], weights)[0], vectors[f"{tag}.out_{blend}"])


@pytest.mark.parametrize(
    ("key", "name", "tiles", "own"),
    [
        ("quadtree_N2", "quad-tree", [2] * 5, {}),
        ("quadtree_N2", "coarse-to-fine", [2] * 5, {}),
        ("gray_N2", "gray", [2] * 5, {}),
        ("fine_to_coarse_N2", "fine-to-coarse", [2] * 5, {}),
        ("nested_4_4_2", "coarse-to-fine", [4, 4, 2], {}),
        ("chunked_N4", "chunked", [4] * 3, {}),
        ("interleaved_N4", "interleaved", [4] * 3, {"scale": 32.0}),
    ],
)
def test_vectors_of_arrangements(key, name, tiles, own):
    vectors = load("loe_arrangements")
    same(chosen(ARRANGEMENTS[name](**own), [(n,) for n in tiles], vectors["p"][:, None]),
         vectors[key])  # fmt: skip


# -- identities


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "own",
    [
        dict(encoding=Fourier("octaves", 3, include_input=True)),
        dict(encoding=Fourier("log", 3, bandwidth=4.0, pi=False), offset=0.5),
        dict(encoding=Fourier("gaussian", 3, bandwidth=1.0), output="sigmoid"),
        dict(encoding=Fourier("none"), activation="sine"),
        dict(encoding=Fourier("octaves", 2, grid=Embedding((3, 4), channels=2))),
    ],
)
def test_one_tile_is_a_perceptron(own, batch):
    tiled_field = Experts(2, 3, width=5, depth=4, tiling=Tiling(tiles=1), **own)
    plain = FourierMlp(2, 3, width=5, depth=4, **own)
    assert {n: s.shape for n, s in tiled_field.slots.items()} == {
        n: s.shape for n, s in plain.slots.items()
    }
    weights, where = drawn(plain, batch), points(3, 7, 2)
    torch.testing.assert_close(tiled_field(where, weights), plain(where, weights), **CLOSE)


@pytest.mark.parametrize("blend", ["nearest", "linear"])
def test_equal_tiles_are_an_untiled_layer(blend):
    tiled_field = Experts(
        2,
        3,
        width=5,
        depth=3,
        tiling=Tiling(tiles=((2, 3), 1, 2), blend=blend),
        encoding=Fourier(count=2),
    )
    plain = FourierMlp(2, 3, width=5, depth=3, encoding=Fourier("octaves", count=2))
    weights, where = drawn(plain, 2), points(2, 9, 2, 2.0)
    repeated = {
        name: w[:, None].expand(-1, *tiled_field.slots[name].shape)
        if len(tiled_field.slots[name].shape) == 3
        else w
        for name, w in weights.items()
    }
    torch.testing.assert_close(tiled_field(where, repeated), plain(where, weights), **CLOSE)


@pytest.mark.parametrize("centred", [True, False])
def test_a_linear_blend_at_its_peaks_is_the_nearest(centred):
    """In the middle of the nearest one's cells, or, not centred, at their lower ends."""
    fields = [
        Experts(
            2,
            3,
            width=5,
            depth=3,
            tiling=Tiling(((4, 2),) * 3, blend, centred, Chunked(), low=0.0),
            encoding=Fourier(count=2),
        )
        for blend in ("nearest", "linear")
    ]
    weights = drawn(fields[0])
    y, x = torch.meshgrid(torch.arange(-4, 8), torch.arange(-2, 4), indexing="ij")
    corner = torch.stack([y, x], -1).flatten(0, 1).double()
    counts = torch.tensor([4.0, 2.0], dtype=torch.float64)
    peaks = ((corner + (0.5 if centred else 0.0)) / counts)[None]
    ours, theirs = (field(peaks, weights) for field in fields)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    moved = [field(peaks + 0.07, weights) for field in fields]
    assert not torch.allclose(*moved)


def test_chunks_are_perceptrons_of_their_own():
    own = dict(width=5, depth=3, encoding=Fourier("octaves", count=2))
    whole = Experts(2, 3, tiling=Tiling(tiles=((3, 2),) * 3, arrangement=Chunked()), **own)
    plain = FourierMlp(2, 3, **own)
    weights, where = drawn(whole, 2), points(2, 80, 2)
    values = whole(where, weights)
    chunk = torch.floor((where + 1) / 2 * torch.tensor([3.0, 2.0])).long()
    for j, (row, column) in enumerate(product(range(3), range(2))):
        inside = (chunk == torch.tensor([row, column])).all(-1)
        assert inside.any()
        its_own = {n: w[:, j] if w.ndim == 4 else w for n, w in weights.items()}
        for b in range(2):
            alone = {n: w[b : b + 1] for n, w in its_own.items()}
            expected = plain(where[b : b + 1, inside[b]], alone)
            torch.testing.assert_close(values[b, inside[b]], expected[0], **CLOSE)


def test_tiles_are_of_layers_then_of_axes():
    tiles = lambda given: Experts(2, 3, width=4, depth=3, tiling=Tiling(tiles=given)).tiles
    assert tiles(4) == ((4, 4),) * 3
    assert tiles((4, 2, 1)) == ((4, 4), (2, 2), (1, 1))
    assert tiles(((4, 2), 3, (1, 2))) == ((4, 2), (3, 3), (1, 2))


def test_a_linear_blend_is_continuous_and_the_nearest_is_not():
    """At the boundary of cells of all layers, the seam of a period too."""
    step = 1e-9
    for edge in (-1.0, -0.5, 0.0, 0.5, 1.0):
        sides = torch.tensor([[[edge - step, 0.1], [edge + step, 0.1]]], dtype=torch.float64)
        for blend, centred in (("linear", True), ("linear", False), ("nearest", False)):
            field = Experts(
                2,
                3,
                width=8,
                depth=3,
                tiling=Tiling(tiles=4, blend=blend, centred=centred),
                encoding=Fourier(count=2),
            )
            left, right = field(sides, drawn(field))[0]
            jump = (left - right).abs().max()
            assert (jump < 1e-5) if blend == "linear" else (jump > 1e-2)


# -- properties


@st.composite
def cases(draw):
    """Random tiles in 1 to 4 dimensions, and what ``made`` makes of them."""
    axes = draw(st.integers(1, 4))
    tile = st.tuples(*[st.integers(1, 5 if axes < 4 else 3)] * axes)
    case = dict(
        tiles=tuple(draw(st.lists(tile, min_size=2, max_size=3))),
        blend=draw(st.sampled_from(["nearest", "linear"])),
        centred=draw(st.booleans()),
        low=draw(st.sampled_from([-1.0, 0.0])),
        count=1,
    )
    batch = draw(st.integers(1, 3))
    return dict(
        case=case,
        shape=(batch, draw(st.integers(1, 6)), axes),
        own=draw(st.tuples(*[st.sampled_from([1, batch])] * 2)),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        kinds=draw(st.integers(1, 3)),
        least=draw(st.sampled_from([1, 128])),
        seed=draw(st.integers(0, 999)),
    )


def made(case, shape, own, dtype, kinds, seed, **_):
    """The field, weights and biases of one for all or of each signal, and places: inside; on the
    edges of the finest cells, of periods and of the domain; far away."""
    torch.manual_seed(seed)
    field = field_of(axes=shape[-1], **case)
    weights = drawn(field, shape[0], dtype)
    few = dict(zip(("weight", "bias"), own, strict=True))
    weights = {n: w[: few[n.split(".")[1]]].requires_grad_() for n, w in weights.items()}
    inside = torch.rand(shape, dtype=dtype) * (1 - case["low"]) + case["low"]
    edges = torch.randint(-9, 10, shape) / hierarchy(case["tiles"])[-1].to(dtype)
    edges = edges * (1 - case["low"]) + case["low"]
    kind = torch.randint(kinds, shape)
    far = 1e3 * torch.randn(shape, dtype=dtype)
    where = torch.where(kind == 0, inside, torch.where(kind == 1, edges, far))
    return field, weights, where


PROPERTY = settings(max_examples=30, deadline=None, database=None, derandomize=True)
ROUGH = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.float64: CLOSE}


@PROPERTY
@given(cases())
def test_any_tiling_is_the_equations(given_case):
    field, weights, where = made(**given_case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatching, "MIN_ROWS", given_case["least"])
        ours = field(where, weights)
        slope = torch.randn_like(ours)
        gradients = torch.autograd.grad(ours, list(weights.values()), slope)
    precise = {n: w.detach().double().requires_grad_() for n, w in weights.items()}
    theirs = slow(where, precise, **given_case["case"])
    expected = torch.autograd.grad(theirs, list(precise.values()), slope.double())
    assert ours.dtype == where.dtype
    close = ROUGH[where.dtype]
    torch.testing.assert_close(ours.double(), theirs, **close)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a.double(), b, **close)


@PROPERTY
@given(cases(), st.integers(0, 5))
def test_points_do_not_see_one_another(given_case, cut):
    """Whatever their order, and whoever comes along."""
    field, weights, where = made(**given_case)
    count = where.shape[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatching, "MIN_ROWS", given_case["least"])
        whole = field(where, weights)
        order = torch.randperm(count)
        close = ROUGH[where.dtype]
        torch.testing.assert_close(field(where[:, order], weights), whole[:, order], **close)
        parts = [field(p, weights) for p in where.tensor_split([cut % count], 1) if p.shape[1]]
        torch.testing.assert_close(torch.cat(parts, 1), whole, **close)


def test_layers_are_sorted_together_where_points_are_many():
    """Then a later layer moves no row, and has more segments than matrices."""
    tile = lambda seed: torch.randint(3, (5000,), generator=torch.Generator().manual_seed(seed))
    many = [Assignment(tile(i), 3, own=False) for i in range(3)]
    orders = dispatch(many, 1, 5000)
    assert [order.segments.permutation is None for order in orders] == [False, True, True]
    assert [len(order.segments.bounds) for order in orders] == [3, 9, 27]
    few = [Assignment(tile(i)[:200], 3, own=False) for i in range(3)]
    assert not any(order.segments.permutation is None for order in dispatch(few, 1, 200))


def test_tiles_without_a_point_get_no_gradient():
    field = Experts(
        2,
        3,
        width=4,
        depth=2,
        tiling=Tiling(tiles=4, arrangement=Chunked()),
        encoding=Fourier(count=2),
    )
    weights = {n: w.requires_grad_() for n, w in drawn(field).items()}
    where = torch.tensor([[[-0.9, -0.9], [-0.8, -0.7], [0.1, 0.1]]], dtype=torch.float64)
    names = ["0.weight", "1.weight"]
    for twice in (False, True):
        gradients = torch.autograd.grad(
            field(where, weights).square().sum(), [weights[n] for n in names], create_graph=twice
        )
        for gradient in gradients:
            met = gradient[0].flatten(1).abs().sum(1).nonzero().flatten().tolist()
            assert met == [0, 10]  # tiles (0, 0) and (2, 2)


def test_a_domain_may_have_other_ends_on_each_axis():
    own = dict(width=6, depth=3, encoding=Fourier("constant", count=4))
    low, high = torch.tensor([-1.0, 0.25]).double(), torch.tensor([0.5, 3.25]).double()
    unit = Experts(2, 3, tiling=Tiling(2, "linear", low=0.0), **own)
    box = Experts(2, 3, tiling=Tiling(2, "linear", low=(-1.0, 0.25), high=(0.5, 3.25)), **own)
    p, weights = points(1, 30, 2), drawn(unit)
    torch.testing.assert_close(box(low + p * (high - low), weights), unit(p, weights), **CLOSE)
    for wrong in (dict(low=(0.0, 1.0), high=(1.0, 1.0)), dict(low=(0.0, 0.0, 0.0))):
        with pytest.raises(InputError, match="low = .*one number, or one for each axis"):
            Experts(2, 3, tiling=Tiling(2, **wrong), **own)


# -- what a network sees of a coordinate


def test_a_constant_input_sees_no_coordinates():
    """Only its tiles tell places apart: the whole of a finest cell has one value."""
    own = dict(width=6, depth=3, encoding=Fourier("constant", count=4))
    blind = Experts(2, 3, tiling=Tiling(1, low=0.0), **own)
    values = blind(points(1, 30, 2), drawn(blind))
    torch.testing.assert_close(values, values[:, :1].expand_as(values), **CLOSE)
    field = Experts(2, 3, tiling=Tiling(2, low=0.0), **own)
    weights = drawn(field)
    middles = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    cell = torch.stack(torch.meshgrid(middles, middles, indexing="ij"), -1).view(1, 64, 2)
    values = field(cell, weights)
    assert len(torch.unique(values[0].round(decimals=9), dim=0)) == 64
    for shift in (-0.06, 0.06):
        torch.testing.assert_close(field(cell + shift, weights), values, **CLOSE)
    where = cell.requires_grad_()
    (slope,) = torch.autograd.grad(
        field(where, {n: w.requires_grad_() for n, w in weights.items()}).sum(),
        where,
        materialize_grads=True,
    )
    assert slope.count_nonzero() == 0


# -- radiance


def test_density_does_not_see_the_direction():
    """Answers are colour | density, as the volume renderer reads them."""
    field = field_of(**CASES["radiance"])
    weights = drawn(field)
    place, there, back = (points(1, 20, 3) for _ in range(3))
    one = field(torch.cat([place, there], -1), weights)
    other = field(torch.cat([place, back], -1), weights)
    torch.testing.assert_close(one[..., 3], other[..., 3], **CLOSE)
    assert ((one[..., :3] - other[..., :3]).abs() > 1e-6).all()
    moved = field(torch.cat([place.flip(1), there], -1), weights)
    torch.testing.assert_close(moved[..., 3].flip(1), one[..., 3], **CLOSE)
    # density is what its own layer says of the trunk
    head = f"{len(field.tiles)}.bias"
    raised = field(torch.cat([place, there], -1), weights | {head: weights[head] + 2.0})
    torch.testing.assert_close(raised[..., 3], one[..., 3] + 2, **CLOSE)
    torch.testing.assert_close(raised[..., :3], one[..., :3], **CLOSE)


def test_radiance_without_directions():
    field = Experts(3, 4, width=4, depth=5, tiling=Tiling(tiles=2), head=Head("radiance", width=5))
    assert field.slots["3.weight"].shape == (4, 5)
    assert field(points(2, 6, 3), drawn(field)).shape == (2, 6, 4)


# -- how it starts, and published sizes


def test_weights_start_as_their_layers_do():
    """+-sqrt(6 / in) in every tile; what answers, and biases, +-1/sqrt(in)."""
    small, hidden, answer = (6 / 60) ** 0.5, (6 / 50) ** 0.5, 50**-0.5
    plain = Experts(3, 3, width=50, depth=3, tiling=Tiling(tiles=2), encoding=Fourier(count=10))
    radiance = Experts(
        3,
        4,
        width=50,
        depth=5,
        tiling=Tiling(tiles=2),
        encoding=Fourier(count=10),
        head=Head("radiance", width=50),
    )
    for field, bounds in (
        (plain, [small, hidden, answer]),
        (radiance, [small, hidden, answer, hidden, answer]),
    ):
        for i, bound in enumerate(bounds):
            weight = field.slots[f"{i}.weight"].init(torch.Generator().manual_seed(0))
            for tile in weight.reshape(-1, *weight.shape[-2:]):
                assert 0.9 * bound < tile.abs().max() <= bound
            bias = field.slots[f"{i}.bias"].init(None)
            assert bias.abs().max() <= weight.shape[-2] ** -0.5
    calm = Experts(
        3,
        3,
        width=50,
        depth=3,
        bias="zero",
        init="xavier",
        context=5,
        tiling=Tiling(tiles=2),
        encoding=Fourier(count=10),
    )
    assert calm.slots["1.bias"].init(None).count_nonzero() == 0
    assert 0.9 * 0.06**0.5 < calm.slots["1.weight"].init(None).abs().max() <= 0.06**0.5
    assert calm.slots["0.weight"].shape == (8, 65, 50)


VIDEO = Fourier("octaves", count=9, include_input=True)
NERF: dict[str, Any] = dict(
    depth=8, encoding=Fourier(include_input=True), head=Head("radiance", octaves=4, width=128)
)
ROWS = {
    "SIREN": (lambda: Siren(3, 3, width=256, depth=6), 264_963, 263_680),
    "SIREN-L": (lambda: Siren(3, 3, width=1024, depth=6), 4_205_571, 4_200_448),
    "PE": (lambda: FourierMlp(3, 3, width=256, depth=6, encoding=VIDEO), 278_787, 277_504),
    "PE + CE": (
        lambda: FourierMlp(
            3, 3, width=256, depth=6, encoding=replace(VIDEO, grid=Embedding(64, 64))
        ),
        17_072_387,
        293_888,
    ),
    "LoE": (
        lambda: Experts(
            3, 3, width=256, depth=6, tiling=Tiling((2, 4, 4, 4, 4, 1)), encoding=VIDEO
        ),
        16_896_003,
        277_504,
    ),
    "NeRF, PE": (lambda: Experts(3, 4, 3, tiling=Tiling(tiles=1), **NERF), 316_548, 315_136),
    "NeRF, LoE": (lambda: Experts(3, 4, 3, tiling=Tiling(tiles=4), **NERF), 17_847_684, 315_136),
}


@pytest.mark.parametrize("row", ROWS)
def test_published_counts(row):
    """Tables 2 and 3: parameters, and multiply-accumulates of one point."""
    make, count, cost = ROWS[row]
    with torch.device("meta"):
        slots = make().slots
        assert count_parameters(Shared(slots)) == count
    assert count_macs(slots, 0, 1) == cost


# -- a mixture of experts of levels of experts


def images() -> Batch:
    y, x = torch.meshgrid(torch.linspace(0, 1, 6), torch.linspace(0, 1, 6), indexing="ij")
    made = [torch.stack([y * x, (y - k / 2).abs(), x**k / (1 + k)]) for k in range(2)]
    return Grid(size=6).observe(torch.stack(made))


def mnif(blend: str = "nearest", **own: Any) -> Family:
    torch.manual_seed(1)
    tiling, encoding = Tiling((2, 2, 1), blend), Fourier(count=3)
    given = dict(width=8, depth=3, activation="tanh") | own
    field = Experts(2, 3, tiling=tiling, encoding=encoding, **given)
    return Family(field, Mixture(field.slots, experts=4, width=6))


@pytest.mark.slow
@pytest.mark.parametrize("blend", ["nearest", "linear"])
def test_a_mixture_of_levels_learns_to_descend(blend):
    """Training through the descent lowers what is left after it; the descent lowers it too."""
    family, batch = mnif(blend), images()
    encoder = Cavia(family.code_shape, steps=2, second_order=True)
    objective = Reconstruction(family, encoder, DirectRenderer(), mse).train()
    adam = torch.optim.Adam(objective.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = objective.loss("field", batch)[0]
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    encoder.eval()
    signal = batch.target
    code = encoder(signal, family, DirectRenderer(), mse)
    error = lambda one, at: mse(one(signal.coords, at), signal.values).detach()
    origin = error(family, family.conditioner.origin(2))
    assert (error(family, code) < origin).all()
    # all of the weights of each signal are fitted from there
    unfolded = family.unfold(code)
    start = unfolded.conditioner.origin(2)
    torch.testing.assert_close(error(unfolded, start), error(family, code))
    fitted = Fit(steps=30, rate=3e-3)(signal, unfolded, DirectRenderer(), mse)
    assert (error(unfolded, fitted) < 0.7 * error(family, code)).all()


@pytest.mark.parametrize("blend", ["nearest", "linear"])
def test_the_gradient_through_the_descent_by_finite_differences(blend):
    family = mnif(blend).double()
    encoder = Cavia(family.code_shape, steps=2, rate=3.0).double()
    objective = Reconstruction(family, encoder, DirectRenderer(), mse).train()
    signal = images().target
    signal = replace(signal, coords=signal.coords.double(), values=signal.values.double())
    loss = lambda: objective.loss("field", Batch(signal, signal))[0]
    parameter = family.conditioner.basis["1.weight"]
    (exact,) = torch.autograd.grad(loss(), parameter)
    place = tuple(int(n) // 2 for n in parameter.shape)
    ends = []
    with torch.no_grad():
        for sign in (1, -2):
            parameter[place] += sign * 1e-5
            with torch.enable_grad():
                ends.append(loss().item())
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(exact[place].item(), rel=1e-5)


@pytest.mark.parametrize("blend", ["nearest", "linear"])
@pytest.mark.parametrize("points", [40, 5000])
def test_half_precision_reaches_every_layer(blend, points):
    """Autocast knows nothing of products into slices: tiled layers follow it themselves."""
    field = Experts(2, 3, width=8, depth=4, tiling=Tiling(tiles=(1, 2, 2, 1), blend=blend))
    weights = {n: s.init(None)[None].requires_grad_() for n, s in field.slots.items()}
    coords = torch.rand(1, points, 2) * 2 - 1
    whole = field(coords, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = field(coords, weights)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, atol=0.1, rtol=0.1)
    half.float().square().sum().backward()
    assert all(w.grad.dtype == torch.float32 for w in weights.values())


# -- recipes and refusals


def test_recipes_reach_every_part():
    """Nested tables: an arrangement by name, a grid without one."""
    field = build(
        "field",
        {
            "name": "experts",
            "width": 6,
            "depth": 3,
            "tiling": {
                "tiles": [[2, 1], 3, 1],
                "arrangement": {"name": "random-affine", "spread": 0.2},
            },
            "encoding": {"grid": {"size": [4, 3], "channels": 2}},
        },
        TABLES,
        coord_dim=2,
        value_dim=3,
        direction_dim=0,
    )
    assert field.tiles == ((2, 1), (3, 3), (1, 1))
    assert field.slots["grid"].shape == (4, 3, 2)
    assert field.slots["1.weight"].shape == (9, 6, 6)
    assert "1.tiling" in field.slots
    needed = {"given": {"scales": [1.0, 2.0]}, "interleaved": {"scale": 8.0}}
    for name in ARRANGEMENTS:
        own = {"name": name} | needed.get(name, {})
        tiling = {"tiles": 2, "arrangement": own}
        given_field = {"name": "experts", "width": 4, "depth": 2, "tiling": tiling}
        made = build("field", given_field, TABLES, coord_dim=2, value_dim=3, direction_dim=0)
        assert made(points(1, 4, 2), drawn(made)).shape == (1, 4, 3)


EXPERTS: dict[str, Any] = dict(width=4, depth=3, tiling=Tiling(2), encoding=Fourier(count=2))
REFUSALS: list[tuple[Any, str]] = [
    (lambda: Experts(3, 4, 3, **EXPERTS), "directions are seen by the head 'radiance' alone"),
    (lambda: Tiling(low=1.0, high=1.0), "low = 1, high = 1"),
    (lambda: Experts(2, 3, context=-1, **EXPERTS), "context = -1"),
    (lambda: Experts(2, 3, skip=(0,), **EXPERTS), r"field.skip = \[0\]: layers from 1 to 2"),
    (lambda: Experts(2, 3, skip=(1, 3), **EXPERTS), r"field.skip = \[1, 3\]: layers from 1 to 2"),
    (lambda: Experts(2, 3, activation="swish", **EXPERTS), "unknown activation 'swish'"),
    (lambda: Experts(2, 3, **EXPERTS | dict(width=0)), "field.width = 0: positive"),
    (lambda: Experts(2, 3, **EXPERTS | dict(width=(4,))), "one number or 2, one a hidden layer"),
    (lambda: Experts(2, 3, **EXPERTS | dict(depth=1)), "field.depth counts all layers"),
    (lambda: Experts(3, 4, head=Head("radiance"), **EXPERTS), "field.depth counts all layers"),
    (
        lambda: Experts(2, 3, **EXPERTS | dict(tiling=Tiling(0))),
        "field.tiling.tiles = 0: at least 1 each",
    ),
    (
        lambda: Experts(2, 3, **EXPERTS | dict(tiling=Tiling((2, 2)))),
        "or 3 .one a layer before the heads.",
    ),
    (lambda: Experts(2, 3, **EXPERTS | dict(tiling=Tiling(((2,), 2, 2)))), "or 2 .one an axis."),
    (lambda: Fourier(count=0), "field.encoding.count = 0: at least 1"),
    (lambda: Fourier(count=121), "octaves are at most 120"),
    (lambda: Fourier("log", bandwidth=0.0), "field.encoding.bandwidth = 0: above 0"),
    (lambda: Fourier("learned", grid=Embedding(2)), "learned features go without a grid"),
    (lambda: Experts(2, 3, encoding=Fourier("learned")), "'fourier-mlp' alone learns them"),
    (lambda: FourierMlp(2, 3, encoding=Fourier("constant")), "the field 'experts' alone"),
    (lambda: Head("radiance", octaves=-1), "field.head: octaves = -1"),
    (lambda: Head("radiance", width=0), "width = 0: from 0 to 120 octaves"),
    (lambda: Experts(3, 4, head=Head("radiance"), offset=0.5), "no output, no offset"),
    (lambda: ARRANGEMENTS["coarse-to-fine"](growth=0.0), "arrangement.growth = 0.0: positive"),
    (lambda: ARRANGEMENTS["fine-to-coarse"](finest=-1.0), "arrangement.finest = -1.0: positive"),
    (lambda: ARRANGEMENTS["aligned"](scale=0.0), "arrangement.scale = 0.0: positive"),
    (lambda: Given((1.0, 2.0), (0.0,)), "as many positive scales as offsets"),
    (lambda: Given((1.0, 0.0)), "as many positive scales as offsets"),
    (
        lambda: Experts(2, 3, depth=3, tiling=Tiling(arrangement=Given((1.0,)))),
        "1 scales for 3 layers",
    ),
    (lambda: Embedding((4, 0)).sizes(2), "one positive size, or 2"),
    (lambda: Embedding((4,)).sizes(2), "one positive size, or 2"),
    (lambda: Embedding(4, channels=0).sizes(2), "channels = 0"),
    (lambda: Embedding(4, low=1.0, high=0.0).sizes(2), "low before high"),
    (
        lambda: FourierMlp(2, 3, encoding=Fourier("log", grid=Embedding(0))),
        "field.encoding.grid: size = 0",
    ),
    (lambda: FourierMlp(2, 3, depth=1), "depth at least 2"),
    (lambda: Fourier("learned", count=0), "field.encoding.count = 0: at least 1"),
    (lambda: FourierMlp(2, 3, activation="swish"), "unknown activation 'swish'"),
    (lambda: Siren(2, 3, width=0), "width is at least 1"),
    (lambda: Siren(2, 3, depth=3, frequency=(1.0, 2.0)), "one positive number, or 3 of them"),
    (lambda: Siren(2, 3, frequency=0.0), "one positive number"),
]


@pytest.mark.parametrize(("make", "message"), REFUSALS, ids=[m for _, m in REFUSALS])
def test_refusals(make, message):
    with pytest.raises(InputError, match=message) as refused:
        make()
    assert str(refused.value).endswith((".", "?"))
