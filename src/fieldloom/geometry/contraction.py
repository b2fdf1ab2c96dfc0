"""Scene contraction: all of space within a ball, or a cube, of radius 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Contraction = Literal["none", "ball", "cube"]

NORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "ball": lambda x: x.norm(dim=-1, keepdim=True),
    "cube": lambda x: x.abs().amax(-1, keepdim=True),
}
"""The norm of a contraction: Euclid's (mip-NeRF 360), or the largest coordinate (nerfstudio)."""


def contract(x: Float[Tensor, "... d"], shape: str) -> Float[Tensor, "... d"]:
    """x where |x| <= 1, and (2 - 1 / |x|) x / |x| beyond (arXiv:2111.12077, eq. 10).

    shape: whose radius |x| is, a key of ``NORMS``. Differentiable everywhere but at |x| = 1, where
    the first derivative is continuous.
    """
    radius = NORMS[shape](x).clamp_min(1)  # the factor below is 1 there
    return x * ((2 - 1 / radius) / radius)


def expand(y: Float[Tensor, "... d"], shape: str) -> Float[Tensor, "... d"]:
    """The inverse of ``contract``: y with |y| < 2 -> x."""
    radius = NORMS[shape](y).clamp_min(1)
    return y / (radius * (2 - radius))
