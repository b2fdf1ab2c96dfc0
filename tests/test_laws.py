"""Laws over the whole tables: fields x conditioners, modalities, encoders, priors, codecs."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from fieldloom.codecs import CODECS
from fieldloom.conditioners import CONDITIONERS
from fieldloom.conditioners.conditioner import Slots
from fieldloom.denoisers import ResMlp
from fieldloom.encoders import ENCODERS
from fieldloom.engine.loop import load_weights
from fieldloom.family import Family
from fieldloom.fields import ARRANGEMENTS, FIELDS, Fourier, Tiling
from fieldloom.fields.encodings import Embedding
from fieldloom.fields.grids import DenseGrid, HashGrid, KPlanes, TriPlane
from fieldloom.metrics.losses import LOSSES, mse
from fieldloom.modalities import MODALITIES
from fieldloom.priors import PRIORS
from fieldloom.renderers import RENDERERS, Direct, Renderer
from fieldloom.types import layer_of

BATCH, POINTS = 3, 11
TILES = ((2, 1), 3, 1)
FIELD_ARGUMENTS = {
    "siren": [dict(width=6, depth=3), dict(width=5, depth=4, output="sine", offset=0.5)],
    "fourier-mlp": [
        dict(width=6, depth=3, normalize=n, encoding=Fourier(f, 4, 3.0, include_input=i))
        for f, n, i in [
            ("octaves", False, True),
            ("log", True, False),
            ("gaussian", False, False),
            ("learned", False, True),
            ("none", False, False),
        ]
    ]
    + [dict(width=6, depth=3, encoding=Fourier(count=2, grid=Embedding((3, 2), channels=2)))],
    "experts": [
        dict(width=5, depth=3, tiling=Tiling(TILES), encoding=Fourier(count=2)) | own
        for own in [
            dict(),
            dict(tiling=Tiling(TILES, "linear")),
            dict(residual=True, context=3, activation="leaky-relu"),
            dict(tiling=Tiling(TILES, arrangement=ARRANGEMENTS["random-affine"]())),
            dict(encoding=Fourier(count=2, grid=Embedding((3, 2), channels=2))),
            dict(encoding=Fourier("constant", count=2)),
        ]
    ],
    "local": [
        dict(width=4, features=9, tokens=3, query=2.0, bands=(4.0, 2.0)) | own
        for own in [dict(), dict(heads=1, aggregate="compose", modulate="stack")]
    ],
    "grid-mlp": [
        dict(width=5, depth=3, activation="silu", grid=grid)
        for grid in [
            HashGrid(levels=3, coarsest=1, growth=1.5, log2_hashmap_size=3),
            DenseGrid(levels=1, coarsest=2, interpolation="smooth"),
            TriPlane((3,), features=4),
            KPlanes((1, 2), features=3),
        ]
    ],
    "wave-mlp": [
        dict(width=5, depth=3, activation=a, frequency=2.0, scale=0.5, noise=(1.0, 0.5))
        for a in ("h-sine", "gabor")
    ],
}


def some_slot(role: str, place: int = 1) -> Callable[[Slots], str]:
    """The second weight, or the second bias, of a field, whatever it is called."""
    return lambda slots: [name for name, slot in slots.items() if slot.role == role][place]


def first(slots: Slots) -> str:
    """The first slot that a code may stand for: tokens, a context, a grid, or a weight."""
    return next(name for name, slot in slots.items() if slot.role != "fixed")


def one_layer(slots: Slots) -> str:
    """A pattern of the second layer."""
    return f"{layer_of(some_slot('weight')(slots))}.*"


# What depends on the field is a function of its slots.
CONDITIONER_ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "shared": [{}],
    "substitute": [dict(slot=slot) for slot in (first, some_slot("weight"), some_slot("bias"))],
    "flat-weights": [{}, dict(width=7), dict(only=one_layer)],
    "mixture": [
        dict(experts=3, width=4, coefficients=c)
        for c in ("latent", "latent-shared", "layer", "shared")
    ]
    + [dict(experts=3, width=4, only=one_layer)],
    "shift": [dict(width=4), dict(width=4, init="torch")],
    "film": [dict(width=4)],
    "hyper": [
        dict(width=4, hidden=(5, 6)),
        dict(width=4, hidden=(5,), rank=2, activation="relu"),
        dict(width=4, hidden=(5, 6), rank=1, only=one_layer),
        dict(width=4, hidden=(6,), only=one_layer),
    ],
    "columns": [dict(width=4, groups=2), dict(width=4, groups=9, only=one_layer)],
    "factor": [
        dict(slot=some_slot("weight"), rank=3),
        dict(slot=some_slot("weight", 0), rank=2, origin="zero"),
    ],
}
ENCODER_ARGUMENTS = {
    "nothing": {},
    "cavia": dict(rate=0.05, rates="fixed"),
    "autodecode": dict(signals=BATCH, std=0.1),
    "fit": dict(steps=5, rate=1e-3),
    "transformer": dict(
        axes=(5, 5), value_dim=3, coord_dim=2, width=8, depth=1, heads=2, patch=2, pad=1
    ),
}


def test_the_laws_cover_the_tables():
    assert set(FIELD_ARGUMENTS) == set(FIELDS)
    assert set(CONDITIONER_ARGUMENTS) == set(CONDITIONERS)
    assert set(ENCODER_ARGUMENTS) == set(ENCODERS)
    assert set(PRIOR_CASES) == set(PRIORS)


PAIRS = [
    pytest.param(f, fa, c, ca, id=f"{f}{i}-{c}{j}")
    for f, fas in FIELD_ARGUMENTS.items()
    for i, fa in enumerate(fas)
    for c, cas in CONDITIONER_ARGUMENTS.items()
    for j, ca in enumerate(cas)
]


def make_family(field="siren", fa=None, conditioner="mixture", ca=None) -> Family:
    torch.manual_seed(0)
    built = FIELDS[field](2, 3, **(fa or {"width": 6, "depth": 3}))
    own = {key: v(built.slots) if callable(v) else v for key, v in (ca or {}).items()}
    return Family(built, CONDITIONERS[conditioner](built.slots, **own)).double()


def some(family: Family) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    coords = torch.rand(BATCH, POINTS, 2, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(BATCH, *family.code_shape, generator=generator, dtype=torch.float64)
    return coords, family.conditioner.origin(BATCH) + 0.1 * noise


@pytest.mark.parametrize(("f", "fa", "c", "ca"), PAIRS)
def test_families(f, fa, c, ca):
    family = make_family(f, fa, c, ca)
    coords, code = some(family)
    whole = family(coords, code)
    assert whole.shape == (BATCH, POINTS, 3)
    assert torch.isfinite(whole).all()
    # bind equals forward
    torch.testing.assert_close(family.bind(code)(coords), whole)
    # signals in a batch are independent
    for i in range(BATCH):
        torch.testing.assert_close(family(coords[i : i + 1], code[i : i + 1])[0], whole[i])
    # points are independent
    order = torch.randperm(POINTS)
    torch.testing.assert_close(family(coords[:, order], code), whole[:, order])
    # a code that matters changes its own signal only
    if math.prod(family.code_shape):
        changed = code.detach().clone()
        changed[0] += 0.3 * torch.randn(family.code_shape)  # a norm takes an even change away
        other = family(coords, changed)
        assert not torch.allclose(other[0], whole[0])
        torch.testing.assert_close(other[1:], whole[1:])
    # a gradient reaches every parameter (and the origin's, through the code)
    whole.square().sum().backward()
    for name, parameter in family.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    # state round trip
    state = {k: v.clone() for k, v in family.state_dict().items()}
    twin = make_family(f, fa, c, ca)
    for parameter in twin.parameters():
        parameter.data.add_(1)
    twin.load_state_dict(state)
    torch.testing.assert_close(twin(coords, code), whole)


@pytest.mark.parametrize(("f", "fa", "c", "ca"), PAIRS)
def test_unfolding_keeps_the_functions(f, fa, c, ca):
    family = make_family(f, fa, c, ca)
    coords, code = some(family)
    unfolded = family.unfold(code)
    own = unfolded.conditioner.origin(BATCH)
    torch.testing.assert_close(unfolded(coords, own), family(coords, code))


SIZES = {"image": (5, 4), "audio": (7,), "video": (3, 4, 5), "voxel": (4, 3, 2), "sphere": (4, 6)}


def test_the_laws_cover_the_modalities():
    assert {*SIZES, "points", "views"} == set(MODALITIES)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("range", ["signed", "unit"])
def test_modalities(name, range):
    size = SIZES[name]
    modality = MODALITIES[name](size=size, range=range)
    data = torch.rand(2, modality.channels, *size)
    signal = modality.observe(data).target
    assert signal.coords.shape == (2, math.prod(size), modality.coord_dim)
    assert signal.grid == size
    torch.testing.assert_close(modality.assemble(signal.values, size).tensor, data)
    torch.testing.assert_close(modality.grid()[0], signal.coords[0])
    # a subset of the grid is a subset of the signal
    part = modality.observe(data, points=3, generator=torch.Generator().manual_seed(0)).target
    assert part.coords.shape[1] == 3
    assert part.grid is None
    for i in (0, 1):
        whole = torch.cat([signal.coords[i], signal.values[i]], -1)
        for point in torch.cat([part.coords[i], part.values[i]], -1):
            assert (whole == point).all(-1).any()
    assert len(torch.unique(part.coords[0], dim=0)) == 3
    # bytes are the same data
    coarse = (data * 255).round().byte()
    torch.testing.assert_close(modality.observe(coarse).target.values,
                               modality.observe(coarse.float() / 255).target.values)  # fmt: skip


def test_sphere_is_embedded_as_unit_vectors():
    grid = MODALITIES["sphere"](size=(4, 6)).grid()
    torch.testing.assert_close(grid.norm(dim=-1), torch.ones(1, 24))
    assert grid[0, 0, 2] > 0 > grid[0, -1, 2]  # north first


RENDERER_ARGUMENTS = {
    "direct": [{}],
    "plucker": [{}],
    "volume": [
        dict(near=0.5, far=1.5, samples=4),
        dict(near=0.5, far=1.5, samples=4, fine=3, directions=True, colour="sigmoid"),
    ],
    "occupancy": [
        dict(near=0.5, far=1.5, samples=4, bins=8),
        dict(near=0.5, far=9.5, samples=4, bins=8, contract="ball", directions=False),
    ],
}


@pytest.mark.parametrize("name", RENDERERS)
def test_renderers(name):
    given = 2 if name == "direct" else 6
    for arguments in RENDERER_ARGUMENTS[name]:
        render = RENDERERS[name](**arguments)
        domain = render.domain(given, 3)
        assert render.evaluations >= 1
        assert isinstance(render, Renderer)
        assert not render.deterministic().stochastic

        def function(x, domain=domain):
            assert x.shape[-1] == domain.coord + domain.direction
            return x.repeat(1, 1, 4)[..., : domain.value]

        signals = 1 if name == "occupancy" else 2  # its grid is of one scene
        coords = torch.rand(signals, 5, given)
        seen = render(function, coords)
        assert seen.shape == (signals, 5, 3)
        # observations are independent of one another
        torch.testing.assert_close(render(function, coords[-1:, 2:]), seen[-1:, 2:])
        # without a generator there is no chance, with one its seed decides
        torch.testing.assert_close(render(function, coords), seen, rtol=0, atol=0)
        once, twice = (render(function, coords, torch.Generator().manual_seed(1)) for _ in "ab")
        torch.testing.assert_close(once, twice, rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_mismatches(name):
    """One number a signal, zero gradient at the truth, larger away from it."""
    true = torch.rand(3, 5, 2).round() if name == "bce" else torch.rand(3, 5, 2)
    perfect = (true * 2 - 1) * 50 if name == "bce" else true
    near, far = (LOSSES[name](perfect * s, true) for s in (1.0, -1.0))
    assert near.shape == (3,)
    assert (near < 1e-6).all()
    assert (far > near).all()


def signals(count=BATCH):
    modality = MODALITIES["image"](size=5)
    generator = torch.Generator().manual_seed(2)
    signal = modality.observe(torch.rand(count, 3, 5, 5, generator=generator)).target
    return replace(signal, coords=signal.coords.double(), values=signal.values.double())


def loss_of(code, signal, family):
    return mse(family(signal.coords, code), signal.values).detach()


def gentle() -> Family:
    """In float64: descent makes one processor's rounding another's result."""
    torch.manual_seed(0)
    field = FIELDS["siren"](2, 3, width=8, depth=3, frequency=5.0)
    return Family(field, CONDITIONERS["mixture"](field.slots, experts=4, width=6)).double()


def learn(encoder, signal, family):
    adam = torch.optim.Adam(encoder.parameters(), 1e-2)
    for _ in range(60):
        adam.zero_grad()
        code = encoder(signal, family, Direct(), mse)
        mse(family(signal.coords, code), signal.values).sum().backward()
        adam.step()


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name):
    family, signal = gentle(), signals()
    encoder = ENCODERS[name](
        **({"code_shape": family.code_shape} if name not in ("nothing", "fit") else {}),
        **ENCODER_ARGUMENTS[name],
    ).double()
    if encoder.reads_grid:  # what answers in one pass has learned how
        learn(encoder, signal, family)
    encoder.eval()
    code = encoder(signal, family, Direct(), mse)
    assert code.shape == (BATCH, *family.code_shape)
    # signals are independent of their batch
    for i in range(BATCH):
        alone = encoder(signal.part(slice(i, i + 1)), family, Direct(), mse)
        torch.testing.assert_close(alone[0], code[i], rtol=1e-4, atol=1e-6)
    # never worse than knowing nothing
    start = loss_of(family.conditioner.origin(BATCH), signal, family)
    assert (loss_of(code, signal, family) <= start + 1e-7).all()


def test_more_descent_does_not_raise_the_loss():
    family, signal = gentle(), signals()
    losses = []
    for steps in (0, 1, 3, 10):
        encoder = ENCODERS["cavia"](family.code_shape, steps=steps, rate=0.02, rates="fixed").eval()
        losses.append(loss_of(encoder(signal, family, Direct(), mse), signal, family))
    for worse, better in pairwise(losses):
        assert (better < worse).all()


def test_a_fit_is_no_worse_than_its_start():
    family, signal = gentle(), signals()
    start = ENCODERS["cavia"](family.code_shape, rate=0.05, rates="fixed").eval()
    wild = ENCODERS["fit"](steps=7, rate=1.0, start=start)  # far too large a rate
    before = loss_of(start(signal, family, Direct(), mse), signal, family)
    assert (loss_of(wild(signal, family, Direct(), mse), signal, family) <= before).all()
    last = ENCODERS["fit"](steps=7, rate=1.0, start=start, keep="last")
    assert (loss_of(last(signal, family, Direct(), mse), signal, family) > before).any()


def test_hidden_points_do_not_matter():
    family, signal = gentle(), signals()
    mask = torch.rand(BATCH, signal.coords.shape[1]) < 0.6
    encoder = ENCODERS["cavia"](family.code_shape, rate=0.05, rates="fixed").eval()
    code = encoder(signal.hide(mask), family, Direct(), mse)
    values = torch.where(mask[..., None], signal.values, torch.randn_like(signal.values))
    again = encoder(replace(signal, values=values).hide(mask), family, Direct(), mse)
    torch.testing.assert_close(again, code)
    assert not torch.allclose(encoder(signal, family, Direct(), mse), code)


def test_autodecoding_keeps_the_codes_of_training_signals():
    family, signal = gentle(), signals()
    encoder = ENCODERS["autodecode"](family.code_shape, signals=BATCH, std=0.1)
    encoder.train()
    code = encoder(signal, family, Direct(), mse)
    torch.testing.assert_close(code, encoder.stored_codes(signal.index, family))


def two_modes(count=400):
    """Two clusters, at -2 and +2 of every axis, labelled 0 and 1: (count, 1, 3)."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(count) % 2
    noise = 0.3 * torch.randn(count, 1, 3, generator=generator)
    return (labels * 4.0 - 2).view(-1, 1, 1) + noise, labels


