"""Attention and blocks against slow, spelled-out twins."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fieldloom.conditioners import Substitute
from fieldloom.encoders import Cavia, reconstruction_loss
from fieldloom.family import Family
from fieldloom.metrics.losses import mse
from fieldloom.nn.transformer import AdaptiveBlock, Attention, Block, attend
from fieldloom.renderers import Direct as Seen
from fieldloom.types import Signal
from transformers_by_hand import (
    agree,
    close,
    draw,
    gradients,
    local,
    picture,
    slow_attention,
    slow_norm,
    stirred,
)

# -- attention


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
    """The gradient of the loss after two steps is what differences of that loss say."""
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
