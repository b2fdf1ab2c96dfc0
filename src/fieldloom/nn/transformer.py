"""Attention between sets of vectors, and the blocks that encoders and denoisers are stacks of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldloom.errors import InputError


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k' / sqrt(width / heads)) v, each head its own slice of the channels.

    q (batch, n, width), k and v (batch, m, width) -> (batch, n, width). Source: arXiv:1706.03762,
    eq. 1 and section 3.2.2.
    """
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(split(q), split(k), split(v))
    return mixed.transpose(1, 2).flatten(-2)


def check_heads(width: int, heads: int) -> None:
    """Raises InputError where the heads do not divide the width."""
    if heads < 1 or width < 1 or width % heads:
        raise InputError(f"heads = {heads}: a divisor of the width, {width}.")


class Attention(nn.Module):
    """Multi-head self-attention. bias: of the maps to queries, keys and values; the last has one.

    Permuting the rows permutes the answer.
    """

    def __init__(self, width: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(attend(q, k, v, self.heads))


def perceptron(width: int, ratio: float) -> nn.Sequential:
    """Two linear layers with the exact GELU between them; ratio: hidden units over the width."""
    hidden = round(ratio * width)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """x + Attention(LN x), then x + MLP(LN x): a pre-norm block (arXiv:2002.04745).

    dropout: of both answers before they are added, in training.
    """

    def __init__(
        self, width: int, heads: int, ratio: float = 4.0, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, bias)
        self.norm2, self.mlp = nn.LayerNorm(width), perceptron(width, ratio)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (batch, tokens, width) by one scale and shift a signal, (batch, width)."""
    return torch.addcmul(shift.unsqueeze(1), x, 1 + scale.unsqueeze(1))


class AdaptiveBlock(nn.Module):
    """A pre-norm block whose norms and residuals a condition scales, shifts and gates: adaLN-zero.

    The map from condition to modulations starts at zero, so that the block starts as the identity.
    Source: arXiv:2212.09748, section 3.2 (DiT).
    """

    def __init__(self, width: int, heads: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention, self.mlp = Attention(width, heads), perceptron(width, ratio)
        self.adapt = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        for parameter in self.adapt.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (batch, tokens, width), condition (batch, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adapt(condition).chunk(6, -1)
        x = x + gate1.unsqueeze(1) * self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))