def diffusion(shape, classes):
    denoiser = ResMlp(shape, classes=classes, depth=2, width=64, groups=4, time=16)
    return PRIORS["diffusion"](
        shape, denoiser, classes, CODECS["whiten"](shape), steps=100, predict="v"
    )


def autoregressive(shape, classes):
    size = dict(depth=1, width=32, heads=2)
    return PRIORS["autoregressive"](shape, classes, CODECS["whiten"](shape), token="row", **size)


PRIOR_CASES = {
    "gaussian": lambda shape, classes: PRIORS["gaussian"](shape, classes),
    "neighbours": lambda shape, classes: PRIORS["neighbours"](shape, 400, classes),
    "diffusion": diffusion,
    "autoregressive": autoregressive,
}


@pytest.fixture(scope="module", params=PRIORS)
def fitted(request):
    torch.manual_seed(0)
    codes, labels = two_modes()
    prior = PRIOR_CASES[request.param]((1, 3), 2)
    prior.fit(codes, labels)
    if prior.trained:
        adam = torch.optim.Adam(prior.parameters(), 3e-3)
        for _ in range(250):
            loss = prior.loss(codes, labels).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return prior.eval()


@pytest.mark.slow
def test_a_prior_finds_two_modes(fitted):
    codes, _ = two_modes()
    drawn = fitted.sample(300, generator=torch.Generator().manual_seed(1))
    assert drawn.shape == (300, 1, 3)
    assert torch.isfinite(drawn).all()
    side = drawn.mean((1, 2)) > 0
    assert 0.35 < side.float().mean() < 0.65
    torch.testing.assert_close(drawn[side].mean(0), codes[1::2].mean(0), atol=0.3, rtol=0)
    assert 0.1 < drawn[side].std(0).mean() < 0.45


