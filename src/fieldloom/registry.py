"""Build a part from its spec: a name, or a table with a name and arguments.

The constructor is the schema. Arguments that a recipe gives are checked strictly against its
annotations (an int may serve as a float; ``true`` is no int); arguments that the program knows
(slots, shapes) are handed over as they are, to constructors that ask for them.

A name is one of a table, of the parts that the program registered (``register``), or of those that
installed packages offer (entry points of the group ``fieldloom.parts``, named ``kind.name``).
``module:Class`` is imported only where the user trusts that module; nothing that a file says can
import anything else.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fieldloom.errors import FieldloomError, InputError, name_argument, quote, shorten, unknown
from fieldloom.permit import NOTHING, Permit
from fieldloom.recipe import parse_toml

Table = Mapping[str, Callable[..., Any]]


def build(
    kind: str, spec: Any, tables: Mapping[str, Table], permit: Permit = NOTHING, **provided: Any
) -> Any:
    """The part that ``spec`` describes.

    kind:   the key of the table that holds the name (``field``, ``codec`` ...).
    spec:   ``"siren"`` or ``{"name": "siren", "width": 64}``.
    tables: kind -> name -> class. An argument whose own key is a kind is a nested spec, or a list
            of them, built first; so is one annotated with a dataclass, which needs no name, and
            whose own default fills in what the spec leaves out.
    permit: what the user allows; goes to every constructor that has an argument ``permit``.
    provided: values of the program; each goes to every constructor that has such an argument.

    Raises InputError, naming the argument, for an unknown name, an unknown or missing argument or a
    value of the wrong type.
    """
    if not isinstance(spec, str | Mapping):
        raise InputError(
            f"{kind} = {quote(spec)} is not right: it is a name, or a table with a name."
        )
    arguments = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{kind}: a table needs a name, one of {', '.join(sorted(tables[kind]))}.")
    make = find(kind, name, tables, permit)
    part = kind if kind.endswith(f".{name}") else f"{kind} '{shorten(name)}'"
    hints = hints_of(make)
    provided = provided | {"permit": permit}
    offered = {key: value for key, value in provided.items() if key in hints}
    for key, value in arguments.items():
        if key not in hints or key in offered:
            settable = [k for k in hints if k not in provided]
            raise unknown(f"argument of {part}", str(key), settable)
        default = parameters_of(make)[key].default
        offered[key] = build_argument(kind, key, value, hints[key], default, tables, provided)
    missing = [
        key
        for key, parameter in parameters_of(make).items()
        if key not in offered and parameter.default is parameter.empty
    ]
    if missing:
        raise InputError(f"{part} needs the argument '{missing[0]}', which was not given.")
    try:
        return make(**offered)
    except FieldloomError:
        raise
    except Exception as error:  # whatever a constructor raises for values of the right type
        raise refusal(part, provided | arguments, error) from error


def build_argument(
    kind: str,
    key: str,
    value: Any,
    annotation: Any,
    default: Any,
    tables: Mapping[str, Table],
    provided: Mapping[str, Any],
) -> Any:
    """An argument of a part from its spec: a part, several parts, a dataclass, or a checked value.

    default: the constructor's own, whose fields complete a dataclass. provided: as of ``build``,
    with the permit.
    """
    where = f"{kind}.{key}"
    if key in tables and may_be_part(annotation):
        if not isinstance(value, list | tuple):
            return build(key, value, tables, **provided)
        if not takes_several(annotation):
            raise InputError(f"{where} = {quote(value)} is not right: it is one part, no list.")
        return tuple(build(key, one, tables, **provided) for one in value)
    described = dataclass_of(annotation)
    if described is None:
        return check_value(where, value, annotation)
    if not isinstance(value, Mapping):
        raise InputError(f"{where} = {quote(value)} is not right: it is a table.")
    rest: dict[str, Any] = {}
    if is_dataclass(default):
        rest = {f.name: getattr(default, f.name) for f in fields(default)}
    inner: dict[str, Table] = {**tables, where: {key: partial(described, **rest)}}
    return build(where, {"name": key, **value}, inner, provided["permit"])


def refusal(part: str, arguments: Mapping[str, Any], error: Exception) -> InputError:
    """The sentence for a part that cannot be made from its arguments."""
    from fieldloom.memory import TooMuch, too_large, total_memory  # late: it imports torch

    if not isinstance(error, TooMuch):
        why = shorten(str(error)).rstrip(".") or type(error).__name__
        return InputError(f"{part} cannot be made from these arguments: {why}.")
    flat = flatten(arguments)
    sizes = {key: size for key, value in flat.items() if (size := largest(value)) > 1}
    chief = sorted(sizes, key=lambda key: -sizes[key])[:3]
    given = ", ".join(f"{key} = {quote(flat[key])}" for key in chief)
    return too_large(part, error.count, total_memory(), given)


def flatten(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted keys: ``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in arguments.items():
        inner = flatten(value) if isinstance(value, Mapping) else None
        flat |= {key: value} if inner is None else {f"{key}.{k}": v for k, v in inner.items()}
    return flat


def largest(value: Any) -> int:
    """The largest whole number in an argument; 0 where there is none."""
    if isinstance(value, list | tuple):
        return max(map(largest, value), default=0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def may_be_part(annotation: Any) -> bool:
    """Whether an argument may be a part: not a plain value, as ``start`` of a video is, and not a
    dataclass, as ``grid`` of an encoding is."""
    plain = (int, float, bool, str, type(None))
    return dataclass_of(annotation) is None and not all(
        a in plain for a in get_args(annotation) or (annotation,)
    )


def takes_several(annotation: Any) -> bool:
    """Whether an argument may be a tuple of parts: ``Penalty | tuple[Penalty, ...]``."""
    return any((get_origin(a) or a) is tuple for a in (annotation, *get_args(annotation)))


def dataclass_of(annotation: Any) -> Any:
    """The dataclass that an argument is, or may be (``Embedding | None``); None for others."""
    return next((a for a in (annotation, *get_args(annotation)) if is_dataclass(a)), None)


GROUP = "fieldloom.parts"
"""Entry points of installed packages: ``field.gabor = "my_package:Gabor"``."""

_registered: dict[tuple[str, str], Callable[..., Any]] = {}


def register(kind: str, name: str, part: Callable[..., Any]) -> None:
    """Let recipes of this process name a part: ``register("field", "gabor", Gabor)``.

    kind: the key of a recipe that it belongs to (``field``, ``conditioner``, ``codec`` ...).
    Raises InputError where the name is no plain word, or another part has it already.
    """
    if not isinstance(name, str) or not name or ":" in name or not name.isprintable():
        raise InputError(f"register: {quote(name)} is no name: give a word without ':'.")
    if not callable(part):
        raise InputError(f"register: {quote(part)} is no class and no function.")
    if _registered.get((kind, name), part) is not part:
        raise InputError(f"register: there is a {kind} '{name}' already.")
    _registered[kind, name] = part


Offered = EntryPoint | Callable[..., Any]


def list_offered() -> dict[str, dict[str, Offered]]:
    """Kind -> name -> a part beyond the package's own: registered ones, and installed packages'."""
    offered: dict[str, dict[str, Offered]] = {}
    for entry in entry_points(group=GROUP):
        kind, dot, name = entry.name.partition(".")
        if dot:
            offered.setdefault(kind, {})[name] = entry
    for (kind, name), part in _registered.items():
        offered.setdefault(kind, {})[name] = part
    return offered


def find(
    kind: str, name: str, tables: Mapping[str, Table], permit: Permit = NOTHING
) -> Callable[..., Any]:
    """The class behind a name; behind ``module:Class`` where the user trusts the module.

    Raises InputError for any other name, before anything is imported or called, and for a class
    without the interface of the table's entries.
    """
    table = tables[kind]
    if name in table:
        if (kind, name) in _registered:
            raise InputError(
                f"{kind} '{name}' was registered, and is the package's own: rename it."
            )
        return table[name]
    alike = [other for other, own in tables.items() if own is table]  # a start is an encoder
    offered = list_offered()
    others = {key: part for other in alike for key, part in offered.get(other, {}).items()}
    if name in others:
        found: Any = others[name]
        if isinstance(found, EntryPoint):
            found = import_part(kind, name, found.module, found.attr)
        return check_kind(kind, name, found, table)
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise unknown(kind, name, [*table, *others])
    if not any(module == one or module.startswith(f"{one}.") for one in permit.trust):
        raise InputError(
            f"{kind} '{shorten(name)}' is code of another module, which is not imported: "
            f"{name_argument('trust', shorten(module))} allows it, if you trust that code."
        )
    here = str(Path.cwd())
    new = here not in sys.path
    if new:
        sys.path.append(here)  # last, so that it shadows no installed module
    try:
        return check_kind(kind, name, import_part(kind, name, module, attribute), table)
    finally:
        if new:
            sys.path.remove(here)


def import_part(kind: str, name: str, module: str, attribute: str) -> Any:
    """An attribute of a module that is imported. Raises InputError, whatever the module raises."""
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        why = shorten(str(error))
        raise InputError(f"{kind} '{shorten(name)}' cannot be imported: {why}.") from error


def check_kind(kind: str, name: str, found: Any, table: Table) -> Callable[..., Any]:
    """``found``, if it has the interface of a table's entries; it is not called to check that.

    A class needs the base classes and public methods that all entries have in common, a function
    their common arguments. Raises InputError.
    """
    entries: list[Any] = [getattr(entry, "func", entry) for entry in table.values()]
    if all(inspect.isclass(entry) for entry in entries):
        if not inspect.isclass(found):
            raise InputError(f"{kind} '{name}' is a {type(found).__name__}: it must be a class.")
        bases = set.intersection(*(set(entry.__mro__) for entry in entries))
        lacking = sorted(base.__name__ for base in bases - set(found.__mro__))
        if lacking:
            raise InputError(f"{kind} '{name}' is no {kind}: it must be a {lacking[0]}.")
        missing = sorted(set.intersection(*map(methods, entries)) - methods(found))
        if missing:
            raise InputError(f"{kind} '{name}' is no {kind}: it has no method '{missing[0]}'.")
        return found
    if not inspect.isfunction(found) and not inspect.isclass(found):
        raise InputError(f"{kind} '{name}' is a {type(found).__name__}: it must be a function.")
    common = set.intersection(*(set(parameters_of(entry)) for entry in entries))
    try:
        missing = sorted(common - set(parameters_of(found)))
    except (TypeError, ValueError):  # a built-in without a signature
        missing = sorted(common)
    if missing:
        raise InputError(f"{kind} '{name}' is no {kind}: it has no argument '{missing[0]}'.")
    return found


def methods(part: type) -> set[str]:
    """The public methods of a class, ``__call__`` among them."""
    names = {name for base in part.__mro__ if base is not object for name in vars(base)}
    public = {name for name in names if name == "__call__" or not name.startswith("_")}
    return {name for name in public if callable(getattr(part, name, None))}


def hints_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Argument name -> annotation of a class or function (or a partial of one)."""
    inner = make.func if isinstance(make, partial) else make
    hints = get_type_hints(inner.__init__ if inspect.isclass(inner) else inner)
    return {key: hints.get(key, Any) for key in parameters_of(make)}


