"""Weights from a set of tokens: their columns (TransINR), or one matrix's factor (IPC)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from fieldloom.conditioners.conditioner import Conditioner, Slots, match_slots
from fieldloom.errors import InputError, unknown
from fieldloom.types import Code, Weights


class Columns(Conditioner):
    """Every token scales columns of a weight: W[:, c] = base[:, c] * L(LN(token_(c mod g))).

    width:  of a token.
    groups: tokens of a weight (g), at most as many as it has columns. Each weight has its own
            tokens and its own map L(LN(.)), a layer norm and a linear layer.
    only:   glob pattern of the weights that depend on the code; biases and inputs stay shared.

    TransINR then normalizes the weights over their inputs, which the field does (``normalize``).
    Source: arXiv:2208.02801, section 3.3.
    """

    def __init__(
        self,
        slots: Slots,
        width: int = 768,
        groups: int = 64,
        only: str = "*.weight",
        generator: Generator | None = None,
    ) -> None:
        if width < 1 or groups < 1:
            raise InputError(f"conditioner: width = {width}, groups = {groups}: at least 1 each.")
        super().__init__(slots, generator=generator)
        self.chosen = [name for name in match_slots(slots, only) if slots[name].role == "weight"]
        if not self.chosen:
            raise InputError(f"conditioner.only = '{only}' matches no weight.")
        shapes = [slots[name].shape for name in self.chosen]
        self.tokens = [min(groups, shape[-1]) for shape in shapes]
        self.code_shape = (sum(self.tokens), width)
        self.maps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, shape[-2])) for shape in shapes
        )

    def forward(self, code: Code) -> Weights:
        weights = self.base.mapping()
        parts = code.split(self.tokens, 1)
        for name, to_column, tokens in zip(self.chosen, self.maps, parts, strict=True):
            columns, base = to_column(tokens).mT, weights[name]
            repeats = -(-base.shape[-1] // columns.shape[-1])
            scales = columns.repeat(1, 1, repeats)[..., : base.shape[-1]]
            weights[name] = base * expand_over_tiles(scales, base.ndim)
        return weights

    def macs(self) -> int:
        each = zip(self.maps, self.tokens, strict=True)
        return sum(tokens * part[1].weight.numel() for part, tokens in each)  # type: ignore


class Factor(Conditioner):
    """The code is one factor of one weight, the other is shared: W = code' S (arXiv:2211.13223).

    slot:   name of the weight (in, out); each tile of a tiled weight has its own S.
    rank:   number of tokens of a code (R); each is as wide as the weight has inputs.
    origin: ``learned``, drawn from N(0, 1), where meta-learning starts its descent; or ``zero``,
            which has no parameters, for encoders that predict a code in one pass.

    S starts as N(0, 1) / sqrt(R in). The field normalizes the product over its inputs
    (``normalize``). Source: eqs. 5 and 6 there.
    """

    def __init__(
        self,
        slots: Slots,
        slot: str = "1.weight",
        rank: int = 256,
        origin: Literal["learned", "zero"] = "learned",
        generator: Generator | None = None,
    ) -> None:
        if slot not in slots:
            raise unknown("slot", slot, slots)
        if slots[slot].role != "weight":
            raise InputError(f"conditioner.slot = '{slot}' is no weight.")
        if rank < 1:
            raise InputError(f"conditioner.rank = {rank}: at least 1.")
        super().__init__(slots, skip=frozenset([slot]), generator=generator)
        *tiles, fan_in, fan_out = slots[slot].shape
        self.slot, self.code_shape = slot, (rank, fan_in)
        normal = torch.randn(*tiles, rank, fan_out, generator=generator)
        self.shared = nn.Parameter(normal / math.sqrt(rank * fan_in))
        self.start: nn.Parameter | None = None
        if origin == "learned":
            self.start = nn.Parameter(torch.randn(self.code_shape, generator=generator))

    def origin(self, batch: int) -> Code:
        return super().origin(batch) if self.start is None else self.start.expand(batch, -1, -1)

    def forward(self, code: Code) -> Weights:
        weight = expand_over_tiles(code.mT, self.shared.ndim + 1) @ self.shared
        return self.base.mapping() | {self.slot: weight}

    def macs(self) -> int:
        return self.code_shape[1] * self.shared.numel()


def expand_over_tiles(matrices: Tensor, ndim: int) -> Tensor:
    """Matrices (batch, in, out) with axes of 1 for tiles inserted: ``ndim`` axes in all."""
    return matrices.view(len(matrices), *(1,) * (ndim - 3), *matrices.shape[1:])