@pytest.mark.slow
def test_a_prior_draws_the_asked_class(fitted):
    for label, sign in ((0, -1), (1, 1)):
        drawn = fitted.sample(100, label, generator=torch.Generator().manual_seed(1))
        assert ((drawn.mean((1, 2)) * sign) > 0).float().mean() > 0.97
    mixed = torch.tensor([0, 1, 1, 0])
    drawn = fitted.sample(4, mixed, generator=torch.Generator().manual_seed(1))
    assert ((drawn.mean((1, 2)) > 0).long() == mixed).all()


def test_a_seed_draws_the_same(fitted):
    once, twice, other = (
        fitted.sample(5, generator=torch.Generator().manual_seed(s)) for s in (7, 7, 8)
    )
    torch.testing.assert_close(once, twice, rtol=0, atol=0)
    assert not torch.allclose(once, other)


def test_sampling_options_are_checked_by_name(fitted):
    with pytest.raises(ValueError, match="unknown sampling option.*'guidence'"):
        fitted.sample(2, guidence=2.0)
    with pytest.raises(ValueError, match="not one of 0 .. 1"):
        fitted.sample(2, 5)


def test_label_dropout_hides_the_class():
    """With every label dropped the class embedding gets no gradient but that of "any"."""
    prior = diffusion((1, 3), 2)
    prior.label_dropout = 1.0
    codes, labels = two_modes(16)
    prior.denoiser.blocks[0].linear2.weight.data.normal_()
    prior.loss(codes, labels).sum().backward()
    gradient = prior.denoiser.label.weight.grad
    assert gradient[:2].abs().sum() == 0
    assert gradient[2].abs().sum() > 0


