"""Images of samples and of the training fields that are nearest to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fieldloom.evaluation.memorisation import CodeSet, Novelty
from fieldloom.system import System

ROWS = 32
"""The most samples that are drawn."""


def draw_neighbours(
    system: System, samples: CodeSet, known: CodeSet, novelty: Mapping[str, Novelty]
) -> Tensor:
    """The first samples, and the training fields nearest to each in signals and in weights.

    Images (3 * rows, 3, height, width), three a row; white where a sample has no neighbour.
    """
    images = []
    for i, sample in enumerate(samples[:ROWS].cpu()):
        indices = [int(novelty[space].samples.indices[i]) for space in ("signals", "weights")]
        codes = torch.stack([sample, *(known[index] for index in indices)])
        data = system.decode(codes).tensor
        found = [system.modality.to_image(datum.nan_to_num(0)) for datum in data]
        row = [image for image in found if image is not None]
        blank = torch.ones_like(row[0])
        nearest = zip(row[1:], indices, strict=True)
        images += [row[0], *(blank if index < 0 else image for image, index in nearest)]
    return torch.stack(images)
