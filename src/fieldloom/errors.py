"""Errors, each with one sentence that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike
from typing import Any


class FieldloomError(Exception):
    """A run that failed (exit status 1)."""


class InputError(FieldloomError, ValueError):
    """An input that was wrong (exit status 2): the message names it, and what would be right."""


class Interrupted(FieldloomError):
    """The user stopped a run that ``--resume`` continues (exit status 130)."""


LONGEST = 120
"""Characters of a value that a message shows."""


def escape_bytes(text: str) -> str:
    """Text with the bytes of a file's name that are not UTF-8 written as ``\\xe9``.

    Python holds such bytes as lone surrogates (PEP 383), which no UTF-8 file can hold.
    """
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)


def printable(text: str) -> str:
    """Text on one line, without the escape sequences that a name may hold."""
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
    near = get_close_matches(name[:LONGEST], names, n=1, cutoff=0.65)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    there = ", ".join(names) or "none"
    return InputError(f"unknown {what} '{shorten(name)}'{hint} There are: {there}.")
