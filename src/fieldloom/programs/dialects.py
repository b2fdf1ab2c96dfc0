"""The two languages of shaders that programs are written in: how each declares things.

Expressions are the same text in both: WGSL gets GLSL's names of types as aliases, but for those of
vectors, which are WGSL's own as constructors; declarations call them ``vec4f``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Dialect(NamedTuple):
    """How a language declares things.

    head:     what stands before all functions; it defines ``W(i)``, the i-th four numbers.
    function: (name, arguments as (type, name), type of the result) -> the line that opens it.
    variable: (type, name, expression). array: (type, name, size), not filled. loop: (variable,
    count) -> the line that opens it. table: (type, name, numbers): a constant array.
    """

    head: str
    function: Callable[[str, Sequence[tuple[str, str]], str], str]
    variable: Callable[[str, str, str], str]
    array: Callable[[str, str, int], str]
    loop: Callable[[str, int], str]
    table: Callable[[str, str, Sequence[str]], str]


ROW = 2048
"""Texels of a row of the texture that holds the numbers: WebGL2 promises no wider ones."""

GLSL = Dialect(
    head=(
        "precision highp float;\nprecision highp int;\nprecision highp sampler2D;\n"
        "uniform sampler2D numbers;\n"
        f"vec4 W(int i) {{ return texelFetch(numbers, ivec2(i % {ROW}, i / {ROW}), 0); }}\n"
    ),
    function=lambda name, given, result: (
        f"{result} {name}({', '.join(f'{kind} {own}' for kind, own in given)}) {{"
    ),
    variable=lambda kind, name, value: f"{kind} {name} = {value};",
    array=lambda kind, name, size: f"{kind} {name}[{size}];",
    loop=lambda name, count: f"for (int {name} = 0; {name} < {count}; {name}++) {{",
    table=lambda kind, name, numbers: (
        f"const {kind} {name}[{len(numbers)}] = {kind}[{len(numbers)}]({', '.join(numbers)});"
    ),
)


def wgsl_type(kind: str) -> str:
    """``vec4[2]`` -> ``array<vec4f, 2>``."""
    name, _, size = kind.partition("[")
    sort, vector, width = name.rpartition("vec")
    name = f"vec{width}{sort or 'f'}" if vector else name
    return f"array<{name}, {size[:-1]}>" if size else name


WGSL = Dialect(
    head=(
        "alias float = f32;\nalias int = i32;\nalias uint = u32;\nalias mat4 = mat4x4f;\n"
        "@group(0) @binding(0) var<storage, read> numbers: array<vec4f>;\n"
        "fn W(i: int) -> vec4f { return numbers[i]; }\n"
    ),
    function=lambda name, given, result: (
        f"fn {name}({', '.join(f'{own}: {wgsl_type(kind)}' for kind, own in given)}) -> "
        f"{wgsl_type(result)} {{"
    ),
    variable=lambda kind, name, value: f"var {name}: {wgsl_type(kind)} = {value};",
    array=lambda kind, name, size: f"var {name}: array<{wgsl_type(kind)}, {size}>;",
    loop=lambda name, count: f"for (var {name}: int = 0; {name} < {count}; {name}++) {{",
    table=lambda kind, name, numbers: (
        f"const {name} = array<{kind}, {len(numbers)}>({', '.join(numbers)});"
    ),
)

DIALECTS = {"glsl": GLSL, "wgsl": WGSL}
