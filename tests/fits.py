"""Small signals, families and recipes of fits."""

import torch

from fieldloom import recipe
from fieldloom.conditioners import Mixture
from fieldloom.family import Family
from fieldloom.fields import Siren
from fieldloom.types import Signal

POINTS = 30


def signals(count=5, seed=1) -> Signal:
    """Different scattered points of each signal; their values are of different size."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.rand(count, POINTS, 2, generator=generator, dtype=torch.float64) * 2 - 1
    values = torch.randn(count, POINTS, 1, generator=generator, dtype=torch.float64)
    size = torch.linspace(0.1, 2, count, dtype=torch.float64)[:, None, None]
    return Signal(coords, size * values, 7 + torch.arange(count))


TINY = [
    "source={ name = 'digits', split = [40, 10] }",
    "modality={ name = 'image', size = 8, channels = 1, range = 'unit' }",
    "field={ name = 'fourier-mlp', width = 8, depth = 3, features = 'octaves', count = 2 }",
    "conditioner=flat-weights",
    "encoder={ name = 'fit', steps = 6, points = 16, draw = 'anew', keep = 'last' }",
    "loss=bce",
    "train.field.steps=1",
]


def tiny(*more: str) -> recipe.Recipe:
    own = recipe.load("learned-init:tiny", [*TINY, *more])
    own["train"]["field"].pop("points")  # training sees all of them
    return {key: value for key, value in own.items() if key != "objective"}


def family() -> Family:
    torch.manual_seed(0)
    field = Siren(2, 1, width=6, depth=3, frequency=4.0)
    return Family(field, Mixture(field.slots, experts=3, width=4)).double()
