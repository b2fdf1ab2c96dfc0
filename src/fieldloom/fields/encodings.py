"""Encodings of coordinates: Fourier features, and a learned grid of features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from fieldloom.constants import row
from fieldloom.errors import InputError
from fieldloom.nn.grids import Lookup
from fieldloom.nn.layers import (
    fourier,
    fourier_interleaved,
    linear,
    log_spaced,
    normal,
    octaves,
)
from fieldloom.types import Slot, Weights

Features = Literal["octaves", "log", "gaussian", "learned", "constant", "none"]


@dataclass(frozen=True)
class Embedding:
    """An interpolated dense grid of learned features: CE of Levels-of-Experts, Tables 1 to 4.

    size:     cells of each axis, one number for all or one an axis; features lie at cell centres.
    channels: numbers of a feature.
    std:      standard deviation of the features' initial normal draw.
    low, high: the coordinates that the grid covers; outside the border values continue.
    """

    size: int | tuple[int, ...]
    channels: int = 64
    std: float = 0.1
    low: float = -1.0
    high: float = 1.0

    def sizes(self, axes: int) -> tuple[int, ...]:
        """Cells of each axis. Raises InputError where they do not fit the coordinates."""
        sizes = self.size if isinstance(self.size, tuple) else (self.size,) * axes
        wrong = min(*sizes, self.channels) < 1 or not self.low < self.high or self.std < 0
        if len(sizes) != axes or wrong:
            raise InputError(
                f"field.encoding.grid: size = {self.size}, channels = {self.channels}, low = "
                f"{self.low:g}, high = {self.high:g}, std = {self.std:g}: one positive size, or "
                f"{axes}; low before high, std not negative."
            )
        return sizes

    def __call__(self, coords: Tensor, table: Tensor) -> Tensor:
        """Coords (batch, points, d), table (1 | batch, *sizes, channels) -> (..., channels).

        Multilinear interpolation between cell centres: 2^d weighted rows of the table per point.
        """
        batch, points, axes = coords.shape
        sizes = table.shape[1:-1]
        unit = (coords.reshape(-1, axes) - self.low) / (self.high - self.low)
        q = unit * row(sizes, unit) - 0.5
        q = q.clamp(row([0] * axes, q), row([n - 1 for n in sizes], q))
        base = q.detach().floor()
        fraction, first = q - base, base.long()
        last = row([n - 1 for n in sizes], first)
        stride = row([math.prod(sizes[axis + 1 :]) for axis in range(axes)], first)
        rows, fractions = [], []
        for step in product((0, 1), repeat=axes):
            moved = torch.minimum(first + row(step, first), last)
            rows.append((moved * stride).sum(-1))
            sides = [fraction[:, a] if one else 1 - fraction[:, a] for a, one in enumerate(step)]
            fractions.append(math.prod(sides[1:], start=sides[0]))
        index = torch.stack(rows).unsqueeze(1)  # (corners, 1 grid, all points)
        if len(table) > 1:  # each signal its own
            signal = torch.arange(batch, device=index.device).repeat_interleave(points)
            index = index + signal * math.prod(sizes)
        shares = torch.stack(fractions).unsqueeze(1)
        found = Lookup.apply(table.flatten(1, -2), False, index, shares)
        return found.view(batch, points, -1)


OCTAVES = 120
"""The largest number of octaves: float32 holds no higher frequency."""


@dataclass(frozen=True)
class Fourier:
    """The settings of an ``Encoding``: Fourier features of the coordinates, and a learned grid.

    features: ``octaves``  2^k, k < count              (NeRF, HyperDiffusion; sin, cos by octave)
              ``log``      bandwidth^(j / (count - 1)) (TransINR, IPC; order all cos, all sin)
              ``gaussian`` B ~ N(0, bandwidth^2), fixed, times 2 pi     (arXiv:2006.10739; GASP)
              ``learned``  [sin(bandwidth u), cos(bandwidth u)], u = W x + b, W and b slots   (GEM)
              ``constant`` ``count`` ones, without coordinates (Levels-of-Experts, Table 1)
              ``none``     the coordinates themselves
    count:    frequencies a coordinate (octaves, log), rows of B or W (gaussian, learned), ones.
    bandwidth: the highest frequency (log), the deviation of B (gaussian), a factor (learned).
    pi:       whether octaves and log frequencies are multiplied by pi.
    include_input: whether the coordinates are concatenated before their features.
    grid:     learned features that are concatenated at the end (PE + CE of Levels-of-Experts); it
              cannot be combined with ``learned``.

    Raises InputError for numbers out of range.
    """

    features: Features = "octaves"
    count: int = 10
    bandwidth: float = 128.0
    pi: bool = True
    include_input: bool = False
    grid: Embedding | None = None

    def __post_init__(self) -> None:
        if self.count < 1 and self.features != "none":
            raise InputError(f"field.encoding.count = {self.count}: at least 1.")
        if self.features == "octaves" and self.count > OCTAVES:
            raise InputError(f"field.encoding.count = {self.count}: octaves are at most {OCTAVES}.")
        if self.bandwidth <= 0:
            raise InputError(f"field.encoding.bandwidth = {self.bandwidth:g}: above 0.")
        if self.features == "learned" and self.grid is not None:
            raise InputError("field.encoding.grid: learned features go without a grid.")


class Encoding:
    """Coordinates (batch, points, inputs) -> (batch, points, width), as ``Fourier`` describes it.

    Random features are the slot ``features`` (role fixed), a grid is the slot ``grid`` (role
    input). Learned features are a layer of the field, and not of its encoding.
    """

    def __init__(self, inputs: int, spec: Fourier) -> None:
        features, count, grid = spec.features, spec.count, spec.grid
        if features == "learned":
            raise InputError(
                "field.encoding.features = 'learned': the field 'fourier-mlp' alone learns them."
            )
        self.features, self.count, self.grid = features, count, grid
        self.include_input = spec.include_input and features != "none"
        self.slots: dict[str, Slot] = {}
        if features == "gaussian":
            shape = (inputs, count)
            self.slots["features"] = Slot(shape, normal(shape, spec.bandwidth), "fixed")
        elif features in ("octaves", "log"):
            self.frequencies = (
                octaves(count, spec.pi)
                if features == "octaves"
                else log_spaced(count, spec.bandwidth, spec.pi)
            )
        self.width = {
            "none": inputs,
            "constant": count,
            "gaussian": 2 * count,
            "octaves": 2 * count * inputs,
            "log": 2 * count * inputs,
        }[features] + (inputs if self.include_input else 0)
        if grid is not None:
            table = (*grid.sizes(inputs), grid.channels)
            self.slots["grid"] = Slot(table, normal(table, grid.std), "input", passes=0)
            self.width += grid.channels

    def __call__(self, coords: Tensor, weights: Weights) -> Tensor:
        parts = [self._features(coords, weights)]
        if self.include_input:
            parts.insert(0, coords)
        if self.grid is not None:
            parts.append(self.grid(coords, weights["grid"]))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def _features(self, coords: Tensor, weights: Weights) -> Tensor:
        if self.features == "none":
            return coords
        if self.features == "constant":
            return coords.new_ones(*coords.shape[:2], self.count)
        if self.features == "gaussian":
            angles = linear(coords, 2 * math.pi * weights["features"].to(coords))
            return torch.cat([angles.cos(), angles.sin()], -1)
        if self.features == "octaves":
            return fourier_interleaved(coords, self.frequencies)
        return fourier(coords, self.frequencies)
