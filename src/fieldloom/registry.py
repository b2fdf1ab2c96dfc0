"""Build a part from its spec: a name, or a table with a name and arguments.

The constructor is the schema. Arguments that a recipe gives are checked strictly against its
annotations (an int may serve as a float; ``true`` is no int); arguments that the program knows
(slots, shapes) are handed over as they are, to constructors that ask for them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache, partial
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fieldloom.errors import InputError, unknown

Table = Mapping[str, Callable[..., Any]]
Spec = str | Mapping[str, Any]


def build(kind: str, spec: Spec, tables: Mapping[str, Table], **known: Any) -> Any:
    """The part that ``spec`` describes.

    kind:   the key whose table the name is looked up in (``field``, ``codec`` ...), for messages
        too.
    spec:   ``"siren"`` or ``{"name": "siren", "width": 64}``; ``"module:Class"`` for third parties.
    tables: kind -> name -> class. An argument whose own key is a kind is a nested spec, or a list
            of them, built first; so is one annotated with a dataclass, which needs no name.
    known:  values that the program knows; each goes to every constructor that has such an argument.

    Raises InputError, naming the argument, for an unknown name, an unknown or missing argument or a
    value of the wrong type.
    """
    if not isinstance(spec, str | Mapping):
        raise InputError(f"{kind} = {spec!r} is not right: it is a name, or a table with a name.")
    arguments = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{kind}: a table needs a name, one of {', '.join(sorted(tables[kind]))}.")
    make = find(kind, name, tables[kind])
    hints = hints_of(make)
    offered = {key: value for key, value in known.items() if key in hints}
    for key, value in arguments.items():
        if key not in hints or key in offered:
            settable = [k for k in hints if k not in known]
            raise unknown(f"argument of {kind} '{name}'", key, settable)
        if key in tables and isinstance(value, list | tuple):
            if not takes_several(hints[key]):
                raise InputError(f"{kind}.{key} = {value!r} is not right: it is one part, no list.")
            offered[key] = tuple(build(key, one, tables, **known) for one in value)
        elif key in tables:
            offered[key] = build(key, value, tables, **known)
        elif (described := dataclass_of(hints[key])) is not None:
            if not isinstance(value, Mapping):
                raise InputError(f"{kind}.{key} = {value!r} is not right: it is a table.")
            offered[key] = build(key, {"name": key, **value}, {key: {key: described}})
        else:
            offered[key] = check(f"{kind}.{key}", value, hints[key])
    missing = [
        key
        for key, parameter in parameters(make).items()
        if key not in offered and parameter.default is parameter.empty
    ]
    if missing:
        raise InputError(f"{kind} '{name}' needs the argument '{missing[0]}', which was not given.")
    return make(**offered)


def takes_several(annotation: Any) -> bool:
    """Whether an argument may be a tuple of parts: ``Penalty | tuple[Penalty, ...]``."""
    return any((get_origin(a) or a) is tuple for a in (annotation, *get_args(annotation)))


def dataclass_of(annotation: Any) -> Any:
    """The dataclass that an argument is, or may be (``Embedding | None``); None for others."""
    return next((a for a in (annotation, *get_args(annotation)) if is_dataclass(a)), None)


def find(kind: str, name: str, table: Table) -> Callable[..., Any]:
    """The class behind a name of a table, or behind ``module:Class``."""
    if name in table:
        return table[name]
    if ":" not in name:
        raise unknown(kind, name, table)
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{kind} '{name}' cannot be imported: {error}.") from error


def hints_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Argument name -> annotation of a class or function (or a partial of one)."""
    inner = make.func if isinstance(make, partial) else make
    hints = get_type_hints(inner.__init__ if inspect.isclass(inner) else inner)
    return {key: hints.get(key, Any) for key in parameters(make)}


def parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named arguments of a class or function."""
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(make).parameters
    return {key: p for key, p in found.items() if p.kind not in unnamed}


@cache
def _adapter(annotation: Any) -> Any:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def check(where: str, value: Any, annotation: Any) -> Any:
    """``value`` if it fits the annotation; lists become tuples. Raises InputError."""
    value = _frozen(value)
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{where} = {value!r} is not right: {first['msg'].lower()}.") from None


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return value
