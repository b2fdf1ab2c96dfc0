"""An autoregressive prior: tokens of codes, each predicted from those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from fieldloom.codecs import Codec
from fieldloom.codecs.tokens import (
    Integers,
    Token,
    TokenPositions,
    cut_tokens,
    gather_tokens,
    scatter_tokens,
)
from fieldloom.errors import InputError
from fieldloom.priors.decoder_only import DecoderOnly
from fieldloom.priors.heads import CodebookHead, NumberHead, SamplingConfig, sample_categorical
from fieldloom.priors.prior import Prior
from fieldloom.types import Code, Slot

CACHE_BYTES = 1 << 30
"""Bytes of cached keys and values during generation."""

Position = Literal["position", "layer", "row", "column", "level"]
POSITIONS: tuple[Position, ...] = ("position", "layer", "row", "column", "level")


def list_positions(found: TokenPositions, levels: int, before: int) -> dict[str, Integers]:
    """Kind of position -> the position of each token, (before + length * levels,), from 0.

    before: number of tokens at the front that belong to no layer; if there are any, the layers,
    rows, columns and levels of the others count from 1. Kinds without variation are left out.
    """
    where = {"layer": found.layer, "row": found.row, "column": found.column}
    where = {name: np.repeat(at, levels) for name, at in where.items()}
    where["level"] = np.tile(np.arange(levels), len(found.index))
    where = {n: np.pad(at + before, (before, 0)) for n, at in where.items() if at.max() > 0}
    return {"position": np.arange(before + len(found.index) * levels)} | where


class Autoregressive(Prior):
    """p(code) = p(token_1) p(token_2 | token_1) ... by a decoder-only transformer.

    A sequence is a start token, the class where there are classes, and the tokens. A class that is
    not given is sampled by its learned probability. The codec ``quantize`` returns token ids, level
    by level for each token; the numbers of other codecs are split into tokens here.

    token:  of numbers: a ``scalar`` (published), a ``row`` or a ``neuron``, as in ``quantize``;
            None: a scalar, or a row where the codec changes the shape of codes.
    head:   of numbers: ``mixture`` of ``components`` normal distributions, or ``l1``, the published
            regression, which is deterministic and cannot generate (see ``NumberHead``).
    components: of the mixture.
    layout: the slots whose weights a code holds (conditioner ``flat-weights``).
    positions: the learned embeddings that are added to a token: of the ``position``, ``layer``,
            ``row``, ``column`` and ``level`` of quantisation of the token that it predicts.
            Published: the position alone.
    tied:   whether the embedding table of token ids is also the output layer.
    norm:   ``pre`` as described, or ``none``: no norms within the blocks, as released.
    depth, width, heads, ratio, dropout: as in ``DecoderOnly``.

    Source: "Autoregressive generation of neural field weights" (Fanselau and Muschal, TU Munich,
    2024) and its released code, after GPT-2's.
    """

    trained = True
    reads_tokens = True

    def __init__(
        self,
        code_shape: tuple[int, int],
        classes: int = 0,
        codec: Codec | None = None,
        layout: Mapping[str, Slot] | None = None,
        token: Token | None = None,
        head: Literal["mixture", "l1"] = "mixture",
        components: int = 8,
        positions: tuple[Position, ...] = POSITIONS,
        tied: bool = True,
        norm: Literal["pre", "none"] = "pre",
        depth: int = 6,
        width: int = 256,
        heads: int = 16,
        ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(code_shape, classes, codec)
        vocabulary = self.codec.vocabulary
        found = self._cut_tokens(layout, token)
        self.levels = 1 if vocabulary is None else vocabulary.codebook.shape[1]
        self.tokens = len(found.index) * self.levels
        self.register_buffer("index", torch.from_numpy(found.index), persistent=False)
        before = 1 if classes else 0  # the class comes before the tokens
        every = list_positions(found, self.levels, before)
        asked: dict[str, Integers] = {name: at for name, at in every.items() if name in positions}
        length = self.tokens + before
        self.network = DecoderOnly(
            length, asked, width, depth, heads, ratio, norm == "pre", dropout
        )
        self.label = nn.Embedding(classes, width) if classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        self.head: CodebookHead | NumberHead = (
            NumberHead(found, width, head, components)
            if vocabulary is None
            else CodebookHead(vocabulary, width, tied)
        )
        numbers = int((found.index >= 0).sum()) if vocabulary is None else self.tokens
        self.count = numbers + before

    def _cut_tokens(self, layout: Mapping[str, Slot] | None, token: Token | None) -> TokenPositions:
        """The tokens of the codec, or of its numbers. Raises InputError for a token given twice."""
        vocabulary, inner_shape = self.codec.vocabulary, self.codec.inner_shape
        if vocabulary is not None:
            if token is not None:
                raise InputError(
                    f"prior.token = '{token}': the codec makes the tokens, set its own."
                )
            return vocabulary.positions
        if inner_shape == self.code_shape:
            return cut_tokens(inner_shape, layout, token or "scalar")
        return cut_tokens(inner_shape, None, token or "row")  # a codec's own vectors

    def tokenize(self, code: Code) -> Tensor:
        """The tokens of codes: ids (batch, tokens), or numbers (batch, tokens, numbers)."""
        with torch.no_grad(), torch.autocast(code.device.type, enabled=False):
            inner = self.codec.encode(code)
        if self.codec.vocabulary is None:
            return gather_tokens(inner, self.get_buffer("index"))
        return inner.flatten(1)

    def detokenize(self, tokens: Tensor) -> Tensor:
        """The inverse of ``tokenize``, up to the codec's encoded codes, which it can decode."""
        if self.codec.vocabulary is None:
            return scatter_tokens(tokens, self.get_buffer("index"), self.codec.inner_shape)
        return tokens.unflatten(1, (-1, self.levels))

    def hidden_states(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """The hidden states that predict each token, from the tokens before it alone.

        Returns (batch, tokens, width); with classes there is one more in front, which predicts the
        class. Raises InputError where there are classes and no labels.
        """
        parts = [self.head.start().expand(len(tokens), 1, -1)]
        if self.label is not None:
            if label is None:
                raise InputError("prior 'autoregressive' has classes: its codes need labels.")
            parts.append(self.label(label)[:, None])
        return self.network(torch.cat([*parts, self.head.embed(tokens[:, :-1])], 1))

    def loss(self, code: Code, label: Tensor | None = None) -> Tensor:
        """Nats per token or number, the class included: (batch,); with ``l1`` absolute errors."""
        tokens = self.tokenize(code)
        hidden = self.hidden_states(tokens, label)
        total = self.head.loss(hidden[:, -self.tokens :], tokens)
        if self.label is not None and label is not None:
            scores = hidden[:, 0] @ self.label.weight.T
            total = total + nn.functional.cross_entropy(scores, label, reduction="none")
        return total / self.count

    def draw(
        self,
        count: int,
        label: Tensor | None,
        generator: Generator | None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Sample token by token, with cached keys and values.

        temperature: divides logits; of numbers it also multiplies variances.
        top_k: sample only among the k likeliest entries. top_p: after top_k, only among the
        likeliest entries of this total probability. They do not apply to the class.
        """
        how = SamplingConfig(temperature, top_k, top_p)
        device = self.get_buffer("index").device
        # all noise is drawn first, on the CPU: samples of a seed depend neither on the device nor
        # on the number of codes that are generated at a time
        class_noise = torch.rand(count, generator=generator, dtype=torch.float64)
        noise = self.head.draw_noise(count, generator)
        parts = []
        for some in torch.arange(count).split(self.batch_size()):
            asked = None if label is None else label[some].to(device)
            parts.append(self._generate(asked, class_noise[some], noise[some], how))
        return self.detokenize(torch.cat(parts))

    def skip(
        self, count: int, label: Tensor | None, generator: Generator | None, **options: Any
    ) -> None:
        torch.rand(count, generator=generator, dtype=torch.float64)
        self.head.draw_noise(count, generator)

    def batch_size(self) -> int:
        """How many codes to generate at a time, so that their caches fit ``CACHE_BYTES``."""
        block = self.network.blocks[0]
        example = next(block.parameters())
        width = self.network.norm.normalized_shape[0]
        each = 2 * len(self.network.blocks) * self.network.length * width * example.element_size()
        return max(1, CACHE_BYTES // each)

    def _generate(
        self, label: Tensor | None, class_noise: Tensor, noise: Tensor, how: SamplingConfig
    ) -> Tensor:
        """Sample tokens (batch, tokens, ...) by their noise, and a class where none is given."""
        caches = self.network.caches()
        hidden = self.network(self.head.start().expand(len(noise), 1, -1), caches)
        if self.label is not None:
            if label is None:
                probabilities = (hidden[:, 0] @ self.label.weight.T).softmax(-1)
                label = sample_categorical(probabilities.cpu(), class_noise).to(hidden.device)
            hidden = self.network(self.label(label)[:, None], caches)
        found: list[Tensor] = []
        for position in range(self.tokens):
            if found:
                embedded = self.head.embed(found[-1][:, None], position - 1)
                hidden = self.network(embedded, caches)
            found.append(self.head.sample(hidden[:, 0], position, noise[:, position], how))
        return torch.stack(found, 1)
