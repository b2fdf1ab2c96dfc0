"""Arrangements: how finely each layer's tiles repeat over space, and where they begin.

An arrangement maps the numbers of tiles of every layer, (n_1, ..., n_d) each, to one ``Affine`` a
layer. A layer's tile at a position p, in fractions of the domain, is the cell of q = p scale +
offset. Source: Levels-of-Experts, Hao et al., NeurIPS 2022, section 3, Figure 1 and Table 1; its
supplement was not available, so that quad-tree, Gray and fine-to-coarse follow their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from fieldloom.constants import place
from fieldloom.errors import InputError

Tiles = tuple[int, ...]

FINEST = 1e37
"""The largest number of cells of an axis: float32 holds no larger ones."""


class Affine(NamedTuple):
    """Where a layer's tiles lie: cells of p scale + offset, p in [0, 1] over the domain (eq. 2).

    scale: cells of each axis (d,), or a matrix (d, d) from p to cells. offset: (d,).
    draw:  draws scale and offset once for each field, (d + 1, d), offset last; None: both fixed.
    """

    scale: Tensor
    offset: Tensor
    draw: Callable[[Generator | None], Tensor] | None = None


Arrangement = Callable[[Sequence[Tiles]], list[Affine]]


class CoarseToFine:
    """The first layer's tiles cover the domain once, each later layer divides the cells before it.

    growth: factor between the scales of successive layers, instead of their numbers of tiles: the
            cells of the finest layers then need not be smaller than a sample.
    finest: the largest scale.
    """

    def __init__(self, growth: float | None = None, finest: float | None = None) -> None:
        for name, value in (("growth", growth), ("finest", finest)):
            if value is not None and value <= 0:
                raise InputError(f"arrangement.{name} = {value}: positive.")
        self.growth, self.finest = growth, finest

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        return [fixed_affine(scale) for scale in self.scales(tiles)]

    def scales(self, tiles: Sequence[Tiles]) -> list[Tensor]:
        """Cells of each axis, float64 (d,), for every layer; layers of one tile do not divide."""
        scale, found = None, []
        factors = (max(own) if self.growth is None else self.growth for own in tiles)
        if self.finest is None and math.prod(map(float, factors)) > FINEST:
            raise InputError(f"arrangement: scales of {len(tiles)} layers pass {FINEST:g}.")
        for own in tiles:
            count = torch.tensor(own, dtype=torch.float64)
            if max(own) > 1:
                factor = count if self.growth is None else self.growth
                scale = count if scale is None else scale * factor
                scale = scale if self.finest is None else scale.clamp(max=self.finest)
            found.append(torch.ones_like(count) if scale is None else scale)
        return found


class FineToCoarse(CoarseToFine):
    """The scales of coarse-to-fine in reverse order: the first layer is the finest."""

    def scales(self, tiles: Sequence[Tiles]) -> list[Tensor]:
        return super().scales(tiles[::-1])[::-1]


class QuadTree:
    """Scale 2^i in layer i = 1, 2, ...: halves, quarters, for any numbers of tiles."""

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        _check_halvings(tiles)
        return [fixed_affine(torch.full((len(own),), 2.0**i)) for i, own in enumerate(tiles, 1)]


def _check_halvings(tiles: Sequence[Tiles]) -> None:
    if 2 ** len(tiles) > FINEST:
        raise InputError(f"arrangement: cells that are halved {len(tiles)} times pass {FINEST:g}.")


class Gray:
    """A Gray code, for 2 tiles an axis: at every boundary exactly one layer changes its tile.

    Scale 2 in the first layer, 2^(i-1) and an offset of 1/2 in layer i.
    """

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        _check_halvings(tiles)
        scales = [2.0, *(2.0**i for i in range(1, len(tiles)))]
        offsets = [0.0, *(0.5 for _ in tiles[1:])]
        each = zip(tiles, scales, offsets, strict=True)
        return [fixed_affine(torch.full((len(own),), scale), offset) for own, scale, offset in each]


class Chunked:
    """Every layer's tiles cover the domain once: each chunk has its own perceptron."""

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        return [fixed_affine(torch.tensor(own)) for own in tiles]


