"""Conditions of denoisers: embeddings of the time, and rows of class embeddings."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from fieldloom.constants import place
from fieldloom.types import as_float64


def embed_sinusoid(time: Tensor, width: int, longest: float = 10000.0) -> Tensor:
    """[cos(f t) | sin(f t)], f from 1 down to 1/longest: (batch,) integers -> (batch, width)."""
    angles = time.float()[:, None] * place(_falling(width // 2, longest), time.device)
    return torch.cat([angles.cos(), angles.sin()], -1)


@lru_cache(maxsize=64)
def _falling(count: int, longest: float) -> Tensor:
    """Frequencies longest^(-j / count), j from 0 on: (count,) float32."""
    steps = torch.arange(count, dtype=torch.float64, device="cpu")
    return torch.exp(-math.log(longest) * steps / count).float()


def embed_octaves(time: Tensor, bands: int, highest: float) -> Tensor:
    """[sin(2^k t) | cos(2^k t) | t], k from 0 to ``highest`` evenly: (batch,) -> (.., 2 bands + 1).

    Computed in float64, on the CPU where the device has none: at k = 20 and t = 499 float32
    resolves the angle only to tens of radians, and released weights depend on the machine that they
    were trained on.
    """
    scalar = as_float64(time)[:, None]
    angles = scalar * place(_rising(bands, highest), scalar.device)
    return torch.cat([angles.sin(), angles.cos(), scalar], -1)


@lru_cache(maxsize=64)
def _rising(bands: int, highest: float) -> Tensor:
    """2^k, k from 0 to ``highest`` evenly: (bands,) float64."""
    return 2 ** torch.linspace(0, highest, bands, dtype=torch.float64, device="cpu")


def class_rows(label: Tensor | None, time: Tensor, rows: int) -> Tensor:
    """Rows of an embedding of classes (batch,): ``label``, or the last one, "any class"."""
    return torch.full_like(time, rows - 1) if label is None else label
