"""A program as the source of a shader: GLSL for WebGL 2, WGSL for WebGPU.

Values are arrays of ``vec4``; the parts of a concatenation begin at whole blocks, so that matrices
are packed by where the numbers of their input lie. The constants of all steps are one list of
``vec4``, ``W(i)``. Sines are written out, since GLSL promises no precision for them: whole turns
are taken off exactly, as three parts of few digits each (Cody and Waite, 1980), and a polynomial of
degree 11 does the rest, together within 1e-6 for phases of up to a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.errors import InputError
from fieldloom.programs import program as steps
from fieldloom.programs.calls import list_grids
from fieldloom.programs.dialects import DIALECTS, Dialect
from fieldloom.programs.program import Program, Step


class Shader(NamedTuple):
    """source: the functions; the last is ``field(x) -> y``, arrays of vec4 whose unused numbers are
    0. numbers: (n, 4) float32, what ``W`` reads. inputs, outputs: blocks of ``x`` and of ``y``."""

    source: str
    numbers: Tensor
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Value:
    """A value in a shader. name: of its array; blocks: its size; places: where each number lies."""

    name: str
    blocks: int
    places: Tensor


@dataclass
class Writer:
    """Collects lines, functions and numbers."""

    dialect: Dialect
    lines: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    numbers: list[Tensor] = field(default_factory=list)
    count: int = 0

    def pack(self, numbers: Tensor) -> int:
        """Keep numbers (n, 4). Returns the place of the first."""
        first = self.count
        self.numbers.append(numbers.float().reshape(-1, 4))
        self.count += len(self.numbers[-1])
        return first

    def write(self, text: str) -> None:
        self.lines += text.strip("\n").splitlines()


def write_shader(program: Program, language: str = "glsl") -> Shader:
    """The source of a program. language: a key of ``DIALECTS``.

    Raises InputError for attention whose heads are no multiple of 4 wide.
    """
    w = Writer(DIALECTS[language])
    last, registers = last_uses(program), Registers(w)
    values: list[Value] = []
    for number, step in enumerate(program.steps):
        given = [values[i] for i in step.inputs]
        registers.ending = {values[i].name for i in step.inputs if last[i] == number}
        made = WRITERS[type(step)](w, step, registers, *given)
        values.append(made)
        for i in set(step.inputs):
            if last[i] == number and values[i].name != made.name:
                registers.free(values[i])
    return assemble(w, program, values[-1])


def assemble(w: Writer, program: Program, result: Value) -> Shader:
    """The whole source, with the result as the array ``y``."""
    d, inputs, outputs = w.dialect, blocks_of(program.coord_dim), blocks_of(program.value_dim)
    kind = f"vec4[{outputs}]"
    body = [*w.lines, d.array("vec4", "y", outputs)]
    numbers = [number_at(result, i) for i in range(program.value_dim)]
    numbers += ["0.0"] * (4 * outputs - len(numbers))
    body += [f"y[{i}] = vec4({', '.join(numbers[4 * i : 4 * i + 4])});" for i in range(outputs)]
    head = d.function("field", [(f"vec4[{inputs}]", "x")], kind)
    text = "\n".join([head, *indent(body), "  return y;", "}"])
    parts = [d.head, write_basics(d), *w.functions, text]
    return Shader(
        "\n".join(parts) + "\n", torch.cat([*w.numbers, torch.zeros(1, 4)]), inputs, outputs
    )


def indent(lines: Sequence[str]) -> list[str]:
    """Lines within a function, indented by their braces."""
    found, depth = [], 1
    for line in lines:
        depth -= line.startswith("}")
        found.append("  " * depth + line)
        depth += line.endswith("{")
    return found


def last_uses(program: Program) -> dict[int, int]:
    """Step -> the last step that reads its value; the result is read after all."""
    found = {len(program.steps) - 1: len(program.steps)}
    for number, step in enumerate(program.steps):
        for i in step.inputs:
            found[i] = max(number, found.get(i, 0))
    return found


@dataclass
class Registers:
    """Arrays of a shader that are used again when no later step reads them. ending: those that the
    present step is the last to read."""

    writer: Writer
    unused: list[Value] = field(default_factory=list)
    ending: set[str] = field(default_factory=set)
    count: int = 0

    def take(self, width: int, blocks: int | None = None, places: Tensor | None = None) -> Value:
        blocks = blocks_of(width) if blocks is None else blocks
        places = torch.arange(width) if places is None else places
        for value in self.unused:
            if value.blocks == blocks:
                self.unused.remove(value)
                return Value(value.name, blocks, places)
        name = f"r{self.count}"
        self.count += 1
        self.writer.write(self.writer.dialect.array("vec4", name, blocks))
        return Value(name, blocks, places)

    def free(self, value: Value) -> None:
        self.unused.append(value)


def blocks_of(width: int) -> int:
    return -(-width // 4)


def number_at(value: Value, number: int) -> str:
    """The expression of one number of a value."""
    block, part = divmod(int(value.places[number]), 4)
    return f"{value.name}[{block}].{'xyzw'[part]}"


def pad_columns(matrix: Tensor) -> Tensor:
    """(..., out) -> (..., 4 blocks), with zeros."""
    return F.pad(matrix.float(), (0, -matrix.shape[-1] % 4))


def spread_rows(matrix: Tensor, value: Value) -> Tensor:
    """(..., in, out) -> (..., 4 blocks of the input, out): rows where the input's numbers lie."""
    found = matrix.new_zeros(*matrix.shape[:-2], 4 * value.blocks, matrix.shape[-1])
    found[..., value.places, :] = matrix
    return found


