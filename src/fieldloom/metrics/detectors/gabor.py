"""The detector ``gabor``: a thumbnail and waves by scale, orientation and place; no weights."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldloom.metrics.detectors.detector import Features, Images, check_images, identify


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
    identity = identify(name, filter)

    def __init__(self) -> None:
        self.bank = gabor_bank(wavelength=3.0, orientations=6, radius=6)

    @torch.no_grad()
    def __call__(self, images: Images) -> Features:
        check_images(images)
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


def _luminance(images: Tensor) -> Tensor:
    """(n, 1 | 3, h, w) -> (n, 1, h, w), by the weights of ITU-R BT.601."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(1, keepdim=True)
