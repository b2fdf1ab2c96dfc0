"""Metrics against vectors of published code, slow references in float64, and theory."""

from __future__ import annotations

import math
import re
import sys
from itertools import pairwise, product
from types import ModuleType

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Generator, Tensor, nn

from fieldloom.errors import InputError
from fieldloom.metrics import sets
from fieldloom.metrics.cost import count_field_weights, count_macs, count_parameters
from fieldloom.metrics.features import DETECTORS, Gabor, Inception, gabor_bank
from fieldloom.metrics.paired import iou, psnr, ssim, ssim_protocol
from fieldloom.metrics.probes import Classifier
from fieldloom.metrics.sets import frechet, kid, nearest, prdc
from fieldloom.permit import Permit
from fieldloom.types import Slot
from vectors import load

PRDC = ("precision", "recall", "density", "coverage")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> bool:
    message = str(error.value)
    return message.endswith(".") and "\n" not in message and len(re.findall(r"\. ", message)) == 0


# Vectors.


def test_prdc_of_mnif() -> None:
    vectors = load("mnif_metrics")
    found = prdc(vectors["real"], vectors["fake"])
    assert {name: found[name] for name in PRDC} == {
        name: pytest.approx(float(vectors[name]), rel=1e-9) for name in PRDC
    }


def test_frechet_of_mnif() -> None:
    vectors = load("mnif_metrics")
    real, fake = vectors["real"], vectors["fake"]
    # The published code took the means and their distance in float32, ours are float64.
    coarse = real.numpy().mean(0) - fake.numpy().mean(0)
    exact = (real.double().mean(0) - fake.double().mean(0)).numpy()
    expected = float(vectors["fid"]) - float(coarse @ coarse) + float(exact @ exact)
    assert frechet(real, fake) == pytest.approx(expected, rel=1e-9)
    assert frechet(real, fake) == pytest.approx(float(vectors["fid"]), rel=1e-6)


