"""Weights as data: released fields, the order of their weights, HyperDiffusion's denoiser, DDIM."""

from __future__ import annotations

import math
import re
from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fieldloom.conditioners import FlatWeights
from fieldloom.denoisers import WeightTransformer
from fieldloom.denoisers.conditions import embed_octaves
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp
from fieldloom.metrics.cost import count_field_weights, count_parameters
from fieldloom.priors import Diffusion
from fieldloom.types import Slot
from shared import shared
from vectors import Vectors, load, same

FIELDS = {
    "hd": dict(width=5, depth=3, count=2, include_input=True),
    "ng3": dict(
        width=4,
        depth=3,
        count=2,
        include_input=True,
        activation="gelu",
        output="tanh",
        output_bias=False,
    ),
    "ng2": dict(width=16, depth=3, count=4, output_bias=False),
}


def weight_fields() -> tuple[Vectors, dict[str, list[str]]]:
    """The numbers of ``weight_fields``, and its lists of names."""
    with np.load(shared("vectors", "weight_fields.npz")) as file:
        held = {key: np.array(file[key]) for key in file.files}
    numbers = {k: torch.from_numpy(x) for k, x in held.items() if x.dtype.kind != "U"}
    return numbers, {key: x.tolist() for key, x in held.items() if x.dtype.kind == "U"}


def field(
    coord_dim: int = 3, *, count: int, include_input: bool = False, **own: object
) -> FourierMlp:
    encoding = Fourier("octaves", count, pi=False, include_input=include_input)
    return FourierMlp(coord_dim, 1, encoding=encoding, **own)


def slot_of(released: str) -> str:
    """``layers.0.weight`` -> ``0.weight``."""
    return released.removeprefix("layers.")


def stored(vectors: Vectors, name: str) -> dict[str, Tensor]:
    """A field's weights in our layout, (in, out), with an axis of instances."""
    if name == "ng2":  # only the flat vector was kept
        return from_state_order(vectors["ng2.flat"][None], field(2, **FIELDS["ng2"]))
    kept = [key for key in vectors if key.startswith(f"{name}.p.")]
    named = {slot_of(key.removeprefix(f"{name}.p.")): vectors[key] for key in kept}
    return {key: (w.mT if w.ndim == 2 else w)[None] for key, w in named.items()}


def from_state_order(flat: Tensor, net: FourierMlp) -> dict[str, Tensor]:
    """The flat vectors (batch, numbers) of PyTorch states as a field's weights."""
    parts = flat.split([math.prod(slot.shape) for slot in net.slots.values()], 1)
    return {
        key: part.unflatten(1, slot.shape[::-1]).mT if slot.role == "weight" else part
        for (key, slot), part in zip(net.slots.items(), parts, strict=True)
    }


def holder(weights: dict[str, Tensor]) -> FlatWeights:
    """A conditioner whose codes hold weights of these shapes."""
    roles = {key: key.rpartition(".")[2] for key in weights}
    empty = {key: torch.zeros(w.shape[1:], dtype=w.dtype) for key, w in weights.items()}
    draw = lambda key: lambda generator: empty[key]
    slots = {key: Slot(tuple(w.shape[1:]), draw(key), roles[key]) for key, w in weights.items()}
    return FlatWeights(slots)


def in_state_order(weights: dict[str, Tensor]) -> Tensor:
    """Weights (batch, in, out) and biases one after another as PyTorch's state holds them."""
    return torch.cat([(w.mT if w.ndim == 3 else w).flatten(1) for w in weights.values()], 1)


# -- fields


@pytest.mark.parametrize("name", FIELDS)
def test_released_fields(name: str) -> None:
    """Octaves without pi; the last layer without a bias; ReLU or the exact GELU."""
    vectors, _ = weight_fields()
    coords = vectors["ng2.coords" if name == "ng2" else "hd.coords"][None]
    net, weights = field(coords.shape[-1], **FIELDS[name]), stored(vectors, name)
    assert list(net.slots) == list(weights)
    if f"{name}.embed" in vectors:
        same(net.encode(coords, weights)[0], vectors[f"{name}.embed"])
    function = Family(net, conditioner := holder(weights)).bind(conditioner.pack(weights))
    same(function(coords)[0], vectors[f"{name}.{'logits' if name == 'hd' else 'out'}"])
    if name == "hd":
        bounded = field(3, **FIELDS[name], output="tanh")
        same(bounded(coords, weights)[0], vectors["hd.sdf"])