def pack_matrix(matrix: Tensor, value: Value) -> Tensor:
    """(..., in, out) as the columns of 4 x 4 matrices, those of an output block together."""
    full = pad_columns(spread_rows(matrix, value))
    return full.unflatten(-1, (-1, 4)).transpose(-3, -2).reshape(-1, 4)


def number(x: float | int) -> str:
    """A number as GLSL and WGSL read it."""
    text = repr(float(torch.tensor(x, dtype=torch.float32)))
    return text if any(c in text for c in ".e") else f"{text}.0"


# -- one function for each kind of step


def coords(w: Writer, step: steps.Coords, registers: Registers) -> Value:
    made = registers.take(step.width)
    whole = Value("x", 0, torch.arange(step.first, step.first + step.width))
    parts = [number_at(whole, i) for i in range(step.width)]
    parts += ["0.0"] * (4 * made.blocks - len(parts))
    for i in range(made.blocks):
        w.write(f"{made.name}[{i}] = vec4({', '.join(parts[4 * i : 4 * i + 4])});")
    return made


def product(
    w: Writer, matrix: Tensor, start: str, end: str, x: Value, made: Value, offset: str = ""
) -> None:
    """The lines of a matrix product. start: of the sum ``a`` of block ``o``; end: what is kept.

    offset: is added to the place of the matrix.
    """
    d, at = w.dialect, w.pack(pack_matrix(matrix, x))
    w.write(f"""
{d.loop("o", made.blocks)}
{d.variable("vec4", "a", start)}
{d.variable("int", "at", f"{at}{offset} + o * {4 * x.blocks}")}
{d.loop("i", x.blocks)}
a += mat4(W(at), W(at + 1), W(at + 2), W(at + 3)) * {x.name}[i];
at += 4;
}}
{made.name}[o] = {end};
}}""")


def linear(w: Writer, step: steps.Linear, registers: Registers, x: Value) -> Value:
    made, bias = registers.take(step.width), w.pack(pad_columns(step.bias))
    product(w, step.weight, f"W({bias} + o)", "a", x, made)
    return made


