"""What a set of images has in common at high frequencies."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LOWEST = 0.25
"""The lowest of the high frequencies, in cycles a pixel: half of the highest along an axis."""


def fixed_pattern(images: Float[Tensor, "n channel height width"], lowest: float = LOWEST) -> float:
    """The share of the images' power at high frequencies that belongs to a pattern in all of them.

    (n |mean F|^2 - mean |F|^2) / ((n - 1) mean |F|^2) of the Fourier coefficients F of at least
    ``lowest`` cycles a pixel, their powers added up. It is 1 where all images have the same fine
    detail, and on average 0 where these are independent: the mean over n images keeps 1 / n of the
    power of independent detail, which is taken off. NaN of fewer than 2 images, and of images
    without such detail.
    """
    count, _, height, width = images.shape
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    high = (rows[:, None].square() + columns.square()).sqrt() >= lowest
    # each coefficient of a real image but those of the first and the last column stands for two
    twice = torch.full((len(columns),), 2.0, dtype=torch.float64)
    twice[0], twice[-1] = 1.0, 2.0 if width % 2 else 1.0
    weight = (high * twice).to(images.device)
    total = images.new_zeros((), dtype=torch.float64)
    common = torch.zeros(1, dtype=torch.complex128, device=images.device)
    for image in images:  # one at a time, since a spectrum takes four times the image's memory
        spectrum = torch.fft.rfft2(image.double())
        total, common = total + (weight * spectrum.abs().square()).sum(), common + spectrum
    shared = (weight * (common / count).abs().square()).sum()
    mean = total / count
    return float((count * shared - mean) / ((count - 1) * mean)) if count > 1 else float("nan")
