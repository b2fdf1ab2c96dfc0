"""Metrics of pairs against their loops."""

from __future__ import annotations

import math
import sys
from itertools import product

import numpy as np
import pytest
import torch

from draws import normal, one_sentence, uniform
from fieldloom.errors import InputError
from fieldloom.metrics.paired import (
    flip,
    iou,
    psnr,
    snr,
    ssim,
    ssim_between,
    ssim_protocol,
    ws_psnr,
)
from fieldloom.modalities import MODALITIES
from vectors import load

# -- slow references


@pytest.mark.parametrize(("size", "channels"), [((8, 9), 1), ((13, 12), 3)])
def test_ssim_of_all_pairs(size, channels):
    """The uniform window and the Gaussian one, against one pair at a time."""
    a, b = torch.rand(3, channels, *size), torch.rand(4, channels, *size)
    found = ssim_between(a, b)
    for i in range(3):
        each = ssim(a[i : i + 1].expand_as(b), b)
        torch.testing.assert_close(found[i].float(), each, atol=1e-6, rtol=1e-6)


# Vectors.


def test_psnr_of_mnif() -> None:
    mse = load("mnif_metrics")["psnr_in"]
    true = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    predicted = true + mse.sqrt()[:, None, None, None]
    torch.testing.assert_close(psnr(predicted, true), -10 * mse.log10(), rtol=1e-9, atol=0)


# Paired.


@pytest.mark.parametrize("shape", [(2, 1, 20), (3, 3, 6, 5), (2, 1, 3, 4, 5)])
def test_psnr_is_its_loop(shape: tuple[int, ...]) -> None:
    a, b = uniform(*shape), uniform(*shape, seed=1)
    slow = [
        -10 * math.log10(sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) / len(p))
        for p, q in zip(a.flatten(1).tolist(), b.flatten(1).tolist(), strict=True)
    ]
    np.testing.assert_allclose(psnr(a, b), slow, rtol=1e-12)


def test_psnr_of_equals_is_80() -> None:
    image = uniform(2, 3, 8, 8)
    assert psnr(image, image).tolist() == pytest.approx([80, 80])


def test_snr_is_its_loop() -> None:
    a, b = uniform(2, 2, 30), uniform(2, 2, 30, seed=1)
    slow = []
    for p, q in zip(a.flatten(1).tolist(), b.flatten(1).tolist(), strict=True):
        signal = sum((y - 0.5) ** 2 for y in q)
        slow.append(10 * math.log10(signal / sum((x - y) ** 2 for x, y in zip(p, q, strict=True))))
    np.testing.assert_allclose(snr(a, b), slow, rtol=1e-12)


def test_silence_has_no_signal() -> None:
    """Silence for a sound scores 0 dB, itself 120; of a silent original 0 is the best."""
    sound, silence = uniform(1, 1, 50), torch.full((1, 1, 50), 0.5)
    assert snr(silence.double(), sound).item() == pytest.approx(0, abs=1e-9)
    assert 100 < snr(sound, sound).item() <= 120
    assert snr(silence, silence).item() == 0
    assert snr(sound.float(), silence).item() < -50


def test_areas_of_rows() -> None:
    """An error in one row counts by the row's area; one that is the same everywhere as in PSNR."""
    areas = MODALITIES["sphere"](size=(6, 4)).areas(6)
    edges = torch.linspace(math.pi / 2, -math.pi / 2, 7, dtype=torch.float64)
    assert areas is not None
    exact = 3 * (edges[:-1].sin() - edges[1:].sin())  # of zones, mean 1
    np.testing.assert_allclose(areas, exact, rtol=2e-3)
    zero = torch.zeros(1, 1, 6, 4)
    alike = zero + 0.1
    torch.testing.assert_close(ws_psnr(alike, zero, areas), psnr(alike, zero))
    pole, equator = zero.clone(), zero.clone()
    pole[..., 0, :], equator[..., 2, :] = 0.1, 0.1
    apart = ws_psnr(pole, zero, areas) - ws_psnr(equator, zero, areas)
    assert apart.item() == pytest.approx(10 * math.log10(areas[2] / areas[0]), abs=1e-4)


