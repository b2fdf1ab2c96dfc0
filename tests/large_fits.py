"""Untrained fits of data of any size."""

import torch

import fieldloom
from fieldloom.assembly import build

FIELD = {"name": "siren", "width": 12, "depth": 3}
SIZES = {"image": (23, 17), "audio": (301,), "video": (5, 6, 7), "sphere": (9, 12)}


def fit(modality="image", size=None, **more) -> fieldloom.System:
    """An untrained fit: no code."""
    own = {"name": modality, "size": list(size or SIZES[modality])}
    return build({"modality": own, "field": FIELD, **more})


def origin(system) -> torch.Tensor:
    return system.family.conditioner.origin(1).detach()


def joined(strips) -> torch.Tensor:
    reached, parts = 0, []
    for first, strip in strips:
        assert first == reached
        reached += strip.shape[1]
        parts.append(strip)
    return torch.cat(parts, 1)
