"""Attention, tokens and the local decoder against slow, spelled-out twins; counts and refusals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fieldloom.conditioners import Columns, Conditioner, Factor, FlatWeights, Substitute
from fieldloom.encoders import Cavia, Fit, Transformer, reconstruction_loss
from fieldloom.encoders.transformer import unfold
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Experts, Field, Fourier, FourierMlp, Local, Siren, Tiling
from fieldloom.geometry.cameras import orbit, rays
from fieldloom.metrics.cost import count_macs, count_parameters
from fieldloom.metrics.losses import mse
from fieldloom.modalities import MODALITIES
from fieldloom.nn.transformer import AdaptiveBlock, Attention, Block, attend
from fieldloom.renderers import Direct as Seen
from fieldloom.renderers import Plucker, plucker
from fieldloom.types import Signal, Weights

close = torch.testing.assert_close
draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)


def gradients(value: Tensor, *given: Tensor) -> list[Tensor]:
    """Of a sum whose terms all count differently."""
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)
    return list(torch.autograd.grad((value * weights).sum(), given))


def agree(fast: Tensor, slow: Tensor, *given: Tensor) -> None:
    """Values, and gradients to all that is given."""
    close(fast, slow)
    close(gradients(fast, *given), gradients(slow, *given))


# -- attention


def slow_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """One signal, one head and one query at a time."""
    size = q.shape[-1] // heads
    rows = []
    for b, i in product(range(len(q)), range(q.shape[1])):
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = torch.stack([(q[b, i, own] * key[own]).sum() for key in k[b]])
            share = torch.exp(scores / math.sqrt(size))
            parts.append((share / share.sum()) @ v[b, :, own])
        rows.append(torch.cat(parts))
    return torch.stack(rows).view_as(q)


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_attend(heads: int) -> None:
    q, k, v = (draw(2, n, 6).requires_grad_() for n in (3, 5, 5))
    agree(attend(q, k, v, heads), slow_attention(q, k, v, heads), q, k, v)


@pytest.mark.parametrize("bias", [True, False])
def test_attention_is_torchs(bias: bool) -> None:
    """nn.MultiheadAttention with the same parameters: values and all gradients."""
    own = Attention(12, 3, bias=bias).double()
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(own.qkv.weight)
        theirs.out_proj.weight.copy_(own.out.weight)
        if bias:
            own.qkv.bias.normal_()
            theirs.in_proj_bias.copy_(own.qkv.bias)
            theirs.out_proj.bias.copy_(own.out.bias)
        else:
            own.out.bias.zero_()
    x = draw(2, 7, 12).requires_grad_()
    fast, slow = own(x), theirs(x, x, x)[0]
    close(fast, slow)
    pairs = [(own.qkv.weight, theirs.in_proj_weight), (own.out.weight, theirs.out_proj.weight)]
    pairs += [(own.qkv.bias, theirs.in_proj_bias)] if bias else []
    pairs += [(own.out.bias, theirs.out_proj.bias)] if bias else []
    mine, their = zip(*pairs, strict=True)
    close(gradients(fast, x, *mine), gradients(slow, x, *their))


def test_cross_attention_is_torchs() -> None:
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    x, y = draw(2, 3, 8).requires_grad_(), draw(2, 5, 8).requires_grad_()
    wq, wk, wv = theirs.in_proj_weight.chunk(3)
    fast = theirs.out_proj(attend(x @ wq.mT, y @ wk.mT, y @ wv.mT, 2))
    agree(fast, theirs(x, y, y)[0], x, y, theirs.in_proj_weight)


def test_a_bias_of_keys_cancels() -> None:
    """The same for all keys, it adds the same to all scores of a query: Local has none."""
    q, k, v, bias = draw(2, 3, 6), draw(2, 5, 6), draw(2, 5, 6), draw(6).requires_grad_()
    close(attend(q, k + bias, v, 2), attend(q, k, v, 2))
    (gradient,) = gradients(attend(q, k + bias, v, 2), bias)
    assert gradient.abs().max() < 1e-14


def slow_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    middle = x.mean(-1, keepdim=True)
    spread = (x - middle).square().mean(-1, keepdim=True)
    return (x - middle) / (spread + eps).sqrt()


def slow_attended(x: Tensor, own: Attention) -> Tensor:
    width = x.shape[-1]
    three = [
        x @ own.qkv.weight[i * width : (i + 1) * width].mT
        + (0 if own.qkv.bias is None else own.qkv.bias[i * width : (i + 1) * width])
        for i in range(3)
    ]
    return slow_attention(*three, own.heads) @ own.out.weight.mT + own.out.bias


def slow_perceptron(x: Tensor, own: nn.Sequential) -> Tensor:
    h = x @ own[0].weight.mT + own[0].bias
    h = h * (1 + torch.erf(h / math.sqrt(2))) / 2
    return h @ own[2].weight.mT + own[2].bias


def stirred(module: nn.Module) -> nn.Module:
    """In float64, with no parameter left at 0 or 1."""
    for parameter in module.double().parameters():
        parameter.data += 0.3 * draw(*parameter.shape)
    return module


@pytest.mark.parametrize("bias", [True, False])
def test_block(bias: bool) -> None:
    block = stirred(Block(6, 2, ratio=1.5, bias=bias))
    assert block.mlp[0].out_features == 9
    x = draw(2, 4, 6).requires_grad_()
    norm = lambda h, own: slow_norm(h) * own.weight + own.bias
    h = x + slow_attended(norm(x, block.norm1), block.attention)
    slow = h + slow_perceptron(norm(h, block.norm2), block.mlp)
    agree(block(x), slow, x, *block.parameters())


def test_adaptive_block() -> None:
    """The identity at first; then every norm and residual as the condition says."""
    block = AdaptiveBlock(6, 2).double()
    x, condition = draw(2, 4, 6).requires_grad_(), draw(2, 6).requires_grad_()
    close(block(x, condition), x, rtol=0, atol=0)
    stirred(block)
    silu = condition / (1 + torch.exp(-condition))
    six = (silu @ block.adapt[1].weight.mT + block.adapt[1].bias).unsqueeze(1).chunk(6, -1)
    h = slow_norm(x, 1e-6) * (1 + six[1]) + six[0]
    h = x + six[2] * slow_attended(h, block.attention)
    slow = h + six[5] * slow_perceptron(slow_norm(h, 1e-6) * (1 + six[4]) + six[3], block.mlp)
    agree(block(x, condition), slow, x, condition, *block.parameters())


def test_dropout_is_for_training() -> None:
    block = Block(6, 2, dropout=0.5)
    plain = Block(6, 2)
    plain.load_state_dict(block.state_dict())
    x = torch.randn(2, 4, 6)
    close(block.eval()(x), plain(x))
    block.train()
    assert not torch.allclose(block(x), block(x))
    # what is added is dropped, not what it is added to: with all of it dropped, nothing happens
    block.dropout.p = 1.0
    close(block(x), x)


# -- patches


@pytest.mark.parametrize(
    ("size", "patch", "pad"), [((6, 8), (3, 2), 0), ((7, 9), (3, 3), 1), ((5, 4), (2, 3), 2)]
)
def test_unfold_is_torchs(size: tuple[int, int], patch: tuple[int, int], pad: int) -> None:
    x = draw(2, 3, *size)
    close(unfold(x, patch, pad), F.unfold(x, patch, padding=pad, stride=patch).mT)


@pytest.mark.parametrize(
    ("size", "patch", "pad"),
    [((11,), (3,), 0), ((11,), (4,), 1), ((4, 5, 6), (2, 2, 3), 0), ((3, 4, 5), (2, 3, 2), 1)],
)
def test_unfold_axis_by_axis(size: tuple[int, ...], patch: tuple[int, ...], pad: int) -> None:
    """The first patch's channels, row-major within; what fills no patch is left out."""
    x = draw(2, 3, *size)
    padded = torch.zeros(2, 3, *(n + 2 * pad for n in size), dtype=x.dtype)
    padded[:, :, *(slice(pad, pad + n) for n in size)] = x
    places = [(n + 2 * pad) // p for n, p in zip(size, patch, strict=True)]
    rows = []
    for place in product(*map(range, places)):
        row = []
        for channel, within in product(range(3), product(*map(range, patch))):
            at = [a * p + b for a, p, b in zip(place, patch, within, strict=True)]
            row.append(padded[:, channel, *at])
        rows.append(torch.stack(row, -1))
    close(unfold(x, patch, pad), torch.stack(rows, 1))


# -- the local decoder


def gamma(v: Tensor, count: int, sigma: float) -> Tensor:
    """[cos(pi w_j v_i) | sin(pi w_j v_i)] of one point, w_j = sigma^(j / (n - 1))."""
    angles = [
        math.pi * sigma ** (j / (count - 1) if count > 1 else 0) * x
        for x in v
        for j in range(count)
    ]
    stacked = torch.stack(angles)
    return torch.cat([stacked.cos(), stacked.sin()])


def slow_local(
    coords: Tensor, weights: Weights, own: Mapping[str, Any], offset: float = 0.0
) -> Tensor:
    """Equations 2 to 9, one point at a time; the weights of each signal are its own."""
    answers = []
    for b in range(len(coords)):
        w = {name: tensor[b if len(tensor) > 1 else 0] for name, tensor in weights.items()}
        layer = lambda name, x, w=w: x @ w[f"{name}.weight"] + w.get(f"{name}.bias", 0)
        for v in coords[b]:
            count = own["features"] // (2 * len(v))
            q = layer("query", gamma(v, count, own["query"])).clamp(min=0)
            if own["aggregate"] == "attention":
                z = w["tokens"][None]
                found = slow_attention(
                    layer("q", q)[None, None], layer("k", z), layer("v", z), own["heads"]
                )
                m = layer("o", found[0, 0])
            else:
                matrix = w["tokens"].mT @ w["compose.weight"]
                columns = [c / c.square().sum().sqrt() for c in matrix.mT]
                m = torch.stack([(q * c).sum() for c in columns]) + w["compose.bias"]
                m = m.clamp(min=0)
            if own["modulate"] == "stack":
                for level in range(1, len(own["bands"]) + 1):
                    m = layer(f"hidden{level}", m).clamp(min=0)
                answers.append(layer(f"out{level}", m) + offset)
                continue
            answer, h = offset, 0.0
            for level, sigma in enumerate(own["bands"], 1):
                band = layer(f"band{level}", gamma(v, count, sigma)).clamp(min=0)
                h = h + (band + layer(f"mod{level}", m)).clamp(min=0)
                if level > 1:
                    h = layer(f"hidden{level}", h).clamp(min=0)
                answer = answer + layer(f"out{level}", h)
            answers.append(answer)
    return torch.stack(answers).unflatten(0, coords.shape[:2])


BANDS = (8.0, 4.0, 3.0, 2.0)
OWN = dict(width=6, features=9, tokens=4, heads=2, query=2.0)


def local(coord_dim: int = 2, levels: int = 2, **changed: Any) -> tuple[Local, dict[str, Any]]:
    """A decoder, and how it was made."""
    own = OWN | dict(aggregate="attention", modulate="bands", bands=BANDS[:levels]) | changed
    return Local(coord_dim, 3, **own), own


def weights_of(field: Field, batch: int = 1) -> dict[str, Tensor]:
    return {
        name: torch.stack([slot.init(None) for _ in range(batch)]).double().requires_grad_()
        for name, slot in field.slots.items()
    }


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("aggregate", ["attention", "compose"])
@pytest.mark.parametrize("modulate", ["bands", "stack"])
def test_local(levels: int, aggregate: str, modulate: str) -> None:
    """Values, and gradients to coordinates, tokens and all weights, shared ones and own ones."""
    field, own = local(levels=levels, aggregate=aggregate, modulate=modulate, offset=0.5)
    own.pop("offset")
    coords = (draw(2, 3, 2) / 2).requires_grad_()
    for batch in (1, 2):
        weights = weights_of(field, batch)
        given = [coords, *weights.values()]
        agree(field(coords, weights), slow_local(coords, weights, own, 0.5), *given)


@pytest.mark.parametrize("coord_dim", [1, 2, 3, 4, 5, 6])
def test_local_takes_points_of_any_dimension(coord_dim: int) -> None:
    """27 features: the largest even multiple of the dimension that is no more."""
    field, own = local(coord_dim, features=27)
    encoded = 27 // (2 * coord_dim) * 2 * coord_dim
    assert field.slots["query.weight"].shape == field.slots["band1.weight"].shape == (encoded, 6)
    coords, weights = draw(2, 3, coord_dim), weights_of(field)
    close(field(coords, weights), slow_local(coords, weights, own))


def test_local_takes_directions() -> None:
    _, own = local(features=24)
    field = Local(3, 4, 3, **own)
    coords, weights = draw(2, 3, 6), weights_of(field)
    assert field(coords, weights).shape == (2, 3, 4)
    close(field(coords, weights), slow_local(coords, weights, own))


def watched(field: Local, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many points are decoded at a time."""
    sizes, decode = [], field._decode
    monkeypatch.setattr(
        field, "_decode", lambda c, *rest: sizes.append(c.shape[1]) or decode(c, *rest)
    )
    return sizes


@pytest.mark.parametrize("aggregate", ["attention", "compose"])
def test_local_in_pieces(aggregate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients a few points at a time, with them all at once; the answers are the same."""
    whole, _ = local(aggregate=aggregate)
    small, _ = local(aggregate=aggregate, piece=3)
    coords, weights = draw(2, 10, 2).requires_grad_(), weights_of(whole)
    given = [coords, *weights.values()]
    sizes = watched(small, monkeypatch)
    agree(small(coords, weights), whole(coords, weights), *given)
    assert sizes == [10]
    with torch.no_grad():
        close(small(coords, weights), whole(coords, weights))
        assert sizes == [10, 3, 3, 3, 1]
        close(small(coords[:, :2], weights), whole(coords[:, :2], weights))


@pytest.mark.parametrize("aggregate", ["attention", "compose"])
def test_every_weight_of_local_can_be_an_instances_own(aggregate: str) -> None:
    field, own = local(aggregate=aggregate)
    family = Family(field, Substitute(field.slots, "tokens")).double()
    code = draw(3, *family.code_shape)
    unfolded = family.unfold(code)
    coords = draw(3, 4, 2)
    start = unfolded.conditioner.origin(3)
    close(unfolded(coords, start), family(coords, code))
    moved = start + 0.1 * draw(*start.shape)
    weights = unfolded.conditioner(moved)
    assert {len(weight) for weight in weights.values()} == {3}
    close(unfolded(coords, moved), slow_local(coords, weights, own))


def test_tokens_are_a_set() -> None:
    field, _ = local()
    coords, weights = draw(2, 5, 2), weights_of(field, 2)
    order = torch.tensor([2, 0, 3, 1])
    turned = weights | {"tokens": weights["tokens"][:, order]}
    close(field(coords, turned), field(coords, weights))
    # composed, each token meets its own row of the shared factor
    field, _ = local(aggregate="compose")
    weights = weights_of(field, 2)
    turned = weights | {"tokens": weights["tokens"][:, order]}
    assert not torch.allclose(field(coords, turned), field(coords, weights))
    turned["compose.weight"] = weights["compose.weight"][:, order]
    close(field(coords, turned), field(coords, weights))


def test_the_composed_weight_has_unit_columns() -> None:
    """Longer tokens change nothing."""
    field, _ = local(aggregate="compose")
    coords, weights = draw(2, 5, 2), weights_of(field)
    longer = weights | {"tokens": 7 * weights["tokens"]}
    close(field(coords, longer), field(coords, weights))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(features=3), "features = 3"),
        (dict(tokens=0), "tokens = 0"),
        (dict(bands=()), r"bands = \[\]"),
        (dict(bands=(4.0, 0.5)), "0.5"),
        (dict(query=0.0), "query = 0.0"),
        (dict(piece=0), "piece = 0"),
        (dict(heads=4), "heads = 4: a divisor of the width, 6"),
    ],
)
def test_what_local_refuses(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        local(**wrong)


@pytest.mark.parametrize("modulate", ["bands", "stack"])
@pytest.mark.parametrize("aggregate", ["attention", "compose"])
def test_multiplications_of_local(aggregate: str, modulate: str) -> None:
    """What torch counts; keys and values, or the composed matrix, are made once a signal.

    The composed matrix is counted as the tokens that make it: as many as features, as published.
    """
    field, own = local(aggregate=aggregate, modulate=modulate, levels=3, tokens=6)
    weights = {name: weight.detach().float() for name, weight in weights_of(field).items()}
    coords, points = torch.rand(1, 50, 2), 50
    plain = sdpa_kernel(SDPBackend.MATH)  # the others are not counted on every device
    with plain, FlopCounterMode(display=False) as counter:
        field(coords, weights)
    once = own["tokens"] * own["width"] ** 2 * (2 if aggregate == "attention" else 1)
    assert counter.get_total_flops() / 2 == count_macs(field.slots, once, points)


# -- weights from tokens


def fields() -> dict[str, Field]:
    return {
        "siren": Siren(2, 3, width=5, depth=3),
        "experts": Experts(
            2, 3, width=5, depth=3, tiling=Tiling(tiles=((2, 1), 3, 1)), encoding=Fourier(count=2)
        ),
    }


@pytest.mark.parametrize("name", ["siren", "experts"])
@pytest.mark.parametrize("groups", [1, 2, 4, 9])
def test_columns(name: str, groups: int) -> None:
    """Column c of a weight, of all its tiles, times what token c mod g says of it."""
    slots = fields()[name].slots
    own = stirred(Columns(slots, width=7, groups=groups))
    code = draw(2, *own.code_shape)
    weights, first = own(code), 0
    for i in range(3):
        base, norm_and_linear = own.base[f"{i}.weight"][0], own.maps[i]
        fan_in, fan_out = base.shape[-2:]
        count = min(groups, fan_out)
        for b, c in product(range(2), range(fan_out)):
            token = code[b, first + c % count]
            norm, linear = norm_and_linear
            token = slow_norm(token) * norm.weight + norm.bias
            scale = [(linear.weight[r] * token).sum() + linear.bias[r] for r in range(fan_in)]
            expected = base[..., c] * torch.stack(scale)
            close(weights[f"{i}.weight"][b, ..., c], expected)
        close(weights[f"{i}.bias"], own.base[f"{i}.bias"])
        first += count
    assert first == own.code_shape[0]
    assert own.macs() == sum(
        min(groups, s.shape[-1]) * 7 * s.shape[-2] for s in slots.values() if s.role == "weight"
    )


def test_columns_of_some_weights() -> None:
    slots = fields()["siren"].slots
    own = Columns(slots, width=7, groups=2, only="1.*")
    assert own.code_shape == (2, 7)
    weights = own(torch.randn(3, 2, 7))
    assert {name: len(w) for name, w in weights.items()} == {
        name: 3 if name == "1.weight" else 1 for name in slots
    }


@pytest.mark.parametrize("name", ["siren", "experts"])
@pytest.mark.parametrize("slot", ["0.weight", "1.weight"])
def test_factor(name: str, slot: str) -> None:
    """W[i, o] = sum_r code[r, i] S[r, o]; every tile has an S of its own."""
    slots = fields()[name].slots
    own = Factor(slots, slot, rank=3).double()
    code = draw(2, *own.code_shape)
    weights = own(code)
    *tiles, fan_in, fan_out = slots[slot].shape
    assert (own.code_shape, own.shared.shape) == ((3, fan_in), (*tiles, 3, fan_out))
    expected = torch.zeros(2, *slots[slot].shape, dtype=torch.float64)
    for b, r, i, o in product(range(2), range(3), range(fan_in), range(fan_out)):
        expected[b, ..., i, o] += code[b, r, i] * own.shared[..., r, o].detach()
    close(weights[slot].detach(), expected)
    assert {name for name, w in weights.items() if len(w) > 1} == {slot}
    assert slot not in set(own.base)
    assert own.macs() == math.prod(tiles) * fan_in * 3 * fan_out


def test_origins_of_a_factor() -> None:
    slots = fields()["siren"].slots
    learned, zero = (Factor(slots, rank=3, origin=origin) for origin in ("learned", "zero"))
    assert count_parameters(learned) - count_parameters(zero) == 3 * 5
    assert not zero.origin(2).any()
    close(learned.origin(2), learned.start.expand(2, -1, -1))
    learned.origin(2).sum().backward()
    close(learned.start.grad, torch.full((3, 5), 2.0))


def test_factors_start_as_published() -> None:
    """N(0, 1) of the code, N(0, 1) / sqrt(R in) of the shared one."""
    own = Factor(FourierMlp(2, 3, width=64, depth=3).slots, rank=50)
    assert 0.9 < own.start.std() < 1.1
    assert 0.9 < own.shared.std() * math.sqrt(50 * 64) < 1.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: Columns(s, groups=0), "groups = 0"),
        (lambda s: Columns(s, only="*.bias"), r"'\*.bias' matches no weight"),
        (lambda s: Columns(s, only="9.*"), "9"),
        (lambda s: Factor(s, "1.bias"), "'1.bias' is no weight"),
        (lambda s: Factor(s, "1.wieght"), "did you mean '1.weight'"),
        (lambda s: Factor(s, rank=0), "rank = 0"),
    ],
)
def test_what_conditioners_refuse(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(fields()["siren"].slots)


# -- the encoder

CODE = (3, 5)
SMALL = dict(width=8, depth=2, heads=2)


def family() -> Family:
    field = Local(2, 3, **OWN | dict(width=5, heads=1, tokens=3))
    return Family(field, Substitute(field.slots, "tokens"))


def encode(encoder: Transformer, signal: Signal) -> Tensor:
    return encoder(signal, family(), Seen(), mse)


def picture(size: tuple[int, ...] = (6, 7), batch: int = 2) -> Signal:
    return MODALITIES["image"](size=size).observe(torch.rand(batch, 3, *size)).context


def seen(count: int, size: int = 6) -> Signal:
    """So many views of each of two objects, from an orbit."""
    c2w = orbit(4, 1.5, 20.0)[:count].expand(2, -1, -1, -1)
    intrinsics = torch.tensor([7.0, 7.0, size / 2, size / 2]).expand(2, count, 4)
    coords = rays(c2w, intrinsics, size, size).flatten(1, 2)
    values = torch.rand(2, count * size * size, 3)
    return Signal(coords, values, torch.arange(2), grid=(count, size, size))


def reordered(signal: Signal, order: list[int]) -> Signal:
    """The views of each signal in another order."""
    assert signal.grid is not None
    turn = lambda x: x.unflatten(1, (signal.grid[0], -1))[:, order].flatten(1, 2)
    return replace(signal, coords=turn(signal.coords), values=turn(signal.values))


def viewer(**own: Any) -> Transformer:
    return Transformer(CODE, (3, 6, 6), 3, 6, patch=3, grid_dim=2, **SMALL | own).eval()


def painter(axes: tuple[int, ...] = (6, 7), **own: Any) -> Transformer:
    return Transformer(CODE, axes, 3, 2, **dict(patch=3) | SMALL | own).eval()


def slow_encoder(encoder: Transformer, patches: Tensor) -> Tensor:
    """The same layers, one signal at a time, asked tokens last."""
    codes = []
    for own in patches:
        x = own @ encoder.tokeniser.weight.mT + encoder.tokeniser.bias
        if encoder.positions is not None:
            x = torch.stack([row + encoder.positions[i] for i, row in enumerate(x)])
        x = torch.cat([x, encoder.asked])[None]
        for block in encoder.blocks:
            x = block(x)
        asked = x[0, len(own) :]
        if len(encoder.head):
            norm, linear = encoder.head
            asked = slow_norm(asked) * norm.weight + norm.bias
            asked = asked @ linear.weight.mT + linear.bias
        codes.append(asked)
    return torch.stack(codes)


@pytest.mark.parametrize("positions", ["learned", "none"])
@pytest.mark.parametrize("head", [True, False])
def test_encoder_of_pictures(positions: str, head: bool) -> None:
    """Patches are torch.nn.Unfold's; with a pad and a rest that fills no patch."""
    width = 8 if head else CODE[1]
    encoder = painter(positions=positions, head=head, width=width, heads=1, pad=1)
    signal = picture()
    pixels = signal.values.mT.unflatten(2, (6, 7))
    patches = F.unfold(pixels, 3, padding=1, stride=3).mT
    close(encoder.patches(signal), patches)
    code = encode(encoder, signal)
    assert code.shape == (2, *CODE)
    close(code, slow_encoder(encoder, patches))


@pytest.mark.parametrize("form", ["plucker", "origin"])
def test_encoder_of_views(form: str) -> None:
    """Colour and ray of each pixel, one view after another."""
    encoder, signal = viewer(rays=form), seen(3)
    joined = plucker(signal.coords) if form == "plucker" else signal.coords
    pixels = torch.cat([signal.values, joined], -1).unflatten(1, (3, 6, 6)).movedim(-1, 2)
    each = [F.unfold(pixels[:, view], 3, stride=3).mT for view in range(3)]
    close(encoder.patches(signal), torch.cat(each, 1))
    close(encode(encoder, signal), slow_encoder(encoder, torch.cat(each, 1)))


def test_views_are_a_set_without_positions() -> None:
    signal = seen(3)
    for positions, alike in (("none", True), ("learned", False)):
        encoder = viewer(positions=positions)
        code = encode(encoder, signal)
        for order in ([1, 0, 2], [2, 0, 1]):
            turned = encode(encoder, reordered(signal, order))
            assert torch.allclose(turned, code, atol=1e-5) == alike


@pytest.mark.parametrize("positions", ["learned", "none"])
def test_fewer_views_than_the_most(positions: str) -> None:
    """One encoder reads one, two and three views; the first positions are those of the first."""
    encoder, signal = viewer(positions=positions), seen(3)
    codes = []
    for count in (1, 2, 3):
        some = slice(0, 36 * count)
        part = replace(
            signal,
            coords=signal.coords[:, some],
            values=signal.values[:, some],
            grid=(count, 6, 6),
        )
        patches = encoder.patches(part)
        close(patches, encoder.patches(signal)[:, : 4 * count])
        codes.append(encode(encoder, part))
        close(codes[-1], slow_encoder(encoder, patches))
    assert not torch.allclose(codes[0], codes[1])
    assert not torch.allclose(codes[1], codes[2])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("hidden", [7.0, math.nan])
def test_hidden_values_do_not_matter(known: bool, hidden: float) -> None:
    encoder, signal = painter(mask_channel=known), picture()
    mask = torch.rand(signal.coords.shape[:2]) < 0.5
    other = replace(signal, values=torch.where(mask[..., None], signal.values, hidden))
    close(encode(encoder, other.hide(mask)), encode(encoder, signal.hide(mask)))


def test_a_channel_says_what_is_known() -> None:
    """Hidden and black look alike without it."""
    signal = picture()
    mask = torch.rand(signal.coords.shape[:2]) < 0.5
    black = replace(signal, values=signal.values * mask[..., None])
    for known in (True, False):
        encoder = painter(mask_channel=known)
        alike = torch.allclose(encode(encoder, black), encode(encoder, signal.hide(mask)))
        assert alike != known
    encoder = painter(mask_channel=True)
    last = encoder.patches(signal.hide(mask)).unflatten(2, (4, 9))[:, :, -1]
    close(last, F.unfold(mask.float().view(2, 1, 6, 7), 3, stride=3).mT)
    all_known = signal.hide(torch.ones_like(mask))
    close(encode(encoder, all_known), encode(encoder, signal))


@pytest.mark.parametrize(
    ("name", "size", "patch"),
    [("audio", (13,), 4), ("voxel", (4, 5, 6), 2), ("voxel", (4, 5, 6), (2, 1, 3))],
)
def test_encoder_of_any_grid(name: str, size: tuple[int, ...], patch: Any) -> None:
    modality = MODALITIES[name](size=size)
    signal = modality.observe(torch.rand(2, 1, *size)).context
    encoder = Transformer(CODE, size, 1, modality.coord_dim, patch=patch, **SMALL).eval()
    patches = encoder.patches(signal)
    own = (patch,) * len(size) if isinstance(patch, int) else patch
    count = math.prod(n // p for n, p in zip(size, own, strict=True))
    assert patches.shape == (2, count, math.prod(own))
    block = signal.values[..., 0].unflatten(1, size)[:, *(slice(0, p) for p in own)]
    close(patches[:, 0], block.flatten(1))
    code = encode(encoder, signal)
    close(code, slow_encoder(encoder, patches))
    # and every signal by itself
    for i in (0, 1):
        close(encode(encoder, signal.part(slice(i, i + 1)))[0], code[i])


def test_gradients_reach_every_parameter_of_an_encoder() -> None:
    for encoder, signal in ((viewer(), seen(3)), (painter(mask_channel=True), picture())):
        encode(encoder, signal).square().sum().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_dropout_of_an_encoder() -> None:
    encoder, signal = painter(dropout=0.3), picture()
    close(encode(encoder, signal), encode(encoder, signal), rtol=0, atol=0)
    encoder.train()
    assert not torch.allclose(encode(encoder, signal), encode(encoder, signal))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (dict(axes=()), "whole grids"),
        (dict(code_shape=(0, 0)), "a conditioner with a code"),
        (dict(patch=7), r"patch = 7 is larger than the data, \(6, 7\)"),
        (dict(patch=(3, 3, 3)), "a positive patch, or 2"),
        (dict(patch=0), "patch = 0"),
        (dict(pad=-1), "pad = -1"),
        (dict(depth=0), "depth = 0"),
        (dict(heads=3), "heads = 3: a divisor of the width, 8"),
        (dict(head=False), "width = 8: without a head it is the code's, 5"),
        (dict(dropout=1.0), "dropout = 1.0"),
        (dict(ratio=-1.0), "ratio = -1.0"),
    ],
)
def test_what_an_encoder_is_not_made_of(own: dict[str, Any], message: str) -> None:
    given = dict(code_shape=CODE, axes=(6, 7), value_dim=3, coord_dim=2, patch=3, **SMALL) | own
    with pytest.raises(InputError, match=message) as raised:
        Transformer(**given)
    assert one_sentence(str(raised.value))


