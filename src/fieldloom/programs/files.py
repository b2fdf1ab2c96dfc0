"""A program as files: of plain PyTorch, ONNX, and source of shaders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fieldloom import atomic
from fieldloom.errors import unknown
from fieldloom.programs.onnx_file import write_onnx
from fieldloom.programs.program import Program
from fieldloom.programs.shader import write_shader
from fieldloom.programs.torch_file import write_torch

WRITERS: dict[str, Callable[[Program, Path], tuple[Path, ...]]] = {
    "torch": lambda program, path: write_torch(program, path),
    "onnx": lambda program, path: (write_onnx(program, path),),
    "glsl": lambda program, path: write_source(program, path, "glsl"),
    "wgsl": lambda program, path: write_source(program, path, "wgsl"),
}
"""Format -> what writes it; returns the paths of what was written."""

BESIDE = {"torch": ".safetensors", "glsl": ".bin", "wgsl": ".bin"}
"""Format -> the suffix of a file of weights beside it."""


def write_program(program: Program, path: str | Path, format: str) -> tuple[Path, ...]:
    """Write a program in a format of ``WRITERS``; returns its path, and that of its weights.

    Raises InputError for another format.
    """
    if format not in WRITERS:
        raise unknown("format", format, WRITERS)
    return WRITERS[format](program, atomic.as_path(path))


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
