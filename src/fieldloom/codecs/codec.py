"""The base class of codecs, and the codecs that keep a code's shape.

Codecs belong to a prior: raw codes are stored, and encoded when the prior needs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fieldloom.codecs.tokens import Vocabulary
from fieldloom.errors import InputError
from fieldloom.types import Code, Lazy, Slot

BATCH = 256
"""Codes that are encoded at a time: messages of the graph codec take over 100 kB per code."""

PIECE = 1 << 22
"""Numbers of codes that are read at a time, where codes are not in memory."""


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

    def fit_in_pieces(
        self, codes: Lazy, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """As ``fit``, of codes that are not in memory; all are read where there is no other way."""
        self.fit(codes.read(slice(0, codes.shape[0])), labels, start)

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


def check_count(count: int) -> None:
    """Raise InputError where there are too few codes to whiten."""
    if count < 2:
        raise InputError(f"codec 'whiten' needs at least 2 training codes; there is {count}.")


def moments(codes: Lazy) -> tuple[int, Tensor, Tensor]:
    """The number of codes, and of each element the mean and the sum of squared deviations.

    One pass, in float64: pieces are joined by Chan's formula (Stanford STAN-CS-79-773), so that a
    mean that is large beside the deviation costs no digits.
    """
    shape, count = codes.shape[1:], 0
    mean, squares = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    step = max(1, PIECE // max(1, math.prod(shape)))
    for first in range(0, codes.shape[0], step):
        piece = codes.read(slice(first, first + step)).double()
        own, total = piece.mean(0), count + len(piece)
        gap = own - mean
        squares += (piece - own).square().sum(0) + gap.square() * (count * len(piece) / total)
        mean += gap * (len(piece) / total)
        count = total
    return count, mean, squares


def pool(count: int, mean: Tensor, squares: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The mean and the unbiased standard deviation of elements together, over some axes.

    mean, squares: of each element, over ``count`` codes.
    """
    whole = mean.mean(tuple(axes), keepdim=True)
    spread = squares + count * (mean - whole).square()
    number = count * math.prod(mean.shape[axis] for axis in axes)
    return whole, (spread.sum(tuple(axes), keepdim=True) / (number - 1)).sqrt()


class Identity(Codec):
    """Codes as they are."""

    def fit_in_pieces(
        self, codes: Lazy, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """There is nothing to compute."""

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
        check_count(len(codes))
        if not self.sizes:
            self.mean.copy_(codes.mean(self.axes, keepdim=True))
            self.std.copy_(codes.std(self.axes, keepdim=True))
        first = 0
        for size in self.sizes:  # padding beyond the last tensor stays as it is
            own = slice(first, first + size)
            weights, first = codes.flatten(1)[:, own], own.stop
            self.mean.view(-1)[own], self.std.view(-1)[own] = weights.mean(), weights.std()

    def fit_in_pieces(
        self, codes: Lazy, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """The same statistics, in one pass and in float64."""
        check_count(codes.shape[0])
        count, mean, squares = moments(codes)
        if not self.sizes:
            found = pool(count, mean[None], squares[None], self.axes)
            self.mean.copy_(found[0])
            self.std.copy_(found[1])
        first = 0
        for size in self.sizes:
            own = slice(first, first + size)
            found = pool(count, mean.flatten()[own], squares.flatten()[own], (0,))
            first = own.stop
            self.mean.view(-1)[own], self.std.view(-1)[own] = (x.to(self.mean) for x in found)

    def encode(self, code: Code) -> Code:
        return (code - self.mean) / (self.std + 1e-8)

    def decode(self, inner: Code) -> Code:
        return inner * (self.std + 1e-8) + self.mean
