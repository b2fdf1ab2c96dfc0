"""The names that recipes can use, and what they stand for, read from the source without importing.

Importing the parts takes seconds, because of torch. The tables are literals, ``{"name": Part}`` at
the top of a module, so that the parser finds in them what an import would: there is no second list.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fieldloom.recipe import read_bundled

PACKAGE = Path(__file__).parent

PARTS = "fieldloom.assembly", "TABLES"
"""The module and the name of the table of tables: kind of part -> its table."""

OTHERS = {
    "optimizers": ("fieldloom.engine.stage", "OPTIMIZERS"),
    "schedules": ("fieldloom.settings", "SCHEDULES"),
    "losses": ("fieldloom.metrics.losses", "LOSSES"),
    "detectors": ("fieldloom.metrics.detectors", "DETECTORS"),
    "cloud detectors": ("fieldloom.metrics.cloud_features", "CLOUD_DETECTORS"),
}
"""Tables of what are no parts: what they hold -> their module and name."""

SECTIONS = {
    "train": ("fieldloom.settings", "Stage"),
    "evaluate": ("fieldloom.settings", "Evaluation"),
}
"""Sections of a recipe that are no parts: their name -> the module and the class of their keys."""

PROVIDED: Mapping[str, set[str]] = {
    "source": {"modality", "suggest", "depths"},
    "renderer": {"unit_length"},
    "field": {"coord_dim", "value_dim", "direction_dim"},
    "conditioner": {"slots"},
    "encoder": {"batch", "code_shape", "signals", "classes", "axes", "coord_dim", "grid_dim",
                "value_dim"},
    "prior": {"layout", "code_shape", "signals", "classes"},
    "objective": {"family", "encoder", "render", "loss_fn", "prior", "link", "coord_dim",
                  "grid_dim", "value_dim", "span", "silence"},
    "optimizers": {"parameters"},
    "losses": {"predicted", "true"},
}  # fmt: skip
"""Kind -> arguments that the program hands to its parts: they are no keys of a recipe."""

WITHIN = {
    "start": "encoder",
    "unseen": "encoder",
    "codec": "prior",
    "denoiser": "prior",
    "penalty": "objective",
    "critic": "objective",
    "arrangement": "field",
    "grid": "field",
}
"""Kind of a nested part -> the kind within which it is made, and whose arguments it shares."""


class About(NamedTuple):
    """What a bundled recipe and its variants are, a sentence each; "" where nothing is said."""

    text: str
    variants: Mapping[str, str]


def describe_recipes() -> dict[str, About]:
    """Bundled recipe -> what it and its variants are, and how long they take."""
    described = {}
    for name, found in read_bundled().items():
        variants = {key: one.get("about", "") for key, one in found.get("variants", {}).items()}
        described[name] = About(found.get("about", ""), variants)
    return described


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
    return (ast.get_docstring(found) or "") if isinstance(found, Definition) else ""


Definition = ast.ClassDef | ast.FunctionDef


def find(module: str, name: str) -> tuple[str, ast.expr | Definition]:
    """Where a name of a module is defined, and as what; imports are followed."""
    found = read_module(module)[name]
    return find(*found) if isinstance(found, Elsewhere) else (module, found)


@cache
def read_module(module: str) -> dict[str, Elsewhere | ast.expr | Definition]:
    """The names at the top of a module: what is imported, values, classes and functions.

    The empty name is the module's docstring.
    """
    place = PACKAGE.joinpath(*module.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    names: dict[str, Elsewhere | ast.expr | Definition] = {}
    tree = ast.parse(file.read_bytes())
    names[""] = ast.Constant(ast.get_docstring(tree) or "")
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: Elsewhere(node.module, a.name) for a in node.names}
        elif isinstance(node, Definition):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {one.id: node.value for one in targets if isinstance(one, ast.Name)}
    return names


# -- keys


class Key(NamedTuple):
    """A key of a recipe's section. Of a table within it the name is dotted, as in a recipe.

    default: as the source writes it; None: the key must be given. values: what it may be, likewise.
    """

    name: str
    default: str | None
    values: str
    meaning: str


class Argument(NamedTuple):
    """An argument as its definition has it; home: the module of that."""

    annotation: ast.expr | None
    default: ast.expr | None
    home: str


def read_keys(kind: str, name: str) -> list[Key]:
    """The keys of a part, by the kind and the name; of a section (``train``), with its name twice.

    Raises KeyError for what there is not.
    """
    if kind in SECTIONS:
        home, own = SECTIONS[kind]
        return list(_keys(home, ast.Name(own), kind, "", home))
    parts = {one: (home, ast.unparse(value)) for one, home, value in read_entries(*PARTS)}
    entries = read_entries(*(OTHERS | parts)[kind])
    home, value = {own: (home, value) for own, home, value in entries}[name]
    return [] if isinstance(value, ast.Constant) else list(_keys(home, value, kind, "", home))


def _keys(module: str, value: ast.expr, kind: str, prefix: str, table: str) -> Iterator[Key]:
    """The keys of what an expression names, calls or makes partial; dotted behind a prefix.

    table: the module that holds the table.
    """
    given: list[ast.expr] = []
    fixed: dict[str | None, ast.expr] = {}
    if isinstance(value, ast.Call):
        partial = ast.unparse(value.func) == "partial"
        given = [] if partial else value.args
        fixed = {keyword.arg: keyword.value for keyword in value.keywords}
        value = value.args[0] if partial else value.func
    home, found = find(module, ast.unparse(value))
    if not isinstance(found, Definition):
        return
    own = arguments_of(home, found)
    fixed |= dict(zip(own, given, strict=False))
    known = {"permit"} | PROVIDED.get(WITHIN.get(kind, kind), set())
    for name, (annotation, default, place) in own.items():
        words = set() if annotation is None else set(re.findall(r"\w+", ast.unparse(annotation)))
        if (name in known and not prefix) or words & {"Tensor", "Generator"}:
            continue
        default = fixed.get(name, default)
        if isinstance(default, ast.Name):  # a constant, by what it is
            constant = _own(place, default.id)[1]
            default = constant if isinstance(constant, ast.expr) else default
        meaning = meaning_of(home, found, name, set(own), table)
        written = None if default is None else ast.unparse(default)
        inner = _dataclass(place, annotation)
        if inner is None:
            yield Key(prefix + name, written, _values(place, annotation), meaning)
            continue
        optional = default is None or isinstance(default, ast.Constant)
        yield Key(prefix + name, written if optional else None, "a table", meaning)
        start = inner if optional else default
        assert start is not None
        at = place if optional else home
        yield from _keys(at, start, kind, f"{prefix}{name}.", table)


def arguments_of(module: str, found: Definition) -> dict[str, Argument]:
    """The named arguments of a function, a dataclass, or a class, its own or its base's."""
    if isinstance(found, ast.FunctionDef):
        listed = found.args
        named = [*listed.posonlyargs, *listed.args]
        defaults = [None] * (len(named) - len(listed.defaults)) + list(listed.defaults)
        pairs = [*zip(named, defaults, strict=True), *zip(listed.kwonlyargs, listed.kw_defaults,
                                                         strict=True)]  # fmt: skip
        return {x.arg: Argument(x.annotation, d, module) for x, d in pairs if x.arg != "self"}
    if is_dataclass(found):
        inherited: dict[str, Argument] = {}
        for home, base in _bases(module, found):
            inherited |= arguments_of(home, base) if is_dataclass(base) else {}
        fields = [x for x in found.body if isinstance(x, ast.AnnAssign)]
        return inherited | {
            ast.unparse(x.target): Argument(x.annotation, _made(x.value), module) for x in fields
        }
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return arguments_of(module, node)
    for home, base in _bases(module, found):
        return arguments_of(home, base)
    return {}


