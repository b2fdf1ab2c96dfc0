"""The names that recipes can use, and what they stand for, read from the source without importing.

Importing the parts takes seconds, because of torch. The tables are literals, ``{"name": Part}`` at
the top of a module, so that the parser finds in them what an import would: there is no second list.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent

PARTS = "fieldloom.assembly", "TABLES"
"""The module and the name of the table of tables: kind of part -> its table."""

OTHERS = {
    "optimizers": ("fieldloom.engine.stage", "OPTIMIZERS"),
    "schedules": ("fieldloom.settings", "SCHEDULES"),
    "detectors": ("fieldloom.metrics.features", "DETECTORS"),
}
"""Tables of what are no parts: what they hold -> their module and name."""


class Elsewhere(NamedTuple):
    """What a module imports by some name: the module that has it, and its name there."""

    module: str
    name: str


class Entry(NamedTuple):
    """An entry of a table: its name, the module that holds the table, and the expression there."""

    name: str
    module: str
    value: ast.expr


def read_kinds() -> dict[str, dict[str, str]]:
    """Kind of part -> name -> the docstring of its part."""
    tables = read_entries(*PARTS)
    return {kind: read_table(module, ast.unparse(table)) for kind, module, table in tables}


def read_table(module: str, table: str) -> dict[str, str]:
    """Name -> the docstring of its part, or its text, of one table."""
    return {name: read_text(home, value) for name, home, value in read_entries(module, table)}


def read_entries(module: str, table: str) -> Iterator[Entry]:
    """The entries of a table. Raises TypeError where it is no literal."""
    home, literal = find(module, table)
    if not isinstance(literal, ast.Dict):
        raise TypeError(f"{home}.{table} is no literal of a table")
    for key, value in zip(literal.keys, literal.values, strict=True):
        if not isinstance(key, ast.Constant):
            raise TypeError(f"{home}.{table} has a name that is no literal")
        yield Entry(str(key.value), home, value)


def read_text(module: str, value: ast.expr) -> str:
    """The docstring of the part that an expression of a module names; of a text, the text."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.Call):  # partial(Part, ...)
        return read_text(module, value.args[0])
    _, found = find(module, ast.unparse(value))
    return found if isinstance(found, str) else ""


def find(module: str, name: str) -> tuple[str, ast.expr | str]:
    """Where a name of a module is defined, and as what; imports are followed."""
    found = read_module(module)[name]
    return find(*found) if isinstance(found, Elsewhere) else (module, found)


@cache
def read_module(module: str) -> dict[str, Elsewhere | ast.expr | str]:
    """The names at the top of a module: what is imported, values, docstrings of definitions."""
    place = PACKAGE.joinpath(*module.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    names: dict[str, Elsewhere | ast.expr | str] = {}
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: Elsewhere(node.module, a.name) for a in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {one.id: node.value for one in targets if isinstance(one, ast.Name)}
    return names
