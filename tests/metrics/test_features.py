"""Detectors of features."""

from __future__ import annotations

import math
import sys
from itertools import product
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from draws import normal, one_sentence, uniform
from fieldloom.errors import InputError
from fieldloom.metrics.features import DETECTORS, Gabor, Inception, gabor_bank
from fieldloom.metrics.sets import frechet
from fieldloom.permit import Permit


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
