"""A picture of samples beside the training fields that are nearest to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fieldloom.evaluation.copies import Codes, Novelty
from fieldloom.system import System

SHOWN = 32
"""Samples in the picture of nearest neighbours."""


def neighbours(
    system: System, samples: Codes, known: Codes, novelty: Mapping[str, Novelty]
) -> Tensor:
    """The first samples, and the training fields nearest to each in signals and in weights.

    Pictures (3 rows, 3, height, width), three a row; white where a sample has no neighbour.
    """
    shown = []
    for i, sample in enumerate(samples[:SHOWN].cpu()):
        indices = [int(novelty[space].samples.indices[i]) for space in ("signals", "weights")]
        codes = torch.stack([sample, *(known[index] for index in indices)])
        data = system.decode(codes).tensor
        row = [system.modality.to_image(datum.nan_to_num(0)) for datum in data]
        pictures = [picture for picture in row if picture is not None]
        blank = torch.ones_like(pictures[0])
        near = zip(pictures[1:], indices, strict=True)
        shown += [pictures[0], *(blank if at < 0 else picture for picture, at in near)]
    return torch.stack(shown)
