"""Progress of work: a bar with rate and time left on a terminal and in a notebook, plain lines
otherwise."""

from __future__ import annotations

import html
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Timer
from types import TracebackType
from typing import Any, TypeVar

from fieldloom.errors import printable

T = TypeVar("T")


_silent = False
_quiet = ContextVar("quiet", default=False)


def silence() -> None:
    """Announce nothing from now on: this process follows another, which says it."""
    global _silent
    _silent = True


@contextmanager
def quiet() -> Iterator[None]:
    """A context that announces nothing: it is a part of work whose progress is shown."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_silent() -> bool:
    """Whether nothing is announced here."""
    return _silent or _quiet.get()


def announce(text: str) -> None:
    """Print one line beside the results, on the standard error; it cannot steer a terminal."""
    stop_clock()
    if is_silent():
        return
    print(printable(text), file=sys.stderr, flush=True)


BRIEF = 1.0
"""Seconds of reading or drawing that need no progress: a line says what was done."""

PATIENCE, APART = 2.0, 10.0
"""Without a terminal: seconds until the first line of progress, and between later ones."""

MOVED = 0.25
"""Seconds between two moves of a bar in a notebook."""


def start_clock() -> None:
    """Say that a program starts, which imports torch, if nothing else is said in ``PATIENCE``.

    It is said to who waits at a terminal alone.
    """
    global _start
    if not sys.stderr.isatty():
        return
    _start = Timer(PATIENCE, announce, ["starting ..."])
    _start.daemon = True
    _start.start()


def stop_clock() -> None:
    """Something is said: that the program starts need not be."""
    if _start is not None:
        _start.cancel()


_start: Timer | None = None


@contextmanager
def during(text: str) -> Iterator[None]:
    """Say what is being done, in one line, where it takes longer than ``PATIENCE``.

    It is for work that cannot be divided: ``with during("loading the mesh"):``.
    """
    if is_silent():
        yield
        return
    timer = Timer(PATIENCE, announce, [f"{text} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def describe_seconds(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def is_notebook() -> bool:
    """Whether this process is the kernel of a Jupyter notebook. IPython is not imported for it."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return getattr(ask(), "kernel", None) is not None


class Widget:
    """One line with a bar in the output of a notebook's cell, changed in place.

    handle: of the line, IPython's; None until it is shown.
    """

    handle: Any = None

    def show(self, text: str, done: int, total: int, ended: bool) -> None:
        """Show a text, and how many of ``total`` are done; after the end there is no bar."""
        text = printable(text)
        bar = "" if ended else f'<progress value="{done}" max="{max(total, 1)}"></progress> '
        page = f"<div>{bar}<small>{html.escape(text)}</small></div>"
        told = {"text/html": page, "text/plain": text}
        if self.handle is None:
            display = sys.modules["IPython"].display.display
            self.handle = display(told, raw=True, display_id=True)
        else:
            self.handle.update(told, raw=True)


class Progress:
    """``with Progress("field", total) as p: p.update(done, "loss 0.01")``.

    begun: how many of ``total`` were done before. unit: what is counted, in the plural. least:
    seconds that work takes at least, if its end is said where there is no terminal.
    """

    def __init__(
        self, title: str, total: int, begun: int = 0, unit: str = "steps", least: float = 0.0
    ) -> None:
        self.title, self.total, self.begun, self.unit = title, total, begun, unit
        self.least, self.done, self.note = least, begun, ""
        self.start = self.last_line = time.monotonic()
        self.bar, self.widget = None, None
        self.timer = Timer(PATIENCE, self._print)
        self.timer.daemon = True
        self.silent = is_silent()
        if is_notebook() and not self.silent:
            self.widget = Widget()
        elif sys.stderr.isatty() and not self.silent:
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
        if self.widget is not None:
            if not self.least:
                self._show()
        elif self.bar is None and not self.silent:
            self.timer.start()
        elif self.bar is not None:
            stop_clock()
            self.bar.start()
        return self

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` are done.

        Without a terminal a line is printed after 2 s, every 10 s from then on, and at the end. In
        a notebook a bar is there from the start, or after ``least`` seconds, and moves.
        """
        self.done, self.note, now = done, note, time.monotonic()
        if self.widget is not None:
            if now - self.start > self.least and now - self.last_line > MOVED:
                self._show()
        elif self.bar is not None:
            self.bar.update(self.task, completed=done, rate=self._pace()[0], note=note)
        elif (done == self.total and now - self.start > self.least) or now - self.last_line > APART:
            self._print()

    def _pace(self) -> tuple[str, float]:
        """The rate until now, as text, and the seconds that are left by it."""
        took, made = time.monotonic() - self.start, self.done - self.begun
        rate = made / max(took, 1e-9)
        each = f"{1 / rate:.1f} s each" if rate else f"{took:.0f} s"
        pace = f"{rate:.1f} a second" if rate >= 1 else each
        return pace, (self.total - self.done) / rate if rate else math.inf

    def _describe(self, ended: bool) -> str:
        """``field: 20 of 90 steps, 9.1 a second, 8 s left, loss 0.01``."""
        took, (pace, left) = describe_seconds(time.monotonic() - self.start), self._pace()
        parts = [f"{self.title}: {self.done:,} of {self.total:,} {self.unit}"]
        if self.done == self.total:
            parts[0] += f" in {took}"
        elif ended:
            parts[0] += f", ended after {took}"
        else:
            parts += [pace, *([f"{describe_seconds(left)} left"] if math.isfinite(left) else [])]
        return ", ".join([*parts, *([self.note] if self.note else [])])

    def _print(self) -> None:
        self.timer.cancel()
        self.last_line = time.monotonic()
        announce(self._describe(ended=False))

    def _show(self, ended: bool = False) -> None:
        assert self.widget is not None
        self.last_line = time.monotonic()
        self.widget.show(self._describe(ended), self.done, self.total, ended)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.timer.cancel()
        if self.widget is not None and (self.widget.handle is not None or not self.least):
            self._show(ended=True)
        if self.bar is not None:
            self.bar.stop()


def track(
    items: Iterable[T], title: str, total: int, unit: str = "steps", least: float = 0.0
) -> Iterator[T]:
    """Yield the items, and show the progress of ``total`` items. least: as of ``Progress``."""
    with Progress(title, total, unit=unit, least=least) as progress:
        for done, item in enumerate(items, 1):
            yield item
            progress.update(done)
