"""LA-GINR's decoder: points attend to a set of tokens, and several frequency bands modulate the
attended features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.errors import InputError
from fieldloom.nn.layers import bias_slot, fourier, linear, log_spaced, normal, relu, uniform
from fieldloom.nn.transformer import attend, check_heads
from fieldloom.types import Coords, Slot, Values, Weights


class Local:
    """Selective token aggregation and multi-band feature modulation (arXiv:2310.05624, eq. 2-9).

    width:    width of tokens and of all hidden features (d in the paper).
    features: number of Fourier features of a band (d_F), rounded down to a multiple of twice the
              number of coordinates.
    tokens:   number of tokens (R), in the slot ``tokens`` (role input), which conditioner
              ``substitute`` fills with the code.
    heads:    of the cross-attention.
    query, bands: bandwidths of the query (sigma_q) and of the bands (sigma_1 .. sigma_L), at least
              1: frequencies go from pi to pi sigma. The first band passes most non-linear layers
              and is the highest in the paper.
    aggregate: ``attention``, or ``compose``: the tokens are one factor of a weight matrix, as in
              instance pattern composers (the paper's ablation "w/o STA").
    modulate: ``bands``, or ``stack``: L hidden layers and one output, without bands ("w/o multiFM";
              only the number of ``bands`` matters).
    offset:   added to the values: 0.5 is grey where data are in [0, 1].
    piece:    points evaluated at a time without gradients, so that memory does not grow with their
              number.

    The key's projection has no bias: it would add a constant to all scores of a point, and cancel.
    """

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        direction_dim: int = 0,
        width: int = 256,
        features: int = 256,
        tokens: int = 256,
        heads: int = 2,
        query: float = 16.0,
        bands: tuple[float, ...] = (128.0, 32.0),
        aggregate: Literal["attention", "compose"] = "attention",
        modulate: Literal["bands", "stack"] = "bands",
        offset: float = 0.0,
        piece: int = 2048,
    ) -> None:
        inputs = coord_dim + direction_dim
        count = features // (2 * inputs)
        if min(count, tokens, piece) < 1 or not bands or min(query, *bands) < 1:
            raise InputError(
                f"field: features = {features} (at least {2 * inputs}), tokens = {tokens}, "
                f"query = {query}, bands = {list(bands)}, piece = {piece}: at least 1 each."
            )
        check_heads(width, heads)
        self.heads, self.offset, self.piece = heads, offset, piece
        self.levels = range(1, len(bands) + 1)
        self.attentive, self.banded = aggregate == "attention", modulate == "bands"
        self.query = log_spaced(count, query)
        self.bands = [log_spaced(count, bandwidth) for bandwidth in bands]
        shape, passes = (tokens, width), 2 if self.attentive else 1  # scores, and their mean
        self.slots: dict[str, Slot] = {"tokens": Slot(shape, normal(shape, 1.0), "input", passes)}
        encoded = 2 * inputs * count
        self._layer("query", encoded, width)
        if self.attentive:
            for name in ("q", "k", "v", "o"):
                self._layer(name, width, width, passes=int(name in "qo"), bias=name != "k")
        else:
            self.slots["compose.weight"] = Slot(shape, uniform(shape, tokens**-0.5), "weight", 0)
            self.slots["compose.bias"] = bias_slot(width, width, "uniform")
        for level in self.levels:
            if self.banded:
                self._layer(f"band{level}", encoded, width)
                self._layer(f"mod{level}", width, width)
            if level > 1 or not self.banded:
                self._layer(f"hidden{level}", width, width)
            if self.banded or level == len(bands):
                self._layer(f"out{level}", width, value_dim)

    def _layer(self, name: str, a: int, b: int, passes: int = 1, bias: bool = True) -> None:
        self.slots[f"{name}.weight"] = Slot((a, b), uniform((a, b), a**-0.5), "weight", passes)
        if bias:
            self.slots[f"{name}.bias"] = bias_slot(a, b, "uniform")

    def __call__(self, coords: Coords, weights: Weights) -> Values:
        tokens = weights["tokens"].expand(len(coords), -1, -1)
        if self.attentive:
            memory = _linear(tokens, "k", weights), _linear(tokens, "v", weights)
        else:
            composed = tokens.mT @ weights["compose.weight"]
            memory = F.normalize(composed, dim=-2, eps=1e-12), weights["compose.bias"]
        pieces = [coords] if torch.is_grad_enabled() else coords.split(self.piece, 1)
        values = [self._decode(piece, memory, weights) for piece in pieces]
        return torch.cat(values, 1) if len(values) > 1 else values[0]

    def _decode(self, coords: Coords, memory: tuple[Tensor, Tensor], weights: Weights) -> Values:
        m = self._aggregate(coords, memory, weights)
        if self.banded:
            first, *others = self._bands(coords, m, weights)
            return sum(others, start=first) + self.offset
        return self._stack(m, weights) + self.offset

    def _aggregate(self, coords: Coords, memory: tuple[Tensor, Tensor], weights: Weights) -> Tensor:
        """The aggregated features m of eq. 5: (batch, points, width)."""
        q = relu(_linear(fourier(coords, self.query), "query", weights))  # eq. 4
        if not self.attentive:
            return relu(linear(q, *memory))
        return _linear(attend(_linear(q, "q", weights), *memory, self.heads), "o", weights)

    def _stack(self, m: Tensor, weights: Weights) -> Tensor:
        h = m
        for level in self.levels:
            h = relu(_linear(h, f"hidden{level}", weights))
        return _linear(h, f"out{self.levels[-1]}", weights)

    def _bands(self, coords: Coords, m: Tensor, weights: Weights) -> Iterator[Tensor]:
        """The output of each level, from the first to the last (eqs. 6 to 9)."""
        h = m
        for level, frequencies in zip(self.levels, self.bands, strict=True):
            band = relu(_linear(fourier(coords, frequencies), f"band{level}", weights))  # eq. 6
            modulated = relu(band + _linear(m, f"mod{level}", weights))  # eq. 7
            if level > 1:  # eq. 8
                modulated = relu(_linear(modulated + h, f"hidden{level}", weights))
            h = modulated
            yield _linear(h, f"out{level}", weights)  # a summand of eq. 9


def _linear(x: Tensor, name: str, weights: Weights) -> Tensor:
    return linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