@pytest.mark.parametrize("name", ["hd", "ng3"])
def test_order_of_the_weights(name: str) -> None:
    """A code is the state of PyTorch in the same order of tensors, each weight transposed."""
    vectors, names = weight_fields()
    conditioner = holder(weights := stored(vectors, name))
    assert conditioner.layout is not None
    assert list(conditioner.layout) == [slot_of(n) for n in names[f"{name}.names"]]
    code = conditioner.pack(weights)
    same(in_state_order(conditioner.unpack(code)), vectors[f"{name}.flat"][None])
    assert not torch.equal(code.flatten(1), vectors[f"{name}.flat"][None])


@pytest.mark.parametrize(
    ("key", "net", "count"),
    [
        ("hd.full_sizes", field(width=128, depth=4, count=4, include_input=True), 36_737),
        (
            "ng3.full_sizes",
            field(width=32, depth=5, count=2, include_input=True, output_bias=False),
            3_712,
        ),
        ("ng2.sizes", field(2, **FIELDS["ng2"]), 560),
        (None, field(2, width=16, depth=3, count=4), 561),
        (None, field(4, width=128, depth=4, count=4, include_input=True), 37_889),
    ],
    ids=["HyperDiffusion", "NeF-GPT 3-D", "NeF-GPT MNIST", "the report's", "HyperDiffusion 4-D"],
)
def test_counts_of_released_fields(key: str | None, net: FourierMlp, count: int) -> None:
    assert count_field_weights(net.slots) == count
    if key is not None:
        sizes = [math.prod(slot.shape) for slot in net.slots.values()]
        assert sizes == weight_fields()[0][key].tolist()


def test_scale_is_of_the_coordinates() -> None:
    coords = torch.rand(1, 7, 3, dtype=torch.float64) * 2 - 1
    half, whole = (field(3, **FIELDS["hd"], scale=s) for s in (0.5, 1.0))
    weights = {n: s.init(None)[None].double() for n, s in whole.slots.items()}
    same(half(coords, weights), whole(coords / 2, weights))


# -- the denoiser


