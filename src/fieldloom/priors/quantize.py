"""Weights as words of a learned vocabulary: k-means of numbers, of rows, of neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Generator, Tensor

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.priors.codecs import TOGETHER, Codec, Identity
from fieldloom.priors.tokens import Token, Vocabulary, cut, gather, scatter
from fieldloom.types import Code, Slot

NUMBERS = 1 << 24
"""Numbers that a vocabulary of scalars is found from, at most; more add nothing."""

VECTORS = 256
"""Rows or neurons for each word of a vocabulary that it is found from, at most."""

SCORES = 1 << 24
"""Distances that are held at a time: 64 MiB of float32."""


class Quantize(Codec):
    """code -> the nearest words of a vocabulary, as integers (batch, length, levels).

    token:  what a word stands for: a ``scalar`` (published), a ``row`` (what one neuron receives,
            or all biases of a layer), or a ``neuron`` (what it receives, and its bias). Of codes
            that are no weights a row is a token of theirs.
    per:    one vocabulary for ``all`` tokens (published), or one for each ``layer``.
    codes:  words of each vocabulary (127 as published: 128 with the start of a sequence).
    levels: of residual quantisation, each with words of its own for what those before it left.
    center: what is taken away first: the ``start`` that all codes were fitted from (published),
            their ``mean``, or ``none``.
    layout: the slots whose weights a code holds (conditioner ``flat-weights``).
    codec:  what stands before the words: they are of its answers (``graph``: a ``row`` is a neuron)
            instead of the codes.

    Shorter tokens of a vocabulary are compared in the numbers that they have. Words minimise the
    squared error: of scalars by Lloyd's iterations on the sorted numbers to their fixed point, of
    vectors by k-means. Source: the released code of "Autoregressive generation of neural field
    weights" (one Lloyd iteration there, then gradient steps); residual levels arXiv:2107.03312,
    algorithm 1.
    """

    center: Tensor
    books: Tensor
    index: Tensor

    def __init__(
        self,
        code_shape: tuple[int, int],
        layout: Mapping[str, Slot] | None = None,
        token: Token = "scalar",
        per: Literal["all", "layer"] = "all",
        codes: int = 127,
        levels: int = 1,
        center: Literal["start", "mean", "none"] = "start",
        codec: Codec | None = None,
    ) -> None:
        super().__init__(code_shape)
        self.before = codec or Identity(code_shape)
        self.trained = self.before.trained
        if self.before.vocabulary is not None:
            raise InputError("codec 'quantize': the codec before it answers words already.")
        if self.before.inner_shape != code_shape:
            code_shape, layout = self.before.inner_shape, None
        if codes < 1 or levels < 1:
            raise InputError(f"quantize: codes = {codes}, levels = {levels}: at least 1.")
        places = cut(code_shape, layout, token)
        self.around, self.levels = center, levels
        family = np.zeros_like(places.layer) if per == "all" else places.layer
        self.members = [np.flatnonzero(family == i) for i in range(int(family.max()) + 1)]
        memory.require(8 * levels * len(family))
        which = family[:, None] * levels + np.arange(levels)
        self.vocabulary = Vocabulary(codes, len(self.members) * levels, which, places)
        width = places.index.shape[1]
        self.register_buffer("index", torch.from_numpy(places.index), persistent=False)
        self.register_buffer("center", torch.zeros(code_shape))
        self.register_buffer("books", torch.zeros(len(self.members), levels, codes, width))

    @torch.no_grad()
    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        """Raises InputError where the center is the start, and none is given."""
        if not len(codes):
            raise InputError("codec 'quantize' needs at least 1 training code; there is 0.")
        if self.around == "start" and start is None:
            raise InputError(
                "codec 'quantize': center = 'start' needs the start that codes were fitted from; "
                "take center = 'mean' or 'none'."
            )
        self.before.fit(codes, labels, start)
        if self.around == "start" and start is not None:
            self.center.copy_(self.before.encode(start[None])[0])
        elif self.around == "mean":
            sums = (self.before.encode(x).double().sum(0) for x in codes.split(TOGETHER))
            self.center.copy_(sum(sums, self.center.double() * 0) / len(codes))
        count = self.books.shape[2]
        for family, members in enumerate(self.members):
            index = self.index[torch.from_numpy(members).to(self.index.device)].cpu()
            scalar = index.shape[1] == 1
            most = (NUMBERS if scalar else VECTORS * count) // len(members)
            some = codes[:: -(-len(codes) // max(1, most))]  # whole codes, evenly spread
            inner = (self.before.encode(x) - self.center for x in some.split(TOGETHER))
            left = torch.cat([gather(x.cpu(), index).flatten(0, 1) for x in inner])
            mask = (index >= 0).to(left).repeat(len(some), 1)
            for level in range(self.levels):
                book = lloyd(left, count) if scalar else kmeans(left, mask, count)
                self.books[family, level] = book.to(self.books)
                left = left - mask * book[nearest(left, mask, book)]

    def prepare(
        self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """What stands before the words is trained, and words are found of its answers after."""
        self.before.prepare(codes, labels, start)

    @torch.no_grad()
    def encode(self, code: Code) -> Int[Tensor, "batch length levels"]:
        with torch.autocast(code.device.type, enabled=False):  # distances need all their digits
            return torch.cat([self._words(some) for some in code.split(TOGETHER)])

    def _words(self, code: Code) -> Int[Tensor, "batch length levels"]:
        tokens = gather(self.before.encode(code) - self.center, self.index)
        ids = tokens.new_empty((*tokens.shape[:2], self.levels), dtype=torch.long)
        mask = (self.index >= 0).to(tokens)
        for family, members in enumerate(self.members):
            own = torch.from_numpy(members).to(tokens.device)
            left, known = tokens[:, own], mask[own]
            for level, book in enumerate(self.books[family].to(tokens)):
                found = nearest(left.flatten(0, 1), known.repeat(len(left), 1), book)
                ids[:, own, level] = found.view(left.shape[:2])
                left = left - known * book[ids[:, own, level]]
        return ids

    @torch.no_grad()
    def decode(self, inner: Int[Tensor, "batch length levels"]) -> Code:
        assert self.vocabulary is not None
        which = torch.from_numpy(self.vocabulary.which).to(inner.device)
        words = self.books.flatten(0, 1)[which, inner].sum(2)
        inner = self.center + scatter(words, self.index, self.before.inner_shape)
        return self.before.decode(inner)

    def loss(self, code: Code) -> Tensor:
        return self.before.loss(code)

    def distortion(self, code: Code) -> Float[Tensor, " batch"]:
        """The squared error of decode(encode(code)), the mean over each code's weights."""
        own = self.before.inner_shape == self.code_shape  # its padding is not counted
        count = int((self.index >= 0).sum()) if own else code[0].numel()
        return (self.decode(self.encode(code)) - code).square().sum((1, 2)) / count


