"""A small perceptron on features that are interpolated in learned grids.

interpolation: between vertices: ``linear``, or ``smooth``, whose first derivatives are continuous.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from fieldloom import memory
from fieldloom.errors import InputError, quote
from fieldloom.fields.experts import Head
from fieldloom.nn.grids import PRIMES, Lattices, interpolate
from fieldloom.nn.layers import (
    Draw,
    Init,
    activation_of,
    bias_slot,
    bound,
    fourier_interleaved,
    linear,
    normal,
    octaves,
    uniform,
)
from fieldloom.types import Coords, Slot, Values, Weights

Interpolation = Literal["linear", "smooth"]
Cells = int | tuple[int, ...]

FINEST = 2**23
"""The most cells of an axis: float32 still tells the halves of such a cell apart."""

MOST_ROWS = 2**31 - 1
"""The most rows of a table: indices are int32."""


class FeatureGrid(ABC):
    """Learned features on regular grids, which are interpolated between vertices.

    A subclass has ``features`` (numbers of a vertex) and ``interpolation`` (``linear``, or
    ``smooth``, whose first derivative is continuous), says where its grids lie (``lattices``) and
    how a table starts (``draw``), and may override how the features of all grids become one vector.
    """

    features: int
    interpolation: Interpolation

    @abstractmethod
    def lattices(self, axes: int) -> Lattices:
        """Its grids over this number of coordinates. Raises InputError where there are none."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...]) -> Draw:
        """The initial draw of a table of this shape."""

    def combine(self, found: Tensor, axes: int) -> Tensor:
        """Features of all grids (..., grids, features) as one vector: (..., width)."""
        return found.flatten(-2)


@dataclass(frozen=True)
class HashGrid(FeatureGrid):
    """A multiresolution hash grid (arXiv:2201.05989, section 3).

    levels:   grids from coarse to fine (L), whose features are concatenated.
    coarsest: cells of an axis of the first level (N_min).
    growth:   factor between the cells of successive levels (b): N_l = floor(N_min b^l)  (eq. 2).
    finest:   cells of an axis of the last level (N_max), from which the growth follows (eq. 3);
              None: ``growth`` counts.
    log2_hashmap_size: binary logarithm of the most rows of a level (T): a level of more vertices
              shares its rows among them by a spatial hash (eq. 4).
    features: numbers of a vertex (F). They start in +-1e-4.
    """

    levels: int = 16
    coarsest: int = 16
    growth: float = 1.5
    finest: int | None = None
    log2_hashmap_size: int = 16
    features: int = 2
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        _check_levels(self)
        if not 1 <= self.log2_hashmap_size <= 30:
            raise InputError(f"grid.log2_hashmap_size = {self.log2_hashmap_size}: from 1 to 30.")

    def lattices(self, axes: int) -> Lattices:
        if axes > len(PRIMES):
            raise InputError(f"grid 'hash': {axes} coordinates, more than {len(PRIMES)}.")
        most = 2**self.log2_hashmap_size
        return _nested(_level_cells(self), axes, most)

    def draw(self, shape: tuple[int, ...]) -> Draw:
        return uniform(shape, 1e-4)


@dataclass(frozen=True)
class DenseGrid(FeatureGrid):
    """Dense grids from coarse to fine, whose features are concatenated: a hash grid without hash.

    levels, coarsest, growth, finest: as of ``hash``. features: numbers of a vertex, in +-1e-4.
    """

    levels: int = 4
    coarsest: int = 16
    growth: float = 2.0
    finest: int | None = None
    features: int = 4
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        _check_levels(self)

    def lattices(self, axes: int) -> Lattices:
        return _nested(_level_cells(self), axes)

    def draw(self, shape: tuple[int, ...]) -> Draw:
        return uniform(shape, 1e-4)


@dataclass(frozen=True)
class TriPlane(FeatureGrid):
    """The sum of features on planes, one for each pair of coordinates.

    cells:    cells of a plane's axes, one number, or one for each coordinate; several scales, whose
              features are concatenated, are a list of these.
    features: numbers of a vertex of one scale. They start as N(0, 0.1^2), our choice: published
              planes are the output of a generator.

    Source: arXiv:2112.07945, section 3.2.
    """

    cells: Cells | tuple[Cells, ...] = (128,)
    features: int = 32
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        _check_grid(self)

    def lattices(self, axes: int) -> Lattices:
        return _planes(self.cells, axes)

    def draw(self, shape: tuple[int, ...]) -> Draw:
        return normal(shape, 0.1)

    def combine(self, found: Tensor, axes: int) -> Tensor:
        return found.unflatten(-2, (-1, math.comb(axes, 2))).sum(-2).flatten(-2)