def is_dataclass(found: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(x) for x in found.decorator_list)


def _made(value: ast.expr | None) -> ast.expr | None:
    """The default of a dataclass's field: what ``field(default_factory=lambda: x)`` makes."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        made = value.keywords[0].value
        if isinstance(made, ast.Lambda):
            return made.body
        return ast.parse(f"{ast.unparse(made)}()", mode="eval").body
    return value


def _bases(module: str, found: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
    """The bases of a class that are the package's own, and where they are."""
    for base in found.bases:
        home, own = _own(module, ast.unparse(base))
        if isinstance(own, ast.ClassDef):
            yield home, own


def _own(module: str, name: str) -> tuple[str, ast.expr | Definition | None]:
    """As ``find``, with None for what is not the package's own."""
    found = read_module(module).get(name)
    if isinstance(found, Elsewhere):
        return _own(*found) if found.module.startswith("fieldloom") else (module, None)
    return module, found


def meaning_of(module: str, found: Definition, name: str, names: set[str], table: str) -> str:
    """What a docstring says of an argument after ``name:``, or after ``name, other:``.

    names: all arguments; what is said of one ends where something is said of another, or with the
    paragraph. What begins with "as of ``other``" is said there. Where neither the definition nor
    its bases say anything, the docstring of the table's module may, for all its entries; "" where
    nothing does.
    """
    words = said_of(name, names, ast.get_docstring(found) or "")
    other = re.match(r"as of ``(\w+)``", words)
    if other:
        home, elsewhere = _own(module if other[1] in read_module(module) else table, other[1])
        if not isinstance(elsewhere, Definition):  # another name of the table
            return words
        return meaning_of(home, elsewhere, name, set(arguments_of(home, elsewhere)), table)
    bases = _bases(module, found) if isinstance(found, ast.ClassDef) else iter(())
    theirs = (meaning_of(home, base, name, names, table) for home, base in bases)
    shared = read_module(table)[""]
    assert isinstance(shared, ast.Constant)
    every = set(re.findall(r"^(\w+):", str(shared.value), re.MULTILINE))
    return words or next(filter(None, theirs), "") or said_of(name, every, str(shared.value))


