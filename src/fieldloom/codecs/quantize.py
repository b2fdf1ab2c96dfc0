"""Codes as tokens: k-means codebooks of numbers, of rows, of neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldloom import memory
from fieldloom.codecs.codec import BATCH, Codec, Identity
from fieldloom.codecs.tokens import Token, Vocabulary, cut_tokens, gather_tokens, scatter_tokens
from fieldloom.constants import place
from fieldloom.errors import InputError
from fieldloom.nn.kmeans import kmeans, lloyd_max, nearest_centroids
from fieldloom.types import Code, Slot

SCALARS = 1 << 24
"""The largest number of scalars that a codebook is fitted to; more add nothing."""

VECTORS = 256
"""The largest number of rows or neurons per entry that a codebook is fitted to."""


class Quantize(Codec):
    """code -> the nearest entries of a codebook, as token ids (batch, length, levels).

    token:  the unit of quantisation: a ``scalar`` (published), a ``row`` (the incoming weights of
            one neuron, or all biases of a layer), or a ``neuron`` (its incoming weights and its
            bias). For codes that are not weights a row is one of their tokens.
    per:    one codebook for ``all`` tokens (published), or one for each ``layer``.
    codebook_size: number of entries (127 as published: 128 with the start of a sequence).
    levels: of residual quantisation; each level has its own codebook for the residual of those
            before it.
    center: is subtracted first: the ``start`` that all codes were fitted from (published), their
            ``mean``, or ``none``.
    layout: the slots whose weights a code holds (conditioner ``flat-weights``).
    codec:  another codec that is applied first, whose encoded codes are quantised (``graph``: a
            ``row`` is a neuron).

    Padded components of shorter tokens do not count in distances. Codebooks minimise the squared
    error: of scalars by Lloyd's iterations on the sorted numbers to a fixed point, of vectors by
    k-means. Source: the released code of "Autoregressive generation of neural field
    weights" (one Lloyd iteration there, then gradient steps); residual levels arXiv:2107.03312,
    algorithm 1.
    """

    center: Tensor
    books: Tensor  # (codebook families, levels, entries, width); saved states have this name
    index: Tensor

    def __init__(
        self,
        code_shape: tuple[int, int],
        layout: Mapping[str, Slot] | None = None,
        token: Token = "scalar",
        per: Literal["all", "layer"] = "all",
        codebook_size: int = 127,
        levels: int = 1,
        center: Literal["start", "mean", "none"] = "start",
        codec: Codec | None = None,
    ) -> None:
        super().__init__(code_shape)
        self.before = codec or Identity(code_shape)
        self.trained = self.before.trained
        if self.before.vocabulary is not None:
            raise InputError("codec 'quantize': the codec before it answers tokens already.")
        if self.before.inner_shape != code_shape:
            code_shape, layout = self.before.inner_shape, None
        if codebook_size < 1 or levels < 1:
            raise InputError(
                f"quantize: codebook_size = {codebook_size}, levels = {levels}: at least 1."
            )
        positions = cut_tokens(code_shape, layout, token)
        self.center_on, self.levels = center, levels
        family = np.zeros_like(positions.layer) if per == "all" else positions.layer
        self.members = [
            torch.from_numpy(np.flatnonzero(family == i)) for i in range(int(family.max()) + 1)
        ]
        self.padded = [bool((positions.index[own] < 0).any()) for own in self.members]
        memory.require(8 * levels * len(family))
        codebook = family[:, None] * levels + np.arange(levels)
        count = len(self.members)
        self.vocabulary = Vocabulary(codebook_size, count * levels, codebook, positions)
        width = positions.index.shape[1]
        self.register_buffer("index", torch.from_numpy(positions.index), persistent=False)
        self.register_buffer("center", torch.zeros(code_shape))
        self.register_buffer("books", torch.zeros(count, levels, codebook_size, width))

    @torch.no_grad()
    def fit(self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None) -> None:
        """Raises InputError where the center is the start, and none is given."""
        if not len(codes):
            raise InputError("codec 'quantize' needs at least 1 training code; there is 0.")
        if self.center_on == "start" and start is None:
            raise InputError(
                "codec 'quantize': center = 'start' needs the start that codes were fitted from; "
                "take center = 'mean' or 'none'."
            )
        self.before.fit(codes, labels, start)
        if self.center_on == "start" and start is not None:
            self.center.copy_(self.before.encode(start[None])[0])
        elif self.center_on == "mean":
            sums = (self.before.encode(x).cpu().double().sum(0) for x in codes.split(BATCH))
            self.center.copy_(sum(sums, self.center.cpu().double() * 0) / len(codes))
        for family, members in enumerate(self.members):
            self._fit_codebooks(family, members, codes)

    def _fit_codebooks(self, family: int, members: Tensor, codes: Code) -> None:
        """Fit the codebooks of one family of tokens, each level to the residual before it."""
        size = self.books.shape[2]
        index = self.index.cpu()[members]
        scalar = index.shape[1] == 1
        most = (SCALARS if scalar else VECTORS * size) // len(members)
        some = codes[:: -(-len(codes) // max(1, most))]  # whole codes, evenly spread
        inner = (self.before.encode(x) - self.center for x in some.split(BATCH))
        residual = torch.cat([gather_tokens(x.cpu(), index).flatten(0, 1) for x in inner])
        mask = (index >= 0).to(residual).repeat(len(some), 1)
        for level in range(self.levels):
            codebook = lloyd_max(residual, size) if scalar else kmeans(residual, mask, size)
            self.books[family, level] = codebook.to(self.books)
            padded = mask if self.padded[family] else None
            residual = residual - mask * codebook[nearest_centroids(residual, padded, codebook)]

    def prepare(
        self, codes: Code, labels: Tensor | None = None, start: Tensor | None = None
    ) -> None:
        """Prepare the training of the codec in front; ``fit`` then finds the codebooks."""
        self.before.prepare(codes, labels, start)

    @torch.no_grad()
    def encode(self, code: Code) -> Int[Tensor, "batch length levels"]:
        with torch.autocast(code.device.type, enabled=False):  # distances need all their digits
            return torch.cat([self._token_ids(some) for some in code.split(BATCH)])

    def _token_ids(self, code: Code) -> Int[Tensor, "batch length levels"]:
        tokens = gather_tokens(self.before.encode(code) - self.center, self.index)
        ids = tokens.new_empty((*tokens.shape[:2], self.levels), dtype=torch.long)
        mask = (self.index >= 0).to(tokens)
        for family, members in enumerate(self.members):
            own = place(members, tokens.device)
            residual, present = tokens[:, own], mask[own]
            for level, codebook in enumerate(self.books[family].to(tokens)):
                padded = present.repeat(len(residual), 1) if self.padded[family] else None
                found = nearest_centroids(residual.flatten(0, 1), padded, codebook)
                ids[:, own, level] = found.view(residual.shape[:2])
                residual = residual - present * codebook[ids[:, own, level]]
        return ids

    @torch.no_grad()
    def decode(self, inner: Int[Tensor, "batch length levels"]) -> Code:
        assert self.vocabulary is not None
        codebook = torch.from_numpy(self.vocabulary.codebook).to(inner.device)
        tokens = self.books.flatten(0, 1)[codebook, inner].sum(2)
        vectors = self.center + scatter_tokens(tokens, self.index, self.before.inner_shape)
        return self.before.decode(vectors)

    def loss(self, code: Code) -> Tensor:
        return self.before.loss(code)

    def distortion(self, code: Code) -> Float[Tensor, " batch"]:
        """The mean squared error of decode(encode(code)) over each code's weights: (batch,)."""
        own = self.before.inner_shape == self.code_shape  # its padding is not counted
        count = int((self.index >= 0).sum()) if own else code[0].numel()
        return (self.decode(self.encode(code)) - code).square().sum((1, 2)) / count
