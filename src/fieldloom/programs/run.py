"""A program carried out by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fieldloom.programs import plain
from fieldloom.programs import program as steps
from fieldloom.programs.calls import Held, call_of
from fieldloom.programs.program import Program


def run(program: Program, coords: Tensor) -> Tensor:
    """The values of a program: coords (points, coord) -> (points, value), in the type of coords."""
    values: list[Tensor] = []
    for step in program.steps:
        inputs = [coords] if isinstance(step, steps.Coords) else [values[i] for i in step.inputs]
        name, given = call_of(step)
        own = step.constants()
        tensors = [own[x.name].to(coords) if isinstance(x, Held) else x for x in given]
        values.append(FUNCTIONS[name](*inputs, *tensors))
    return values[-1]


def halve(program: Program) -> Program:
    """The program with constants rounded to half precision."""
    rounded = lambda step: {name: x.half().float() for name, x in step.constants().items()}
    return program._replace(steps=tuple(replace(x, **rounded(x)) for x in program.steps))


def lose_by_half(program: Program, points: int = 1000) -> float:
    """The root mean square error of half-precision constants, over the values' deviation, at
    random coordinates in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    coords = 2 * torch.rand(points, program.coord_dim, generator=generator) - 1
    right, found = run(program, coords), run(halve(program), coords)
    return float((found - right).square().mean().sqrt() / right.std(0).mean().clamp_min(1e-12))


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "part": lambda x, first, last: x[:, first:last],
    "linear": lambda x, weight, bias: x @ weight + bias,
    "activate": lambda x, name, w, s: plain.ACTIVATIONS[name](x, w, s),
    "affine": lambda x, scale, offset: scale * x + offset,
    "concat": lambda *x: torch.cat(x, 1),
    "add": lambda x, y: x + y,
    "waves": plain.waves,
    "lookup": plain.lookup,
    "planes": plain.planes,
    "embed": plain.embed,
    "tiled": plain.tiled,
    "attend": plain.attend,
}
"""Name of a call -> what it does."""
