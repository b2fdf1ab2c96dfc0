"""A small picture of a field, of as many points as may be drawn in a moment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fieldloom.system import System
from fieldloom.types import Code

WORK, LEAST = 1 << 24, 1 << 11
"""Values of hidden layers that all points of a picture take; points that it has in any case."""


def draw_thumbnail(
    system: System, code: Code, work: int = WORK, most: int | None = None
) -> Tensor | None:
    """A picture of one code (1, tokens, width): (3, height, width) in [0, 1]; of a video, its
    middle frame; None where there is none.

    work: values of hidden layers that all its points take. most: points, whatever they take.
    """
    modality = system.modality
    shape, is_video = modality.shape(), modality.kind == "video"
    axes = shape[1:] if is_video else shape  # one frame
    points = max(work // cost_of_point(system), LEAST)
    fraction = (points if most is None else min(points, most)) / math.prod(axes)
    scale = min(1.0, fraction ** (1 / len(axes)))
    size = tuple(max(1, round(n * scale)) for n in axes)
    if is_video:
        strips = system.strips(code, size, frame=0.5)
        return modality.to_image(torch.cat([x for _, x in strips], 1).clamp(0, 1))
    return modality.to_image(system.decode(code, size, modality.cameras(count=1)).tensor[0])


def cost_of_point(system: System) -> int:
    """Values of a hidden layer for one point."""
    return system.render.evaluations * system.family.widest
