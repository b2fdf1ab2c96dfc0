"""Activations by their papers' formulas, and their starts."""

from __future__ import annotations

import math

import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.fields import WAVES, Siren, WaveMlp

FORMULAS = {
    "sine": lambda z, w, s: math.sin(w * z),
    "h-sine": lambda z, w, s: math.sin(w * math.sinh(2 * z)),  # the first layer
    "finer": lambda z, w, s: math.sin(w * (abs(z) + 1) * z),
    "gaussian": lambda z, w, s: math.exp(-((s * z) ** 2)),
    "gabor": lambda z, w, s: math.cos(w * z) * math.exp(-((s * z) ** 2)),
}


@pytest.mark.parametrize("name", WAVES)
def test_activations_are_their_formulas(name):
    field = WaveMlp(1, 1, activation=name, width=1, depth=3, frequency=3.0, scale=0.7)
    one, zero = torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    weights = {n: one if n.endswith("weight") else zero for n in field.slots}
    coords = torch.linspace(-1.3, 1.3, 9, dtype=torch.float64)
    later = FORMULAS["sine" if name == "h-sine" else name]
    expected = [later(FORMULAS[name](z, 3.0, 0.7), 3.0, 0.7) for z in coords.tolist()]
    found = field(coords.view(1, -1, 1), weights).flatten()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_sines_are_a_siren():
    siren, field = Siren(2, 3, width=6, depth=3), WaveMlp(2, 3, activation="sine", width=6, depth=3)
    draw = lambda one: {
        n: s.init(torch.Generator().manual_seed(4))[None] for n, s in one.slots.items()
    }
    weights = draw(siren)
    torch.testing.assert_close(draw(field), weights, rtol=0, atol=0)
    coords = torch.rand(1, 7, 2)
    torch.testing.assert_close(field(coords, weights), siren(coords, weights))


def test_noise_widens_the_first_two_layers():
    """arXiv:2509.09719: variance of U(-b, b), plus (s / w0)^2."""
    field = WaveMlp(3, 1, activation="sine", width=400, depth=4, noise=(60.0, 1.5))
    stds = [field.slots[f"{i}.weight"].init(None).std().item() for i in range(3)]
    bounds = (1 / 3, math.sqrt(6 / 400) / 30, math.sqrt(6 / 400) / 30)
    for std, bound, noise in zip(stds, bounds, (60.0, 1.5, 0.0), strict=True):
        assert std == pytest.approx(math.hypot(bound / math.sqrt(3), noise / 30), rel=0.1)


def test_the_first_bias_has_a_bound_of_its_own():
    field = WaveMlp(2, 1, width=200, depth=3, first_bias=5.0)
    assert 4 < field.slots["0.bias"].init(None).abs().max() <= 5
    assert field.slots["1.bias"].init(None).abs().max() <= 200**-0.5


@pytest.mark.parametrize(
    "own", [dict(frequency=0.0), dict(scale=-1.0), dict(noise=(-1.0, 0.0)), dict(first_bias=-1.0)]
)
def test_numbers_out_of_range_are_refused(own):
    with pytest.raises(InputError, match="none but the offset negative"):
        WaveMlp(2, 3, **own)


@pytest.mark.parametrize(
    "own",
    [dict(frequency=math.inf), dict(scale=math.nan), dict(noise=(math.inf, 0.0)),
     dict(first_bias=math.inf), dict(offset=math.inf)],
)  # fmt: skip
def test_numbers_that_are_not_finite_are_refused(own):
    with pytest.raises(InputError, match="all finite, the first two above 0"):
        WaveMlp(2, 3, **own)
