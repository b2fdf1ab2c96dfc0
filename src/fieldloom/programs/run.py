"""A program carried out by PyTorch: slow and obvious, what all other outputs are tested against."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from fieldloom.fields.waves import WAVES
from fieldloom.nn.grids import interpolate
from fieldloom.nn.layers import ACTIVATIONS
from fieldloom.nn.transformer import attend
from fieldloom.programs import program as steps
from fieldloom.programs.program import Program


def run(program: Program, coords: Tensor) -> Tensor:
    """The values of a program: coords (points, coord) -> (points, value), in the type of coords."""
    values: list[Tensor] = []
    for step in program.steps:
        given = [coords] if isinstance(step, steps.Coords) else [values[i] for i in step.inputs]
        values.append(STEPS[type(step)](step, *given))
    return values[-1]


def coords(step: steps.Coords, x: Tensor) -> Tensor:
    return x[:, step.first : step.first + step.width]


def linear(step: steps.Linear, x: Tensor) -> Tensor:
    return x @ step.weight.to(x) + step.bias.to(x)


def waves(step: steps.Waves, x: Tensor) -> Tensor:
    turns = x @ step.matrix.to(x)
    return torch.sin(math.tau * (turns - turns.round() + step.quarters.to(x) / 4))


def activation(step: steps.Activation, x: Tensor) -> Tensor:
    if step.name in ACTIVATIONS and step.name != "sine":
        return ACTIVATIONS[step.name](x.clone())
    name, first = step.name.removesuffix("-first"), step.name.endswith("-first")
    wave = WAVES[name]
    call = wave.first if first else wave.call
    assert call is not None
    return call(x, step.w, step.s)


def affine(step: steps.Affine, x: Tensor) -> Tensor:
    return step.scale * x + step.offset


def lookup(step: steps.Lookup, x: Tensor) -> Tensor:
    unit = (x - step.low) / step.span
    found = interpolate(unit[None], step.table.to(x)[None], step.lattices, step.smooth)
    return found[0].flatten(1)


def planes(step: steps.Planes, x: Tensor) -> Tensor:
    each = x.unflatten(1, (-1, step.planes, step.features))
    return (each.prod(2) if step.product else each.sum(2)).flatten(1)


def embed(step: steps.Embed, x: Tensor) -> Tensor:
    sizes = torch.tensor(step.table.shape[:-1])
    q = ((x - step.low) / step.span * sizes - 0.5).clamp(min=0).minimum((sizes - 1).to(x))
    lower = q.floor().long()
    total = torch.zeros(len(x), step.width).to(x)
    for corner in product((0, 1), repeat=x.shape[1]):
        at = (lower + torch.tensor(corner)).minimum(sizes - 1)
        share = (1 - (q - lower - torch.tensor(corner)).abs()).prod(1)
        total += share[:, None] * step.table.to(x)[tuple(at.T)]
    return total


def tiled(step: steps.Tiled, x: Tensor, where: Tensor) -> Tensor:
    q = (where - step.low) / step.span @ step.matrix.to(x) + step.offset.to(x)
    sizes, lower = torch.tensor(step.tiles), q.floor()
    total = torch.zeros(len(x), step.width).to(x)
    for corner in product((0, 1) if step.blend else (0,), repeat=len(step.tiles)):
        if any(c and n == 1 for c, n in zip(corner, step.tiles, strict=True)):
            continue
        at = (lower.long() + torch.tensor(corner)) % sizes
        share = torch.ones(len(x)).to(x)
        for axis, c in enumerate(corner):
            if step.blend and step.tiles[axis] > 1:
                part = (q - lower)[:, axis]
                share = share * (part if c else 1 - part)
        number = at[:, 0]
        for axis in range(1, len(step.tiles)):
            number = number * step.tiles[axis] + at[:, axis]
        total += share[:, None] * torch.einsum("ni,nio->no", x, step.weight.to(x)[number])
    return total + step.bias.to(x)


def attention(step: steps.Attend, q: Tensor) -> Tensor:
    return attend(q[None], step.keys.to(q)[None], step.values.to(q)[None], step.heads)[0]


STEPS: dict[type, Callable[..., Tensor]] = {
    steps.Coords: coords,
    steps.Linear: linear,
    steps.Waves: waves,
    steps.Activation: activation,
    steps.Affine: affine,
    steps.Concat: lambda step, *x: torch.cat(x, 1),
    steps.Add: lambda step, x, y: x + y,
    steps.Lookup: lookup,
    steps.Planes: planes,
    steps.Embed: embed,
    steps.Tiled: tiled,
    steps.Attend: attention,
}
"""Kind of step -> what carries it out."""
