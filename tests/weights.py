"""Small codes of weights."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from fieldloom.conditioners import FlatWeights
from fieldloom.fields import Siren


def codes(width: int | None = 7) -> FlatWeights:
    """Codes of a small SIREN; tokens of 7 leave some padding."""
    return FlatWeights(Siren(2, 1, width=3, depth=3).slots, width=width)


def weights(width: int | None = None, **own: object) -> FlatWeights:
    """All weights of a small perceptron, one layer of which is wider than the others."""
    field = Siren(2, 3, width=4, depth=3, **own)
    return FlatWeights(field.slots, width=width)


def some(conditioner: FlatWeights, count: int = 60, seed: int = 0) -> Tensor:
    """Codes around the start, each layer at a scale of its own."""
    generator = Generator().manual_seed(seed)
    shapes = {name: slot.shape for name, slot in conditioner.layout.items()}
    noise = {
        name: 10.0 ** -int(name[0]) * torch.randn(count, *shape, generator=generator)
        for name, shape in shapes.items()
    }
    return conditioner.origin(1).detach() + conditioner.pack(noise)
