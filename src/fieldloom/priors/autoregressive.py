"""Weights one after another, each from those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from fieldloom.errors import InputError
from fieldloom.priors.codecs import Codec
from fieldloom.priors.decoder_only import DecoderOnly
from fieldloom.priors.prior import Prior
from fieldloom.priors.readouts import Picking, Values, Words, drawn
from fieldloom.priors.tokens import Integers, Places, Token, cut, gather, scatter
from fieldloom.types import Code, Slot

HELD = 1 << 30
"""Bytes of keys and values that generating holds at a time."""

Place = Literal["position", "layer", "row", "column", "level"]
PLACES: tuple[Place, ...] = ("position", "layer", "row", "column", "level")


def positions(found: Places, levels: int, before: int) -> dict[str, Integers]:
    """What there is to know of each position: (before + length * levels,) integers from 0.

    before: positions that have no place among the weights; where there are some, the places of
    the others count from 1. Places that are the same everywhere are left out.
    """
    where = {"layer": found.layer, "row": found.row, "column": found.column}
    where = {name: np.repeat(at, levels) for name, at in where.items()}
    where["level"] = np.tile(np.arange(levels), len(found.index))
    where = {n: np.pad(at + before, (before, 0)) for n, at in where.items() if at.max() > 0}
    return {"position": np.arange(before + len(found.index) * levels)} | where


class Autoregressive(Prior):
    """p(code) = p(token_1) p(token_2 | token_1) ... by a decoder-only transformer.

    A sequence is the start, the class where there are classes, and the tokens; the class is drawn
    by its learned share where none is asked for. A codec ``quantize`` gives words, level by level
    of each place; other codecs give numbers, whose tokens are cut here.

    token:  of numbers: a ``scalar`` (published), a ``row`` or a ``neuron``, as ``quantize`` has
            them; None: a scalar, or a row where a codec answers vectors of its own.
    head:   of numbers: ``mixture`` of normal distributions, ``components`` of them, or ``l1``, the
            published regression, which is deterministic: it cannot generate (see ``Values``).
    layout: the slots whose weights a code holds (conditioner ``flat-weights``).
    places: what is added to a token, of the one that is to follow: learned vectors of its position,
            layer, row, column and level of quantisation. Published: the position alone.
    tied:   whether the table that embeds words scores them, too.
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
        places: tuple[Place, ...] = PLACES,
        tied: bool = True,
        norm: Literal["pre", "none"] = "pre",
        depth: int = 6,
        width: int = 256,
        heads: int = 16,
        ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(code_shape, classes, codec)
        words = self.codec.vocabulary
        if words is not None and token is not None:
            raise InputError(f"prior.token = '{token}': the codec makes the tokens, set its own.")
        inner = self.codec.inner_shape
        if words is not None:
            found = words.places
        elif inner == code_shape:
            found = cut(inner, layout, token or "scalar")
        else:  # a codec's own vectors, which are no weights
            found = cut(inner, None, token or "row")
        self.levels = 1 if words is None else words.which.shape[1]
        self.tokens = len(found.index) * self.levels
        index = torch.from_numpy(found.index)
        self.register_buffer("index", index, persistent=False)
        before = 1 if classes else 0  # positions that are followed by the class
        where = positions(found, self.levels, before)
        asked: dict[str, Integers] = {n: at for n, at in where.items() if n in places}
        length = self.tokens + before
        self.network = DecoderOnly(
            length, asked, width, depth, heads, ratio, norm == "pre", dropout
        )
        self.label = nn.Embedding(classes, width) if classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        self.head: Words | Values = (
            Values(found, width, head, components) if words is None else Words(words, width, tied)
        )
        numbers = int((found.index >= 0).sum()) if words is None else self.tokens
        self.count = numbers + before

    def read(self, code: Code) -> Tensor:
        """The tokens of codes: (batch, tokens) integers, or (batch, tokens, numbers)."""
        with torch.no_grad(), torch.autocast(code.device.type, enabled=False):
            inner = self.codec.encode(code)
        if self.codec.vocabulary is None:
            return gather(inner, self.get_buffer("index"))
        return inner.flatten(1)

    def written(self, tokens: Tensor) -> Tensor:
        """What the codec decodes: ``read`` backwards."""
        if self.codec.vocabulary is None:
            return scatter(tokens, self.get_buffer("index"), self.codec.inner_shape)
        return tokens.unflatten(1, (-1, self.levels))

    def known(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """What is known before each token, of those before it: (batch, tokens, width).

        With classes what is known before the class stands in front of it.
        """
        parts = [self.head.start().expand(len(tokens), 1, -1)]
        if self.label is not None:
            if label is None:
                raise InputError("prior 'autoregressive' has classes: its codes need labels.")
            parts.append(self.label(label)[:, None])
        return self.network(torch.cat([*parts, self.head.embed(tokens[:, :-1])], 1))

    def loss(self, code: Code, label: Tensor | None = None) -> Tensor:
        """Nats a token, or a number, the class counted as one: (batch,); with ``l1`` errors."""
        tokens = self.read(code)
        known = self.known(tokens, label)
        total = self.head.loss(known[:, -self.tokens :], tokens)
        if self.label is not None and label is not None:
            scores = known[:, 0] @ self.label.weight.T
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
        top_k: only the likeliest words. top_p: only the likeliest words of that mass, after top_k.
        A class that was not asked for is drawn by its share, whatever these are.
        """
        how = Picking(temperature, top_k, top_p)
        device = self.get_buffer("index").device
        # noise is drawn on the CPU, all of it first: a seed means the same on every device, and
        # however many codes are generated at a time
        chance = torch.rand(count, generator=generator, dtype=torch.float64)
        noise = self.head.noise(count, generator)
        parts = []
        for some in torch.arange(count).split(self.together()):
            asked = None if label is None else label[some].to(device)
            parts.append(self._generate(asked, chance[some], noise[some], how))
        return self.written(torch.cat(parts))

    def together(self) -> int:
        """Codes that are generated at a time: as many as ``HELD`` holds keys and values of."""
        block = self.network.blocks[0]
        example = next(block.parameters())
        width = self.network.norm.normalized_shape[0]
        each = 2 * len(self.network.blocks) * self.network.length * width * example.element_size()
        return max(1, HELD // each)

    def _generate(
        self, label: Tensor | None, chance: Tensor, noise: Tensor, how: Picking
    ) -> Tensor:
        caches = self.network.caches()
        known = self.network(self.head.start().expand(len(chance), 1, -1), caches)
        if self.label is not None:
            if label is None:
                shares = (known[:, 0] @ self.label.weight.T).softmax(-1)
                label = drawn(shares.cpu(), chance).to(known.device)
            known = self.network(self.label(label)[:, None], caches)
        found: list[Tensor] = []
        for place in range(self.tokens):
            if found:
                known = self.network(self.head.embed(found[-1][:, None], place - 1), caches)
            found.append(self.head.pick(known[:, 0], place, noise[:, place], how))
        return torch.stack(found, 1)
