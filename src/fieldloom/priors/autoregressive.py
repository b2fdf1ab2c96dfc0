"""Tokens of codes one after another, each from those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

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
"""Bytes of keys and values that generating holds at a time."""

Position = Literal["position", "layer", "row", "column", "level"]
POSITIONS: tuple[Position, ...] = ("position", "layer", "row", "column", "level")


def list_positions(found: TokenPositions, levels: int, before: int) -> dict[str, Integers]:
    """Of each kind of position, that of each of the (before + length * levels) tokens, from 0.

    before: tokens that stand in no layer; where there are some, the layers, rows, columns and
    levels of the others count from 1. A kind that is the same everywhere is left out.
    """
    where = {"layer": found.layer, "row": found.row, "column": found.column}
    where = {name: np.repeat(at, levels) for name, at in where.items()}
    where["level"] = np.tile(np.arange(levels), len(found.index))
    where = {n: np.pad(at + before, (before, 0)) for n, at in where.items() if at.max() > 0}
    return {"position": np.arange(before + len(found.index) * levels)} | where


class Autoregressive(Prior):
    """p(code) = p(token_1) p(token_2 | token_1) ... by a decoder-only transformer.

    A sequence is the start, the class where there are classes, and the tokens; a class that is not
    asked for is sampled by its learned probability. A codec ``quantize`` gives token ids, of each
    token level by level; other codecs give numbers, which are cut into tokens here.

    token:  of numbers: a ``scalar`` (published), a ``row`` or a ``neuron``, as ``quantize`` has
            them; None: a scalar, or a row where a codec answers vectors of its own.
    head:   of numbers: ``mixture`` of normal distributions, ``components`` of them, or ``l1``, the
            published regression, which is deterministic: it cannot generate (see ``NumberHead``).
    layout: the slots whose weights a code holds (conditioner ``flat-weights``).
    positions: which learned embeddings are added to a token: those of the ``position``, ``layer``,
            ``row``, ``column`` and ``level`` of quantisation of the token that it predicts.
            Published: the position alone.
    tied:   whether the table that embeds token ids scores them, too.
    norm:   ``pre`` as described, or ``none``: no norms within the blocks, as released.
    depth, width, heads, ratio, dropout: as ``DecoderOnly`` has them.

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
        before = 1 if classes else 0  # the class stands before the tokens
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
        """The codec's tokens; or what it answers, cut into tokens."""
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
        """``tokenize`` backwards, as far as the codec's ``encode``: what its ``decode`` takes."""
        if self.codec.vocabulary is None:
            return scatter_tokens(tokens, self.get_buffer("index"), self.codec.inner_shape)
        return tokens.unflatten(1, (-1, self.levels))

    def hidden_states(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """Causal hidden states: the one of each token sees only the tokens before it.

        (batch, tokens, width); with classes one more, which the class is predicted from, in front.
        Raises InputError where there are classes and no labels.
        """
        parts = [self.head.start().expand(len(tokens), 1, -1)]
        if self.label is not None:
            if label is None:
                raise InputError("prior 'autoregressive' has classes: its codes need labels.")
            parts.append(self.label(label)[:, None])
        return self.network(torch.cat([*parts, self.head.embed(tokens[:, :-1])], 1))

    def loss(self, code: Code, label: Tensor | None = None) -> Tensor:
        """Nats a token, or a number, the class counted as one: (batch,); with ``l1`` errors."""
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
        """Token by token, the keys and values of earlier ones kept.

        temperature: what logits are divided by; of numbers also what variances are multiplied by.
        top_k: only the likeliest entries of a codebook. top_p: only the likeliest of that mass,
        after top_k. A class that was not asked for is sampled without them.
        """
        how = SamplingConfig(temperature, top_k, top_p)
        device = self.get_buffer("index").device
        # noise is drawn on the CPU, all of it first: a seed means the same on every device, and
        # however many codes are generated at a time
        class_noise = torch.rand(count, generator=generator, dtype=torch.float64)
        noise = self.head.draw_noise(count, generator)
        parts = []
        for some in torch.arange(count).split(self.batch_size()):
            asked = None if label is None else label[some].to(device)
            parts.append(self._generate(asked, class_noise[some], noise[some], how))
        return self.detokenize(torch.cat(parts))

    def batch_size(self) -> int:
        """Codes to generate at a time: as many as ``CACHE_BYTES`` hold keys and values of."""
        block = self.network.blocks[0]
        example = next(block.parameters())
        width = self.network.norm.normalized_shape[0]
        each = 2 * len(self.network.blocks) * self.network.length * width * example.element_size()
        return max(1, CACHE_BYTES // each)

    def _generate(
        self, label: Tensor | None, class_noise: Tensor, noise: Tensor, how: SamplingConfig
    ) -> Tensor:
        """Tokens (batch, ...) by their noise; the class, where there is none, by its own."""
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
