"""What fuzzing has found: a name, and what writes the case into a folder and gives its command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .good import Good

FOUND: dict[str, Callable[[Good, Path], list[str]]] = {}
