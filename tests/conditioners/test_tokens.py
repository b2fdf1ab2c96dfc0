"""Weights composed from tokens, against slow twins."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch

from fieldloom.conditioners import Columns, Factor, FlatWeights
from fieldloom.errors import InputError
from fieldloom.fields import FourierMlp
from fieldloom.metrics.cost import count_parameters
from transformers_by_hand import close, draw, fields, slow_norm, stirred

# -- weights from tokens


@pytest.mark.parametrize("name", ["siren", "experts"])
@pytest.mark.parametrize("groups", [1, 2, 4, 9])
def test_columns(name: str, groups: int) -> None:
    """Column c of a weight, of all its tiles, times what token c mod g says of it."""
    slots = fields()[name].slots
    own = stirred(Columns(slots, width=7, groups=groups))
    code = draw(2, *own.code_shape)
    weights, first = own(code), 0
    for i in range(3):
        base, norm_and_linear = own.base[f"{i}.weight"][0], own.maps[i]
        fan_in, fan_out = base.shape[-2:]
        count = min(groups, fan_out)
        for b, c in product(range(2), range(fan_out)):
            token = code[b, first + c % count]
            norm, linear = norm_and_linear
            token = slow_norm(token) * norm.weight + norm.bias
            scale = [(linear.weight[r] * token).sum() + linear.bias[r] for r in range(fan_in)]
            expected = base[..., c] * torch.stack(scale)
            close(weights[f"{i}.weight"][b, ..., c], expected)
        close(weights[f"{i}.bias"], own.base[f"{i}.bias"])
        first += count
    assert first == own.code_shape[0]
    assert own.macs() == sum(
        min(groups, s.shape[-1]) * 7 * s.shape[-2] for s in slots.values() if s.role == "weight"
    )


def test_columns_of_some_weights() -> None:
    slots = fields()["siren"].slots
    own = Columns(slots, width=7, groups=2, only="1.*")
    assert own.code_shape == (2, 7)
    weights = own(torch.randn(3, 2, 7))
    assert {name: len(w) for name, w in weights.items()} == {
        name: 3 if name == "1.weight" else 1 for name in slots
    }


@pytest.mark.parametrize("name", ["siren", "experts"])
@pytest.mark.parametrize("slot", ["0.weight", "1.weight"])
def test_factor(name: str, slot: str) -> None:
    """W[i, o] = sum_r code[r, i] S[r, o]; every tile has an S of its own."""
    slots = fields()[name].slots
    own = Factor(slots, slot, rank=3).double()
    code = draw(2, *own.code_shape)
    weights = own(code)
    *tiles, fan_in, fan_out = slots[slot].shape
    assert (own.code_shape, own.shared.shape) == ((3, fan_in), (*tiles, 3, fan_out))
    expected = torch.zeros(2, *slots[slot].shape, dtype=torch.float64)
    for b, r, i, o in product(range(2), range(3), range(fan_in), range(fan_out)):
        expected[b, ..., i, o] += code[b, r, i] * own.shared[..., r, o].detach()
    close(weights[slot].detach(), expected)
    assert {name for name, w in weights.items() if len(w) > 1} == {slot}
    assert slot not in set(own.base)
    assert own.macs() == math.prod(tiles) * fan_in * 3 * fan_out


def test_origins_of_a_factor() -> None:
    slots = fields()["siren"].slots
    learned, zero = (Factor(slots, rank=3, origin=origin) for origin in ("learned", "zero"))
    assert count_parameters(learned) - count_parameters(zero) == 3 * 5
    assert not zero.origin(2).any()
    close(learned.origin(2), learned.start.expand(2, -1, -1))
    learned.origin(2).sum().backward()
    close(learned.start.grad, torch.full((3, 5), 2.0))


def test_factors_start_as_published() -> None:
    """N(0, 1) of the code, N(0, 1) / sqrt(R in) of the shared one."""
    own = Factor(FourierMlp(2, 3, width=64, depth=3).slots, rank=50)
    assert 0.9 < own.start.std() < 1.1
    assert 0.9 < own.shared.std() * math.sqrt(50 * 64) < 1.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: Columns(s, groups=0), "groups = 0"),
        (lambda s: Columns(s, only="*.bias"), r"'\*.bias' matches no weight"),
        (lambda s: Columns(s, only="9.*"), "9"),
        (lambda s: Factor(s, "1.bias"), "'1.bias' is no weight"),
        (lambda s: Factor(s, "1.wieght"), "did you mean '1.weight'"),
        (lambda s: Factor(s, rank=0), "rank = 0"),
    ],
)
def test_what_conditioners_refuse(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(fields()["siren"].slots)


# -- descent through attention, and from an encoder's answer


def test_unpacking_gives_what_was_packed() -> None:
    direct = FlatWeights(fields()["experts"].slots, width=7)
    assert direct.layout is not None
    weights = {name: draw(2, *slot.shape) for name, slot in direct.layout.items()}
    close(direct.unpack(direct.pack(weights)), weights, rtol=0, atol=0)