def nearest(
    tokens: Float[Tensor, "n width"], mask: Float[Tensor, "n width"], book: Tensor
) -> Int[Tensor, " n"]:
    """The place of the nearest word of book (codes, width), by the numbers that tokens have.

    mask: 1 where a token has a number, 0 where it is shorter (and its own number zero).
    """
    if book.shape[1] == 1:
        order = book[:, 0].argsort(stable=True)
        words = book[order, 0]
        return order[torch.bucketize(tokens[:, 0].contiguous(), (words[1:] + words[:-1]) / 2)]
    each, squares = max(1, SCORES // len(book)), book.square()
    found = []
    for some, own in zip(tokens.split(each), mask.split(each), strict=True):
        length = squares.sum(1) if own.all() else own @ squares.T
        # by a matrix product: rounding takes one word for another only where both are as near
        found.append(torch.addmm(length, some, book.T, alpha=-2).argmin(1))
    return torch.cat(found) if found else tokens.new_empty(0, dtype=torch.long)


def lloyd(values: Float[Tensor, "n 1"], codes: int) -> Float[Tensor, "codes 1"]:
    """Words that no step of Lloyd's algorithm betters, ascending: deterministic.

    Cells of sorted numbers are ranges, and their means differences of cumulative sums, so that an
    iteration costs no pass over the numbers. Two starts are tried, quantiles and what is best for
    smooth densities (words as dense as density^(1/3)), and words without numbers split the worst
    cells.
    """
    data = np.sort(values[:, 0].double().cpu().numpy())
    sums = np.concatenate([[0.0], np.cumsum(data)])
    squares = np.concatenate([[0.0], np.cumsum(data * data)])
    shares = (np.arange(codes) + 0.5) / codes
    steps = data[np.linspace(0, len(data) - 1, 1 << 12).round().astype(np.int64)]
    # density^(1/3) along a step between quantiles: step * (1 / step)^(1/3)
    dense = np.concatenate([[0.0], np.cumsum(np.diff(steps) ** (2 / 3))])
    starts = np.quantile(data, shares), np.interp(shares * dense[-1], dense, steps)
    settled = [_settled(data, sums, squares, words) for words in starts]
    best = min(settled, key=lambda words: _cells(data, sums, squares, words)[2].sum())
    return torch.from_numpy(best).to(values)[:, None]


Numbers = NDArray[np.float64]


def _cells(
    data: Numbers, sums: Numbers, squares: Numbers, words: Numbers
) -> tuple[NDArray[np.int64], Numbers, Numbers]:
    """Of ascending words: edges of their cells in the data, means (or the word), squared errors."""
    inner = np.searchsorted(data, (words[1:] + words[:-1]) / 2)
    edges = np.concatenate([[0], inner, [len(data)]])
    count, total = np.diff(edges), np.diff(sums[edges])
    means = np.where(count > 0, total / np.maximum(count, 1), words)
    wrong = np.maximum(np.diff(squares[edges]) - total * total / np.maximum(count, 1), 0)
    return edges, means, wrong


def _settled(
    data: Numbers, sums: Numbers, squares: Numbers, words: Numbers, most: int = 10_000
) -> Numbers:
    """Ascending words after at most so many iterations."""
    for _ in range(most):
        edges, means, wrong = _cells(data, sums, squares, words)
        empty = np.flatnonzero(np.diff(edges) == 0)
        worst = np.argsort(-wrong, kind="stable")[: len(empty)]
        ends = [np.clip(i, 0, len(data) - 1) for i in (edges[worst], edges[worst + 1] - 1)]
        worst = worst[data[ends[0]] < data[ends[1]]]  # of equal numbers there is nothing to split
        for place, cell in zip(empty, worst, strict=False):  # the upper half gets its own word
            middle = (edges[cell] + edges[cell + 1]) // 2
            means[place] = data[middle : edges[cell + 1]].mean()
        means = np.sort(means)
        if np.array_equal(means, words):
            break
        words = means
    return words


def kmeans(
    tokens: Float[Tensor, "n width"], mask: Float[Tensor, "n width"], codes: int, most: int = 25
) -> Float[Tensor, "codes width"]:
    """Words by Lloyd's iterations from k-means++ (Arthur and Vassilvitskii, 2007): deterministic.

    mask: as ``nearest`` takes it. Words without tokens move to the tokens that are worst off.
    """
    generator = Generator().manual_seed(0)
    book = seeds(tokens, mask, codes, generator)
    for step in range(most):
        place = nearest(tokens, mask, book)
        count = torch.zeros_like(book).index_add_(0, place, mask)
        total = torch.zeros_like(book).index_add_(0, place, tokens)
        means = torch.where(count > 0, total / count.clamp_min(1), torch.zeros_like(book))
        dead = torch.bincount(place, minlength=codes) == 0
        means[dead] = book[dead]
        if dead.any() and step < most - 1:
            far = (tokens - mask * book[place]).square().sum(1)
            worst = far.topk(min(int(dead.sum()), len(far)))
            worst_off = worst.indices[worst.values > 0]
            means[dead.nonzero()[: len(worst_off), 0]] = tokens[worst_off]
        if torch.equal(means, book):
            break
        book = means
    return book


def seeds(
    tokens: Float[Tensor, "n width"],
    mask: Float[Tensor, "n width"],
    codes: int,
    generator: Generator,
) -> Float[Tensor, "codes width"]:
    """k-means++: each next word is a token, drawn by its squared distance to those before it."""
    first = int(torch.randint(len(tokens), (1,), generator=generator))
    chosen, far = [tokens[first]], torch.full((len(tokens),), torch.inf, dtype=tokens.dtype)
    for _ in range(codes - 1):
        far = torch.minimum(far, (tokens - mask * chosen[-1]).square().sum(1))
        chance = far.double().cumsum(0)
        drawn = torch.rand(1, generator=generator, dtype=torch.float64) * chance[-1]
        place = int(torch.searchsorted(chance, drawn, right=True).clamp_max(len(far) - 1))
        chosen.append(tokens[place])
    return torch.stack(chosen)
