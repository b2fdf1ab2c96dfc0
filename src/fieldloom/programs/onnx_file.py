"""A program as an ONNX model, for runtimes and converters of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fieldloom import __version__, atomic
from fieldloom.errors import InputError
from fieldloom.programs import program as steps
from fieldloom.programs.calls import list_grids
from fieldloom.programs.program import Program, Step

OPSET = 18
"""The version of ONNX's operators: the first that has ``BitwiseXor``."""

LIMIT = 2_000_000_000
"""Bytes of weights: an ONNX file of more needs others beside it."""


@dataclass
class Graph:
    """Collects nodes and constants; every value has a name."""

    onnx: Any
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def node(self, kind: str, *inputs: str, **options: Any) -> str:
        """Add a node of one output; returns the output's name."""
        out = self.name()
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [out], **options))
        return out

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant; returns its name."""
        array = np.asarray(value.numpy() if isinstance(value, Tensor) else value, dtype)
        out = self.name()
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), out))
        return out

    def whole(self, value: Any) -> str:
        return self.constant(value, np.int64)

    def total(self, kind: str, parts: Sequence[str]) -> str:
        """Several values joined by a node of two inputs."""
        found = parts[0]
        for part in parts[1:]:
            found = self.node(kind, found, part)
        return found


def write_onnx(program: Program, path: str | Path) -> Path:
    """Write a program as ONNX: ``coords`` (points, coord) -> ``values`` (points, value), float32.

    The number of points is free. Metadata say what made it. Raises InputError without the package,
    and for more weights than a file of ONNX holds.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("ONNX needs the package onnx: pip install 'fieldloom[onnx]'.") from None
    if 4 * program.numbers > LIMIT:
        raise InputError(f"a file of ONNX holds 2 GB of weights: these are {program.numbers:,}.")
    graph, values = Graph(onnx), list[str]()
    for step in program.steps:
        given = ["coords"] if isinstance(step, steps.Coords) else [values[i] for i in step.inputs]
        values.append(NODES[type(step)](graph, step, *given))
    graph.nodes.append(onnx.helper.make_node("Identity", [values[-1]], ["values"]))
    describe = lambda name, width: onnx.helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, ["points", width]
    )
    made = onnx.helper.make_graph(
        graph.nodes,
        "field",
        [describe("coords", program.coord_dim)],
        [describe("values", program.value_dim)],
        graph.constants,
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(
        made, opset_imports=opset, producer_name="fieldloom", producer_version=__version__
    )
    model.ir_version = IR
    onnx.checker.check_model(model)
    return atomic.write_bytes(model.SerializeToString(), atomic.as_path(path))


IR = 9
"""The version of the format, which older runtimes read, too."""


# -- one function for each kind of step


def coords(g: Graph, step: steps.Coords, x: str) -> str:
    ends = g.whole([step.first]), g.whole([step.first + step.width])
    return g.node("Slice", x, *ends, g.whole([1]))


def linear(g: Graph, step: steps.Linear, x: str) -> str:
    return g.node("Gemm", x, g.constant(step.weight), g.constant(step.bias))


def waves(g: Graph, step: steps.Waves, x: str) -> str:
    turns = g.node("MatMul", x, g.constant(step.matrix))
    part = g.node("Sub", turns, g.node("Round", turns))
    part = g.node("Add", part, g.constant(step.quarters / 4))
    return g.node("Sin", g.node("Mul", part, g.constant(math.tau)))


def activation(g: Graph, step: steps.Activation, x: str) -> str:
    one, two = g.constant(1.0), g.constant(2.0)
    times = lambda a, b: g.node("Mul", a, b)
    w, s = g.constant(step.w), g.constant(step.s)
    bell = lambda y: g.node("Exp", g.node("Neg", g.node("Min", times(y, y), g.constant(40.0))))
    made: dict[str, Callable[[], str]] = {
        "relu": lambda: g.node("Relu", x),
        "leaky-relu": lambda: g.node("LeakyRelu", x, alpha=0.2),
        "leaky-relu-0.1": lambda: g.node("LeakyRelu", x, alpha=0.1),
        "gelu": lambda: times(
            times(g.constant(0.5), x),
            g.node("Add", one, g.node("Erf", times(x, g.constant(math.sqrt(0.5))))),
        ),
        "silu": lambda: times(x, g.node("Sigmoid", x)),
        "tanh": lambda: g.node("Tanh", x),
        "sigmoid": lambda: g.node("Sigmoid", x),
        "sine": lambda: g.node("Sin", times(w, x)),
        "h-sine": lambda: g.node("Sin", times(w, x)),
        "h-sine-first": lambda: g.node("Sin", times(w, g.node("Sinh", times(two, x)))),
        "finer": lambda: g.node("Sin", times(times(w, g.node("Add", g.node("Abs", x), one)), x)),
        "gaussian": lambda: bell(times(s, x)),
        "gabor": lambda: times(g.node("Cos", times(w, x)), bell(times(s, x))),
    }
    return made[step.name]()


def affine(g: Graph, step: steps.Affine, x: str) -> str:
    return g.node("Add", g.node("Mul", x, g.constant(step.scale)), g.constant(step.offset))


def lookup(g: Graph, step: steps.Lookup, x: str) -> str:
    table, found = g.constant(step.table), []
    unit = g.node("Div", g.node("Sub", x, g.constant(step.low)), g.constant(step.span))
    unit = g.node("Clip", unit, g.constant(0.0), g.constant(1.0))
    for axes, cells, factors, first, last in list_grids(step.lattices):
        own = g.node("Gather", unit, g.whole(axes), axis=1)
        q = g.node("Mul", own, g.constant(cells))
        lower = g.node("Min", g.node("Floor", q), g.constant([n - 1 for n in cells]))
        u = g.node("Sub", q, lower)
        if step.smooth:
            rest = g.node("Sub", g.constant(3.0), g.node("Mul", g.constant(2.0), u))
            u = g.node("Mul", g.node("Mul", u, u), rest)
        cell, sides = g.node("Cast", lower, to=INT64), (g.node("Sub", g.constant(1.0), u), u)
        total = []
        for corner in product((0, 1), repeat=len(axes)):
            at = g.node("Mul", g.node("Add", cell, g.whole(corner)), g.whole(factors))
            terms = [g.node("Gather", at, g.whole([axis]), axis=1) for axis in range(len(axes))]
            row = g.total("Add" if last < 0 else "BitwiseXor", terms)
            row = row if last < 0 else g.node("BitwiseAnd", row, g.whole(last))
            row = g.node("Squeeze", g.node("Add", row, g.whole(first)), g.whole([1]))
            share = blend_sides(g, sides, corner)
            total.append(g.node("Mul", g.node("Gather", table, row, axis=0), share))
        found.append(g.total("Add", total))
    return g.node("Concat", *found, axis=1)


def blend_sides(g: Graph, sides: tuple[str, str], corner: Sequence[int]) -> str:
    """The share of a corner: the product of one side of each axis, (points, 1)."""
    each = [g.node("Gather", sides[c], g.whole([a]), axis=1) for a, c in enumerate(corner)]
    return g.total("Mul", each)


def planes(g: Graph, step: steps.Planes, x: str) -> str:
    each = g.node("Reshape", x, g.whole([0, -1, step.planes, step.features]))
    kind = "ReduceProd" if step.product else "ReduceSum"
    return g.node("Reshape", g.node(kind, each, g.whole([2]), keepdims=0), g.whole([0, step.width]))


def embed(g: Graph, step: steps.Embed, x: str) -> str:
    sizes = step.table.shape[:-1]
    table = g.constant(step.table.reshape(-1, step.width))
    unit = g.node("Div", g.node("Sub", x, g.constant(step.low)), g.constant(step.span))
    q = g.node("Sub", g.node("Mul", unit, g.constant(sizes)), g.constant(0.5))
    q = g.node("Min", g.node("Max", q, g.constant(0.0)), g.constant([n - 1 for n in sizes]))
    lower, strides = g.node("Floor", q), [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    u = g.node("Sub", q, lower)
    cell, sides = g.node("Cast", lower, to=INT64), (g.node("Sub", g.constant(1.0), u), u)
    total = []
    for corner in product((0, 1), repeat=len(sizes)):
        at = g.node("Add", cell, g.whole(corner))
        at = g.node("Mul", g.node("Min", at, g.whole([n - 1 for n in sizes])), g.whole(strides))
        row = g.node("ReduceSum", at, g.whole([1]), keepdims=0)
        share = blend_sides(g, sides, corner)
        total.append(g.node("Mul", g.node("Gather", table, row, axis=0), share))
    return g.total("Add", total)


def tiled(g: Graph, step: steps.Tiled, x: str, where: str) -> str:
    unit = g.node("Div", g.node("Sub", where, g.constant(step.low)), g.constant(step.span))
    q = g.node("Gemm", unit, g.constant(step.matrix), g.constant(step.offset))
    lower = g.node("Floor", q)
    u = g.node("Sub", q, lower)
    cell, sides = g.node("Cast", lower, to=INT64), (g.node("Sub", g.constant(1.0), u), u)
    strides = [math.prod(step.tiles[i + 1 :]) for i in range(len(step.tiles))]
    weight, row, total = g.constant(step.weight), g.node("Unsqueeze", x, g.whole([1])), []
    moves = [n > 1 and step.blend for n in step.tiles]
    for corner in product(*((0, 1) if one else (0,) for one in moves)):
        at = g.node("Mod", g.node("Add", cell, g.whole(corner)), g.whole(step.tiles))
        number = g.node("ReduceSum", g.node("Mul", at, g.whole(strides)), g.whole([1]), keepdims=0)
        own = g.node("MatMul", row, g.node("Gather", weight, number, axis=0))
        y = g.node("Squeeze", own, g.whole([1]))
        each = [
            g.node("Gather", sides[c], g.whole([axis]), axis=1)
            for axis, (c, one) in enumerate(zip(corner, moves, strict=True))
            if one
        ]
        total.append(g.node("Mul", y, g.total("Mul", each)) if each else y)
    return g.node("Add", g.total("Add", total), g.constant(step.bias))


def attend(g: Graph, step: steps.Attend, q: str) -> str:
    own = step.width // step.heads
    split = lambda x: x.unflatten(1, (step.heads, own)).transpose(0, 1)
    each = g.node("Reshape", q, g.whole([0, step.heads, own]))
    each = g.node("Transpose", each, perm=[1, 0, 2])
    scores = g.node("MatMul", each, g.constant(split(step.keys).mT / math.sqrt(own)))
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=-1), g.constant(split(step.values)))
    mixed = g.node("Transpose", mixed, perm=[1, 0, 2])
    return g.node("Reshape", mixed, g.whole([0, step.width]))


INT64 = 7
"""ONNX's number of the type int64."""

NODES: dict[type[Step], Callable[..., str]] = {
    steps.Coords: coords,
    steps.Linear: linear,
    steps.Waves: waves,
    steps.Activation: activation,
    steps.Affine: affine,
    steps.Concat: lambda g, step, *x: g.node("Concat", *x, axis=1),
    steps.Add: lambda g, step, x, y: g.node("Add", x, y),
    steps.Lookup: lookup,
    steps.Planes: planes,
    steps.Embed: embed,
    steps.Tiled: tiled,
    steps.Attend: attend,
}
"""Kind of step -> what makes its nodes."""
