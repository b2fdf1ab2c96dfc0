"""A transformer whose tokens are the tensors of a field's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from fieldloom.denoisers.conditions import class_rows, embed_octaves, embed_sinusoid
from fieldloom.errors import InputError
from fieldloom.memory import checked_range
from fieldloom.nn.initialisers import init_normal
from fieldloom.nn.transformer import Block, check_heads
from fieldloom.types import Code, Slot


class WeightTransformer(nn.Module):
    """A transformer with a token for each weight tensor, one for the time, and one for the class.

    Each tensor has its own linear maps to ``width`` and back, without biases. Between them are a
    norm, learned positions, ``depth`` pre-norm blocks of full attention, and a norm; the tokens of
    time and class are not mapped back. Without classes there is no token of a class.

    layout:  the slots whose weights a code holds, concatenated (conditioner ``flat-weights``). The
             rest of a code is padding, for which the prediction is 0.
    classes: the last row of their embedding is "any class"; with 0 (as published) there is none.
    heads:   of attention, a divisor of ``width``.
    ratio:   hidden units of the perceptrons over ``width``.
    time:    ``sinusoid``: sines and cosines of ``bands`` frequencies from 1 down to 1/10000, so
             that neighbouring times have similar embeddings. ``octaves``, as published: ``bands``
             frequencies from 1 up to 2^``highest``, and t itself; most periods are far below a
             step.
    bands, highest: number of frequencies, and the exponent of the highest octave.

    Linear maps and embeddings start N(0, 0.02), biases and positions at 0. The defaults are the
    published size for planes and chairs. Raises InputError for sizes that do not fit one another,
    and for codes that are no weights (layout None).

    Source: HyperDiffusion, arXiv:2303.17015, section 3.2, and its released code, which follows G.pt
    (arXiv:2209.12892).
    """

    def __init__(
        self,
        code_shape: tuple[int, int],
        layout: Mapping[str, Slot] | None,
        classes: int = 0,
        width: int = 2880,
        depth: int = 12,
        heads: int = 16,
        ratio: float = 4.0,
        time: Literal["sinusoid", "octaves"] = "sinusoid",
        bands: int = 128,
        highest: float = 20.0,
    ) -> None:
        if layout is None:
            raise InputError(
                "denoiser 'weight-transformer' makes tokens of weight tensors, and this recipe's "
                "codes are none: take conditioner 'flat-weights'."
            )
        sizes = [math.prod(slot.shape) for slot in layout.values()]
        padding = math.prod(code_shape) - sum(sizes)
        if padding < 0 or not sizes:
            raise InputError(
                f"weight-transformer: a code {code_shape} does not hold {sum(sizes)} weights."
            )
        if depth < 1 or ratio <= 0 or bands < 2 or not 0 < highest <= 64:
            raise InputError(
                f"weight-transformer: depth = {depth} is at least 1, bands = {bands} at least 2, "
                f"ratio = {ratio:g} and highest = {highest:g} are positive, and highest at most 64."
            )
        check_heads(width, heads)
        super().__init__()
        self.code_shape, self.sizes, self.padding = code_shape, sizes, padding
        self.embedding, self.bands, self.highest = time, bands, highest
        self.input = nn.ModuleList(nn.Linear(size, width, bias=False) for size in sizes)
        embedded = 2 * bands + (time == "octaves")
        self.time = nn.Linear(embedded, width, bias=False)
        self.label = nn.Embedding(classes + 1, width) if classes else None
        tokens = len(sizes) + 1 + (classes > 0)
        self.norm_in, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.position = nn.Parameter(torch.zeros(tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in checked_range(depth))
        self.output = nn.ModuleList(nn.Linear(width, size, bias=False) for size in sizes)
        init_normal(self)

    def embed(self, time: Tensor) -> Tensor:
        """The embedding of times (batch,): (batch, 2 bands), or one more for octaves."""
        if self.embedding == "sinusoid":
            return embed_sinusoid(time, 2 * self.bands)
        return embed_octaves(time, self.bands, self.highest)

    def forward(self, code: Code, time: Tensor, label: Tensor | None = None) -> Code:
        """code (batch, tokens, width), time and label (batch,) integers -> shaped as code.

        Raises InputError for a code of another shape.
        """
        if tuple(code.shape[1:]) != tuple(self.code_shape):
            raise InputError(
                f"weight-transformer: a code is {self.code_shape}, not {tuple(code.shape[1:])}."
            )
        parts = code.flatten(1)[:, : sum(self.sizes)].split(self.sizes, 1)
        tokens = [own(part) for own, part in zip(self.input, parts, strict=True)]
        tokens.append(self.time(self.embed(time).to(code)))
        if self.label is not None:
            tokens.append(self.label(class_rows(label, time, self.label.num_embeddings)))
        h = self.norm_in(torch.stack(tokens, 1)) + self.position
        for block in self.blocks:
            h = block(h)
        rows = self.norm(h[:, : len(self.sizes)]).unbind(1)
        flat = torch.cat([own(row) for own, row in zip(self.output, rows, strict=True)], 1)
        return nn.functional.pad(flat, (0, self.padding)).view_as(code)