def said_of(name: str, names: set[str], text: str) -> str:
    """What a text says of one of these names, where that begins a line or a sentence."""
    keys = re.finditer(r"(?:^[ \t]*|(?<=[.;] ))((?:\w+)(?:, \w+)*):(?=\s)", text, re.MULTILINE)
    starts = [x for x in keys if set(x[1].split(", ")) <= names]
    ends = [*(x.start() for x in starts[1:]), len(text)]
    for start, end in zip(starts, ends, strict=False):
        if name in start[1].split(", "):
            return " ".join(text[start.end() : end].partition("\n\n")[0].split()).rstrip(";,")
    return ""


def _dataclass(module: str, annotation: ast.expr | None) -> ast.expr | None:
    """The dataclass that an argument is, or may be; None for others."""
    parts = [x for x in ast.walk(annotation) if isinstance(x, ast.Name)] if annotation else []
    for part in parts:
        _, found = _own(module, part.id)
        if isinstance(found, ast.ClassDef) and is_dataclass(found):
            return part
    return None


def _values(module: str, annotation: ast.expr | None) -> str:
    """What an argument may be, in words: choices, a named type by what it stands for."""
    if annotation is None:
        return "any"
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        return ast.unparse(annotation.slice).strip("()").replace(", ", " | ")
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        return _values_within(module, annotation.slice)
    if isinstance(annotation, ast.BinOp):
        return " | ".join(_values(module, x) for x in (annotation.left, annotation.right))
    if isinstance(annotation, ast.Name):
        home, found = _own(module, annotation.id)
        if found is not None:
            return _values(home, found) if isinstance(found, ast.expr) else "a part"
    return ast.unparse(annotation)


BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
"""Limits of pydantic's ``Field``, as signs."""


def _values_within(module: str, annotated: ast.expr) -> str:
    """``Annotated[int, Field(ge=1)]`` in words: ``int >= 1``."""
    assert isinstance(annotated, ast.Tuple)
    kind, *limits = annotated.elts
    words = [
        f"{BOUNDS[limit.arg]} {ast.unparse(limit.value)}"
        for call in limits
        if isinstance(call, ast.Call)
        for limit in call.keywords
        if limit.arg in BOUNDS
    ]
    return " ".join([_values(module, kind), *words])