def test_psnr_of_mnif() -> None:
    mse = load("mnif_metrics")["psnr_in"]
    true = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    predicted = true + mse.sqrt()[:, None, None, None]
    torch.testing.assert_close(psnr(predicted, true), -10 * mse.log10(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("k", [3, 5])
def test_neighbourhoods_of_vectors(k: int) -> None:
    vectors = load("feature_metrics")
    found = prdc(vectors["real"], vectors["fake"], k)
    for name in PRDC:
        assert found[name] == pytest.approx(float(vectors[f"k{k}.{name}"]), rel=1e-9)
    p, r = found["precision"], found["recall"]
    assert found["f1"] == pytest.approx(2 * p * r / (p + r))


def test_frechet_and_kid_of_vectors() -> None:
    v = load("feature_metrics")
    assert frechet(v["real"], v["fake"]) == pytest.approx(float(v["frechet"]), rel=1e-9)
    assert frechet(v["low_real"], v["low_fake"]) == pytest.approx(float(v["low_frechet"]), rel=1e-9)
    assert kid(v["real"], v["fake"]) == pytest.approx(float(v["kid"]), rel=1e-9)


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


# Sets.


def test_identical_sets() -> None:
    real = normal(50, 5)
    fake = real[torch.randperm(50, generator=Generator().manual_seed(0))]
    assert frechet(real, fake) == pytest.approx(0, abs=1e-12)
    found = prdc(real, fake)
    assert set(found.values()) == {1}  # of density: each ball holds its centre and 2 inside
    distances, indices = nearest(fake, real)  # a generator that copies its training set
    assert (distances == 0).all()
    assert (real[indices] == fake).all()


def test_collapsed_generator() -> None:
    real = normal(200, 5)
    for spread in (0.0, 1e-3):
        found = prdc(real, real[:1] + spread * normal(100, 5, seed=1))
        assert found["precision"] == 1  # blind to collapse
        assert found["recall"] <= 0.01
        assert found["coverage"] <= 0.1


def test_far_generator_has_no_f1() -> None:
    found = prdc(normal(30, 4), normal(30, 4) + 100)
    assert set(found.values()) == {0.0}


def test_duplicates_in_the_data_have_empty_balls() -> None:
    real = normal(4, 40).repeat_interleave(5, 0) + 1000  # every 3rd neighbour is 0 away
    assert prdc(real, real)["precision"] == 0  # strict "<", also after rounding
    assert prdc(real, real, k=5)["precision"] == 1


def test_frechet_of_two_gaussians() -> None:
    mean, std = torch.tensor([1.0, -2, 0, 0.5]), torch.tensor([0.5, 1, 2, 3])
    fake = normal(20_000, 4, seed=1) * std + mean
    closed = float(mean.square().sum() + (1 - std).square().sum())
    assert frechet(normal(20_000, 4), fake) == pytest.approx(closed, rel=0.03)


def by_sqrtm(real: np.ndarray, fake: np.ndarray) -> float:
    """The trace term by the symmetric form, which scipy can also do when it is singular."""
    c, d = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    values, basis = scipy.linalg.eigh(c)
    root = basis * np.sqrt(values.clip(0)) @ basis.T
    trace = np.sqrt(scipy.linalg.eigvalsh(root @ d @ root).clip(0)).sum()
    gap = real.mean(0) - fake.mean(0)
    return float(gap @ gap + np.trace(c) + np.trace(d) - 2 * trace)


@pytest.mark.parametrize(("n", "m"), [(60, 50), (60, 5), (4, 50), (6, 5), (8, 8), (9, 8)])
def test_frechet_of_any_rank(n: int, m: int) -> None:
    mix = normal(8, 8, seed=2)
    real, fake = normal(n, 8) @ mix, normal(m, 8, seed=1) + 1
    assert frechet(real, fake) == pytest.approx(by_sqrtm(real.numpy(), fake.numpy()), rel=1e-6)
    assert frechet(real, fake) == pytest.approx(frechet(fake, real), rel=1e-12)
    if min(n, m) > 8:
        product_root = scipy.linalg.sqrtm(np.cov(real.T.numpy()) @ np.cov(fake.T.numpy()))
        spread = real.var(0).sum() + fake.var(0).sum()
        gap = (real.mean(0) - fake.mean(0)).square().sum()
        expected = float(gap + spread) - 2 * np.trace(product_root).real
        assert frechet(real, fake) == pytest.approx(expected, rel=1e-9)


def test_kid_is_unbiased() -> None:
    scores = [kid(normal(20, 3, seed=i), normal(30, 3, seed=100 + i)) for i in range(60)]
    assert min(scores) < 0 < max(scores)
    assert abs(np.mean(scores)) < 3 * np.std(scores) / math.sqrt(len(scores))


def test_nearest_is_brute_force() -> None:
    queries, references = normal(7, 3).float(), normal(9, 3, seed=1).float()
    table = [[math.dist(q, r) for r in references.tolist()] for q in queries.tolist()]
    distances, indices = nearest(queries, references)
    assert indices.tolist() == [row.index(min(row)) for row in table]
    np.testing.assert_allclose(distances, [min(row) for row in table], rtol=1e-12)


def test_nearest_without_self() -> None:
    points = normal(12, 3)
    distances, indices = nearest(points, points, exclude_self=True)
    table = torch.cdist(points, points).fill_diagonal_(math.inf)
    assert indices.tolist() == table.argmin(1).tolist()
    torch.testing.assert_close(distances, table.amin(1))


@pytest.mark.parametrize("block", [1, 37, 200])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal(23, 6), normal(17, 6, seed=1)

    def all_of_them() -> list[Tensor]:
        own = nearest(real, real, exclude_self=True)
        numbers = [kid(real, fake), *prdc(real, fake).values()]
        return [*nearest(fake, real), *own, torch.tensor(numbers)]

    whole = all_of_them()
    monkeypatch.setattr(sets, "BLOCK", block)
    torch.testing.assert_close(all_of_them(), whole)


def test_far_from_the_origin() -> None:
    real, fake = normal(40, 4), normal(30, 4, seed=1)
    assert frechet(real + 1e6, fake + 1e6) == pytest.approx(frechet(real, fake), rel=1e-6)
    assert prdc(real + 1e6, fake + 1e6) == prdc(real, fake)


def test_errors_of_sets() -> None:
    one, three, wide = normal(1, 4), normal(3, 4), normal(5, 6)
    wrong = [
        lambda: frechet(one, three),
        lambda: frechet(three, wide),
        lambda: kid(three, one),
        lambda: prdc(three, normal(9, 4)),
        lambda: prdc(three, three, k=0),
        lambda: nearest(three, wide),
        lambda: nearest(one, one, exclude_self=True),
        lambda: nearest(three, normal(4, 4), exclude_self=True),
        lambda: frechet(three, three * math.nan),
    ]
    for call in wrong:
        with pytest.raises(InputError) as error:
            call()
        assert one_sentence(error), error.value


# Detectors.


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


def test_detectors_name_themselves() -> None:
    assert set(DETECTORS) == {"gabor", "inception"}
    for name, detector in DETECTORS.items():
        assert detector.name == name
        assert detector.filter
    with pytest.raises(InputError) as error:
        Gabor()(torch.zeros(1, 4, 8, 8))
    assert one_sentence(error)


def test_inception_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", raising=False)
    with pytest.raises(InputError, match="torch-fidelity and torchvision") as error:
        Inception(permit=Permit(network=True))
    assert one_sentence(error)
    with pytest.raises(InputError, match="no such file") as error:
        Inception("absent.pth")
    assert one_sentence(error)


class Recorder(nn.Module):
    """Stands for the network of torch-fidelity: keeps the calling conventions, not the weights."""

    def __init__(self, name: str, features_list: list[str], weights: str | None) -> None:
        super().__init__()
        assert features_list == ["2048"]
        if weights is None:
            raise OSError("no network")

    def forward(self, images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        return (images.flatten(2)[..., 0].float(),)


def test_inception_speaks_to_its_network(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Recorder
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    with pytest.raises(InputError, match="name a local file .* or give --network"):
        Inception()
    with pytest.raises(InputError, match="no network") as error:
        Inception(permit=Permit(network=True))
    assert one_sentence(error)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a file of tensors")
    with pytest.raises(InputError, match="cannot be loaded") as error:
        Inception(str(broken))
    assert one_sentence(error)

    good = tmp_path / "good.pth"
    torch.save({}, good)
    images = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.2])[:, None, None, None].expand(-1, 1, 4, 4)
    found = Inception(str(good))(images.repeat(20, 1, 1, 1))
    assert found.shape == (100, 3)
    assert found[:5, 0].tolist() == [0, 0, 128, 255, 255]


# Cost.


def slots_of(*sizes: int) -> dict[str, Slot]:
    slots = {}
    for i, (a, b) in enumerate(pairwise(sizes)):
        slots[f"{i}.weight"] = Slot((a, b), lambda g, s=(a, b): torch.zeros(s), "weight")
        slots[f"{i}.bias"] = Slot((b,), lambda g, b=b: torch.zeros(b), "bias")
    return slots


def test_cost_of_mnif() -> None:
    small, large = slots_of(2, *[64] * 5, 3), slots_of(2, *[128] * 6, 3)
    assert count_field_weights(small) == 17_027
    assert count_field_weights(large) == 83_331
    assert count_macs(small, 0, 64**2) == 4096 * 16_704
    assert count_macs(small, 128 * 256 * 6, 64**2) / 1e9 == pytest.approx(0.069, abs=5e-4)
    assert count_macs(large, 512 * 384 * 7, 64**2) / 1e9 == pytest.approx(0.340, abs=5e-4)


def test_cost_of_tiles_inputs_and_buffers() -> None:
    nothing = lambda generator: torch.zeros(0)
    slots = {
        "features": Slot((2, 8), nothing, "fixed"),
        "tokens": Slot((4, 5), nothing, "input", passes=2),  # scores, and what they weigh
        "grid": Slot((8, 8, 5), nothing, "input", passes=0),  # looked up
        "0.weight": Slot((4, 4, 16, 3), nothing, "weight"),
        "0.bias": Slot((4, 4, 3), nothing, "bias"),
    }
    # random features are a matrix, too
    assert count_macs(slots, 7, 10) == 10 * (2 * 8 + 2 * 4 * 5 + 16 * 3) + 7
    assert count_field_weights(slots) == 16 * (16 * 3 + 3)


def test_parameters_are_the_trained_ones() -> None:
    module = nn.Linear(3, 4)
    module.bias.requires_grad_(False)
    assert count_parameters(module) == 12


# Probes.


def test_classifier() -> None:
    def digits(seed: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(90) % 3
        images = 0.1 * normal(90, 1, 6, 6, seed=seed)
        images[torch.arange(90), 0, labels] += 1  # one bright row names the class
        return images, labels

    classifier = Classifier(*digits(0))
    images, labels = digits(1)
    assert classifier.score(images, labels) == 1
    assert classifier.score(images, (labels + 1) % 3) == 0
    assert classifier.score(images.roll(1, 0), labels) == 0
    with pytest.raises(InputError) as error:
        Classifier(images, torch.zeros_like(labels))
    assert one_sentence(error)
