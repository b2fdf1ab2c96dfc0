"""A program as a file of plain PyTorch, with its weights beside it: no fieldloom is needed."""

from __future__ import annotations

import inspect
import json
from keyword import iskeyword
from pathlib import Path
from typing import Any

from safetensors.torch import save

from fieldloom import atomic
from fieldloom.programs import plain
from fieldloom.programs.calls import Call, Held, call_of, tensors_of
from fieldloom.programs.program import Coords, Program, Step

HEAD = '''"""A neural field in plain PyTorch, written by fieldloom.

    {load}

    field = Field()                          # weights: {weights}, beside this file
    values = field(coords)                   # (points, {coord_dim}) -> (points, {value_dim})
"""

import math
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


'''

CLASS = '''

class Field(nn.Module):
    """The field: coords (points, {coord_dim}) -> values (points, {value_dim})."""

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__()
        path = Path(__file__).with_name({weights}) if path is None else Path(path)
        for name, x in load_file(path).items():
            self.register_buffer(f"x{{name.replace('.', '_')}}", x)

    def forward(self, coords: Tensor) -> Tensor:
{body}
        return {last}
'''


def write_torch(program: Program, path: str | Path) -> tuple[Path, Path]:
    """Write a module ``Field`` of plain PyTorch, and its weights beside it; returns both paths.

    The file needs torch and safetensors alone. Its values are those of the program.
    """
    path = atomic.as_path(path)
    weights = path.with_suffix(".safetensors")
    told = {
        "load": write_import(path),
        "weights": json.dumps(weights.name),
        "coord_dim": program.coord_dim,
        "value_dim": program.value_dim,
    }
    calls = [call_of(step) for step in program.steps]
    each = zip(program.steps, calls, strict=True)
    lines = [write_line(number, step, call) for number, (step, call) in enumerate(each)]
    used = {call.name for call in calls}
    body = CLASS.format(**told, body="\n".join(lines), last=f"x{len(lines) - 1}")
    tensors = {name: x.contiguous() for name, x in tensors_of(program).items()}
    atomic.write_bytes(save(tensors), weights)
    atomic.write_text(HEAD.format(**told) + copy_functions(used) + body, path)
    return path, weights


def write_import(path: Path) -> str:
    """The line that imports the module, whose name Python may not take for one."""
    if path.stem.isidentifier() and not iskeyword(path.stem):
        return f"from {path.stem} import Field"
    return f"Field = runpy.run_path({json.dumps(path.name)})['Field']"


def copy_functions(used: set[str]) -> str:
    """The source of the functions of ``plain`` that are called."""
    found = []
    if "activate" in used:
        text = inspect.getsource(plain)
        table = text[text.index("ACTIVATIONS = {") :]
        found += [inspect.getsource(plain.bell), table[: table.index("\n}\n") + 3]]
    functions = ("waves", "lookup", "planes", "embed", "tiled", "attend")
    found += [inspect.getsource(getattr(plain, name)) for name in functions if name in used]
    return "\n\n".join(found)


def write_line(number: int, step: Step, call: Call) -> str:
    """The line of a step."""
    inputs = ["coords"] if isinstance(step, Coords) else [f"x{i}" for i in step.inputs]
    given = [write_value(number, x) for x in call.given]
    x = inputs[0] if inputs else ""
    made = {
        "part": lambda: f"{x}[:, {given[0]}:{given[1]}]",
        "linear": lambda: f"{x} @ {given[0]} + {given[1]}",
        "activate": lambda: f"ACTIVATIONS[{given[0]}]({x}, {given[1]}, {given[2]})",
        "affine": lambda: f"{given[0]} * {x} + {given[1]}",
        "concat": lambda: f"torch.cat([{', '.join(inputs)}], 1)",
        "add": lambda: " + ".join(inputs),
    }.get(call.name, lambda: f"{call.name}({', '.join([*inputs, *given])})")
    return f"        x{number} = {made()}"


def write_value(number: int, value: Any) -> str:
    """A number as Python writes it, or the name of a tensor of a step."""
    return f"self.x{number}_{value.name}" if isinstance(value, Held) else repr(value)
