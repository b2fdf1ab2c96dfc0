"""Parameters and multiply-accumulates."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from fieldloom.metrics.cost import count_field_weights, count_macs, count_parameters
from fieldloom.types import Slot


def slots_of(*sizes: int) -> dict[str, Slot]:
    slots = {}
    for i, (a, b) in enumerate(pairwise(sizes)):
        slots[f"{i}.weight"] = Slot((a, b), lambda g, s=(a, b): torch.zeros(s), "weight")
        slots[f"{i}.bias"] = Slot((b,), lambda g, b=b: torch.zeros(b), "bias")
    return slots


def test_cost_of_mnif() -> None:
    small, large = slots_of(2, *[64] * 5, 3), slots_of(2, *[128] * 6, 3)
    assert count_field_weights(small) == 17_027
    assert count_field_weights(large) == 83_331
    assert count_macs(small, 0, 64**2) == 4096 * 16_704
    assert count_macs(small, 128 * 256 * 6, 64**2) / 1e9 == pytest.approx(0.069, abs=5e-4)
    assert count_macs(large, 512 * 384 * 7, 64**2) / 1e9 == pytest.approx(0.340, abs=5e-4)


def test_cost_of_tiles_inputs_and_buffers() -> None:
    nothing = lambda generator: torch.zeros(0)
    slots = {
        "features": Slot((2, 8), nothing, "fixed"),
        "tokens": Slot((4, 5), nothing, "input", passes=2),  # scores, and what they weigh
        "grid": Slot((8, 8, 5), nothing, "input", passes=0),  # looked up
        "0.weight": Slot((4, 4, 16, 3), nothing, "weight"),
        "0.bias": Slot((4, 4, 3), nothing, "bias"),
    }
    # random features are a matrix, too
    assert count_macs(slots, 7, 10) == 10 * (2 * 8 + 2 * 4 * 5 + 16 * 3) + 7
    assert count_field_weights(slots) == 16 * (16 * 3 + 3)


def test_parameters_are_the_trained_ones() -> None:
    module = nn.Linear(3, 4)
    module.bias.requires_grad_(False)
    assert count_parameters(module) == 12
