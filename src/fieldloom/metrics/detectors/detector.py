"""What a detector is: the features of images that set metrics compare."""

from __future__ import annotations

import hashlib
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fieldloom.errors import InputError

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

    identity: str
    """Tells apart detectors with other features: a hash of the weights and of what precedes them.
    Features that are kept in a file are used again only by the same identity."""

    def __call__(self, images: Images) -> Features: ...


def identify(*parts: str) -> str:
    """A short hash of what makes a detector's features."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def check_images(images: Tensor) -> None:
    """Raise InputError for images that no detector sees."""
    if images.shape[1] not in (1, 3):
        raise InputError(f"Images of {images.shape[1]} channels: a detector sees 1 or 3.")
    if not len(images):
        raise InputError("No images: a detector needs at least 1.")
