"""The base class of codecs, and the codecs that keep a code's shape.

Codecs belong to a prior: raw codes are stored, and encoded when the prior needs them.
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
"""Codes that are encoded at a time: messages of the graph codec take over 100 kB per code."""


class Codec(nn.Module):
    """An encoder and a decoder of codes: decode(encode(code)) is the code, or close to it.

    vocabulary: the token ids that ``encode`` returns, for codecs that quantise; None: ``encode``
                returns numbers.
    trained:    whether ``loss`` has to be minimised before a prior is trained on encoded codes.
    """

    vocabulary: Vocabulary | None = None
    trained = False

    @property
    def inner_shape(self) -> tuple[int, int]:
        """(tokens, width) of encoded codes, for codecs that return numbers."""
        return self.code_shape

    def __init__(self, code_shape: tuple[int, int]) -> None:
        super().__init__()
        self.code_shape = code_shape

    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        """Compute all statistics in closed form, from all training codes.

        codes (n, tokens, width), labels (n,) their classes.
        start: (tokens, width), the code that all of them were fitted from.
        """

    def prepare(
        self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """Compute the statistics that ``loss`` needs, before training; ``fit`` comes after it."""
        self.fit(codes, labels, start)

    def loss(self, code: Code) -> Tensor:
        """The training loss of each code, (batch,), for codecs that are ``trained``."""
        raise NotImplementedError

    def encode(self, code: Code) -> Tensor:
        """Encode codes: numbers (batch, *inner_shape), or token ids (batch, length, levels)."""
        raise NotImplementedError

    def decode(self, inner: Tensor) -> Code:
        """The codes of encoded ones: (batch, tokens, width)."""
        raise NotImplementedError

    @torch.no_grad()
    def encode_all(self, codes: Code) -> Tensor:
        """``encode`` any number of codes, ``BATCH`` at a time, without gradients."""
        return torch.cat([self.encode(some) for some in codes.split(BATCH)])


class Identity(Codec):
    """Codes as they are."""

    def encode(self, code: Code) -> Code:
        return code

    def decode(self, inner: Code) -> Code:
        return inner


class Whiten(Codec):
    """(code - mean) / (std + 1e-8), with the statistics of the training codes (unbiased std).

    per: whether each ``element`` of a code has its own statistics (mNIF; LA-GINR's tokens), each
         ``channel`` over all tokens, each weight ``tensor``, or ``all`` numbers share them.
    layout: the slots whose weights a code holds (conditioner ``flat-weights``), needed by
         ``tensor``.
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