def test_neighbours_are_those_of_the_codes_that_there_are():
    """Fewer than there are signals, where some failed; a state of any number is loaded."""
    codes, labels = two_modes(20)
    prior, other = (PRIORS["neighbours"]((1, 3), signals=30, classes=2) for _ in "ab")
    prior.fit(codes, labels)
    torch.testing.assert_close(prior.codes, codes)
    assert torch.equal(prior.labels, labels)
    near = lambda prior: prior.sample(50, 1, generator=torch.Generator().manual_seed(0))
    load_weights(other, prior.state_dict(), "a state")
    torch.testing.assert_close(near(other), near(prior), rtol=0, atol=0)
    prior.fit(codes[:7])
    assert prior.labels.tolist() == [-1] * 7
    with pytest.raises(ValueError, match="neighbours = 4: from 1 to 3"):
        prior.fit(codes[:3])
    wide = PRIORS["neighbours"]((1, 5), signals=30, classes=2)
    with pytest.raises(ValueError, match=r"'codes' is \[20, 1, 3\], not \[20, 1, 5\]"):
        load_weights(wide, other.state_dict(), "a state")


# What is lost between a code and what its codec makes of it, of the codes' spread around the start.
CODEC_LOSS = {"identity": 0.0, "whiten": 0.0, "quantize": 0.01}
TRAINED = {"graph"}
"""Codecs that are nothing before they are trained: tests/codecs/test_graph.py."""


