"""What the command line says."""

from __future__ import annotations

import sys
from typing import Any


def console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def say(text: str) -> None:
    print(text, flush=True)
