"""Errors, each with one sentence that a person can act on."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from os import PathLike
from typing import Any


class FieldloomError(Exception):
    """A run that failed (exit status 1)."""


class InputError(FieldloomError, ValueError):
    """An input that was wrong (exit status 2): the message names it, and what would be right."""


class DivergedError(FieldloomError):
    """A training whose loss, or its gradient, became no number in a step, counted from 0."""

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step


class Interrupted(FieldloomError):
    """The user stopped a run that ``--resume`` continues (exit status 130)."""


LONGEST = 120
"""Characters of a value that a message shows."""

TOLD, FEW = 400, 12
"""Characters of names that a message lists; how many of them, the nearest, where all are more."""


def escape_bytes(text: str) -> str:
    """Text with the bytes of a file's name that are not UTF-8 written as ``\\xe9``.

    Python holds such bytes as lone surrogates (PEP 383), which no UTF-8 file can hold.
    """
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)


USER = re.compile(r"(?<=://)([^/\s@:]*:(?!\d+/)[^\s@]*|[^/\s@]*)@")
QUERY = re.compile(r"(?<=://)([^\s?'\"]*)\?[^\s'\"]+")
"""``user:password@`` of an address, a slash among it or not; the query of an address, which may be
a signature."""


def strip_credentials(text: str) -> str:
    """A text without what addresses in it may hold of credentials: users, passwords, queries."""
    text = USER.sub("", text)
    return QUERY.sub(r"\1", text) if "http" in text else text


def printable(text: str) -> str:
    """Text on one line, without the escape sequences that a name may hold, and without what an
    address may hold of credentials (``https://user:password@host/path?token=...``)."""
    text = strip_credentials(text)
    return "".join(c if c.isprintable() else " " for c in escape_bytes(text)).rstrip()


def shorten(text: str, longest: int = LONGEST) -> str:
    """A text of a file or a parser for a message: on one line, printable, not too long."""
    text = " ".join(printable(text[: 4 * longest]).split())
    return text if len(text) <= longest else f"{text[: longest - 4].rstrip()} ..."


def quote(value: Any) -> str:
    """A value as Python writes it, for a message, shortened."""
    try:
        return shorten(repr(value))
    except (ValueError, RecursionError):  # more digits, or deeper, than Python writes
        return f"a very long {type(value).__name__}"


def quote_path(path: str | PathLike[str]) -> str:
    """A path in quotes, for a message: printable; of a long path only its end."""
    text = printable(str(path))
    return f"'{text}'" if len(text) <= 2 * LONGEST else f"'... {text[-2 * LONGEST :]}'"


def unknown(what: str, name: str, names: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, with the nearest right one."""
    names = sorted(names)
    near = nearest(name, names)
    hint = f"; did you mean '{near}'?" if near else "."
    there = f"There are: {', '.join(names) or 'none'}."
    if len(there) > TOLD:
        some = get_close_matches(name[:LONGEST], names, n=FEW, cutoff=0.0)
        there = f"There are {len(names)}, among them {', '.join(some)}."
    return InputError(f"unknown {what} '{shorten(name)}'{hint} {there}")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of some names; None where none is similar."""
    return next(iter(get_close_matches(name[:LONGEST], list(names), n=1, cutoff=0.65)), None)


# -- the words of the caller: options on the command line, arguments in Python

_options: ContextVar[Mapping[str, str] | None] = ContextVar("options", default=None)


@contextmanager
def in_words_of(options: Mapping[str, str]) -> Iterator[None]:
    """Let messages name settings as a verb of the command line takes them.

    options: key of a recipe -> the verb's own option for it (``source.path`` -> ``--source``);
    ``evaluate.*``, ``*`` -> the option that sets any other key, of a section or at all.
    """
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)


def is_command() -> bool:
    """Whether a verb of the command line runs, and not a call of Python."""
    return _options.get() is not None


def name_value(key: str, value: str) -> str:
    """A key of a recipe and its value, for a message: ``--source 'x'``, or ``source.path = 'x'``.

    value: as the message shows it.
    """
    option = (_options.get() or {}).get(key)
    return f"{key} = {value}" if option is None else f"{option} {value}"


def set_key(key: str, value: Any) -> str:
    """How the caller gives a key of a recipe a value.

    ``--source FOLDER`` or ``--set source.name=array`` on the command line, in Python
    ``source={"path": "FOLDER"}``.
    """
    options = _options.get()
    if options is None:
        first, *rest = key.split(".")
        text = json.dumps(value)
        for inner in reversed(rest):
            text = f'{{"{inner}": {text}}}'
        return f"{first}={text}"
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if key in options:
        return f"{options[key]} {text}"
    section = f"{key.partition('.')[0]}.*"
    option = options.get(section, options.get("*"))
    return f"{key} = {text} in the recipe" if option is None else f"{option} {key}={text}"


def name_argument(name: str, value: Any = None) -> str:
    """What the caller calls an argument; with a value, how it is given.

    ``--fields``, ``--resume``, ``--stage field``; in Python ``fields``, ``resume=True``,
    ``stage="field"``.
    """
    if not is_command():
        return (
            name if value is None else f"{name}={json.dumps(value) if value is not True else True}"
        )
    option = f"--{name.replace('_', '-')}"
    return option if value is None or value is True else f"{option} {value}"


def call_fit(path: str | PathLike[str]) -> str:
    """What fits one file alone: ``fieldloom fit photo.jpg``, or the call of Python."""
    return _call("fit", path)


def call_inspect(path: str | PathLike[str]) -> str:
    """What shows the data at a path, on the command line or in Python."""
    return _call("inspect", path)


def _call(verb: str, path: str | PathLike[str]) -> str:
    if is_command():
        return f"fieldloom {verb} {shlex.quote(printable(str(path)))}"
    return f"fieldloom.{verb}({quote_path(path)})"


def call_train(recipe: str, path: str | PathLike[str]) -> str:
    """What trains a recipe on data at a path, on the command line or in Python."""
    if is_command():
        return f"fieldloom train {recipe} --source {shlex.quote(printable(str(path)))}"
    return f'fieldloom.train("{recipe}", RUN, source={{"path": {quote_path(path)}}})'
