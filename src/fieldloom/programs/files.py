"""A program as files of source, for engines of one's own."""

from __future__ import annotations

from pathlib import Path

from fieldloom import atomic
from fieldloom.programs.program import Program
from fieldloom.programs.shader import write_shader

USE = {
    "glsl": """// A neural field for GLSL ES 3.00: vec4[{inputs}] x -> vec4[{outputs}] field(x).
// '{name}' holds {count} times four float32 numbers, little-endian: the texels of 'numbers', a
// texture of RGBA32F, 2048 texels a row, sampled by texelFetch (filters NEAREST).
""",
    "wgsl": """// A neural field for WGSL: array<vec4f, {inputs}> -> array<vec4f, {outputs}>.
// '{name}' holds {count} times four float32 numbers, little-endian: the storage buffer 'numbers'.
""",
}
LAYOUT = """// Given are {coord_dim} coordinates, the result {value_dim} values; the rest is 0.
"""


def write_source(program: Program, path: str | Path, language: str) -> tuple[Path, Path]:
    """Write the source of a program, and its numbers beside it as ``.bin``; returns both paths.

    language: a key of ``DIALECTS``.
    """
    path, shader = atomic.as_path(path), write_shader(program, language)
    beside = path.with_suffix(".bin")
    told = (USE[language] + LAYOUT).format(
        inputs=shader.inputs,
        outputs=shader.outputs,
        name=beside.name,
        count=len(shader.numbers),
        coord_dim=program.coord_dim,
        value_dim=program.value_dim,
    )
    atomic.write_bytes(shader.numbers.numpy().astype("<f4").tobytes(), beside)
    atomic.write_text(told + shader.source, path)
    return path, beside