def test_the_laws_cover_the_codecs():
    assert {*CODEC_LOSS, *TRAINED} == set(CODECS)


@pytest.mark.parametrize("name", CODEC_LOSS)
def test_codecs(name):
    codes = torch.randn(50, 3, 4) * torch.rand(3, 4) * 5 + torch.randn(3, 4)
    codec = CODECS[name]((3, 4))
    start = codes.mean(0)
    codec.fit(codes, start=start)
    made = codec.decode(codec.encode(codes))
    bound = CODEC_LOSS[name] * (codes - start).square().mean() + 1e-10
    assert (made - codes).square().mean() <= bound
    codec.fit(codes, torch.zeros(50), start)  # labels make no difference
    torch.testing.assert_close(codec.decode(codec.encode(codes)), made, rtol=0, atol=0)
    if CODEC_LOSS[name] == 0:
        torch.testing.assert_close(made, codes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("per", "axes"), [("element", (0,)), ("channel", (0, 1)), ("all", (0, 1, 2))]
)
def test_whitening(per, axes):
    codes = torch.randn(200, 3, 4) * 5 + 2
    codec = CODECS["whiten"]((3, 4), per=per)
    codec.fit(codes)
    inner = codec.encode(codes)
    assert inner.mean(axes).abs().max() < 1e-5
    assert (inner.std(axes) - 1).abs().max() < 1e-5
