"""Conditions of denoisers: embeddings of the time, and rows of class embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def embed_sinusoid(time: Tensor, width: int, longest: float = 10000.0) -> Tensor:
    """[cos(f t) | sin(f t)], f from 1 down to 1/longest: (batch,) integers -> (batch, width)."""
    half = width // 2
    frequencies = torch.exp(-math.log(longest) * torch.arange(half, dtype=torch.float64) / half)
    angles = time.float()[:, None] * frequencies.float().to(time.device)
    return torch.cat([angles.cos(), angles.sin()], -1)


def embed_octaves(time: Tensor, bands: int, highest: float) -> Tensor:
    """[sin(2^k t) | cos(2^k t) | t], k from 0 to ``highest`` evenly: (batch,) -> (.., 2 bands + 1).

    Computed in float64, on the CPU: at k = 20 and t = 499 float32 resolves the angle only to tens
    of radians, and released weights depend on the machine that they were trained on.
    """
    exponents = torch.linspace(0, highest, bands, dtype=torch.float64)
    scalar = time.cpu().double()[:, None]
    angles = scalar * 2**exponents
    return torch.cat([angles.sin(), angles.cos(), scalar], -1)


def class_rows(label: Tensor | None, time: Tensor, rows: int) -> Tensor:
    """Rows of an embedding of classes (batch,): ``label``, or the last one, "any class"."""
    return torch.full_like(time, rows - 1) if label is None else label
