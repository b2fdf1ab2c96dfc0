"""Progress of work: a bar with rate and time left on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from fieldloom.errors import printable

T = TypeVar("T")


def announce(text: str) -> None:
    """Print one line beside the results, on the standard error; it cannot steer a terminal."""
    print(printable(text), file=sys.stderr, flush=True)


BRIEF = 1.0
"""Seconds of reading that need no progress: a line says what was read."""


class Progress:
    """``with Progress("field", total) as p: p.update(done, "loss 0.01")``.

    begun: how many of ``total`` were done before. unit: of the count, for the rate. least: seconds
    that work takes at least, if its end is said where there is no terminal.
    """

    def __init__(
        self, title: str, total: int, begun: int = 0, unit: str = "it", least: float = 0.0
    ) -> None:
        self.title, self.total, self.begun, self.unit = title, total, begun, unit
        self.least = least
        self.start = self.last_line = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(title, total=total, completed=begun, rate="", note="")

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
        return self

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` are done; a plain line is printed every 10 s, and at the end."""
        now = time.monotonic()
        rate = (done - self.begun) / max(now - self.start, 1e-9)
        pace = (
            f"{rate:.1f} {self.unit}/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s/{self.unit}"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=pace, note=note)
        elif now - self.last_line > 10 or (done == self.total and now - self.start > self.least):
            self.last_line = now
            left = (self.total - done) / max(rate, 1e-9)
            line = f"{self.title}: {done}/{self.total}, {pace}, {left:.0f} s left"
            print(f"{line}, {note}" if note else line, file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()


def track(
    items: Iterable[T], title: str, total: int, unit: str = "it", least: float = 0.0
) -> Iterator[T]:
    """Yield the items, and show the progress of ``total`` items. least: as of ``Progress``."""
    with Progress(title, total, unit=unit, least=least) as progress:
        for done, item in enumerate(items, 1):
            yield item
            progress.update(done)
