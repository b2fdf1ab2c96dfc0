"""Features of data, kept in the cache folder, since a detector takes most of an evaluation's time.

A file is found by a hash of the images and of the detector's identity. Files may be deleted at any
time. A damaged one is computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fieldloom import atomic
from fieldloom.metrics.detectors import Detector
from fieldloom.metrics.sets import Moments, join_moments, moments
from fieldloom.modalities.sources.cache import cache_folder

HELD = 1 << 28
"""Numbers of features that are in memory at a time, where moments can stand for them: 1 GiB."""

FEW = 256
"""Images whose features are not kept, and fewer: they are computed in seconds."""


def data_features(detector: Detector, parts: Iterable[Tensor]) -> Iterator[Float[Tensor, "n d"]]:
    """Features of images (n, channel, height, width) that come in parts, each computed once."""
    return (_kept_features(detector, part) for part in parts)


def gather_features(
    parts: Iterable[Float[Tensor, "n d"]], frechet_alone: bool
) -> Float[Tensor, "m d"] | Moments:
    """Features of a set that comes in parts.

    frechet_alone: whether their Frechet distance is all that is asked for; it needs no more than
    moments, by which more than ``HELD`` numbers are then replaced.
    """
    held: list[Tensor] = []
    known: Moments | None = None
    for part in parts:
        held.append(part)
        if frechet_alone and sum(x.numel() for x in held) > HELD:
            own, held = moments(torch.cat(held)), []
            known = own if known is None else join_moments(known, own)
    if known is None:
        return torch.cat(held)
    return join_moments(known, moments(torch.cat(held))) if held else known


def _kept_features(detector: Detector, images: Tensor) -> Tensor:
    if len(images) <= FEW:
        return detector(images).cpu()
    key = hashlib.sha256(f"{detector.identity} {tuple(images.shape)}".encode())
    key.update(images.contiguous().numpy().data)
    path = cache_folder() / f"features-{detector.name}-{key.hexdigest()[:24]}.safetensors"
    found = _read(path)
    if found is None or len(found) != len(images):
        found = detector(images).cpu()
        with suppress(OSError):  # the cache cannot be written: nothing is lost but time
            content = _digest(found) + save({"features": found})
            atomic.write_atomically(path, lambda file: file.write(content))
    return found


def _read(path: Path) -> Tensor | None:
    """The features in a file; None where it is absent or damaged."""
    try:
        content = path.read_bytes()
        found = load(content[DIGEST:])["features"]
    except (OSError, SafetensorError, KeyError):
        return None
    return found if content[:DIGEST] == _digest(found) else None


DIGEST = 32


def _digest(features: Tensor) -> bytes:
    return hashlib.sha256(features.contiguous().numpy().data).digest()