def slow_ssim(a: np.ndarray, b: np.ndarray, window: np.ndarray) -> float:
    """Mean over channels and all windows that fit, each written out."""
    side, scores = len(window), []
    for x, y in zip(a, b, strict=True):
        for i, j in product(range(x.shape[0] - side + 1), range(x.shape[1] - side + 1)):
            p, q = x[i : i + side, j : j + side], y[i : i + side, j : j + side]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p = (window * p * p).sum() - mean_p**2
            var_q = (window * q * q).sum() - mean_q**2
            cov = (window * p * q).sum() - mean_p * mean_q
            scores.append(
                (2 * mean_p * mean_q + 1e-4)
                * (2 * cov + 9e-4)
                / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4))
            )
    return float(np.mean(scores))


def test_ssim_is_its_loop() -> None:
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    gaussian, flat = np.outer(bell, bell) / bell.sum() ** 2, np.full((7, 7), 1 / 49)
    for size, window in (((13, 12), gaussian), ((11, 11), gaussian), ((8, 15), flat)):
        true = uniform(2, 3, *size)
        noisy = (true + 0.3 * normal(2, 3, *size)).clamp(0, 1)
        slow = [slow_ssim(a, b, window) for a, b in zip(noisy.numpy(), true.numpy(), strict=True)]
        np.testing.assert_allclose(ssim(noisy, true), slow, rtol=1e-9)


def test_ssim_of_any_axes() -> None:
    for size in ((30,), (28, 28), (8, 8), (4, 3), (12, 12, 12), (6, 7, 8)):
        image = uniform(2, 1, *size)
        np.testing.assert_allclose(ssim(image, image), 1)
        assert (ssim(uniform(2, 1, *size, seed=1), image) < 0.5).all()


def test_ssim_protocol() -> None:
    assert ssim_protocol((64, 64)) == ssim_protocol((11, 30)) == "gaussian 11, sigma 1.5"
    assert ssim_protocol((10, 64)) == ssim_protocol((9, 9)) == "uniform 9"
    assert ssim_protocol((8, 8)) == "uniform 7"
    with pytest.raises(InputError) as error:
        ssim(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 2, 8))
    assert one_sentence(error)


def test_iou() -> None:
    true = torch.zeros(3, 1, 2, 2)
    predicted = true.clone()
    true[0, 0, 0], predicted[0, 0, :, 0] = 1, 0.6  # two cells each, one shared
    true[1, 0, 0, 0], predicted[1, 0, 0, 0] = 1, 0.4  # missed below the threshold
    assert iou(predicted, true).tolist() == pytest.approx([1 / 3, 0, 1])
    assert iou(predicted, true, threshold=0.3).tolist() == pytest.approx([1 / 3, 1, 1])


# FLIP.


def test_flip() -> None:
    pytest.importorskip("flip_evaluator", reason="needs the extra [detector]: flip-evaluator")
    true = uniform(2, 3, 24, 20).float()
    near, far = true + 0.02 * normal(*true.shape).float(), true + 0.2 * normal(*true.shape).float()
    assert flip(true, true).tolist() == [0, 0]
    assert ((flip(near, true) > 0) & (flip(near, true) < flip(far, true))).all()
    blue, green = torch.zeros(2, 1, 3, 9, 9)
    blue[:, 2], green[:, 1] = 1, 1
    assert flip(blue, green).item() == pytest.approx(1, abs=1e-3)  # the largest difference of hues
    grey = true[:, :1]
    torch.testing.assert_close(flip(0.5 * grey, grey), flip(*(x.expand(-1, 3, -1, -1)
                               for x in (0.5 * grey, grey))))  # fmt: skip
    with pytest.raises(InputError) as error:
        flip(true[:, :2], true[:, :2])
    assert one_sentence(error)


def test_flip_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    with pytest.raises(InputError, match=r"pip install 'fieldloom\[detector\]'") as error:
        flip(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    assert one_sentence(error)
