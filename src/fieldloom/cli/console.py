"""Output of the command line."""

from __future__ import annotations

import sys
from typing import Any

from fieldloom.errors import printable
from fieldloom.progress import stop_clock


def console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def say(text: str) -> None:
    stop_clock()
    print(printable(text), flush=True)


def cell(value: Any) -> Any:
    """A value for a cell of a rich table, which does not read it as markup."""
    from rich.text import Text

    return Text(printable(str(value)))
