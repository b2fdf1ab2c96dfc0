"""A program as calls of ``plain``: what ``run`` does, and ``torch_file`` writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from fieldloom.nn.grids import PRIMES, Lattices
from fieldloom.programs import program as steps
from fieldloom.programs.program import Program, Step


class Call(NamedTuple):
    """name: of a function of ``plain``, or of what is written out. given: after the inputs, the
    numbers and the names of tensors (``"table"``) that are given."""

    name: str
    given: tuple[Any, ...] = ()


class Held(NamedTuple):
    """A tensor of a step, by its name there."""

    name: str


Grids = list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]]


def list_grids(lattices: Lattices) -> Grids:
    """Lattices as ``plain.lookup`` takes them."""
    found: Grids = []
    for grid, rows in enumerate(lattices.rows):
        cells, hashed = lattices.cells[grid], grid >= lattices.placed
        strides = tuple(math.prod(n + 1 for n in cells[axis + 1 :]) for axis in range(len(cells)))
        factors = PRIMES[: len(cells)] if hashed else strides
        first = sum(lattices.rows[:grid])
        found.append((lattices.axes[grid], cells, factors, first, rows - 1 if hashed else -1))
    return found


def call_tiled(step: steps.Tiled) -> Call:
    tensors = tuple(map(Held, ("weight", "bias", "matrix", "offset")))
    return Call("tiled", (*tensors, step.tiles, step.blend, step.low, step.span))


CALLS: dict[type[Step], Callable[[Any], Call]] = {
    steps.Coords: lambda step: Call("part", (step.first, step.first + step.width)),
    steps.Linear: lambda step: Call("linear", (Held("weight"), Held("bias"))),
    steps.Waves: lambda step: Call("waves", (Held("matrix"), Held("quarters"))),
    steps.Activation: lambda step: Call("activate", (step.name, step.w, step.s)),
    steps.Affine: lambda step: Call("affine", (step.scale, step.offset)),
    steps.Concat: lambda step: Call("concat"),
    steps.Add: lambda step: Call("add"),
    steps.Lookup: lambda step: Call(
        "lookup",
        (Held("table"), list_grids(step.lattices), step.smooth, step.low, step.span),
    ),
    steps.Planes: lambda step: Call("planes", (step.planes, step.features, step.product)),
    steps.Embed: lambda step: Call("embed", (Held("table"), step.low, step.span)),
    steps.Tiled: call_tiled,
    steps.Attend: lambda step: Call("attend", (Held("keys"), Held("values"), step.heads)),
}
"""Kind of step -> its call."""


def call_of(step: Step) -> Call:
    return CALLS[type(step)](step)


def tensors_of(program: Program) -> dict[str, Tensor]:
    """All tensors of a program: ``3.weight`` is that of the fourth step."""
    return {
        f"{number}.{name}": x
        for number, step in enumerate(program.steps)
        for name, x in step.constants().items()
    }
