"""The denoiser of weight tensors, whitening by tensor, and the recipe around them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fieldloom
from fieldloom import recipe as recipes
from fieldloom.assembly import open_source
from fieldloom.codecs import Whiten
from fieldloom.conditioners import FlatWeights
from fieldloom.denoisers import WeightTransformer
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.fields import FourierMlp, Siren
from fieldloom.metrics.cost import count_parameters
from fieldloom.training import train
from vectors import same

SMALL = dict(width=12, depth=2, heads=3, bands=4)


def codes(width: int | None = 7) -> FlatWeights:
    """Codes of a small SIREN; tokens of 7 leave some padding."""
    return FlatWeights(Siren(2, 1, width=3, depth=3).slots, width=width)


def net(conditioner: FlatWeights, classes: int = 0, **own: object) -> WeightTransformer:
    made = WeightTransformer(
        conditioner.code_shape, conditioner.layout, classes, **(SMALL | own)
    ).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.5)
    return made


def noise(conditioner: FlatWeights, batch: int = 3) -> Tensor:
    return torch.randn(batch, *conditioner.code_shape, dtype=torch.float64)


# -- the denoiser


def slow(made: WeightTransformer, code: Tensor, time: int, label: int | None) -> Tensor:
    """One code (tokens, width), token by token and head by head."""

    def norm(x: Tensor, own: torch.nn.LayerNorm) -> Tensor:
        centred = x - x.mean()
        return centred / (centred.square().mean() + 1e-5).sqrt() * own.weight + own.bias

    flat, tokens, first = code.flatten(), [], 0
    for own, size in zip(made.input, made.sizes, strict=True):
        tokens.append(own.weight @ flat[first : first + size])
        first += size
    waves = [time / 10000 ** (i / made.bands) for i in range(made.bands)]
    embedded = torch.tensor([f(a) for f in (math.cos, math.sin) for a in waves]).double()
    tokens.append(made.time.weight @ embedded)
    if made.label is not None:
        tokens.append(made.label.weight[-1 if label is None else label])
    rows = [norm(x, made.norm_in) + p for x, p in zip(tokens, made.position, strict=True)]
    for block in made.blocks:
        heads = block.attention.heads
        normed = torch.stack([norm(x, block.norm1) for x in rows])
        q, k, v = (x.view(len(rows), heads, -1) for x in block.attention.qkv(normed).chunk(3, 1))
        mixed = []
        for i in range(len(rows)):
            scores = torch.einsum("hc,nhc->hn", q[i], k) / math.sqrt(q.shape[-1])
            mixed.append(torch.einsum("hn,nhc->hc", scores.softmax(1), v).flatten())
        rows = [x + block.attention.out(m) for x, m in zip(rows, mixed, strict=True)]
        rows = [x + block.mlp(norm(x, block.norm2)) for x in rows]
    parts = [own.weight @ norm(x, made.norm) for own, x in zip(made.output, rows, strict=False)]
    return torch.cat([*parts, flat.new_zeros(made.padding)]).view_as(code)


@pytest.mark.parametrize("classes", [0, 2])
def test_the_network_is_its_definition(classes: int) -> None:
    made, code = net(codes(), classes), noise(codes())
    time, label = torch.tensor([0, 7, 499]), torch.tensor([1, 0, 1])
    given = label if classes else None
    each = [slow(made, c, int(t), int(n)) for c, t, n in zip(code, time, label, strict=True)]
    # angles are float32 here
    same(made(code, time, given), torch.stack(each), rtol=1e-3, atol=1e-3)
    if classes:
        pairs = zip(code, time.tolist(), strict=True)
        anything = torch.stack([slow(made, c, t, None) for c, t in pairs])
        same(made(code, time), anything, rtol=1e-3, atol=1e-3)
        same(made(code, time), made(code, time, torch.full((3,), classes)))


def test_padding_is_answered_by_zero_and_not_seen() -> None:
    made, code = net(conditioner := codes()), noise(codes())
    held = sum(conditioner.sizes)
    padding = math.prod(conditioner.code_shape) - held
    assert padding > 0
    answer = made(code, time := torch.tensor([3, 4, 5])).flatten(1)
    assert not answer[:, held:].any()
    assert answer[:, :held].all()
    other = code.flatten(1).clone()
    other[:, held:] = 9.0
    same(made(other.view_as(code), time).flatten(1), answer)


def test_every_parameter_and_every_weight_has_a_part() -> None:
    """A gradient reaches all of both: any tensor's answer depends on any other's weights."""
    conditioner = codes(None)
    made, code = net(conditioner, 2), noise(conditioner, 1).requires_grad_()
    answer = made(code, torch.tensor([5]), torch.tensor([1]))
    for part in answer.flatten().split(made.sizes):
        (slope,) = torch.autograd.grad(part.sum(), code, retain_graph=True)
        assert slope.all()
    answer.square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("time", ["sinusoid", "octaves"])
def test_the_time_is_seen(time: str) -> None:
    made, code = net(codes(), time=time), noise(codes(), 1)
    answers = [made(code, torch.tensor([t])) for t in (0, 1, 499)]
    assert not torch.allclose(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2])


def test_the_initial_draw() -> None:
    conditioner = codes()
    made = WeightTransformer(conditioner.code_shape, conditioner.layout, 3, 64, 2, 4)
    for name, parameter in made.named_parameters():
        if name.endswith("bias") or name == "position":
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif parameter.numel() > 200:
            assert 0.016 < parameter.std() < 0.024, name


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (dict(heads=5), "heads = 5: a divisor"),
        (dict(depth=0), "depth = 0 is at least 1"),
        (dict(bands=1), "bands = 1 at least 2"),
    ],
)
def test_wrong_sizes(own: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        net(codes(), **own)


def test_codes_that_are_no_weights_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"denoiser 'weight-transformer'.*take conditioner 'flat-weights'"
    ):
        fieldloom.build("mnif", "tiny", prior={"denoiser": {"name": "weight-transformer"}})
    with pytest.raises(InputError, match=r"per = 'tensor'.*take conditioner 'flat-weights'"):
        fieldloom.build("mnif", "tiny", prior={"codec": {"name": "whiten", "per": "tensor"}})
    conditioner = codes()
    with pytest.raises(InputError, match=r"a code is \(\d, 7\), not \(1, 3\)"):
        net(conditioner)(torch.zeros(2, 1, 3).double(), torch.tensor([0, 0]))
    with pytest.raises(InputError, match="does not hold"):
        WeightTransformer((1, 3), conditioner.layout, **SMALL)


# -- whitening


def test_whitening_by_tensor() -> None:
    """One mean and deviation a tensor, over its numbers and all codes; padding stays as it is."""
    conditioner = codes()
    scales = {name: 10.0**-i for i, name in enumerate(conditioner.layout or ())}
    weights = {
        name: 3 * scales[name] + scales[name] * torch.randn(40, *slot.shape)
        for name, slot in (conditioner.layout or {}).items()
    }
    code = conditioner.pack(weights)
    codec = Whiten(conditioner.code_shape, "tensor", conditioner.layout)
    codec.fit(code)
    inner = conditioner.unpack(codec.encode(code))
    for name, w in weights.items():
        expected = (w - w.double().mean().float()) / w.double().std().float()
        same(inner[name], expected, rtol=1e-3, atol=1e-3)
    same(codec.decode(codec.encode(code)), code, rtol=1e-4, atol=1e-6)
    assert not codec.encode(code).flatten(1)[:, sum(conditioner.sizes) :].any()


# -- the recipe


@pytest.mark.parametrize(
    ("variant", "count"),
    [("planes", 1_407_225_600), ("cars", 672_729_600), ("chairs", 1_407_225_600)],
)
def test_published_rows(variant: str, count: int) -> None:
    """Fields of 36,737 weights, 500 steps of linear noise on x0, no codec."""
    with torch.device("meta"):
        system = fieldloom.build("hyperdiffusion", variant)
    assert system.family.code_shape == (1, 36_737)
    prior = system.prior
    assert prior is not None
    assert count_parameters(prior.denoiser) == count
    assert type(prior.codec).__name__ == "Identity"
    assert prior.betas[[0, -1]].tolist() == pytest.approx([1e-4, 2e-2])
    assert isinstance(system.family.field, FourierMlp)
    assert system.family.field.scale * system.modality.high == 0.5


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hyperdiffusion") / "tiny"
    train(recipes.load("hyperdiffusion:tiny"), str(folder), device="cpu")
    return folder


def test_all_fields_start_from_the_fit_of_the_first(run: Path) -> None:
    """One step of Reptile at rate 1 on one datum ends where its fit from the first draw does."""
    trained = fieldloom.load(str(run))
    fresh = fieldloom.build(trained.recipe)
    source = open_source(trained.recipe, trained.modality)
    start = trained.family.conditioner.start
    fits = fresh.encode(source.read(source.train), batch=8)
    far = (fits - start).flatten(1).norm(dim=1)
    assert far.min() < 1e-5 < 1e-3 < far.sort().values[1]
    codes, *_ = Run(str(run)).read_codes()
    same(trained.encode(source.read(source.train[:5]), batch=5), codes[:5], rtol=1e-4, atol=1e-6)
    assert (codes - start).flatten(1).norm(dim=1).min() > 1e-3


def test_samples_are_fields_of_the_asked_class(run: Path) -> None:
    trained = fieldloom.load(str(run))
    drawn = trained.sample_codes(4, label=3, seed=1)
    assert drawn.shape == (4, *trained.family.code_shape)
    assert trained.decode(drawn, 16).shape == (4, 1, 16, 16)
    other = trained.sample_codes(4, label=4, seed=1)
    assert not torch.allclose(drawn, other)


@pytest.mark.parametrize("conditioner", ["flat-weights", "mixture", "shift", "hyper", "columns"])
def test_fields_without_a_last_bias_are_conditioned(conditioner: str) -> None:
    field = dict(name="fourier-mlp", width=8, depth=3, count=2, output_bias=False)
    spec = {"name": conditioner} | ({} if conditioner == "flat-weights" else {"width": 4})
    spec |= {"mixture": {"experts": 2}, "hyper": {"hidden": [5]}, "columns": {"groups": 2}}.get(
        conditioner, {}
    )
    system = fieldloom.build("mnif", "tiny", field=field, conditioner=spec, prior="none")
    assert "2.bias" not in system.family.field.slots
    assert system.decode(system.family.conditioner.origin(2)).shape == (2, 1, 8, 8)