def waves(w: Writer, step: steps.Waves, registers: Registers, x: Value) -> Value:
    made, quarters = registers.take(step.width), w.pack(pad_columns(step.quarters / 4))
    end = f"sine_of_turns(a - floor(a + vec4(0.5)) + W({quarters} + o))"
    product(w, step.matrix, "vec4(0.0)", end, x, made)
    return made


def activation(w: Writer, step: steps.Activation, registers: Registers, x: Value) -> Value:
    expression = ACTIVATIONS[step.name].format(x="a", w=number(step.w), s=number(step.s))
    return elementwise(w, expression, x, registers)


def affine(w: Writer, step: steps.Affine, registers: Registers, x: Value) -> Value:
    expression = f"a * {number(step.scale)} + vec4({number(step.offset)})"
    return elementwise(w, expression, x, registers)


def elementwise(w: Writer, expression: str, x: Value, registers: Registers) -> Value:
    """A function of each number, in place where no later step reads ``x``."""
    made = x if x.name in registers.ending else registers.take(len(x.places), x.blocks, x.places)
    w.write(f"""
{w.dialect.loop("o", x.blocks)}
{w.dialect.variable("vec4", "a", f"{x.name}[o]")}
{made.name}[o] = {expression};
}}""")
    return made


def concat(w: Writer, step: steps.Concat, registers: Registers, *parts: Value) -> Value:
    firsts = [sum(part.blocks for part in parts[:i]) for i in range(len(parts))]
    places = torch.cat([x.places + 4 * first for x, first in zip(parts, firsts, strict=True)])
    made = registers.take(step.width, sum(part.blocks for part in parts), places)
    for part, first in zip(parts, firsts, strict=True):
        w.write(f"""
{w.dialect.loop("o", part.blocks)}
{made.name}[{first} + o] = {part.name}[o];
}}""")
    return made


def add(w: Writer, step: steps.Add, registers: Registers, x: Value, y: Value) -> Value:
    if x.blocks == y.blocks and torch.equal(x.places, y.places):
        made = registers.take(step.width, x.blocks, x.places)
        w.write(f"""
{w.dialect.loop("o", made.blocks)}
{made.name}[o] = {x.name}[o] + {y.name}[o];
}}""")
        return made
    made = registers.take(step.width)  # the numbers of one of them lie apart: a concatenation's
    parts = [f"{number_at(x, i)} + {number_at(y, i)}" for i in range(step.width)]
    parts += ["0.0"] * (4 * made.blocks - step.width)
    for i in range(made.blocks):
        w.write(f"{made.name}[{i}] = vec4({', '.join(parts[4 * i : 4 * i + 4])});")
    return made


def lookup(w: Writer, step: steps.Lookup, registers: Registers, x: Value) -> Value:
    lattices, d = step.lattices, w.dialect
    made, table = registers.take(step.width), w.pack(flat_rows(step.table))
    grids, axes = len(lattices.rows), len(lattices.axes[0])
    name = f"lookup{table}"
    held = list_grids(lattices)
    tables = {
        "axis": ("int", [str(i) for grid in held for i in grid[0]]),
        "cells": ("int", [str(n) for grid in held for n in grid[1]]),
        "factor": ("uint", [f"{n % 2**32}u" for grid in held for n in grid[2]]),
        "first": ("int", [str(grid[3]) for grid in held]),
        "last": ("uint", [f"{rows - 1}u" for rows in lattices.rows]),
    }
    constants = [d.table(kind, f"{name}_{key}", held) for key, (kind, held) in tables.items()]
    shape = "u * u * (3.0 - 2.0 * u)" if step.smooth else "u"
    body = f"""
{d.array("vec4", "y", made.blocks)}
{d.loop("o", made.blocks)}
y[o] = vec4(0.0);
}}
{d.loop("g", grids)}
{d.loop("corner", 2**axes)}
{d.variable("uint", "row", "0u")}
{d.variable("float", "share", "1.0")}
{d.loop("k", axes)}
{d.variable("int", "n", f"{name}_cells[g * {axes} + k]")}
{d.variable("int", "c", f"{name}_axis[g * {axes} + k]")}
{d.variable("float", "q", f"(x[c / 4][c % 4] - {number(step.low)}) / {number(step.span)}")}
q = clamp(q, 0.0, 1.0) * float(n);
{d.variable("int", "lower", "clamp(int(q), 0, n - 1)")}
{d.variable("float", "u", "q - float(lower)")}
u = {shape};
{d.variable("uint", "at", f"uint(lower) * {name}_factor[g * {axes} + k]")}
if (((corner >> uint({axes - 1} - k)) & 1) == 1) {{
at += {name}_factor[g * {axes} + k];
share *= u;
}} else {{
share *= 1.0 - u;
}}
if (g < {lattices.placed}) {{
row += at;
}} else {{
row = row ^ at;
}}
}}
if (g >= {lattices.placed}) {{
row = row & {name}_last[g];
}}
{read_row(d, table, step.table.shape[1], f"int(row) + {name}_first[g]", "g")}
}}
}}
return y;"""
    add_function(w, name, x, made, body, constants)
    w.write(f"{made.name} = {name}({x.name});")
    return made


