"""Levels-of-Experts: a perceptron whose layers' weights are tiled over space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from fieldloom import memory
from fieldloom.errors import InputError, unknown
from fieldloom.fields.arrangements import HIERARCHY, Arrangement, Tiles, positions
from fieldloom.fields.encodings import OCTAVES, Embedding, Encoding, Features
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
from fieldloom.nn.routes import Keys, Stop, route
from fieldloom.nn.tiles import cells, corners, tiled
from fieldloom.types import Coords, Slot, Values, Weights


class Experts:
    """h_i(x, p) = psi_i(p) x + b_i, psi_i(p) = sum_j B_j(alpha_i p + beta_i) W_ij  (eqs. 2 and 3).

    Source: Implicit Neural Representations with Levels-of-Experts, Hao et al., NeurIPS 2022.
    Weights are tiled, (tiles, in, out), first axis of space slowest; a layer's bias is one.

    width, depth: hidden units, one number or one a hidden layer; all linear layers, heads counted.
    tiles:    of each axis in every layer: one number for all, one a layer (``[2, 4, 4, 1]``), or
              one an axis of a layer (``[[2, 2, 4], 4, 1]``). 1 is an ordinary layer, and a field of
              ones an ordinary perceptron. Heads are never tiled.
    blend:    ``nearest``: the tile of a place is floor(q) mod N (eq. 5); ``linear``: between the
              2^d tiles around it (eq. 4). centred: linear blends have their peaks in the middle of
              the nearest ones' cells (q - 1/2), not at their lower ends.
    arrangement: scale and offset of each layer's tiles; see ``ARRANGEMENTS``.
    low, high: the coordinates of the domain that arrangements divide; beyond it, and at ``high``
              itself, tiles repeat: samples should stand in the middle of their cells.
    features, count, bandwidth, pi, include_input, grid: what the first layer sees, as ``Encoding``.
    skip:     layers that see the encoding again, beside the layer before.
    context:  numbers of a slot ``context`` that the first layer sees beside the encoding: the noise
              of a generator, which ``substitute`` puts there.
    residual: hidden layers of equal width answer (h + activation(layer(h))) / sqrt(2).
    head:     ``plain``: the last layer answers. ``radiance``: from the trunk's last hidden layer a
              linear density (answered last, as ``volume`` has it), and a colour from a hidden layer
              of ``view_width`` that also sees the direction, itself and ``view_count`` octaves.
    init:     of weights, as ``fourier-mlp``; the answering layers start as ``torch``.
    """

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        direction_dim: int = 0,
        width: int | tuple[int, ...] = 256,
        depth: int = 6,
        tiles: int | tuple[int | tuple[int, ...], ...] = 4,
        blend: Literal["nearest", "linear"] = "nearest",
        centred: bool = True,
        arrangement: Arrangement = HIERARCHY,
        low: float = -1.0,
        high: float = 1.0,
        features: Features = "octaves",
        count: int = 10,
        bandwidth: float = 128.0,
        pi: bool = True,
        include_input: bool = False,
        grid: Embedding | None = None,
        skip: tuple[int, ...] = (),
        context: int = 0,
        residual: bool = False,
        head: Literal["plain", "radiance"] = "plain",
        view_count: int = 4,
        view_width: int = 128,
        activation: str = "relu",
        output: str = "identity",
        offset: float = 0.0,
        bias: Literal["uniform", "zero"] = "uniform",
        init: Init = "kaiming",
    ) -> None:
        if blend not in ("nearest", "linear"):
            raise unknown("blend", blend, ("nearest", "linear"))
        if direction_dim and head == "plain":
            raise InputError("field: directions are seen by the head 'radiance' alone.")
        if not low < high:
            raise InputError(f"field: low = {low:g}, high = {high:g}: low comes before high.")
        if min(context, view_count) < 0 or view_width < 1 or view_count > OCTAVES:
            raise InputError(
                f"field: context = {context}, view_count = {view_count}, view_width = "
                f"{view_width}: none negative, at most {OCTAVES} octaves, and at least one unit."
            )
        if head == "radiance" and (offset or output != "identity"):
            raise InputError("field: the head 'radiance' answers raw: no output, no offset.")
        self.coord_dim, self.low, self.high = coord_dim, low, high
        self.blend, self.centred, self.residual, self.offset = blend, centred, residual, offset
        self.activation, self.output = activation_of(activation), activation_of(output)
        memory.require(2 * depth * memory.OBJECT)
        self.trunk = depth if head == "plain" else depth - 3
        widths = widths_of(width, self.trunk - (head == "plain"))
        self.tiles = tiles_of(tiles, self.trunk, coord_dim)
        self.tilings = arrangement(self.tiles)
        if any(not 0 < layer < self.trunk for layer in skip):
            raise InputError(f"field.skip = {list(skip)}: layers from 1 to {self.trunk - 1}.")
        self.skip = frozenset(skip)
        self.encoding = Encoding(coord_dim, features, count, bandwidth, pi, include_input, grid)
        self.slots: dict[str, Slot] = dict(self.encoding.slots)
        if context:
            self.slots["context"] = Slot((context,), normal((context,), 1.0), "input")
        outputs = widths if head == "radiance" else (*widths, value_dim)
        sizes = [self.encoding.width + context, *outputs]
        for i, (a, b) in enumerate(pairwise(sizes)):
            draw = self.tilings[i].draw
            if draw is not None and math.prod(self.tiles[i]) > 1:
                self.slots[f"{i}.tiling"] = Slot((coord_dim + 1, coord_dim), draw, "fixed")
            a += self.encoding.width if i in self.skip else 0
            own: Init = "torch" if head == "plain" and i == self.trunk - 1 else init
            self._slots(i, a, b, own, bias, self.tiles[i])
        self.radiance, self.layers = head == "radiance", depth
        if self.radiance:
            self.views = octaves(view_count, pi=False)
            seen = direction_dim * (1 + 2 * view_count)
            first = self.trunk
            self._slots(first, widths[-1], 1, "torch", bias)
            self._slots(first + 1, widths[-1] + seen, view_width, init, bias)
            self._slots(first + 2, view_width, value_dim - 1, "torch", bias)

    def _slots(self, layer: int, a: int, b: int, init: Init, bias: str, tiles: Tiles = ()) -> None:
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
        unit = ((where - self.low) / (self.high - self.low)).flatten(0, 1)
        found = [self._place(i, unit, weights) for i in range(self.layers)]
        stops = route([keys for keys, _ in found], batch, points)
        for i, stop in enumerate(stops[: self.trunk]):
            if i in self.skip:
                h = torch.cat([h, stops[i - 1].of(encoded)], -1)
            answer = self._layer(i, h, stop, weights, found[i][1])
            if i == self.trunk - 1 and not self.radiance:
                h = self.output(answer)
            elif self.residual and i > 0 and h.shape == answer.shape:
                h = (stop.moved(h) + self.activation(answer)).mul_(math.sqrt(0.5))
            else:
                h = self.activation(answer)
        if self.radiance:
            h = self._heads(h, direction.flatten(0, 1), stops[self.trunk :], weights)
        values = stops[-1].back(h).view(batch, points, h.shape[-1])
        return values + self.offset if self.offset else values

    def _place(self, i: int, unit: Tensor, weights: Weights) -> tuple[Keys | None, Tensor | None]:
        """Which matrices of a layer points (n, d) meet, and their q where these are blended."""
        tiles = self.tiles[i] if i < self.trunk else (1,)
        count, own = math.prod(tiles), len(weights[f"{i}.weight"]) > 1
        if count == 1:
            nought = torch.zeros(len(unit), dtype=torch.long, device=unit.device)
            return (Keys(nought, 1, own) if own else None), None
        drawn = weights[f"{i}.tiling"][0] if f"{i}.tiling" in self.slots else None
        q = positions(unit, self.tilings[i], drawn)
        if self.blend == "linear" and self.centred:
            q = q - 0.5
        return Keys(cells(q, tiles), count, own), q if self.blend == "linear" else None

    def _layer(
        self, i: int, h: Tensor, stop: Stop, weights: Weights, q: Tensor | None = None
    ) -> Tensor:
        """One linear layer of rows (n, in), tiled or not: (n, out), as they stand at this stop."""
        weight, bias = weights[f"{i}.weight"], weights[f"{i}.bias"]
        h = h.to(weight.dtype) if weight.dtype == torch.bfloat16 else h
        shared = bias[0] if len(bias) == 1 else None
        if stop.order is None:
            y = h @ weight[0] if shared is None else torch.addmm(shared, h, weight[0])
        else:
            blend, matrices = None, weight.reshape(-1, *weight.shape[-2:])
            if q is not None:
                count = math.prod(self.tiles[i])
                table, fractions = corners(q, self.tiles[i])
                if len(weight) > 1:
                    own = range(len(weight))
                    table = [[b * count + t for b in own for t in row] for row in table]
                blend = (table, stop.of(fractions).to(h.dtype))
            y = tiled(h, stop.order, matrices, shared, blend)
        if shared is not None:
            return y
        if stop.whole:
            return (y.view(len(bias), -1, y.shape[-1]) + bias[:, None]).flatten(0, 1)
        assert stop.at is not None
        return y + bias.index_select(0, stop.at // (len(y) // len(bias)))

    def _heads(
        self, h: Tensor, direction: Tensor, stops: Sequence[Stop], weights: Weights
    ) -> Tensor:
        """Colour | density, raw, at the last stop (arXiv:2003.08934, Figure 7)."""
        first = self.trunk
        density = self._layer(first, h, stops[0], weights)
        seen = [stops[0].moved(h)]
        if direction.shape[-1]:
            own = torch.cat([direction, fourier_interleaved(direction, self.views)], -1)
            seen.append(stops[0].of(own))
        hidden = self._layer(first + 1, torch.cat(seen, -1), stops[1], weights)
        colour = self._layer(first + 2, self.activation(hidden), stops[2], weights)
        for stop in stops[1:]:
            density = stop.moved(density)
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
    spread = tuple(own if isinstance(own, tuple) else (own,) * axes for own in each)
    if len(spread) != layers or any(len(own) != axes or min(own) < 1 for own in spread):
        raise InputError(
            f"field.tiles = {tiles}: at least 1 each; one number, or {layers} (one a layer before "
            f"the heads), each one number or {axes} (one an axis)."
        )
    return spread
