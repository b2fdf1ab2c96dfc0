"""Functions as a browser draws them: the shader of a run, and the numbers of each function."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from fieldloom.errors import InputError
from fieldloom.metrics.cost import count_field_weights
from fieldloom.pages.description import describe
from fieldloom.pages.page import compile_code, write_fragment
from fieldloom.programs.shader import write_shader
from fieldloom.system import System
from fieldloom.types import Code

MOST = 4_000_000
"""Numbers of a function that a browser gets; the server draws larger ones."""


class Shown(NamedTuple):
    """What a browser needs to draw any function of a run, beside the function's own numbers.

    about: as of ``pages.description``; shader: GLSL of the fragment shader; numbers: how many
    float32 each function has.
    """

    about: dict[str, Any]
    shader: str
    numbers: int


def show_field(system: System) -> Shown:
    """The shader of a run's functions.

    Raises InputError for data or fields that no page shows, and for fields that are too large.
    """
    if count_field_weights(system.family.field.slots) > MOST:
        raise InputError(f"a function has more than {MOST:,} numbers")
    field = write_shader(compile_code(system, system.family.conditioner.origin(1).detach()))
    described = describe(system, len(field.numbers))
    count = field.numbers.numel() + described.numbers.numel()
    if count > MOST:
        raise InputError(f"a function has {count:,} numbers, and a browser gets {MOST:,} at most")
    return Shown(described.about, write_fragment(field, described), count)


def pack_function(system: System, code: Code) -> bytes:
    """All numbers of the function of a code (1, tokens, width), little-endian float32."""
    field = write_shader(compile_code(system, code))
    described = describe(system, len(field.numbers))
    numbers = torch.cat([field.numbers.flatten(), described.numbers.flatten()]).cpu().float()
    return numbers.numpy().astype("<f4").tobytes()
