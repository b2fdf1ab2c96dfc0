"""Detectors: the features of images that set metrics compare."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.permit import NOTHING, Permit

Images = Float[Tensor, "n channel height width"]
Features = Float[Tensor, "n d"]


@runtime_checkable
class Detector(Protocol):
    """Features (n, d) of images (n, 1 | 3, h, w) in [0, 1], of any number and size.

    Metrics are comparable only for the same ``name`` and ``filter`` (how images are resized).
    """

    name: str
    filter: str
    metric: str
    """The name of the Frechet distance of these features: ``fid`` for Inception only."""

    def __call__(self, images: Images) -> Features: ...


class Gabor:
    """A thumbnail, and log magnitudes of Gabor filters by scale, orientation and position.

    It needs no weights. Its Frechet distance ranks generators, but is NOT the FID, which is defined
    by the Inception network.

    thumbnail: 8 x 8, every channel                                     64 channel features
    waves:     of the luminance; wavelengths 3, 6, 12, 24 of 64 pixels,
               6 orientations, modulus, 4 x 4 cells                     384 features
    """

    name = "gabor"
    filter = "bilinear, antialiased, to 64x64"
    metric = "frechet"

    def __init__(self) -> None:
        self.bank = gabor_bank(wavelength=3.0, orientations=6, radius=6)

    @torch.no_grad()
    def __call__(self, images: Images) -> Features:
        _check(images)
        return torch.cat([self._features(part) for part in images.split(128)])

    def _features(self, images: Tensor) -> Tensor:
        small = F.interpolate(
            images.float(), (64, 64), mode="bilinear", align_corners=False, antialias=True
        )
        thumbnail = F.adaptive_avg_pool2d(small, 8).flatten(1)
        return torch.cat([thumbnail, self._waves(_luminance(small)).flatten(1)], 1)

    def _waves(self, image: Tensor) -> Tensor:
        """(n, 1, 64, 64) -> (n, scales * orientations, 4, 4)."""
        bank, radius = self.bank.to(image), self.bank.shape[-1] // 2
        scales = []
        for octave in range(4):  # one filter bank for all scales, since the image shrinks
            scale = F.avg_pool2d(image, 2**octave)
            real, imaginary = F.conv2d(F.pad(scale, [radius] * 4, "reflect"), bank).chunk(2, 1)
            scales.append(F.adaptive_avg_pool2d(torch.hypot(real, imaginary), 4))
        return (torch.cat(scales, 1) + 1 / 255).log()  # magnitudes below a grey level hardly count


class Inception:
    """The last pool of FID's Inception network, 2048 wide (arXiv:1706.08500), by torch-fidelity.

    weights: a local file of the network; None takes torch-fidelity's own from the cache of
             torch.hub, or downloads it.
    """

    name = "inception"
    filter = "8 bit, bilinear as in TensorFlow 1 without antialiasing, to 299x299"
    metric = "fid"

    def __init__(self, weights: str | None = None, permit: Permit = NOTHING) -> None:
        if weights is None and not permit.network:
            raise InputError(
                "Detector 'inception' would fetch its weights: name a local file by "
                "evaluate.weights, or give --network."
            )
        if weights is not None and not Path(weights).is_file():
            raise InputError(f"detector.weights = {quote_path(weights)}: there is no such file.")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (ImportError, RuntimeError) as reason:  # Runtime: torchvision of another torch
            raise InputError(
                "Detector 'inception' needs torch-fidelity and torchvision, which cannot be "
                f"imported ({_sentence(reason)}): install fieldloom[fid], or take detector 'gabor'."
            ) from reason
        try:
            held = None if weights is None else weights_only_copy(weights)
            self.network = FeatureExtractorInceptionV3(self.name, ["2048"], held)
        except MemoryError:
            raise
        except Exception as reason:  # unpickling fails in many ways on a broken file
            raise InputError(
                f"The weights of detector 'inception' cannot be loaded ({_sentence(reason)}): "
                "name a good local file by detector.weights."
            ) from reason

    @torch.no_grad()
    def __call__(self, images: Images) -> Features:
        _check(images)
        self.network.to(images.device)
        return torch.cat([self._features(part) for part in images.split(64)])

    def _features(self, images: Tensor) -> Tensor:
        levels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        return self.network(levels.expand(-1, 3, -1, -1))[0]


def weights_only_copy(path: str) -> io.BytesIO:
    """A copy in memory of a file of weights that contains its tensors alone.

    torch-fidelity unpickles the file, which could run any code that it contains.
    """
    held, written = torch.load(path, map_location="cpu", weights_only=True), io.BytesIO()
    torch.save(held, written)
    written.seek(0)
    return written


def gabor_bank(
    wavelength: float, orientations: int, radius: int
) -> Float[Tensor, "filters 1 side side"]:
    """Complex waves times a Gaussian window: first all real parts, then all imaginary ones.

    A wave of amplitude a at the wavelength gives the modulus a / 2, a constant gives 0.
    """
    step = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(step, step, indexing="ij")
    # The bandwidth is a quarter of the frequency: six orientations overlap at one deviation.
    envelope = torch.exp(-(x.square() + y.square()) / 2 / (2 * wavelength / math.pi) ** 2)
    envelope /= envelope.sum()
    angles = torch.arange(orientations, dtype=torch.float64)[:, None, None] * math.pi / orientations
    phase = 2 * math.pi / wavelength * (x * angles.cos() + y * angles.sin())
    wave = torch.polar(torch.ones_like(phase), phase)
    mean = (envelope * wave).sum((-2, -1), keepdim=True)
    filters = envelope * (wave - mean)
    return torch.cat([filters.real, filters.imag])[:, None].float()


def _check(images: Tensor) -> None:
    if images.shape[1] not in (1, 3):
        raise InputError(f"Images of {images.shape[1]} channels: a detector sees 1 or 3.")
    if not len(images):
        raise InputError("No images: a detector needs at least 1.")


def _luminance(images: Tensor) -> Tensor:
    """(n, 1 | 3, h, w) -> (n, 1, h, w), by the weights of ITU-R BT.601."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def _sentence(reason: Exception) -> str:
    """The first sentence of an error's message."""
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return shorten(first.partition(". ")[0].rstrip(".:"))


DETECTORS = {"gabor": Gabor, "inception": Inception}