class Aligned:
    """One scale for all layers: equal cells that repeat, without a hierarchy.

    scale: cells an axis; None: the finest of coarse-to-fine.
    """

    def __init__(self, scale: float | None = None) -> None:
        if scale is not None and scale <= 0:
            raise InputError(f"arrangement.scale = {scale}: positive.")
        self.scale = scale

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        finest = CoarseToFine().scales(tiles)[-1]
        scale = finest if self.scale is None else torch.full_like(finest, self.scale)
        return [fixed_affine(scale) for _ in tiles]


class Interleaved(Aligned):
    """One cell per sample: neighbouring samples belong to different perceptrons.

    scale: samples an axis.
    """

    def __init__(self, scale: float) -> None:
        super().__init__(scale)


class RandomAffine(CoarseToFine):
    """A random affine map for each layer's grid, whose cells have the sizes of coarse-to-fine.

    spread: of the stretch of each axis by 2^u, u uniform in [-spread, spread].

    The distribution is not published. Here it is a random rotation, this stretch, and an offset of
    up to a whole period.
    """

    def __init__(
        self, spread: float = 0.5, growth: float | None = None, finest: float | None = None
    ) -> None:
        super().__init__(growth, finest)
        if not 0 <= spread <= 64:
            raise InputError(f"arrangement.spread = {spread:g}: from 0 to 64.")
        self.spread = spread

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        scales = self.scales(tiles)
        return [
            Affine(scale, torch.zeros_like(scale), self._draw(scale, own))
            for scale, own in zip(scales, tiles, strict=True)
        ]

    def _draw(self, scale: Tensor, tiles: Tiles) -> Callable[[Generator | None], Tensor]:
        def draw(generator: Generator | None) -> Tensor:
            axes = len(tiles)
            rotation, upper = torch.linalg.qr(torch.randn(axes, axes, generator=generator))
            rotation = rotation * upper.diagonal().sign()  # so that it follows Haar's measure
            stretch = 2 ** (self.spread * (2 * torch.rand(axes, generator=generator) - 1))
            offset = torch.rand(axes, generator=generator) * torch.tensor(tiles)
            return torch.cat([rotation * (scale.float() * stretch), offset[None]])

        return draw


class Given:
    """Given scales and offsets.

    scales, offsets: one number for each layer, the same for all axes; None: offsets of 0.
    """

    def __init__(self, scales: tuple[float, ...], offsets: tuple[float, ...] | None = None) -> None:
        self.scales = scales
        self.offsets = (0.0,) * len(scales) if offsets is None else offsets
        if len(self.offsets) != len(scales) or min(scales, default=0) <= 0:
            raise InputError(
                f"arrangement: scales = {list(scales)}, offsets = {list(self.offsets)}: as many "
                "positive scales as offsets."
            )

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        if len(tiles) != len(self.scales):
            raise InputError(f"arrangement: {len(self.scales)} scales for {len(tiles)} layers.")
        each = zip(tiles, self.scales, self.offsets, strict=True)
        return [fixed_affine(torch.full((len(own),), scale), offset) for own, scale, offset in each]


def fixed_affine(scale: Tensor, offset: float = 0.0) -> Affine:
    """An ``Affine`` of this scale (d,) and the same offset for all axes, in float64."""
    scale = scale.double()
    return Affine(scale, torch.full_like(scale, offset))


def positions(unit: Tensor, affine: Affine, matrix: Tensor | None = None) -> Tensor:
    """Positions in fractions of the domain (n, d) -> q in cells (n, d).

    matrix: (d + 1, d), the drawn scale and offset, where the map is random.
    """
    if matrix is not None:
        matrix = matrix.to(unit)
        return unit @ matrix[:-1] + matrix[-1]
    scale, offset = (place(x, unit.device, unit.dtype) for x in affine[:2])
    return (unit * scale if scale.ndim == 1 else unit @ scale) + offset


HIERARCHY = CoarseToFine()

ARRANGEMENTS: dict[str, Any] = {
    "coarse-to-fine": CoarseToFine,
    "fine-to-coarse": FineToCoarse,
    "quad-tree": QuadTree,
    "gray": Gray,
    "chunked": Chunked,
    "aligned": Aligned,
    "interleaved": Interleaved,
    "random-affine": RandomAffine,
    "given": Given,
}
