"""Probes of codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from draws import normal, one_sentence
from fieldloom.errors import InputError
from fieldloom.metrics.probes import Classifier


def test_classifier() -> None:
    def digits(seed: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(90) % 3
        images = 0.1 * normal(90, 1, 6, 6, seed=seed)
        images[torch.arange(90), 0, labels] += 1  # one bright row names the class
        return images, labels

    classifier = Classifier(*digits(0))
    images, labels = digits(1)
    assert classifier.score(images, labels) == 1
    assert classifier.score(images, (labels + 1) % 3) == 0
    assert classifier.score(images.roll(1, 0), labels) == 0
    with pytest.raises(InputError) as error:
        Classifier(images, torch.zeros_like(labels))
    assert one_sentence(error)
