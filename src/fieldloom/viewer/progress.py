"""How far a run's training is: its log, its stage, and its preview."""

from __future__ import annotations

import json
import os
from threading import Lock
from typing import Any

from pydantic import ValidationError

from fieldloom.engine.layout import LOG, PREVIEW
from fieldloom.engine.run import Run
from fieldloom.engine.schemas import Line
from fieldloom.settings import Stage
from fieldloom.viewer.refusals import Refused

LINES = 2000
"""Lines of a log that are sent at a time."""
LARGEST = 1 << 26
"""Bytes of a preview."""


class Log:
    """The lines of a growing log; of each look only what is new is read.

    begun: how often it was read from its first line on, since a resumed training writes it anew.
    """

    def __init__(self, run: Run) -> None:
        self.path = run.folder / LOG
        self.lines: list[dict[str, Any]] = []
        self.file, self.read, self.begun, self.lock = (0, 0), 0, 0, Lock()

    def look(self) -> list[dict[str, Any]]:
        """All lines; those that cannot be read are left out."""
        with self.lock:
            return self._look()

    def _look(self) -> list[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if self.file != (found.st_dev, found.st_ino) or found.st_size < self.read:
                    self.lines, self.read, self.begun = [], 0, self.begun + 1
                    self.file = (found.st_dev, found.st_ino)
                file.seek(self.read)
                text = file.read()
        except OSError:
            self.lines, self.file, self.read = [], (0, 0), 0
            return self.lines
        whole = text[: text.rfind(b"\n") + 1]  # the last line may be half written
        self.read += len(whole)
        self.lines += [line for one in whole.splitlines() if (line := parse_line(one)) is not None]
        return self.lines


def parse_line(text: bytes) -> dict[str, Any] | None:
    """A line of a log; None where it is none."""
    try:
        line = json.loads(text)
        Line.model_validate(line)
    except (ValueError, RecursionError, ValidationError):
        return None
    return dict(line)


def seconds_left(line: dict[str, Any], stage: Stage | None) -> float | None:
    """Seconds that a stage takes from a line of its log on, at the pace that the line states."""
    pace = line.get("seconds_a_step")
    if stage is None or not isinstance(pace, int | float):
        return None
    return max(0.0, (stage.steps - int(line["step"])) * pace)


def preview_version(run: Run) -> str | None:
    """A text that differs for another preview; None where there is none."""
    try:
        found = (run.folder / PREVIEW).lstat()
    except OSError:
        return None
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


def read_preview(run: Run) -> bytes:
    """The bytes of the newest preview, a PNG. Raises Refused where there is none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(run.folder / PREVIEW, "rb", opener=lambda p, _: os.open(p, flags)) as file:
            content = file.read(LARGEST + 1)
    except OSError:
        content = b""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) > LARGEST:
        raise Refused(404, "there is no preview of this run.")
    return content
