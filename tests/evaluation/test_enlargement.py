"""Enlargement of data whose truth is known: exact answers, bicubic interpolation, the network."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Generator

import fieldloom
from fieldloom.evaluation import evaluator_of
from fieldloom.evaluation.enlargement import (
    FACTORS,
    choose_shown,
    describe_lack,
    double,
    interpolate,
    measure_enlargement,
    train_doubler,
)
from fieldloom.inputs import source_of
from fieldloom.metrics.paired import psnr
from fieldloom.modalities.sources.source import make_source
from fieldloom.recipe import resolve
from fieldloom.types import Data


@cache
def discs(size: int) -> torch.Tensor:
    """24 discs of all sizes and places, by the mean of 4 x 4 samples a pixel."""
    drawn = torch.rand(24, 3, 1, 1, generator=Generator().manual_seed(0))
    axis, centre = (torch.arange(4 * size) + 0.5) / (4 * size), 0.3 + 0.4 * drawn[:, :2]
    across, down = axis[None, None] - centre[:, 0], axis[None, :, None] - centre[:, 1]
    inside = across.square() + down.square() < (0.1 + 0.15 * drawn[:, 2]).square()
    return torch.nn.functional.avg_pool2d(inside[:, None].float(), 4)


@pytest.fixture(scope="module")
def source():
    source = make_source(discs(8), None, (20, 4), shuffle=False)
    return replace(source, truth=lambda which, size: discs(size[0])[which])


def test_a_field_that_is_the_truth_is_exact_at_every_factor(source, monkeypatch):
    monkeypatch.setattr("fieldloom.evaluation.enlargement.STEPS", 3)
    decode = lambda codes, size: Data(discs(size[0])[codes[:, 0, 0].long()])
    codes = source.test[:, None, None].float()
    metrics, (picture,) = measure_enlargement(decode, source, source.test, codes, "4 test data")
    found = {metric.name: metric.value for metric in metrics}
    for factor in FACTORS:
        assert found[f"psnr.x{factor}"] == pytest.approx(80, abs=1e-3)
        assert found[f"ssim.x{factor}"] == pytest.approx(1)
        low, true = source.read(source.test).tensor, discs(8 * factor)[source.test]
        bicubic = psnr(interpolate(low, factor).clamp(0, 1), true).mean().item()
        assert found[f"psnr.x{factor}.bicubic"] == pytest.approx(bicubic)
    assert found["psnr.x1.bicubic"] == found["psnr.x1.pixels"] == pytest.approx(80, abs=1e-3)
    assert picture.images.shape == (1, 1, 4 * 64, 4 * 64)
    assert {m.of for m in metrics} == {"4 test data"}


def test_bicubic_interpolation_is_the_cubic_convolution_of_keys_with_a_of_three_quarters():
    """Keys (1981), eq. 15, at the four pixels around each sample, written out for one line."""
    line = torch.rand(12, dtype=torch.float64, generator=Generator().manual_seed(0))
    ours = interpolate(line.expand(12, 12)[None, None], 4)[0, 0, 20]
    kernel = lambda x: torch.where(
        x <= 1, 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
    )
    for k in range(8, 40):  # away from the ends, whose pixels are repeated
        x = torch.tensor((k + 0.5) / 4 - 0.5, dtype=torch.float64)
        near = torch.arange(4) + int(x.floor()) - 1
        assert ours[k].item() == pytest.approx((line[near] * kernel((near - x).abs())).sum().item())


def test_the_network_learns_to_double():
    fine, coarse = discs(16), discs(8)
    untrained, trained = (double(train_doubler(fine, steps=n), coarse, 2) for n in (0, 60))
    assert torch.equal(untrained, interpolate(coarse, 2).clamp(0, 1))
    assert psnr(trained, fine).mean() > psnr(untrained, fine).mean() + 1
    assert torch.equal(trained, double(train_doubler(fine, steps=60), coarse, 2)), "always the same"


def test_what_is_shown_has_every_class():
    """Evenly spaced data of classes that take turns would be of few classes."""
    labels = [i % 4 for i in range(48)]
    some = make_source(torch.rand(48, 1, 4, 4), labels, (0.5, 0.5), shuffle=False)
    shown = choose_shown(some, torch.arange(48))
    assert sorted(labels[i] for i in shown) == [0, 0, 1, 1, 2, 2, 3, 3]
    alone = make_source(torch.rand(48, 1, 4, 4), None, (0.5, 0.5), shuffle=False)
    assert len(set(choose_shown(alone, torch.arange(48)))) == 8


def test_data_without_truth_are_said(tiny_run, source):
    assert describe_lack(replace(source, truth=None)) is not None
    assert describe_lack(source) is None
    system = fieldloom.load(tiny_run)
    system.recipe = resolve(system.recipe, {"evaluate": {"metrics": ["psnr", "enlarge"]}})
    with pytest.warns(UserWarning, match="'enlarge' compares with what is true at finer"):
        result = evaluator_of(system, source_of(system)).reconstruct("test data")
    assert {metric.name for metric in result.metrics} == {"psnr"}
