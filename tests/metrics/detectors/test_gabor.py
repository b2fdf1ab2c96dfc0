"""The detector of Gabor filters."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from draws import normal, uniform
from fieldloom.metrics.detectors.gabor import Gabor, gabor_bank
from fieldloom.metrics.sets import frechet


@pytest.mark.parametrize(
    ("shape", "width"), [((5, 1, 8, 8), 448), ((3, 3, 100, 60), 576), ((2, 3, 300, 200), 576)]
)
def test_gabor_takes_any_image(shape: tuple[int, ...], width: int) -> None:
    images = uniform(*shape)
    found = Gabor()(images)
    assert found.shape == (shape[0], width)
    assert found.isfinite().all()
    assert torch.equal(found, Gabor()(images))
    torch.testing.assert_close(torch.cat([Gabor()(x[None]) for x in images]), found)


def test_gabor_is_not_changed_by_the_batch() -> None:
    images = uniform(150, 1, 12, 12)  # more than one batch of its own
    detector = Gabor()
    parts = torch.cat([detector(part) for part in images.split([1, 100, 49])])
    torch.testing.assert_close(detector(images), parts)


def test_gabor_hears_waves_where_they_are() -> None:
    column = torch.arange(64.0)
    for octave, angle in product(range(4), range(2)):
        wave = 0.5 + 0.5 * torch.sin(2 * math.pi * column / (3 * 2**octave))
        image = wave.expand(1, 1, 64, 64)
        waves = Gabor()(image.mT if angle else image)[0, 64:].view(4, 6, 16).mean(-1)
        assert divmod(int(waves.argmax()), 6) == (octave, 3 * angle)


def test_gabor_bank() -> None:
    bank = gabor_bank(wavelength=3.0, orientations=6, radius=6)
    torch.testing.assert_close(bank.sum((-2, -1)), torch.zeros(12, 1))  # no answer to a constant
    wave = torch.cos(2 * math.pi * torch.arange(-6.0, 7) / 3).expand(13, 13)
    real, imaginary = (bank[[0, 6], 0] * wave).sum((-2, -1)).tolist()
    assert math.hypot(real, imaginary) == pytest.approx(0.5, abs=0.01)


def test_gabor_tells_noise_from_smooth_images() -> None:
    def smooth(seed: int) -> Tensor:
        coarse = uniform(300, 3, 4, 4, seed=seed)
        return nn.functional.interpolate(coarse, (32, 32), mode="bilinear")

    fresh = smooth(1)
    grainy = (fresh + 0.02 * normal(*fresh.shape)).clamp(0, 1)
    blurred = nn.functional.avg_pool2d(fresh, 9, 1, 4, count_include_pad=False)
    detector = Gabor()
    real = detector(smooth(0))
    again, grain, blur, noise = (
        frechet(real, detector(x)) for x in (fresh, grainy, blurred, uniform(*fresh.shape))
    )
    assert 2 * again < min(grain, blur)
    assert 10 * max(grain, blur) < noise
