"""Where data come from. Every reader is a function ``(modality, ...) -> Source``."""

from __future__ import annotations

from typing import Any

from fieldloom.modalities.sources.arrays import array, digits
from fieldloom.modalities.sources.pictures import bundled, folder, huggingface, packed
from fieldloom.modalities.sources.source import Source, divide, existing, read_npz

SOURCES = {
    "folder": folder,
    "packed": packed,
    "array": array,
    "digits": digits,
    "skimage": bundled,
    "huggingface": huggingface,
}


def spec_of(path: str) -> dict[str, Any]:
    """The source spec for a user's path: a folder, a picture, a packed file or an array."""
    found = existing(path)
    spec: dict[str, Any] = {"name": "folder", "path": path, "split": [1.0, 0.0], "shuffle": False}
    if found.suffix == ".npz" and "offsets" in read_npz(found):
        spec["name"] = "packed"
    elif found.suffix in (".npz", ".npy"):
        spec["name"] = "array"
    return spec


__all__ = ["SOURCES", "Source", "divide", "spec_of"]
