"""The denoiser of weight tensors, against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import fieldloom
from fieldloom.conditioners import FlatWeights
from fieldloom.denoisers import WeightTransformer
from fieldloom.errors import InputError
from vectors import same
from weights import codes

SMALL = dict(width=12, depth=2, heads=3, bands=4)


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
