"""What a codec is, and those that answer numbers of the code's shape.

Codecs stand inside a prior: raw codes are stored, and transformed when the prior needs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from fieldloom.codecs.tokens import Vocabulary
from fieldloom.errors import InputError
from fieldloom.types import Code, Slot

BATCH = 256
"""Codes that are encoded at a time: a graph's messages of one take more than a hundred kB."""


class Codec(nn.Module):
    """decode(encode(code)) is the code, or near it.

    vocabulary: the token ids that ``encode`` answers, of codecs that quantise; None: ``encode``
                answers numbers.
    trained: whether ``loss`` is to be minimised before a prior is trained on what ``encode``
                answers.
    """

    vocabulary: Vocabulary | None = None
    trained = False

    @property
    def inner_shape(self) -> tuple[int, int]:
        """(tokens, width) of what ``encode`` answers, of codecs that answer numbers."""
        return self.code_shape

    def __init__(self, code_shape: tuple[int, int]) -> None:
        super().__init__()
        self.code_shape = code_shape

    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        """Find what has a closed form, from all training codes.

        start: (tokens, width), the code that all of them were fitted from.
        """

    def prepare(
        self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """Find what ``loss`` needs to know, of codecs that are ``trained``; ``fit`` comes after."""
        self.fit(codes, labels, start)

    def loss(self, code: Code) -> Tensor:
        """(batch,) of what training minimises, of codecs that are ``trained``."""
        raise NotImplementedError

    def encode(self, code: Code) -> Tensor:
        """What the prior models: (batch, *inner_shape), or token ids (batch, length, levels)."""
        raise NotImplementedError

    def decode(self, inner: Tensor) -> Code:
        """The code of what ``encode`` answers: (batch, tokens, width)."""
        raise NotImplementedError

    @torch.no_grad()
    def encode_all(self, codes: Code) -> Tensor:
        """``encode`` of any number of codes, ``BATCH`` at a time, without gradients."""
        return torch.cat([self.encode(some) for some in codes.split(BATCH)])


class Identity(Codec):
    """Codes as they are."""

    def encode(self, code: Code) -> Code:
        return code

    def decode(self, inner: Code) -> Code:
        return inner


class Whiten(Codec):
    """(code - mean) / (std + 1e-8), the statistics those of the training codes (unbiased std).

    per: ``element`` of a code has its own (mNIF; LA-GINR's tokens), each ``channel`` shares its own
         over the tokens, each weight ``tensor`` over its numbers, or ``all`` share one.
    layout: the slots whose weights a code holds (conditioner ``flat-weights``); ``tensor`` asks for
         it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        code_shape: tuple[int, int],
        per: Literal["element", "channel", "tensor", "all"] = "element",
        layout: Mapping[str, Slot] | None = None,
    ) -> None:
        super().__init__(code_shape)
        if per == "tensor" and layout is None:
            raise InputError(
                "codec 'whiten': per = 'tensor' is of weight tensors, and this recipe's codes are "
                "none: take conditioner 'flat-weights'."
            )
        tensors = layout if layout and per == "tensor" else {}
        self.sizes = [math.prod(slot.shape) for slot in tensors.values()]
        self.axes = {"channel": (0, 1), "all": (0, 1, 2)}.get(per, (0,))
        shape = [1 if i + 1 in self.axes else n for i, n in enumerate(code_shape)]
        self.register_buffer("mean", torch.zeros(1, *shape))
        self.register_buffer("std", torch.ones(1, *shape))

    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        if len(codes) < 2:
            raise InputError(
                f"codec 'whiten' needs at least 2 training codes; there is {len(codes)}."
            )
        if not self.sizes:
            self.mean.copy_(codes.mean(self.axes, keepdim=True))
            self.std.copy_(codes.std(self.axes, keepdim=True))
        first = 0
        for size in self.sizes:  # padding beyond the last tensor stays as it is
            own = slice(first, first + size)
            weights, first = codes.flatten(1)[:, own], own.stop
            self.mean.view(-1)[own], self.std.view(-1)[own] = weights.mean(), weights.std()

    def encode(self, code: Code) -> Code:
        return (code - self.mean) / (self.std + 1e-8)

    def decode(self, inner: Code) -> Code:
        return inner * (self.std + 1e-8) + self.mean
