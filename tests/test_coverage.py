"""Grids of coverage: logits are as steep as the resolution, wherever data are decoded."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import fieldloom
from fieldloom.assembly import objective_of
from fieldloom.errors import InputError
from fieldloom.metrics.paired import psnr
from fieldloom.modalities.grid import Grid
from fieldloom.recipe import merge

PARTS = {
    "modality": {"name": "image", "size": 6, "channels": 1, "range": "unit", "coverage": True},
    "loss": "bce",
    "field": {"name": "siren", "width": 8, "depth": 3},
    "conditioner": {"name": "mixture", "experts": 2, "width": 3},
    "encoder": {"name": "cavia", "steps": 1},
}


def test_steepness_is_the_ratio_of_samples_per_length():
    grid = Grid(size=(10, 20), coverage=True)
    assert grid.steepness((10, 20)) == 1
    assert grid.steepness((40, 80)) == 4
    assert grid.steepness((40, 40)) == 2, "of the coarser axis"
    assert grid.steepness((10, 20), ((0, 0.5), (0.5, 1))) == 2
    assert grid.steepness((5, 10)) == 0.5, "smaller pictures are smoother"
    assert Grid(size=10).steepness((80, 80)) == 1


def test_an_edge_is_one_pixel_wide_at_every_resolution():
    """Of a straight edge whose logit is 4 a pixel, coverage rises from 0.1 to 0.9 in a pixel."""
    grid = Grid(size=8, coverage=True)
    for size in (8, 16, 64):
        x = grid.grid(size)[0, :size, 1]
        edge = torch.sigmoid(grid.steepness((size, size)) * 4 * (x - 0.01) * 8 / 2)
        between = ((edge > 0.1) & (edge < 0.9)).sum()
        assert 1 <= between <= 2


def test_decoding_multiplies_logits_and_training_does_not():
    system = fieldloom.build(PARTS)
    code = torch.randn(2, *system.family.code_shape)
    coords = system.modality.grid(24)
    with torch.no_grad():
        logits = system.family(coords.expand(2, -1, -1), code).view(2, 1, 24, 24)
    assert torch.allclose(system.decode(code, 24).tensor, torch.sigmoid(4 * logits), atol=1e-6)
    one = code[:1]
    strips = torch.cat([strip for _, strip in system.strips(one, 24, values=100)], 1)
    assert torch.equal(strips, system.predict(one, 24).tensor[0])
    half = ((0.5, 1), (0, 0.5))
    strips = torch.cat([strip for _, strip in system.strips(one, 12, half)], 1)
    assert torch.allclose(strips, system.predict(one, 24).tensor[0, :, 12:, :12], atol=1e-6)
    data = torch.rand(2, 1, 6, 6)
    assert torch.equal(system.predict_at(code, data).tensor, system.predict(code).tensor)


def test_coverage_needs_logits():
    system = fieldloom.build(merge(PARTS, {"loss": "mse"}))
    with pytest.raises(InputError, match="set loss to 'bce', not 'mse'"):
        objective_of(system)


@pytest.mark.parametrize("size", [3, 12])
def test_data_of_another_size_are_encoded_as_they_are_decoded(size, monkeypatch):
    """The loss of a code is that of the values which its decoding gives at that size."""
    system, losses = fieldloom.build(PARTS), []

    def encode(self, signal, family, render, loss):
        losses.append(loss(render(family.bind(code), signal.coords), signal.values))
        return code

    monkeypatch.setattr(type(system.encoder), "forward", encode)
    true, code = torch.rand(1, 1, size, size), 10 * torch.randn(1, *system.family.code_shape)
    system.encode(true)
    made = system.decode(code, size).tensor
    assert losses[0].mean().item() == pytest.approx(F.binary_cross_entropy(made, true).item())
    (signal,) = system.signals(true)
    assert torch.allclose(system.fidelity(code, signal), psnr(made, true), atol=1e-3)
    assert torch.allclose(system.refine(true, steps=1).before, psnr(made, true), atol=1e-3)
