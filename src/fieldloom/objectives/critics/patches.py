"""A critic of images: one logit for each patch, at several resolutions."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.types import Coords, Values


class PatchCritic(nn.Module):
    """A convolutional critic with a logit for every patch (arXiv:1611.07004, section 3.2.2).

    There is one stack of convolutions for each resolution, each half the one before
    (arXiv:1711.11585, section 3.2). The spectral norm of every convolution is 1 (arXiv:1802.05957,
    eq. 8), and there is no batch norm, so that logits depend on one signal alone.

    coord_dim: of the observations; not used, since the grid gives the positions of pixels.
    value_dim: channels of the image.
    width:     channels of the first convolution; each later one has twice as many as the one
               before, at most 8 * width.
    depth:     number of convolutions of stride 2; a last one of stride 1, 3 by 3, gives logits.
    scales:    number of resolutions.
    kernel:    side of the convolutions of stride 2.
    slope:     of the leaky ReLU after them.

    Sides of an image are at least 2^(depth + scales - 1).
    """

    divisible = True

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        width: int = 64,
        depth: int = 3,
        scales: int = 2,
        kernel: int = 4,
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        if min(width, depth, scales) < 1 or kernel < 2 or not 0 <= slope < 1:
            raise InputError(
                f"critic 'patches': width = {width}, depth = {depth}, scales = {scales}, kernel = "
                f"{kernel}, slope = {slope}: at least 1, kernel at least 2, slope in [0, 1)."
            )
        memory.require(2 * depth * memory.OBJECT)
        channels = [value_dim, *(width * min(2 ** min(i, 3), 8) for i in range(depth))]
        self.scales = nn.ModuleList(
            _stack(channels, kernel, slope) for _ in memory.checked_range(scales)
        )
        self.smallest = 2 ** (depth + scales - 1)

    def forward(
        self, coords: Coords, values: Values, grid: tuple[int, ...] | None
    ) -> Float[Tensor, "batch logits"]:
        """Logits of the image that values (batch, points, value) form on the grid, row-major.

        Each scale gives as many as the finest one, sides / 2^depth: those of coarser scales are
        repeated (nearest neighbour), so that all scales have the same weight in the mean.

        Raises InputError where the grid does not have two axes, or a side is too short.
        """
        image = values.mT.unflatten(2, self._sides(grid))
        logits = []
        for level, scale in enumerate(self.scales):
            image = F.avg_pool2d(image, 2) if level else image
            logits.append(scale(image))
        finest = logits[0].shape[2:]
        return torch.cat([F.interpolate(x, finest, mode="nearest") for x in logits], 1).flatten(1)

    def _sides(self, grid: tuple[int, ...] | None) -> tuple[int, ...]:
        if grid is None:
            raise InputError("critic 'patches' judges whole pictures: leave points out.")
        if len(grid) != 2:
            raise InputError(f"critic 'patches' judges images: two axes, not {len(grid)}.")
        if min(grid) < self.smallest:
            raise InputError(
                f"critic 'patches': an image of {grid[0]} by {grid[1]} is too small for its depth "
                f"and scales, which need at least {self.smallest} by {self.smallest}."
            )
        return grid


def _stack(channels: list[int], kernel: int, slope: float) -> nn.Sequential:
    """Images (batch, channels[0], height, width) -> logits (batch, 1, rows, columns)."""
    layers: list[nn.Module] = []
    for a, b in pairwise(channels):
        convolution = nn.Conv2d(a, b, kernel, stride=2, padding=(kernel - 1) // 2)
        layers += [spectral_norm(convolution), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels[-1], 1, 3, padding=1)))
