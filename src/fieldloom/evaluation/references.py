"""Reference features: those of training data that samples are compared with, kept in a file.

A detector takes most of the time of a quick judgement. Features of data that never change ship with
the package; a hash of the data and of the detector says whether a file's are these.
"""

from __future__ import annotations

import hashlib
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Generator, Tensor

from fieldloom import atomic
from fieldloom.metrics.detectors import Detector
from fieldloom.modalities.sources import Source
from fieldloom.progress import announce

COUNT = 100
"""Training data whose features are kept."""


def choose_references(source: Source) -> Tensor:
    """Indices of ``COUNT`` training data of a source, drawn at random, always the same."""
    order = torch.randperm(len(source.train), generator=Generator().manual_seed(0))
    return source.train[order[:COUNT]]


def key_of(fingerprint: str, detector: Detector) -> str:
    """A hash of the data, by their fingerprint, of the detector, and of how many are taken."""
    parts = (fingerprint, detector.identity, str(COUNT))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def compute_references(source: Source, detector: Detector) -> Tensor:
    """Features of the data of ``choose_references``: (n, d), half precision."""
    return detector(source.read(choose_references(source)).tensor).cpu().half()


def write_references(features: Tensor, key: str, path: Path) -> None:
    """Write features and their key as safetensors."""
    content = save({"features": features}, {"key": key})
    atomic.write_atomically(path, lambda file: file.write(content))


def read_references(path: Path, key: str) -> Tensor | None:
    """The features in a file, float32; None where there are none of this key."""
    try:
        with safe_open(path, "pt") as held:
            if (held.metadata() or {}).get("key") != key:
                return None
            return held.get_tensor("features").float()
    except (OSError, SafetensorError):
        return None


def shipped(name: str, detector: Detector) -> Traversable:
    """The file of the package that keeps a detector's features of the data of a name."""
    return files("fieldloom.evaluation") / "references" / f"{name}-{detector.name}.safetensors"


def load_references(name: str, source: Source, detector: Detector) -> Tensor:
    """Features of a source's references: those that ship with the package, or else computed.

    name: of the data, as of ``shipped``.
    """
    with as_file(shipped(name, detector)) as path:
        found = read_references(path, key_of(source.facts()["fingerprint"], detector))
    if found is None:
        announce(
            f"features of {COUNT} training data are computed: none of these data and of detector "
            f"'{detector.name}' come with the package."
        )
        found = compute_references(source, detector).float()
    return found
