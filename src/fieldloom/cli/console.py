"""What the command line says."""

from __future__ import annotations

import sys
from typing import Any


def console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def say(text: str) -> None:
    print(printable(text), flush=True)


def printable(text: str) -> str:
    """On one line, without escape sequences that a name may hold."""
    return "".join(c if c.isprintable() else " " for c in text).rstrip()


def cell(value: Any) -> Any:
    """A value for a table of rich, whose markup it cannot be taken for."""
    from rich.text import Text

    return Text(printable(str(value)))