def released_state(vectors: Vectors, order: list[Tensor]) -> Vectors:
    """The released parameters by our names; ``order``: of the numbers inside each tensor."""
    old = {k.removeprefix("p.decoder."): v for k, v in vectors.items() if k.startswith("p.")}
    state = {
        "position": old["pos_emb"][0],
        "time.weight": old[f"input_parameter_projections.{len(order)}.0.weight"],
    }
    for i, own in enumerate(order):
        state[f"input.{i}.weight"] = old[f"input_parameter_projections.{i}.0.weight"][:, own]
        state[f"output.{i}.weight"] = old[f"output_parameter_projections.{i}.0.weight"][own]
    for kind in ("weight", "bias"):
        state |= {f"norm_in.{kind}": old[f"ln_in.{kind}"], f"norm.{kind}": old[f"ln_f.{kind}"]}
        for b in range(2):
            head = f"blocks.{b}."
            three = [old[f"{head}attn.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{head}attention.qkv.{kind}"] = torch.cat(three)
            pairs = {"attention.out": "attn.proj", "norm1": "ln1", "norm2": "ln2"}
            pairs |= {"mlp.0": "mlp.0", "mlp.2": "mlp.2"}
            state |= {f"{head}{new}.{kind}": old[f"{head}{o}.{kind}"] for new, o in pairs.items()}
    return state


def test_time_token() -> None:
    vectors = load("hyperdiffusion_model")
    embedded = embed_octaves(vectors["t"], 6, 5.0)
    same(embedded.float(), vectors["t_embed"], rtol=1e-5, atol=2e-3)  # float32 angles there
    slow = [
        [f(2.0**k * t) for f in (math.sin, math.cos) for k in range(6)] + [float(t)]
        for t in vectors["t"].tolist()
    ]
    same(embedded, torch.tensor(slow, dtype=torch.float64))


def test_released_denoiser() -> None:
    """The released network with our order of numbers: each weight (in, out), not (out, in)."""
    vectors = load("hyperdiffusion_model")
    weights = stored(weight_fields()[0], "hd")
    conditioner = holder(weights)
    places = torch.arange(109.0)[None]
    ends = [0, *accumulate(vectors["sizes"].tolist())]
    inside = dict(zip(weights, (places[0, a:b] - a for a, b in pairwise(ends)), strict=True))
    turn = lambda w, x: x.view(w.shape[2], w.shape[1]).mT if w.ndim == 3 else x
    ours = {name: turn(w, inside[name])[None] for name, w in weights.items()}
    order = [w.flatten().long() for w in ours.values()]
    whole = torch.cat([own + first for own, first in zip(order, ends, strict=False)])
    net = WeightTransformer(
        (1, 109),
        conditioner.layout,
        width=8,
        depth=2,
        heads=2,
        time="octaves",
        bands=6,
        highest=5.0,
    )
    net.load_state_dict(released_state(vectors, order))
    out = net(vectors["w"][:, None, whole], vectors["t"])
    same(out[:, 0], vectors["out"][:, whole], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("coords", "width", "printed", "count"),
    [
        (3, 2880, "1.407e+09", 1_407_225_600),
        (3, 1920, "6.727e+08", 672_729_600),
        (4, 1440, "4.083e+08", 408_332_160),
    ],
    ids=["planes, chairs", "cars", "4-D"],
)
def test_count_of_the_denoiser(coords: int, width: int, printed: str, count: int) -> None:
    """By arithmetic: blocks, maps in and out, the time's, positions, two norms."""
    slots = field(coords, width=128, depth=4, count=4, include_input=True).slots
    size = count_field_weights(slots)
    with torch.device("meta"):
        net = WeightTransformer((1, size), slots, width=width, time="octaves")
    blocks = 12 * (12 * width**2 + 13 * width)
    assert count_parameters(net) == blocks + (2 * size + 257 + 9 + 4) * width == count
    assert f"{count:.3e}" == printed


# -- diffusion


class Rule(nn.Module):
    """The vectors' predictor of x0, and what it was asked at each time."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))
        self.met: dict[int, Tensor] = {}

    def forward(self, code: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        self.met[int(time[0])] = code[:, 0]
        return 0.3 * code.tanh() + 0.01 * torch.sin(0.01 * time)[:, None, None]


def diffusion(rule: nn.Module, size: int) -> Diffusion:
    """As released: 500 steps, linear betas, x0."""
    own = dict(steps=500, schedule="linear", betas=(1e-4, 2e-2), predict="x0")
    return Diffusion((1, size), rule, **own)


def test_schedule() -> None:
    vectors, prior = load("hyperdiffusion_model"), diffusion(Rule(), 7)
    same(prior.betas, vectors["betas"].float(), rtol=1e-5, atol=0)
    same(prior.alphas_cumprod, vectors["alphas_bar"].float(), rtol=1e-5, atol=0)


def test_ddim_visits_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic; the last step answers x0; schedules are float32."""
    vectors, rule = load("hyperdiffusion_model"), Rule()
    monkeypatch.setattr(torch, "randn", lambda *shape, **rest: vectors["ddim_xT"][:, None])
    drawn = diffusion(rule, 7).sample(2, sampler="ddim", steps=500)
    assert sorted(rule.met) == list(range(500))
    # 1 - abar cancels in float32
    close = {"rtol": 2e-5, "atol": 2e-5}
    for name in vectors:
        if found := re.fullmatch(r"ddim_after_t(\d+)", name):
            same(rule.met[int(found[1]) - 1], vectors[name], **close)
    same(drawn[:, 0], vectors["ddim_final"], **close)
    same(drawn[:, 0], vectors["ddim_official"], **close)