@dataclass(frozen=True)
class KPlanes(TriPlane):
    """The product of features on planes, one for each pair of coordinates.

    cells:    as of ``tri-plane``, with four scales, as published.
    features: numbers of a vertex of one scale. They start in [0.1, 0.5], as in the released code.

    Source: arXiv:2301.10241, section 3.1.
    """

    cells: Cells | tuple[Cells, ...] = (64, 128, 256, 512)

    def draw(self, shape: tuple[int, ...]) -> Draw:
        return lambda generator: torch.empty(shape).uniform_(0.1, 0.5, generator=generator)

    def combine(self, found: Tensor, axes: int) -> Tensor:
        planes = found.unflatten(-2, (-1, math.comb(axes, 2))).unbind(-2)
        return math.prod(planes[1:], start=planes[0]).flatten(-2)


GRIDS: dict[str, Any] = {
    "hash": HashGrid,
    "dense": DenseGrid,
    "tri-plane": TriPlane,
    "k-planes": KPlanes,
}


def _check_grid(grid: FeatureGrid, **counts: int) -> None:
    """Raise InputError for counts below 1, more than 64 levels, or an unknown interpolation."""
    counts |= {"features": grid.features}
    if min(counts.values()) < 1 or counts.get("levels", 1) > 64:
        given = ", ".join(f"{name} = {value}" for name, value in counts.items())
        raise InputError(f"grid: {given}: at least 1 each, and at most 64 levels.")
    if grid.interpolation not in ("linear", "smooth"):
        raise InputError(f"grid.interpolation = '{grid.interpolation}': linear or smooth.")


def _check_levels(grid: HashGrid | DenseGrid) -> None:
    """Raise InputError for levels that are none, or do not go from coarse to fine."""
    _check_grid(grid, levels=grid.levels, coarsest=grid.coarsest)
    if not 1 <= grid.growth < math.inf:
        raise InputError(f"grid.growth = {grid.growth:g}: a finite number of at least 1.")
    if grid.finest is None:
        return
    if not grid.coarsest <= grid.finest <= FINEST:
        raise InputError(
            f"grid.finest = {quote(grid.finest)}: from {grid.coarsest}, coarsest, to {FINEST}."
        )
    if grid.levels == 1 and grid.finest != grid.coarsest:
        raise InputError(
            f"grid.finest = {grid.finest}: of one level it is coarsest, {grid.coarsest}."
        )


def _level_cells(grid: HashGrid | DenseGrid) -> list[int]:
    """Cells of an axis of every level: N_l = floor(N_min b^l)."""
    growth = grid.growth
    if grid.finest is not None and grid.levels > 1:
        growth = (grid.finest / grid.coarsest) ** (1 / (grid.levels - 1))
    top = grid.coarsest * growth ** min(grid.levels - 1, 100 / math.log(max(growth, 1.001)))
    if top > FINEST:
        raise InputError(f"grid: the finest level has more than {FINEST} cells an axis.")
    # a little more, so that the last level has N_max cells and not one less
    return [math.floor(grid.coarsest * growth**level + 1e-6) for level in range(grid.levels)]


def _nested(levels: list[int], axes: int, most: int | None = None) -> Lattices:
    """Grids over all coordinates; those of more than ``most`` vertices are hashed."""
    vertices = [(n + 1) ** axes for n in levels]
    rows = tuple(count if most is None else min(count, most) for count in vertices)
    placed = sum(count == own for count, own in zip(vertices, rows, strict=True))
    cells = tuple((n,) * axes for n in levels)
    return Lattices((tuple(range(axes)),) * len(levels), cells, rows, placed)


def _planes(cells: Cells | tuple[Cells, ...], axes: int) -> Lattices:
    """Planes over all pairs of coordinates, scale by scale."""
    if axes < 2:
        raise InputError("grid: planes are over pairs of coordinates, and there is one.")
    scales = cells if isinstance(cells, tuple) else (cells,)
    full = [own if isinstance(own, tuple) else (own,) * axes for own in scales]
    if not full or any(len(n) != axes or min(n) < 1 or max(n) > FINEST for n in full):
        raise InputError(
            f"grid.cells = {cells}: from 1 to {FINEST} each; a list of scales, each one number or "
            f"{axes} (one a coordinate)."
        )
    pairs = tuple(combinations(range(axes), 2))
    each = tuple((own[a], own[b]) for own in full for a, b in pairs)
    rows = tuple((a + 1) * (b + 1) for a, b in each)
    return Lattices(pairs * len(full), each, rows, len(rows))