def parameters_of(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named arguments of a class or function."""
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(make).parameters
    return {key: p for key, p in found.items() if p.kind not in unnamed}


@cache
def _adapter(annotation: Any) -> Any:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))


TINY, HUGE = 1e-37, 1e37
"""The smallest and the largest numbers that are accepted, a little inside float32's range."""


def check_value(where: str, value: Any, annotation: Any) -> Any:
    """``value`` if it fits the annotation; lists become tuples. Raises InputError.

    Numbers must be finite, and within the range of float32 or int64.
    """
    value = _freeze(value)
    for number in _numbers(value):
        if isinstance(number, float) and number and not TINY <= abs(number) <= HUGE:
            raise InputError(
                f"{where} = {quote(value)} is not right: numbers lie between -{HUGE:g} and "
                f"{HUGE:g}, and are 0 or at least {TINY:g} in size."
            )
        if isinstance(number, int) and not -(2**63) <= number < 2**63:
            raise InputError(
                f"{where} = {quote(value)} is not right: whole numbers lie below 2^63."
            )
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        why = first["msg"].lower()
        raise InputError(f"{where} = {quote(value)} is not right: {why}.") from None


def parse_value(raw: str, annotation: Any) -> Any:
    """The value of a text for an argument with this annotation; ``build`` checks it later.

    An argument that is text alone takes the text as it stands, without the quotes around it where
    it is a text of TOML. Others take what TOML reads where that fits, or else the text where that
    fits: ``float | Literal["step"]`` takes a number or ``step``. A tuple of texts takes one text as
    its only entry. No argument is a date: what looks like one is text.
    """
    text = _unquote(raw)
    if _is_text(annotation):
        return text
    try:
        value = parse_toml(raw, "")
    except InputError:
        value = text
    if _fits(value, annotation) or isinstance(value, Mapping | list):
        return value
    if _fits((text,), annotation):
        return [text]
    return text if _fits(text, annotation) else value


def _is_text(annotation: Any) -> bool:
    """Whether an argument is text, one of some texts, or None, and nothing else."""
    if get_origin(annotation) is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    if annotation in (str, type(None)):
        return True
    return get_origin(annotation) in (Union, UnionType) and all(map(_is_text, get_args(annotation)))


def _unquote(raw: str) -> str:
    """A text in TOML's quotes without them; any other text as it stands."""
    if len(raw) > 1 and raw[0] in "\"'" and raw[-1] == raw[0]:
        with suppress(InputError):
            value = parse_toml(raw, "")
            return value if isinstance(value, str) else raw
    return raw


def _fits(value: Any, annotation: Any) -> bool:
    try:
        check_value("", value, annotation)
    except InputError:
        return False
    return True


def annotation_of(
    kind: str, spec: Any, keys: Sequence[str], tables: Mapping[str, Table], permit: Permit = NOTHING
) -> Any:
    """The annotation of an argument of a part, or of a part within it.

    spec: the part, as of ``build``; keys: the path to the argument. Any where there is no such part
    or argument: ``build`` raises the error.
    """
    if not keys:
        return Mapping  # a part: a table, or its name
    spec = {"name": spec} if isinstance(spec, str) else spec
    name = spec.get("name") if isinstance(spec, Mapping) else None
    key, *rest = keys
    if key == "name" and not rest:
        return str
    try:
        make = find(kind, str(name), tables, permit)
    except InputError:
        return Any
    hint = hints_of(make).get(key, Any)
    if key in tables and may_be_part(hint):
        return annotation_of(key, spec.get(key), rest, tables, permit)
    for inner in rest:
        described = dataclass_of(hint)
        own = {"name": str} if described is None else hints_of(described)
        hint = own.get(inner, Any)
    return hint if dataclass_of(hint) is None else Mapping


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


def _freeze(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    return value
