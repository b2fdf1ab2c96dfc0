"""Descent on codes by relative steps."""

from __future__ import annotations

from fieldloom.conditioners import Factor, FlatWeights
from transformers_by_hand import close, draw, fields


def test_relative_steps() -> None:
    """A step is multiplied by the squared length of the weight: the whole factor, or each slot."""
    slots = fields()["siren"].slots
    code = draw(2, 3, 5)
    close(Factor(slots, rank=3).squared_norms(code)[1], code[1].square().sum().expand(3, 5))
    direct = FlatWeights(slots, only="*.weight", width=7)
    code = draw(2, *direct.code_shape)
    norms = direct.unpack(direct.squared_norms(code))
    for name, weight in direct.unpack(code).items():
        for b in (0, 1):
            close(norms[name][b], weight[b].square().sum().expand_as(weight[b]))
