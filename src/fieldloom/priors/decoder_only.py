"""A causal (decoder-only) transformer with learned position embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fieldloom.codecs.tokens import Integers
from fieldloom.errors import InputError
from fieldloom.memory import checked_range
from fieldloom.nn.initialisers import init_normal
from fieldloom.nn.transformer import CausalBlock, KeyValueCache, check_heads


class DecoderOnly(nn.Module):
    """Embedded tokens (batch, tokens, width) -> causal hidden states of the same shape.

    The state at a position depends on the tokens up to this position, and predicts the next token.

    length: the largest number of positions.
    positions: name -> (length,) integers from 0: each name has a table of learned vectors, which
            are added to the tokens.
    width, depth, heads, ratio: of the blocks, whose perceptrons are ``ratio`` times as wide.
    norm:   False leaves out the layer norms of the blocks; the final one is always there.
    dropout: of the embedded tokens and on residual branches, in training.

    Source: GPT-2's released code, its initial draw included: N(0, 0.02^2), zero biases, the last
    map of every residual branch divided by sqrt(2 depth).
    """

    def __init__(
        self,
        length: int,
        positions: Mapping[str, Integers],
        width: int = 256,
        depth: int = 6,
        heads: int = 16,
        ratio: float = 4.0,
        norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        if depth < 1 or ratio <= 0 or not 0 <= dropout < 1:
            raise InputError(
                f"autoregressive: depth = {depth} is at least 1, ratio = {ratio:g} positive, "
                f"dropout = {dropout:g} in [0, 1)."
            )
        check_heads(width, heads)
        super().__init__()
        self.length = length
        self.tables = nn.ModuleDict()
        for name, at in positions.items():
            self.tables[name] = nn.Embedding(int(at.max()) + 1, width)
            self.register_buffer(f"at_{name}", torch.from_numpy(at), persistent=False)
        self.dropout = nn.Dropout(dropout)
        make = lambda: CausalBlock(width, heads, ratio, norm, dropout)
        self.blocks = nn.ModuleList(make() for _ in checked_range(depth))
        self.norm = nn.LayerNorm(width)
        init_normal(self)
        for name, weight in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.2.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * depth))

    def caches(self) -> list[KeyValueCache]:
        """An empty cache for each block, for generation."""
        return [KeyValueCache(self.length) for _ in self.blocks]

    def forward(self, x: Tensor, caches: Sequence[KeyValueCache] = ()) -> Tensor:
        """x (batch, tokens, width), the tokens after those of the caches -> the same shape.

        Raises InputError for more than ``length`` tokens.
        """
        first = caches[0].length if caches else 0
        if first + x.shape[1] > self.length:
            raise InputError(
                f"autoregressive: {first + x.shape[1]} tokens; a sequence has {self.length}."
            )
        for name, table in self.tables.items():
            x = x + table(self.get_buffer(f"at_{name}")[first : first + x.shape[1]])
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches else None)
        return self.norm(x)