def flat_rows(table: Tensor) -> Tensor:
    """The numbers of rows, one behind the other, in blocks of four."""
    return F.pad(table.reshape(-1), (0, -table.numel() % 4)).view(-1, 4)


def read_row(d: Dialect, table: int, features: int, row: str, grid: str) -> str:
    """Lines that add ``share`` times a row of a table to the features of a grid in ``y``."""
    return f"""{d.variable("int", "first", f"({row}) * {features}")}
{d.variable("int", "to", f"{grid} * {features}")}
{d.loop("j", features)}
{d.variable("int", "m", "first + j")}
{d.variable("int", "t", "to + j")}
y[t / 4][t % 4] += share * W({table} + m / 4)[m % 4];
}}"""


def add_function(
    w: Writer, name: str, x: Value, made: Value, body: str, before: Sequence[str] = ()
) -> None:
    """Add a function from the value x to another."""
    head = w.dialect.function(name, [(f"vec4[{x.blocks}]", "x")], f"vec4[{made.blocks}]")
    lines = indent(body.strip("\n").splitlines())
    w.functions.append("\n".join([*before, head, *lines, "}", ""]))


def planes(w: Writer, step: steps.Planes, registers: Registers, x: Value) -> Value:
    d, made = w.dialect, registers.take(step.width)
    per, sign, start = (
        step.planes * step.features,
        *(("*=", "1.0") if step.product else ("+=", "0.0")),
    )
    w.write(f"""
{d.loop("o", made.blocks)}
{made.name}[o] = vec4(0.0);
}}
{d.loop("o", step.width)}
{d.variable("float", "a", start)}
{d.loop("p", step.planes)}
{d.variable("int", "m", f"o / {step.features} * {per} + p * {step.features} + o % {step.features}")}
a {sign} {x.name}[m / 4][m % 4];
}}
{made.name}[o / 4][o % 4] = a;
}}""")
    return made


def embed(w: Writer, step: steps.Embed, registers: Registers, x: Value) -> Value:
    d, made, sizes = w.dialect, registers.take(step.width), step.table.shape[:-1]
    table, axes = w.pack(flat_rows(step.table)), len(step.table.shape) - 1
    name = f"embed{table}"
    constants = [d.table("int", f"{name}_size", list(map(str, sizes)))]
    body = f"""
{d.array("vec4", "y", made.blocks)}
{d.loop("o", made.blocks)}
y[o] = vec4(0.0);
}}
{d.loop("corner", 2**axes)}
{d.variable("int", "row", "0")}
{d.variable("float", "share", "1.0")}
{d.loop("k", axes)}
{d.variable("int", "n", f"{name}_size[k]")}
{d.variable("float", "q", f"(x[k / 4][k % 4] - {number(step.low)}) / {number(step.span)}")}
q = clamp(q * float(n) - 0.5, 0.0, float(n - 1));
{d.variable("int", "lower", "int(q)")}
{d.variable("float", "u", "q - float(lower)")}
if (((corner >> uint({axes - 1} - k)) & 1) == 1) {{
lower = min(lower + 1, n - 1);
share *= u;
}} else {{
share *= 1.0 - u;
}}
row = row * n + lower;
}}
{read_row(d, table, step.width, "row", "0")}
}}
return y;"""
    add_function(w, name, x, made, body, constants)
    w.write(f"{made.name} = {name}({x.name});")
    return made