def one_sentence(message: str) -> bool:
    return message.endswith(".") and ". " not in message and "\n" not in message


@pytest.mark.parametrize(
    ("encoder", "signal", "message"),
    [
        (painter, lambda: picture().subset(5), r"whole grids of \(6, 7\); these are scattered"),
        (painter, lambda: picture((7, 6)), r"\(6, 7\); these are \(7, 6\)"),
        (viewer, lambda: seen(4), r"\(3, 6, 6\) or fewer views; these are \(4, 6, 6\)"),
        (viewer, lambda: seen(2, 9), r"these are \(2, 9, 9\)"),
        (viewer, lambda: seen(3).subset(5), "or fewer views; these are scattered"),
    ],
)
def test_what_an_encoder_does_not_read(encoder: Any, signal: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        encode(encoder(), signal())
    assert one_sentence(str(raised.value))


# -- descent through attention, and from an encoder's answer


def attentive() -> tuple[Family, Signal]:
    """A family whose code is the tokens of a decoder, and two tiny pictures, in float64."""
    torch.manual_seed(1)
    field, _ = local(levels=2, features=8)
    own = Family(field, Substitute(field.slots, "tokens")).double()
    grid = picture((3, 4))
    return own, replace(grid, coords=grid.coords.double(), values=grid.values.double())


@pytest.mark.parametrize("again", [False, True])
def test_second_derivatives_through_attention(again: bool) -> None:
    """The gradient of the error after two steps is what differences of that error say."""
    own, signal = attentive()
    encoder = Cavia(
        own.code_shape, steps=2, rate=0.1, rates="fixed", relative=True, checkpoint=again
    ).train()
    after = lambda: reconstruction_loss(
        encoder(signal, own, Seen(), mse), signal, own, Seen(), mse
    ).sum()
    conditioner = own.conditioner
    asked = [conditioner.start, *(conditioner.base[f"{n}.weight"] for n in ("q", "k", "v", "out1"))]
    found = torch.autograd.grad(after(), asked)
    for parameter, gradient in zip(asked, found, strict=True):
        way = draw(*parameter.shape)
        sides, step = [], 1e-5
        for side in (1, -1):
            with torch.no_grad():
                parameter += side * step * way
            sides.append(after().detach())
            with torch.no_grad():
                parameter -= side * step * way
        close((gradient * way).sum(), (sides[0] - sides[1]) / (2 * step), rtol=1e-5, atol=1e-9)
    first = Cavia(own.code_shape, steps=2, rate=0.1, rates="fixed", relative=True,
                  second_order=False).train()  # fmt: skip
    loss = reconstruction_loss(first(signal, own, Seen(), mse), signal, own, Seen(), mse).sum()
    assert not torch.allclose(torch.autograd.grad(loss, asked)[0], found[0])


def test_relative_steps() -> None:
    """A step is multiplied by the squared length of the weight: the whole factor, or each slot."""
    slots = fields()["siren"].slots
    code = draw(2, 3, 5)
    close(Factor(slots, rank=3).squared_norms(code)[1], code[1].square().sum().expand(3, 5))
    direct = FlatWeights(slots, only="*.weight", width=7)
    code = draw(2, *direct.code_shape)
    norms = direct.unpack(direct.squared_norms(code))
    for name, weight in direct.unpack(code).items():
        for b in (0, 1):
            close(norms[name][b], weight[b].square().sum().expand_as(weight[b]))


def test_unpacking_gives_what_was_packed() -> None:
    direct = FlatWeights(fields()["experts"].slots, width=7)
    assert direct.layout is not None
    weights = {name: draw(2, *slot.shape) for name, slot in direct.layout.items()}
    close(direct.unpack(direct.pack(weights)), weights, rtol=0, atol=0)


def test_a_fit_is_no_worse_than_the_encoder_it_starts_from() -> None:
    own, signal = family(), picture()
    start = painter()
    loss = lambda code: reconstruction_loss(code, signal, own, Seen(), mse).detach()
    before = loss(start(signal, own, Seen(), mse))
    for rate in (1e-2, 100.0):  # the second is far too large
        fit = Fit(steps=5, rate=rate, start=start)
        after = loss(fit(signal, own, Seen(), mse))
        assert (after <= before).all()
    assert (loss(Fit(steps=5, start=start)(signal, own, Seen(), mse)) < before).all()
    assert fit.reads_grid
    assert not Fit().reads_grid


def test_all_weights_are_refined_from_an_answer() -> None:
    """Test-time optimisation of the whole field that a code stands for, each signal its own."""
    own, signal = family(), picture()
    code = encode(painter(), signal).detach()
    unfolded = own.unfold(code)
    before = reconstruction_loss(code, signal, own, Seen(), mse).detach()
    refined = Fit(steps=5, rate=1e-2)(signal, unfolded, Seen(), mse)
    after = reconstruction_loss(refined, signal, unfolded, Seen(), mse).detach()
    assert (after < before).all()


def test_a_light_field_from_views() -> None:
    """Rays go in as the encoder's tokens and as the decoder's points: no volume is rendered."""
    field = Local(6, 3, **OWN | dict(features=24, width=5, heads=1, tokens=3))
    own = Family(field, Substitute(field.slots, "tokens"))
    signal, render = seen(2), Plucker()
    code = viewer()(signal, own, render, mse)
    out = render(own.bind(code), seen(1).coords)
    assert out.shape == (2, 36, 3)
    # a ray is the same wherever its origin lies on it
    origin, direction = signal.coords.split(3, -1)
    moved = torch.cat([origin + 0.7 * direction, 2 * direction], -1)
    close(viewer().patches(replace(signal, coords=moved)), viewer().patches(signal), atol=1e-5,
          rtol=1e-5)  # fmt: skip


# -- counts that papers and released code print

IPC_FIELD = dict(
    width=256, depth=5, encoding=Fourier("log", 64, 64.0), normalize=True, init="outputs"
)


def on_meta(conditioner: Any, field: Field, axes: tuple[int, ...], **own: Any) -> tuple[int, int]:
    """Parameters of a system, and of its encoder's blocks."""
    with torch.device("meta"):
        made: Conditioner = conditioner(field.slots)
        viewed = len(axes) == 3
        encoder = Transformer(made.code_shape, axes, 3, 6 if viewed else 2, grid_dim=2, **own)
    return count_parameters(made) + count_parameters(encoder), count_parameters(encoder.blocks)


def test_counts_of_ipc() -> None:
    """43,746,307, of which 65,536 are of a weight that the released code replaces and never reads;
    code that descends has a start of 65,536 where the encoder has one of its own."""
    field = FourierMlp(2, 3, bias="zero", offset=0.5, **IPC_FIELD)
    make = lambda slots: Factor(slots, "1.weight", rank=256, origin="zero")
    dead = math.prod(field.slots["1.weight"].shape)
    whole, blocks = on_meta(make, field, (178, 178), patch=9, pad=1, dropout=0.1)
    assert dead == 65_536
    assert (whole + dead, blocks) == (43_746_307, 42_527_232)
    learned = lambda slots: Factor(slots, "1.weight", rank=256)
    assert on_meta(learned, field, (178, 178), patch=9, pad=1)[0] == whole + 65_536


def test_counts_of_transinr() -> None:
    own = dict(width=256, normalize=True)
    image = FourierMlp(
        2, 3, depth=5, offset=0.5, encoding=Fourier("log", count=64, bandwidth=1024.0), **own
    )
    common = dict(bias=False, head=False)
    make = lambda slots: Columns(slots, width=768, groups=64)
    assert on_meta(make, image, (178, 178), patch=9, pad=1, **common)[0] == 44_462_851
    views = FourierMlp(
        3, 4, depth=6, encoding=Fourier("log", count=20, bandwidth=256.0, pi=False), **own
    )
    make = lambda slots: Columns(slots, width=768, groups=32)
    nvs = on_meta(make, views, (1, 128, 128), patch=8, positions="none", rays="origin", **common)
    assert nvs[0] == 44_463_484


@pytest.mark.parametrize(
    ("levels", "printed"), [(1, 461_315), (2, 659_462), (3, 857_609), (4, 1_055_756)]
)
def test_counts_of_la_ginr(levels: int, printed: int) -> None:
    """256 less than with a bias of the keys, which cancels; ``substitute`` adds a start."""
    field = Local(2, 3, bands=(128.0, 90.0, 64.0, 32.0)[:levels])
    with torch.device("meta"):
        conditioner = Substitute(field.slots, "tokens")
    assert count_parameters(conditioner) == printed - 256 + 256 * 256
    assert conditioner.start.numel() == 65_536


def test_counts_of_the_whole_of_la_ginr() -> None:
    """ "About 44.08M" at 178 x 178, with the start that no encoder needs."""
    make = lambda slots: Substitute(slots, "tokens")
    whole, blocks = on_meta(make, Local(2, 3), (178, 178), patch=9, pad=1)
    assert blocks == 42_527_232
    assert round((whole - 65_536) / 1e6, 2) == 44.08


@pytest.mark.parametrize(
    ("size", "patch", "pad", "tokens"),
    [(178, 9, 1, 400), (256, 16, 0, 256), (512, 32, 0, 256), (1024, 48, 16, 484)],
)
def test_tokens_of_published_sizes(size: int, patch: int, pad: int, tokens: int) -> None:
    with torch.device("meta"):
        encoder = Transformer((256, 256), (size, size), 3, 2, depth=1, patch=patch, pad=pad)
    assert encoder.positions.shape == (tokens, 768)


# -- draws


def test_weights_drawn_by_their_outputs() -> None:
    """+-1/sqrt(out): torch's draw of the transposed tensor."""
    slots = FourierMlp(
        2, 3, width=50, depth=3, init="outputs", encoding=Fourier("log", count=20)
    ).slots
    for i, (fan_in, fan_out) in enumerate([(80, 50), (50, 50), (50, 3)]):
        weight = slots[f"{i}.weight"].init(torch.Generator().manual_seed(i))
        assert weight.shape == (fan_in, fan_out)
        edge = fan_out**-0.5
        assert 0.9 * edge < weight.abs().max() <= edge
        theirs = nn.init.kaiming_uniform_(torch.empty(fan_in, fan_out), a=math.sqrt(5))
        assert 0.9 < weight.std() / theirs.std() < 1.1


def test_learned_vectors_start_at_unit_variance() -> None:
    encoder = Transformer((20, 5), (9, 9), 3, 2, width=60, depth=1, heads=2, patch=2)
    for learned in (encoder.positions, encoder.asked):
        assert 0.9 < learned.std() < 1.1
