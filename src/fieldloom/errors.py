"""What goes wrong, in one sentence that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FieldloomError(Exception):
    """A run that failed (exit status 1)."""


class InputError(FieldloomError, ValueError):
    """An input that was wrong (exit status 2): the message names it, and what would be right."""


class Interrupted(FieldloomError):
    """The user stopped a run that ``--resume`` continues (exit status 130)."""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, with the nearest right one."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return InputError(f"unknown {what} '{name}'{hint} There are: {', '.join(known) or 'none'}.")
