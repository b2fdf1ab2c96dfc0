"""Attention between sets of vectors, and the blocks that encoders and denoisers are stacks of."""

from __future__ import annotations

import math

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
    """Multi-head self-attention, equivariant to permutations of the tokens.

    bias: whether the maps to queries, keys and values have biases; the output map always has one.
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
    """Two linear layers with the exact GELU between them.

    ratio: hidden units over the width. Raises InputError where it leaves no hidden unit.
    """
    if not 0.5 < ratio * width < math.inf:
        raise InputError(f"ratio = {ratio}: a number, and at least one hidden unit over the width.")
    hidden = round(ratio * width)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """x + Attention(LN x), then x + MLP(LN x): a pre-norm block (arXiv:2002.04745).

    dropout: on both residual branches, in training.
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
    """(1 + scale) x + shift: x (batch, tokens, width), shift and scale (batch, width)."""
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


class KeyValueCache:
    """Keys and values of the tokens so far, of one attention layer, for generation.

    capacity: the largest number of tokens.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self.held: tuple[Tensor, Tensor] | None = None

    def add(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (batch, heads, new, width); returns those of all tokens so far.

        Raises InputError beyond the capacity.
        """
        first, last = self.length, self.length + keys.shape[2]
        if last > self.capacity:
            raise InputError(f"cache: {last} tokens; it was made for {self.capacity}.")
        if self.held is None:
            shape = (*keys.shape[:2], self.capacity, keys.shape[3])
            self.held = keys.new_empty(shape), values.new_empty(shape)
        self.length = last
        for own, new in zip(self.held, (keys, values), strict=True):
            own[:, :, first:last] = new
        return self.held[0][:, :, :last], self.held[1][:, :, :last]


class CausalAttention(Attention):
    """Self-attention in which no token sees later ones (arXiv:1706.03762, section 3.2.3)."""

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """(batch, tokens, width) -> the same shape.

        cache: its tokens come before x, and x is added to it.
        """
        split = lambda x: x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = (split(part) for part in self.qkv(x).chunk(3, -1))
        if cache is not None:
            k, v = cache.add(k, v)
        new, known = q.shape[2], k.shape[2]
        mask = None
        if 1 < new < known:
            mask = torch.ones(new, known, dtype=torch.bool, device=x.device).tril(known - new)
        mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=1 < new == known)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class CausalBlock(nn.Module):
    """x + CausalAttention(LN x), then x + MLP(LN x).

    norm: False leaves both LN out, as in a released decoder whose norms are never called.
    dropout: on both residual branches, in training.
    """

    def __init__(
        self, width: int, heads: int, ratio: float = 4, norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        make = nn.LayerNorm if norm else nn.Identity
        self.norm1, self.attention = make(width), CausalAttention(width, heads)
        self.norm2, self.mlp = make(width), perceptron(width, ratio)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """x (batch, tokens, width), the tokens after those of the cache -> the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x), cache))
        return x + self.dropout(self.mlp(self.norm2(x)))
