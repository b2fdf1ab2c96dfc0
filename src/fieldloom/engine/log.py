"""The log of a run: one JSON object a line, with a stage, a step and numbers."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fieldloom.engine.schemas import Line
from fieldloom.errors import FieldloomError


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line to a log. Raises FieldloomError where it cannot be written."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        with open(path, "ab", opener=lambda p, _: os.open(p, flags, 0o666)) as file:
            file.write((json.dumps(line) + "\n").encode())
    except OSError as error:
        raise FieldloomError(f"'{path.parent}' cannot be written: {error.strerror}.") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, none where there is no file.

    Lines that cannot be read are left out, with a warning.
    """
    lines, other = [], 0
    if not path.is_file():
        return []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            Line.model_validate(line)
        except (ValueError, RecursionError, ValidationError):
            other += bool(text.strip())  # a full disk or a power cut tears the last one
            continue
        lines.append(line)
    if other:
        warnings.warn(f"'{path}': {other} line(s) cannot be read, and are left out.", stacklevel=3)
    return lines
