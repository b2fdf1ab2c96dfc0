"""A whole SIREN in one function equals its layers, one after another."""

from itertools import pairwise

import pytest
import torch

from fieldloom.fields import Siren
from fieldloom.nn.sirens import evaluate_siren


def layers_of(widths, generator, dtype=torch.float64):
    draw = lambda *shape: torch.randn(1, *shape, generator=generator, dtype=dtype) / shape[0] ** 0.5
    return [(draw(a, b), draw(b)) for a, b in pairwise(widths)]


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("widths", [(2, 8, 8, 3), (2, 3), (3, 8, 4, 16, 1)])
def test_layer_after_layer(widths, bounded):
    generator = torch.Generator().manual_seed(0)
    layers, coords = layers_of(widths, generator), torch.rand(1, 37, widths[0]).double()
    frequencies = [3.0 + i for i in range(len(layers))]
    h = coords[0]
    for i, ((weight, bias), w0) in enumerate(zip(layers, frequencies, strict=True)):
        h = h @ weight[0] + bias[0]
        h = (w0 * h).sin() if bounded or i < len(layers) - 1 else h
    torch.testing.assert_close(evaluate_siren(coords, layers, frequencies, bounded), h[None])


def test_the_field_gives_the_same_with_and_without_gradients():
    field = Siren(2, 3, width=16, depth=4, output="sine", offset=0.5)
    weights = {name: slot.init(None)[None] for name, slot in field.slots.items()}
    coords = torch.rand(1, 50, 2)
    plain = field(coords, weights)
    with torch.no_grad():
        torch.testing.assert_close(field(coords, weights), plain, atol=1e-5, rtol=1e-5)
