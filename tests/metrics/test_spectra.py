"""Fixed patterns: what images have in common at high frequencies."""

import math

import pytest
import torch

from fieldloom.metrics.spectra import fixed_pattern


def noise(count, *size, seed=0):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_independent_detail_has_none_and_equal_detail_is_all_of_it():
    images = noise(400, 15, 16)
    assert fixed_pattern(images) == pytest.approx(0, abs=2e-3)
    same = images[:1].expand(5, -1, -1, -1)
    assert fixed_pattern(same) == pytest.approx(1)
    low = torch.linspace(0, 9, 16).cos().view(1, 1, 1, 16) * torch.randn(400, 1, 1, 1)
    assert fixed_pattern(images[:5] + 3 + low[:5]) < 0.5  # what is coarse does not count


@pytest.mark.parametrize("width", [16, 17])
def test_a_pattern_of_a_quarter_of_the_power_is_a_quarter(width):
    own, pattern = noise(600, 12, width), noise(1, 12, width, seed=1)
    whole = torch.fft.fft2(pattern.double()).abs().square()
    rows, columns = torch.fft.fftfreq(12), torch.fft.fftfreq(width)
    high = (rows[:, None] ** 2 + columns**2).sqrt() >= 0.25
    power = (whole * high).sum() / (3 * high.sum() * 12 * width)  # of white noise of spread 1: 1
    share = power / (power + 3)
    assert fixed_pattern(pattern + math.sqrt(3) * own) == pytest.approx(share.item(), rel=0.03)
    assert math.isnan(fixed_pattern(own[:1]))