class GridMlp:
    """A perceptron on the features of a grid, and of nothing else: y = MLP(enc(x; grid)).

    grid:     what the features are: a name of ``GRIDS``, with its arguments. Its table is the slot
              ``grid.weight``, (rows, features).
    width, depth: units of a hidden layer; number of linear layers, those of the head included.
    head:     ``radiance`` as of ``experts``: the density sees places alone, the colour the
              direction, too.
    low, high: the coordinates that the grid covers; outside the border's values continue.
    init:     of weights, as in ``fourier-mlp``.

    Source: arXiv:2201.05989, section 3, Figure 3.
    """

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        direction_dim: int = 0,
        grid: FeatureGrid = HashGrid(),
        width: int = 64,
        depth: int = 3,
        head: Head = Head(),  # noqa: B008 (frozen)
        activation: str = "relu",
        output: str = "identity",
        offset: float = 0.0,
        bias: Literal["uniform", "zero"] = "uniform",
        init: Init = "kaiming",
        low: float = -1.0,
        high: float = 1.0,
    ) -> None:
        self.radiance = head.kind == "radiance"
        if direction_dim and not self.radiance:
            raise InputError("field: directions are seen by the head 'radiance' alone.")
        if self.radiance and (offset or output != "identity"):
            raise InputError("field: the head 'radiance' returns raw values: no output, no offset.")
        self.trunk = depth - 2 if self.radiance else depth
        if width < 1 or self.trunk < 2:
            raise InputError(
                f"field: width = {width}, depth = {depth}: width is at least 1, depth at least "
                f"{4 if self.radiance else 2}."
            )
        if not low < high:
            raise InputError(f"field: low = {low:g}, high = {high:g}: low comes before high.")
        memory.require((depth - 2) * memory.bytes_of([(width, width), (width,)]))
        self.coord_dim, self.low, self.high, self.offset = coord_dim, low, high, offset
        self.activation, self.output = activation_of(activation), activation_of(output)
        self.grid, self.lattices = grid, grid.lattices(coord_dim)
        self.smooth = grid.interpolation == "smooth"
        table = (sum(self.lattices.rows), grid.features)
        memory.require(memory.bytes_of([table]))
        if table[0] > MOST_ROWS:
            raise InputError(f"grid: {table[0]} rows, more than {MOST_ROWS}.")
        self.slots: dict[str, Slot] = {
            "grid.weight": Slot(table, grid.draw(table), "weight", passes=0, table=True)
        }
        found = torch.empty(len(self.lattices.rows), grid.features, device="meta")
        sizes = [len(grid.combine(found, coord_dim))] + [width] * (self.trunk - 1)
        sizes += [1 if self.radiance else value_dim]
        for i, (a, b) in enumerate(pairwise(sizes)):
            self._add_layer(i, a, b, init, bias)
        if self.radiance:
            self.views = octaves(head.octaves, pi=False)
            seen = direction_dim * (1 + 2 * head.octaves)
            self._add_layer(self.trunk, width + seen, head.width, init, bias)
            self._add_layer(self.trunk + 1, head.width, value_dim - 1, "torch", bias)

    def _add_layer(self, layer: int, a: int, b: int, init: Init, bias: str) -> None:
        """Add the slots of one linear layer from a to b units."""
        self.slots[f"{layer}.weight"] = Slot((a, b), uniform((a, b), bound(a, b, init)), "weight")
        self.slots[f"{layer}.bias"] = bias_slot(a, b, bias)

    def __call__(self, coords: Coords, weights: Weights) -> Values:
        where, direction = coords[..., : self.coord_dim], coords[..., self.coord_dim :]
        h = self.encode(where, weights)
        for i in range(self.trunk - 1):
            h = self.activation(_layer(i, h, weights))
        values = _layer(self.trunk - 1, h, weights)
        if not self.radiance:
            values = self.output(values)
            return values + self.offset if self.offset else values
        seen = torch.cat([h, direction, fourier_interleaved(direction, self.views)], -1)
        hidden = self.activation(_layer(self.trunk, seen, weights))
        return torch.cat([_layer(self.trunk + 1, hidden, weights), values], -1)

    def encode(self, where: Coords, weights: Weights) -> Tensor:
        """The features of places: (batch, points, coord) -> (batch, points, width)."""
        unit = (where - self.low) / (self.high - self.low)
        found = interpolate(unit, weights["grid.weight"], self.lattices, self.smooth)
        return self.grid.combine(found, self.coord_dim)


def _layer(i: int, h: Tensor, weights: Weights) -> Tensor:
    return linear(h, weights[f"{i}.weight"], weights[f"{i}.bias"])
