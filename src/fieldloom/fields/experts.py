"""Levels-of-Experts: a perceptron whose layers' weights are tiled over space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from fieldloom import memory
from fieldloom.constants import row
from fieldloom.errors import InputError, unknown
from fieldloom.fields.arrangements import HIERARCHY, Arrangement, Tiles, positions
from fieldloom.fields.encodings import OCTAVES, Encoding, Fourier
from fieldloom.nn.dispatch import Assignment, Dispatch, Groups, dispatch
from fieldloom.nn.kernels import KernelsOf, plain
from fieldloom.nn.kernels.grouped import grouped_linear
from fieldloom.nn.layers import (
    Init,
    activation_of,
    bias_slot,
    bound,
    fourier_interleaved,
    normal,
    octaves,
    uniform,
)
from fieldloom.nn.tiles import blend_corners, tile_indices, tiled_linear
from fieldloom.types import Coords, Slot, Values, Weights


@dataclass(frozen=True)
class Tiling:
    """How the weights of a field are tiled over space.

    tiles:    number of tiles of each axis in every layer: one number for all, one for each layer
              (``[2, 4, 4, 1]``), or one for each axis of a layer (``[[2, 2, 4], 4, 1]``). 1 is an
              ordinary layer, and a field of ones an ordinary perceptron. Heads are never tiled.
    blend:    ``nearest``: the tile of a position is floor(q) mod N (eq. 5); ``linear``:
              interpolation between the 2^d tiles around it (eq. 4).
    centred:  whether linear blends peak at the centres of cells (q - 1/2), not at their lower ends.
    arrangement: scale and offset of each layer's tiles; see ``ARRANGEMENTS``.
    low, high: the coordinates of the domain that arrangements divide, one number for all axes or
              one for each; outside, and at ``high`` itself, tiles repeat: samples should lie at the
              centres of their cells.

    Raises InputError for an unknown blend, and an empty domain.
    """

    tiles: int | tuple[int | tuple[int, ...], ...] = 4
    blend: Literal["nearest", "linear"] = "nearest"
    centred: bool = True
    arrangement: Arrangement = HIERARCHY
    low: float | tuple[float, ...] = -1.0
    high: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        if self.blend not in ("nearest", "linear"):
            raise unknown("blend", self.blend, ("nearest", "linear"))
        both = [x if isinstance(x, tuple) else (x,) for x in (self.low, self.high)]
        count = max(map(len, both))
        low, high = (x * count if len(x) == 1 else x for x in both)
        if len(low) != len(high) or not all(a < b for a, b in zip(low, high, strict=True)):
            raise InputError(
                f"field.tiling: {self.describe_ends()}: low comes before high, and both have one "
                "number, or one for each axis."
            )

    def describe_ends(self) -> str:
        """As in a recipe."""
        both = {"low": self.low, "high": self.high}.items()
        shown = (f"{k} = {list(x) if isinstance(x, tuple) else f'{x:g}'}" for k, x in both)
        return ", ".join(shown)

    def ends(self, axes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Low and high of each axis. Raises InputError where there are others than so many."""
        low, high = (x if isinstance(x, tuple) else (x,) * axes for x in (self.low, self.high))
        if not len(low) == len(high) == axes:
            raise InputError(
                f"field.tiling: {self.describe_ends()}: one number, or one for each axis, of which "
                f"there are {axes}."
            )
        return low, high


@dataclass(frozen=True)
class Head:
    """The output head, after the trunk.

    kind:    ``plain``: the trunk's last layer. ``radiance``: the density is a linear map of the
             trunk's last hidden layer (the last value, as ``volume`` reads it), and the colour is
             that of a further hidden layer that also sees the direction.
    octaves: frequencies of the direction, in addition to the direction itself (radiance).
    width:   units of the colour's hidden layer (radiance).

    Raises InputError for numbers out of range.
    """

    kind: Literal["plain", "radiance"] = "plain"
    octaves: int = 4
    width: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.octaves <= OCTAVES or self.width < 1:
            raise InputError(
                f"field.head: octaves = {self.octaves}, width = {self.width}: from 0 to {OCTAVES} "
                "octaves, and at least one unit."
            )


