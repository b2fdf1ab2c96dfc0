"""Hypernetworks against slow twins written from the facts: GASP's flat answer, GEM's gates."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from fieldloom import recipe as recipes
from fieldloom.assembly import build
from fieldloom.conditioners.hyper import Hyper
from fieldloom.encoders import AutoDecode
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp, Siren
from fieldloom.metrics.cost import count_parameters

WIDTH = 3
FIELDS = {
    "siren": lambda: Siren(2, 3, width=4, depth=3),
    "fixed-features": lambda: FourierMlp(
        2, 3, width=4, depth=3, encoding=Fourier("gaussian", count=2, bandwidth=1.0)
    ),
    "learned-features": lambda: FourierMlp(
        2, 1, width=4, depth=3, encoding=Fourier("learned", count=3, bandwidth=2.0)
    ),
}


def affine(layer, x):
    """One row at a time, one unit at a time."""
    return torch.stack(
        [(layer.weight[i] * x).sum() + layer.bias[i] for i in range(len(layer.bias))]
    )


def slow_gasp(hyper, z, names):
    """One flat answer, cut into all weights, then all biases, in the order of the layers."""
    for layer in hyper.trunk:
        z = affine(layer, z)
        z = torch.where(z > 0, z, 0.1 * z)
    flat = affine(hyper.heads[0], z)
    made, place = {}, 0
    for kind in ("weight", "bias"):
        for name in names:
            if name.endswith(kind):
                shape = hyper.slots[name].shape
                size = math.prod(shape)
                made[name] = flat[place : place + size].reshape(shape)
                place += size
    assert place == len(flat)
    return made


def slow_gem(hyper, z, names):
    """W = base * sigmoid(A B), entry by entry; a bias is what its head says."""
    for layer in list(hyper.trunk)[:-1]:
        z = affine(layer, z).clamp(min=0)
    z = affine(hyper.trunk[-1], z)
    ordered = [n for kind in ("weight", "bias") for n in names if n.endswith(kind)]
    assert len(ordered) == len(hyper.heads)
    made = {}
    for name, head in zip(ordered, hyper.heads, strict=True):
        answer = affine(head[2], affine(head[0], z).clamp(min=0))
        if name.endswith("bias"):
            made[name] = answer
            continue
        fan_in, fan_out = hyper.slots[name].shape
        first = answer[: fan_in * hyper.rank]
        second = answer[fan_in * hyper.rank :]
        rows = []
        for i in range(fan_in):
            row = []
            for j in range(fan_out):
                a = first[i * hyper.rank : (i + 1) * hyper.rank]
                b = second[j::fan_out]
                row.append(hyper.base[name][0, i, j] / (1 + torch.exp(-(a * b).sum())))
            rows.append(torch.stack(row))
        made[name] = torch.stack(rows)
    return made


def slow(hyper, z, names):
    return (slow_gasp if hyper.rank is None else slow_gem)(hyper, z, names)


def conditioned(slots, prefix=""):
    return [n for n in slots if n.startswith(prefix) and n.endswith(("weight", "bias"))]


KINDS = {
    "gasp": dict(hidden=(5, 6)),
    "gasp-one": dict(hidden=(5,)),
    "gem": dict(hidden=(5, 6), rank=2, activation="relu"),
    "gem-one": dict(hidden=(5,), rank=3, activation="relu"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("prefix", ["", "1."])
def test_weights_and_gradients_are_those_of_a_slow_twin(field, kind, prefix):
    slots = FIELDS[field]().slots
    hyper = Hyper(slots, width=WIDTH, only=f"{prefix}*", **KINDS[kind]).double()
    code = torch.randn(3, 1, WIDTH, dtype=torch.float64, requires_grad=True)
    weights = hyper(code)
    names = conditioned(slots, prefix)
    twins = [slow(hyper, z[0], names) for z in code]
    mixed = {n: torch.randn(3, *slots[n].shape, dtype=torch.float64) for n in names}
    for name in names:
        expected = torch.stack([twin[name] for twin in twins])
        torch.testing.assert_close(weights[name], expected, rtol=1e-12, atol=1e-13)
    for name in set(slots) - set(names):
        assert torch.equal(weights[name], hyper.base[name])
        assert len(weights[name]) == 1
    about = [code, *hyper.parameters()]
    ours = sum((weights[n] * mixed[n]).sum() for n in names)
    theirs = sum((twin[n] * mixed[n][i]).sum() for i, twin in enumerate(twins) for n in names)
    for a, b in zip(
        torch.autograd.grad(ours, about, allow_unused=True),
        torch.autograd.grad(theirs, about, allow_unused=True),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_these_weights_is_a_plain_perceptron(kind):
    field = FIELDS["fixed-features"]()
    hyper = Hyper(field.slots, width=WIDTH, **KINDS[kind]).double()
    code = torch.randn(2, 1, WIDTH, dtype=torch.float64)
    coords = torch.rand(2, 7, 2, dtype=torch.float64) * 2 - 1
    values = Family(field, hyper)(coords, code)
    for i in range(2):
        made = slow(hyper, code[i, 0], conditioned(field.slots))
        angles = 2 * math.pi * (coords[i] @ hyper.base["features"][0])
        h = torch.cat([angles.cos(), angles.sin()], -1)
        layers = sorted({n.partition(".")[0] for n in made})
        for place, layer in enumerate(layers):
            h = h @ made[f"{layer}.weight"] + made[f"{layer}.bias"]
            h = h.relu() if place < len(layers) - 1 else h
        torch.testing.assert_close(values[i], h)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_macs_by_hand(kind):
    """Every base tensor that the code replaces is gone; a low-rank product costs its rank."""
    slots = Siren(2, 3, width=4, depth=3).slots
    hyper = Hyper(slots, width=WIDTH, **KINDS[kind])
    shapes = [(2, 4), (4, 4), (4, 3)]
    sizes = [WIDTH, *KINDS[kind]["hidden"]]
    last = sizes[-1]
    layers = [*pairwise(sizes)]
    products = base = 0
    if hyper.rank is None:
        layers += [(last, sum(a * b + b for a, b in shapes))]
    else:
        layers += [(last, last)]
        for a, b in shapes:
            layers += [(last, last), (last, hyper.rank * (a + b)), (last, last), (last, b)]
        base = sum(a * b for a, b in shapes)
        products = hyper.rank * base
    assert count_parameters(hyper) == sum(a * b + b for a, b in layers) + base
    assert hyper.macs() == sum(a * b for a, b in layers) + products


def on_meta(name, variant, signals):
    recipe = recipes.load(f"{name}:{variant}")
    recipe.pop("prior", None)
    recipe["known"] = {"signals": signals}
    with torch.device("meta"):
        return build(recipe)


@pytest.mark.parametrize(
    ("name", "variant", "count"),
    [
        ("gasp", "celebahq64", 34_163_715),
        ("gasp", "shapenet32", 17_418_369),
        ("gem", "celebahq64", 66_180_661),
    ],
)
def test_published_counts(name, variant, count):
    """GEM: the base field without its biases, which nothing reads."""
    built = on_meta(name, variant, 1)
    assert count_parameters(built.family) == count
    assert built.family.code_shape == ((1, 1024) if name == "gem" else (1, 64))
    assert isinstance(built.encoder, AutoDecode) == (name == "gem")


def test_gates_lie_between_0_and_1():
    slots = Siren(2, 3, width=4, depth=3).slots
    hyper = Hyper(slots, width=WIDTH, hidden=(6,), rank=2, activation="relu").double()
    codes = 0.3 * torch.randn(64, 1, WIDTH, dtype=torch.float64)  # none saturates
    weights = hyper(codes)
    for name in ("0.weight", "1.weight", "2.weight"):
        gate = weights[name] / hyper.base[name]
        assert 0 < gate.min() < 0.5 < gate.max() < 1
    with torch.no_grad():
        for head in hyper.heads:
            head[2].weight.zero_()
            head[2].bias.zero_()
    weights = hyper(codes)
    torch.testing.assert_close(weights["1.weight"], (hyper.base["1.weight"] / 2).expand(64, -1, -1))
    assert weights["1.bias"].count_nonzero() == 0


def test_gasp_starts_as_torch_linear_does():
    slots = Siren(2, 3, width=16, depth=3).slots
    hyper = Hyper(slots, width=64, hidden=(100, 400))
    for layer in [*hyper.trunk, *hyper.heads]:
        bound = layer.in_features**-0.5
        drawn = layer.weight.abs()
        assert 0.99 * bound < drawn.max() <= bound
        assert drawn.mean().item() == pytest.approx(bound / 2, rel=0.05)
        assert 0.8 * bound < layer.bias.abs().max() <= bound


def test_gem_starts_by_kaimings_draw():
    slots = Siren(2, 3, width=16, depth=3).slots
    hyper = Hyper(slots, width=64, hidden=(100, 400), rank=4, activation="relu")
    layers = [*hyper.trunk, *(head[i] for head in hyper.heads for i in (0, 2))]
    for layer in layers:
        std = math.sqrt(2 / layer.in_features)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert layer.weight.abs().max() > 2 * std  # normal, not uniform
    biases = torch.cat([layer.bias for layer in layers])
    assert biases.std().item() == pytest.approx(0.01, rel=0.05)
    assert abs(biases.mean().item()) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_decides_the_draws(kind):
    slots = Siren(2, 3, width=4, depth=3).slots

    def made(seed):
        torch.manual_seed(torch.randint(1000, ()).item())  # torch's own must not matter
        generator = torch.Generator().manual_seed(seed)
        return Hyper(slots, width=WIDTH, generator=generator, **KINDS[kind]).state_dict()

    one, same, other = made(0), made(0), made(1)
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert all(not torch.equal(one[n], other[n]) for n in one)


def test_the_activation_is_the_one_asked_for():
    slots = Siren(2, 3, width=4, depth=3).slots
    code = torch.randn(2, 1, WIDTH)
    hyper = Hyper(slots, width=WIDTH, hidden=(5,), activation="tanh")
    h = torch.tanh(F.linear(code[:, 0], hyper.trunk[0].weight, hyper.trunk[0].bias))
    flat = hyper.heads[0](h)
    torch.testing.assert_close(hyper(code)["0.weight"].flatten(1), flat[:, :8])


def test_signals_do_not_see_one_another():
    slots = Siren(2, 3, width=4, depth=3).slots
    for arguments in KINDS.values():
        hyper = Hyper(slots, width=WIDTH, **arguments)
        codes = torch.randn(5, 1, WIDTH)
        whole = hyper(codes)
        alone = hyper(codes[2:3])
        for name in conditioned(slots):
            torch.testing.assert_close(whole[name][2:3], alone[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(width=0), "at least 1"),
        (dict(hidden=()), "one hidden layer"),
        (dict(hidden=(4, 0)), "at least 1"),
        (dict(rank=-1), "at least 1"),
        (dict(activation="swish"), "activation 'swish' is none of"),
        (dict(only="9.*"), "matches none of the slots"),
        (dict(rank=0), "at least 1"),
    ],
)
def test_refusals(arguments, message):
    slots = Siren(2, 3, width=4, depth=3).slots
    with pytest.raises(InputError, match=message):
        Hyper(slots, **arguments)
