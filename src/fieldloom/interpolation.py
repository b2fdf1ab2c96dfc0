"""Interpolation between codes, along a line or a great circle."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fieldloom.arguments import check_whole
from fieldloom.errors import InputError
from fieldloom.types import Code


def interpolate_codes(
    a: Code, b: Code, steps: int = 16, spherical: bool = False
) -> Float[Tensor, "steps tokens width"]:
    """From code a to b (1, tokens, width), ends included: (steps, tokens, width).

    spherical: along the great circle between their directions, at equal angles, with a norm that
    changes linearly: under a prior N(0, I), codes on the line would be shorter than any sample
    (arXiv:1609.04468, section 2.1). Raises InputError for other shapes than (1, tokens, width).
    """
    check_whole("steps", steps, 1)
    return interpolate_at(a, b, torch.linspace(0, 1, steps), spherical)


def interpolate_at(
    a: Code, b: Code, fractions: Float[Tensor, " steps"], spherical: bool = False
) -> Float[Tensor, "steps tokens width"]:
    """As ``interpolate_codes``, at these fractions of the way: 0 is a, and 1 is b."""
    if a.shape != b.shape or a.ndim != 3 or len(a) != 1:
        raise InputError(
            f"codes of the shapes {tuple(a.shape)} and {tuple(b.shape)} are not two of (1, "
            "tokens, width)."
        )
    fraction = fractions.to(a).view(-1, 1, 1)
    line = torch.lerp(a, b, fraction)
    lengths = a.norm(), b.norm()
    angle = torch.arccos((a / lengths[0] * b / lengths[1]).sum().clamp(-1, 1))
    if not spherical or not 1e-4 < angle < math.pi - 1e-4:  # (nearly) one direction, or a zero
        return line
    weight_a = ((1 - fraction) * angle).sin() / lengths[0]
    weight_b = (fraction * angle).sin() / lengths[1]
    return torch.lerp(*lengths, fraction) / angle.sin() * (weight_a * a + weight_b * b)
