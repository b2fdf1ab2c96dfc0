"""A field whose weights are known, as steps that a shader, ONNX or plain PyTorch can carry out.

A program maps coordinates (points, coord) to values (points, value). Each step makes one value, a
vector for each point, from those of earlier steps; constants are in the steps, float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldloom.nn.grids import Lattices


@dataclass(frozen=True)
class Step:
    """width: numbers of the value. inputs: the values that it is made from, by their steps."""

    width: int
    inputs: tuple[int, ...]

    def constants(self) -> dict[str, Tensor]:
        """The tensors of the step, by name."""
        found = {own.name: getattr(self, own.name) for own in fields(self)}
        return {name: x for name, x in found.items() if isinstance(x, Tensor)}


@dataclass(frozen=True)
class Coords(Step):
    """The coordinates from ``first`` on."""

    first: int = 0


@dataclass(frozen=True)
class Linear(Step):
    """x W + b. weight: (in, out); bias: (out,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Waves(Step):
    """sin(2 pi (x M + q / 4)): Fourier features, in turns. matrix: (in, out); quarters: (out,), 0
    for sines and 1 for cosines."""

    matrix: Tensor
    quarters: Tensor


@dataclass(frozen=True)
class Activation(Step):
    """A function of each number. name: a key of ``ACTIVATIONS``; w, s: its frequency and scale."""

    name: str
    w: float = 1.0
    s: float = 1.0


@dataclass(frozen=True)
class Affine(Step):
    """scale x + offset, the same for all numbers."""

    scale: float
    offset: float


@dataclass(frozen=True)
class Concat(Step):
    """Values one behind the other."""


@dataclass(frozen=True)
class Add(Step):
    """The sum of two values of one width."""


@dataclass(frozen=True)
class Lookup(Step):
    """Features of all grids, interpolated at x (arXiv:2201.05989): (grids * features).

    table: (rows, features). low, span: the coordinates that the grids cover.
    """

    table: Tensor
    lattices: Lattices
    smooth: bool
    low: float
    span: float


@dataclass(frozen=True)
class Planes(Step):
    """Features of (scales, planes, features): planes are added up, or multiplied."""

    planes: int
    features: int
    product: bool


@dataclass(frozen=True)
class Embed(Step):
    """A dense grid of features at the centres of cells. table: (*sizes, channels)."""

    table: Tensor
    low: float
    span: float


@dataclass(frozen=True)
class Tiled(Step):
    """x W(p) + b, p the second input (arXiv: Levels-of-Experts, eqs. 2 to 5).

    weight: (tiles, in, out); bias: (out,). Cells are q = u M + offset, u = (p - low) / span, M
    (axes, axes). tiles: of each axis. blend: whether the tiles around q are interpolated.
    """

    weight: Tensor
    bias: Tensor
    matrix: Tensor
    offset: Tensor
    tiles: tuple[int, ...]
    blend: bool
    low: float
    span: float


@dataclass(frozen=True)
class Attend(Step):
    """Attention of a query over tokens, several heads. keys, values: (tokens, width)."""

    keys: Tensor
    values: Tensor
    heads: int


class Program(NamedTuple):
    """coord_dim: of the coordinates. steps: in order; the last one's value is the result."""

    coord_dim: int
    steps: tuple[Step, ...]

    @property
    def value_dim(self) -> int:
        return self.steps[-1].width

    @property
    def numbers(self) -> int:
        """How many numbers the constants are."""
        return sum(x.numel() for step in self.steps for x in step.constants().values())


@dataclass
class Builder:
    """Collects the steps of a program. Methods return the number of the step that they add."""

    coord_dim: int
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> int:
        cast: dict[str, Any] = {
            name: x.detach().float().cpu() for name, x in step.constants().items()
        }
        self.steps.append(replace(step, **cast))
        return len(self.steps) - 1

    def width(self, value: int) -> int:
        return self.steps[value].width

    def coords(self, first: int = 0, count: int | None = None) -> int:
        width = self.coord_dim - first if count is None else count
        return self.add(Coords(width, (), first))

    def linear(self, x: int, weight: Tensor, bias: Tensor | None = None) -> int:
        bias = torch.zeros(weight.shape[1]) if bias is None else bias
        return self.add(Linear(weight.shape[1], (x,), weight, bias))

    def activate(self, x: int, name: str, w: float = 1.0, s: float = 1.0) -> int:
        return x if name == "identity" else self.add(Activation(self.width(x), (x,), name, w, s))

    def waves(self, x: int, matrix: Tensor, quarters: Tensor) -> int:
        """matrix: (in, out), in radians."""
        return self.add(Waves(matrix.shape[1], (x,), matrix.double() / math.tau, quarters))

    def affine(self, x: int, scale: float = 1.0, offset: float = 0.0) -> int:
        plain = scale == 1 and offset == 0
        return x if plain else self.add(Affine(self.width(x), (x,), scale, offset))

    def concat(self, *values: int) -> int:
        if len(values) == 1:
            return values[0]
        return self.add(Concat(sum(map(self.width, values)), values))

    def add_up(self, x: int, y: int) -> int:
        return self.add(Add(self.width(x), (x, y)))

    def attend(self, q: int, keys: Tensor, values: Tensor, heads: int) -> int:
        return self.add(Attend(values.shape[1], (q,), keys, values, heads))

    def program(self) -> Program:
        return Program(self.coord_dim, tuple(self.steps))