def tiled(w: Writer, step: steps.Tiled, registers: Registers, x: Value, where: Value) -> Value:
    d, made, axes = w.dialect, registers.take(step.width), len(step.tiles)
    bias, size = w.pack(pad_columns(step.bias)), 4 * x.blocks * made.blocks
    corners = [n > 1 and step.blend for n in step.tiles]
    columns = step.matrix.T
    w.write(f"""
{d.loop("o", made.blocks)}
{made.name}[o] = W({bias} + o);
}}
{d.loop("corner", 2 ** sum(corners))}
{d.variable("float", "share", "1.0")}
{d.variable("int", "tile", "0")}
{d.variable("int", "rest", "corner")}
{d.variable("float", "q", "0.0")}
{d.variable("float", "cell", "0.0")}""")
    for axis, (count, moves) in enumerate(zip(step.tiles, corners, strict=True)):
        units = [
            f"({number_at(where, i)} - {number(step.low)}) / {number(step.span)}"
            for i in range(axes)
        ]
        terms = [
            f"{units[i]} * {number(float(columns[axis, i]))}"
            for i in range(axes)
            if columns[axis, i]
        ]
        w.write(f"q = {' + '.join([*terms, number(float(step.offset[axis]))])};")
        w.write("cell = floor(q);")
        if moves:
            w.write("""
if (rest % 2 == 1) {
share *= q - floor(q);
cell += 1.0;
} else {
share *= 1.0 - (q - floor(q));
}
rest = rest / 2;""")
        n = number(count)  # % of negative numbers is undefined in GLSL
        w.write(f"tile = tile * {count} + int(cell - {n} * floor((cell + 0.5) / {n}));")
    at = w.pack(pack_matrix(step.weight, x))
    w.write(f"""
{d.loop("o", made.blocks)}
{d.variable("vec4", "a", "vec4(0.0)")}
{d.variable("int", "at", f"{at} + tile * {size} + o * {4 * x.blocks}")}
{d.loop("i", x.blocks)}
a += mat4(W(at), W(at + 1), W(at + 2), W(at + 3)) * {x.name}[i];
at += 4;
}}
{made.name}[o] += share * a;
}}
}}""")
    return made


def attend(w: Writer, step: steps.Attend, registers: Registers, q: Value) -> Value:
    d, made, tokens = w.dialect, registers.take(step.width), len(step.keys)
    own = step.width // step.heads
    if own % 4:
        raise InputError(
            f"a shader of attention has heads of a multiple of 4: these are {own} wide."
        )
    each, total = own // 4, blocks_of(step.width)
    keys, values = w.pack(step.keys / math.sqrt(own)), w.pack(step.values)
    w.write(f"""
{d.loop("h", step.heads)}
{d.variable("float", "most", "-1e30")}
{d.variable("float", "sum", "0.0")}
{d.loop("o", each)}
{made.name}[h * {each} + o] = vec4(0.0);
}}
{d.loop("t", tokens)}
{d.variable("float", "score", "0.0")}
{d.loop("o", each)}
score += dot({q.name}[h * {each} + o], W({keys} + t * {total} + h * {each} + o));
}}
{d.variable("float", "top", "max(most, score)")}
{d.variable("float", "kept", "exp(most - top)")}
{d.variable("float", "fresh", "exp(score - top)")}
sum = sum * kept + fresh;
most = top;
{d.loop("o", each)}
{d.variable("int", "n", f"h * {each} + o")}
{made.name}[n] = {made.name}[n] * kept + fresh * W({values} + t * {total} + n);
}}
}}
{d.loop("o", each)}
{made.name}[h * {each} + o] = {made.name}[h * {each} + o] / sum;
}}
}}""")
    return made