class Experts:
    """h_i(x, p) = psi_i(p) x + b_i, psi_i(p) = sum_j B_j(alpha_i p + beta_i) W_ij  (eqs. 2 and 3).

    Source: Implicit Neural Representations with Levels-of-Experts, Hao et al., NeurIPS 2022.
    Weights are tiled, (tiles, in, out), with the first axis of space slowest; biases are not tiled.

    width:    units of the hidden layers, one number or one for each.
    depth:    number of all linear layers, those of the head included.
    tiling:   how the trunk's weights are tiled.
    encoding: the input of the first layer (but not ``learned`` features).
    skip:     indices of layers whose input also contains the encoding.
    context:  size of a slot ``context`` that the first layer sees in addition to the encoding: the
              noise of a generator, which conditioner ``substitute`` provides.
    residual: whether hidden layers of equal width return (h + activation(layer(h))) / sqrt(2).
    head:     the output head: the last layer, or a radiance head.
    init:     of weights, as in ``fourier-mlp``; the output layers start as ``torch``.
    """

    kernels: KernelsOf = staticmethod(plain)

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        direction_dim: int = 0,
        width: int | tuple[int, ...] = 256,
        depth: int = 6,
        tiling: Tiling = Tiling(),
        encoding: Fourier = Fourier(),  # noqa: B008 (frozen)
        skip: tuple[int, ...] = (),
        context: int = 0,
        residual: bool = False,
        head: Head = Head(),
        activation: str = "relu",
        output: str = "identity",
        offset: float = 0.0,
        bias: Literal["uniform", "zero"] = "uniform",
        init: Init = "kaiming",
    ) -> None:
        self.radiance = head.kind == "radiance"
        if direction_dim and not self.radiance:
            raise InputError("field: directions are seen by the head 'radiance' alone.")
        if context < 0:
            raise InputError(f"field.context = {context}: not negative.")
        if self.radiance and (offset or output != "identity"):
            raise InputError("field: the head 'radiance' returns raw values: no output, no offset.")
        self.coord_dim, self.ends = coord_dim, tiling.ends(coord_dim)
        self.blend, self.centred = tiling.blend, tiling.centred
        self.residual, self.offset, self.layers = residual, offset, depth
        self.activation, self.output = activation_of(activation), activation_of(output)
        memory.require(2 * depth * memory.OBJECT)
        self.trunk = depth - 3 if self.radiance else depth
        widths = widths_of(width, self.trunk - (not self.radiance))
        self.tiles = tiles_of(tiling.tiles, self.trunk, coord_dim)
        self.affines = tiling.arrangement(self.tiles)
        if any(not 0 < layer < self.trunk for layer in skip):
            raise InputError(f"field.skip = {list(skip)}: layers from 1 to {self.trunk - 1}.")
        self.skip = frozenset(skip)
        self.encoding = Encoding(coord_dim, encoding)
        self.slots: dict[str, Slot] = dict(self.encoding.slots)
        if context:
            self.slots["context"] = Slot((context,), normal((context,), 1.0), "input")
        outputs = widths if self.radiance else (*widths, value_dim)
        self._add_trunk([self.encoding.width + context, *outputs], init, bias)
        if self.radiance:
            self.views = octaves(head.octaves, pi=False)
            seen = direction_dim * (1 + 2 * head.octaves)
            first = self.trunk
            self._add_layer(first, widths[-1], 1, "torch", bias)
            self._add_layer(first + 1, widths[-1] + seen, head.width, init, bias)
            self._add_layer(first + 2, head.width, value_dim - 1, "torch", bias)

    def _add_trunk(self, sizes: Sequence[int], init: Init, bias: str) -> None:
        """Add the slots of the trunk's layers. sizes: of the input and of all layers' outputs."""
        for i, (a, b) in enumerate(pairwise(sizes)):
            draw = self.affines[i].draw
            if draw is not None and math.prod(self.tiles[i]) > 1:
                shape = (self.coord_dim + 1, self.coord_dim)
                self.slots[f"{i}.tiling"] = Slot(shape, draw, "fixed")
            a += self.encoding.width if i in self.skip else 0
            is_output = not self.radiance and i == self.trunk - 1
            self._add_layer(i, a, b, "torch" if is_output else init, bias, self.tiles[i])

    def _add_layer(
        self, layer: int, a: int, b: int, init: Init, bias: str, tiles: Tiles = ()
    ) -> None:
        """Add the slots of one linear layer from a to b units, tiled or not."""
        count = math.prod(tiles)
        shape = (count, a, b) if count > 1 else (a, b)
        draw = uniform(shape, bound(a, b, init))
        blended = sum(n > 1 for n in tiles) if self.blend == "linear" else 0
        self.slots[f"{layer}.weight"] = Slot(shape, draw, "weight", 2**blended)
        self.slots[f"{layer}.bias"] = bias_slot(a, b, bias)

    def __call__(self, coords: Coords, weights: Weights) -> Values:
        batch, points, _ = coords.shape
        where, direction = coords[..., : self.coord_dim], coords[..., self.coord_dim :]
        encoded = self.encoding(where, weights)
        x = encoded
        if "context" in self.slots:
            context = weights["context"].unsqueeze(1).expand(batch, points, -1)
            x = torch.cat([encoded, context.to(encoded)], -1)
        h, encoded = x.flatten(0, 1), encoded.flatten(0, 1)
        unit = self._unit(where).flatten(0, 1)
        found = [self._assign(i, unit, weights) for i in range(self.layers)]
        orders = dispatch([assignment for assignment, _ in found], batch, points)
        for i, order in enumerate(orders[: self.trunk]):
            if i in self.skip:
                h = torch.cat([h, orders[i - 1].gather(encoded)], -1)
            y = self._layer(i, h, order, weights, found[i][1])
            if i == self.trunk - 1 and not self.radiance:
                h = self.output(y)
            elif self.residual and i > 0 and h.shape == y.shape:
                h = (order.permute(h) + self.activation(y)).mul_(math.sqrt(0.5))
            else:
                h = self.activation(y)
        if self.radiance:
            h = self._heads(h, direction.flatten(0, 1), orders[self.trunk :], weights)
        values = orders[-1].scatter(h).view(batch, points, h.shape[-1])
        return values + self.offset if self.offset else values

    def _unit(self, where: Tensor) -> Tensor:
        """Coordinates (..., d) of which the domain is [0, 1]."""
        low, high = self.ends
        if len({*low}) == len({*high}) == 1:
            return (where - low[0]) / (high[0] - low[0])
        return (where - row(low, where)) / row(
            [b - a for a, b in zip(low, high, strict=True)], where
        )

    def _assign(
        self, i: int, unit: Tensor, weights: Weights
    ) -> tuple[Assignment | None, Tensor | None]:
        """The tile of each point (n, d) in a layer, and its position q where tiles are blended."""
        tiles = self.tiles[i] if i < self.trunk else (1,)
        count, own = math.prod(tiles), len(weights[f"{i}.weight"]) > 1
        if count == 1:
            zero = torch.zeros(len(unit), dtype=torch.long, device=unit.device)
            return (Assignment(zero, 1, own) if own else None), None
        drawn = weights[f"{i}.tiling"][0] if f"{i}.tiling" in self.slots else None
        q = positions(unit, self.affines[i], drawn)
        if self.blend == "linear" and self.centred:
            q = q - 0.5
        return Assignment(tile_indices(q, tiles), count, own), q if self.blend == "linear" else None

    def _layer(
        self, i: int, h: Tensor, order: Dispatch, weights: Weights, q: Tensor | None = None
    ) -> Tensor:
        """One linear layer, tiled or not: rows (n, in) -> (n, out), in this layer's order."""
        weight, bias = weights[f"{i}.weight"], weights[f"{i}.bias"]
        if h.dtype != weight.dtype and not torch.is_autocast_enabled(h.device.type):
            h = h.to(weight.dtype)  # layers may be of several types (System.evaluate)
        shared = bias[0] if len(bias) == 1 else None
        if order.segments is None:
            y = h @ weight[0] if shared is None else torch.addmm(shared, h, weight[0])
        else:
            blend, matrices = None, weight.reshape(-1, *weight.shape[-2:])
            if q is not None:
                count = math.prod(self.tiles[i])
                table, fractions = blend_corners(q, self.tiles[i])
                if len(weight) > 1:
                    own = range(len(weight))
                    table = [[b * count + t for b in own for t in row] for row in table]
                blend = (table, order.gather(fractions).to(h.dtype))
            if isinstance(order.segments, Groups):  # an accelerator: nothing is read from there
                grouped = self.kernels(h.device).grouped
                y = grouped_linear(h, order.segments, matrices, shared, blend, grouped)
            else:
                y = tiled_linear(h, order.segments, matrices, shared, blend)
        if shared is not None:
            return y
        if order.contiguous:
            return (y.view(len(bias), -1, y.shape[-1]) + bias[:, None]).flatten(0, 1)
        assert order.source is not None
        return y + bias.index_select(0, order.source // (len(y) // len(bias)))

    def _heads(
        self, h: Tensor, direction: Tensor, orders: Sequence[Dispatch], weights: Weights
    ) -> Tensor:
        """Raw colour | density (n, value) in the last layer's order (arXiv:2003.08934, Fig. 7)."""
        first = self.trunk
        density = self._layer(first, h, orders[0], weights)
        seen = [orders[0].permute(h)]
        if direction.shape[-1]:
            own = torch.cat([direction, fourier_interleaved(direction, self.views)], -1)
            seen.append(orders[0].gather(own))
        hidden = self._layer(first + 1, torch.cat(seen, -1), orders[1], weights)
        colour = self._layer(first + 2, self.activation(hidden), orders[2], weights)
        for order in orders[1:]:
            density = order.permute(density)
        return torch.cat([colour, density], -1)


def widths_of(width: int | tuple[int, ...], hidden: int) -> tuple[int, ...]:
    """Units of every hidden layer. Raises InputError where they do not fit the depth."""
    widths = width if isinstance(width, tuple) else (width,) * hidden
    if hidden < 1 or len(widths) != hidden or min(widths) < 1:
        raise InputError(
            f"field.width = {width}: positive, one number or {max(hidden, 1)}, one a hidden layer "
            "(field.depth counts all layers, of the heads too)."
        )
    return widths


def tiles_of(
    tiles: int | tuple[int | tuple[int, ...], ...], layers: int, axes: int
) -> tuple[Tiles, ...]:
    """Tiles of each axis in every layer. Raises InputError where they do not fit."""
    each = tiles if isinstance(tiles, tuple) else (tiles,) * layers
    full = tuple(own if isinstance(own, tuple) else (own,) * axes for own in each)
    if len(full) != layers or any(len(own) != axes or min(own) < 1 for own in full):
        raise InputError(
            f"field.tiling.tiles = {tiles}: at least 1 each; one number, or {layers} (one a layer "
            f"before the heads), each one number or {axes} (one an axis)."
        )
    return full
