"""How weights and learned vectors are drawn."""

from __future__ import annotations

import math

import torch
from torch import nn

from fieldloom.encoders import Transformer
from fieldloom.fields import Fourier, FourierMlp


def test_weights_drawn_by_their_outputs() -> None:
    """+-1/sqrt(out): torch's draw of the transposed tensor."""
    slots = FourierMlp(
        2, 3, width=50, depth=3, init="outputs", encoding=Fourier("log", count=20)
    ).slots
    for i, (fan_in, fan_out) in enumerate([(80, 50), (50, 50), (50, 3)]):
        weight = slots[f"{i}.weight"].init(torch.Generator().manual_seed(i))
        assert weight.shape == (fan_in, fan_out)
        edge = fan_out**-0.5
        assert 0.9 * edge < weight.abs().max() <= edge
        theirs = nn.init.kaiming_uniform_(torch.empty(fan_in, fan_out), a=math.sqrt(5))
        assert 0.9 < weight.std() / theirs.std() < 1.1


def test_learned_vectors_start_at_unit_variance() -> None:
    encoder = Transformer((20, 5), (9, 9), 3, 2, width=60, depth=1, heads=2, patch=2)
    for learned in (encoder.positions, encoder.asked):
        assert 0.9 < learned.std() < 1.1
