"""Probabilities of output heads, and what is sampled from them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator

from fieldloom.priors.heads import SamplingConfig, sample_categorical
from vectors import same


def slow_probabilities(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> list[float]:
    heated = [x / temperature for x in logits]
    ranked = sorted(range(len(logits)), key=lambda i: -heated[i])[: top_k or len(logits)]
    mass = {i: math.exp(heated[i]) for i in ranked}
    whole = sum(mass.values())
    kept, reached = [], 0.0
    for i in ranked:
        if top_p is not None and reached >= top_p:
            break
        kept.append(i)
        reached += mass[i] / whole
    total = sum(mass[i] for i in kept)
    return [mass[i] / total if i in kept else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 1, 4, 99])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.9, 1.0])
def test_top_k_top_p_and_temperature(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    logits = torch.randn(5, 9, dtype=torch.float64) * 2
    found = SamplingConfig(temperature, top_k, top_p).probabilities(logits)
    slow = [slow_probabilities(row, temperature, top_k, top_p) for row in logits.tolist()]
    same(found, torch.tensor(slow, dtype=torch.float64))


def test_entries_are_sampled_by_their_probabilities() -> None:
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0]]).repeat(20_000, 1)
    noise = torch.rand(20_000, generator=Generator().manual_seed(0), dtype=torch.float64)
    fractions = torch.bincount(sample_categorical(probabilities, noise), minlength=6) / 20_000
    assert (fractions - probabilities[0]).abs().max() < 0.015
    ends = torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)
    assert sample_categorical(probabilities[:2], ends).tolist() == [1, 4]
