"""Arrangements: how finely each layer's tiles repeat over space, and where they begin.

An arrangement is data: from the tiles of every layer, (n_1, ..., n_d) each, to one ``Affine``
a layer. A layer's tile at a position p, in fractions of the domain, is the cell of q = p scale +
offset. Source: Levels-of-Experts, Hao et al., NeurIPS 2022, section 3, Figure 1 and Table 1; its
supplement was not to be had, so that quad-tree, Gray and fine-to-coarse follow their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError

Tiles = tuple[int, ...]

FINEST = 1e37
"""Cells of an axis, at most: more are none in float32."""


class Affine(NamedTuple):
    """Where a layer's tiles lie: cells of p scale + offset, p in [0, 1] over the domain (eq. 2).

    scale: cells a unit, one number an axis, or a matrix (d, d) from p to cells. offset: (d,).
    draw:  where not None, scale and offset are drawn once for each field, (d + 1, d), offset last.
    """

    scale: Tensor
    offset: Tensor
    draw: Callable[[Generator | None], Tensor] | None = None


Arrangement = Callable[[Sequence[Tiles]], list[Affine]]


class CoarseToFine:
    """The first layer's tiles cover the domain once, each later layer divides the cells before it.

    growth: the later layers' scales grow by this factor instead of their numbers of tiles; cells
            are then shared by fewer layers' tiles, and fine layers do not fall below a sample.
    finest: no scale passes it.
    """

    def __init__(self, growth: float | None = None, finest: float | None = None) -> None:
        for name, value in (("growth", growth), ("finest", finest)):
            if value is not None and value <= 0:
                raise InputError(f"arrangement.{name} = {value}: positive.")
        self.growth, self.finest = growth, finest

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        return [fixed_affine(scale) for scale in self.scales(tiles)]

    def scales(self, tiles: Sequence[Tiles]) -> list[Tensor]:
        """Cells of each axis, float64 (d,) a layer; layers of one tile are passed over."""
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
    """The same scales, each layer's tiles repeated within the cells of the next one's."""

    def scales(self, tiles: Sequence[Tiles]) -> list[Tensor]:
        return super().scales(tiles[::-1])[::-1]


class QuadTree:
    """Scale 2^i in layer i = 1, 2, ...: halves, quarters, whatever the numbers of tiles."""

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        _check_halvings(tiles)
        return [fixed_affine(torch.full((len(own),), 2.0**i)) for i, own in enumerate(tiles, 1)]


def _check_halvings(tiles: Sequence[Tiles]) -> None:
    if 2 ** len(tiles) > FINEST:
        raise InputError(f"arrangement: cells that are halved {len(tiles)} times pass {FINEST:g}.")


class Gray:
    """A Gray code, for 2 tiles an axis: at every boundary one layer alone changes its tile.

    Scale 2 in the first layer, 2^(i-1) and an offset of 1/2 in layer i.
    """

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        _check_halvings(tiles)
        scales = [2.0, *(2.0**i for i in range(1, len(tiles)))]
        offsets = [0.0, *(0.5 for _ in tiles[1:])]
        each = zip(tiles, scales, offsets, strict=True)
        return [fixed_affine(torch.full((len(own),), scale), offset) for own, scale, offset in each]


class Chunked:
    """Every layer's tiles cover the domain once: the chunks have perceptrons of their own."""

    def __call__(self, tiles: Sequence[Tiles]) -> list[Affine]:
        return [fixed_affine(torch.tensor(own)) for own in tiles]


class Aligned:
    """One scale for all layers: tiles of equal cells that repeat, without hierarchy.

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
    """A cell for every sample: neighbouring samples belong to perceptrons of their own.

    scale: samples an axis.
    """

    def __init__(self, scale: float) -> None:
        super().__init__(scale)


class RandomAffine(CoarseToFine):
    """Each layer's grid is turned, stretched and moved at random; its cells are of the sizes of
    coarse-to-fine.

    Not published: here a random rotation, each axis stretched by 2^u, u in +-``spread``, and an
    offset of up to a whole period.
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
            turn, upper = torch.linalg.qr(torch.randn(axes, axes, generator=generator))
            turn = turn * upper.diagonal().sign()  # the turns of Haar's measure
            stretch = 2 ** (self.spread * (2 * torch.rand(axes, generator=generator) - 1))
            offset = torch.rand(axes, generator=generator) * torch.tensor(tiles)
            return torch.cat([turn * (scale.float() * stretch), offset[None]])

        return draw


class Given:
    """Scales and offsets as they are given, one number (for all axes) a layer."""

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
    scale = scale.double()
    return Affine(scale, torch.full_like(scale, offset))


def positions(unit: Tensor, affine: Affine, matrix: Tensor | None = None) -> Tensor:
    """Positions in fractions of the domain (n, d) -> q, in cells (n, d).

    matrix: (d + 1, d), the matrix and the offset of an affine map that is drawn.
    """
    if matrix is not None:
        matrix = matrix.to(unit)
        return unit @ matrix[:-1] + matrix[-1]
    scale, offset = affine.scale.to(unit), affine.offset.to(unit)
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