WRITERS: dict[type[Step], Callable[..., Value]] = {
    steps.Coords: coords,
    steps.Linear: linear,
    steps.Waves: waves,
    steps.Activation: activation,
    steps.Affine: affine,
    steps.Concat: concat,
    steps.Add: add,
    steps.Lookup: lookup,
    steps.Planes: planes,
    steps.Embed: embed,
    steps.Tiled: tiled,
    steps.Attend: attend,
}
"""Kind of step -> what writes it."""

ACTIVATIONS = {
    "relu": "max({x}, vec4(0.0))",
    "leaky-relu": "max({x}, 0.2 * {x})",
    "leaky-relu-0.1": "max({x}, 0.1 * {x})",
    "gelu": "0.5 * {x} * (vec4(1.0) + error_function({x} * 0.70710678))",
    "silu": "{x} / (vec4(1.0) + exp(-{x}))",
    "tanh": "vec4(1.0) - 2.0 / (exp(2.0 * {x}) + vec4(1.0))",
    "sigmoid": "1.0 / (vec4(1.0) + exp(-{x}))",
    "sine": "sine({w} * {x})",
    "h-sine": "sine({w} * {x})",
    "h-sine-first": "sine({w} * (0.5 * (exp(2.0 * {x}) - exp(-2.0 * {x}))))",
    "finer": "sine({w} * (abs({x}) + vec4(1.0)) * {x})",
    "gaussian": "bell({s} * {x})",
    "gabor": "cosine({w} * {x}) * bell({s} * {x})",
}
"""Activation -> its expression. w: the frequency, s: the scale."""

TURN = (6.28125, 1.9350051879882812e-3, 3.019915981956753e-7)
"""2 pi in three parts: multiples of the first two, up to thousands, are exact in float32."""


def write_basics(d: Dialect) -> str:
    """The functions that expressions use."""
    one = [("vec4", "x")]
    whole = f"floor(x * {number(1 / math.tau)} + vec4(0.5))"
    parts = [number(part) for part in TURN]
    return f"""{d.function("sine_of_rest", one, "vec4")} // abs(x) <= pi
  {d.variable("vec4", "a", f"min(abs(x), vec4({number(math.pi)}) - abs(x))")}
  {d.variable("vec4", "s", "a * a")}
  a = a * (1.0 + s * (-1.6666667e-1 + s * (8.3333333e-3 + s * (-1.98412698e-4
    + s * (2.75573192e-6 - s * 2.50521084e-8)))));
  return a * sign(x);
}}
{d.function("rest", one, "vec4")} // of a phase, without its whole turns
  {d.variable("vec4", "k", whole)}
  return ((x - k * {parts[0]}) - k * {parts[1]}) - k * {parts[2]};
}}
{d.function("sine", one, "vec4")}
  return sine_of_rest(rest(x));
}}
{d.function("cosine", one, "vec4")}
  return sine_of_rest(vec4({number(math.pi / 2)}) - abs(rest(x)));
}}
{d.function("sine_of_turns", one, "vec4")}
  return sine_of_rest((x - floor(x + vec4(0.5))) * {number(math.tau)});
}}
{d.function("bell", one, "vec4")}
  return exp(-min(x * x, vec4(40.0)));
}}
{d.function("error_function", one, "vec4")}
  {d.variable("vec4", "t", "1.0 / (vec4(1.0) + 0.3275911 * abs(x))")}
  return sign(x) * (vec4(1.0) - t * (0.254829592 + t * (-0.284496736 + t * (1.421413741
    + t * (-1.453152027 + t * 1.061405429)))) * exp(-x * x));
}}
"""
