"""Stopping: the first signal requests it, a second one ends the program at once.

Work that can be resumed checks whether it should stop, finishes a step, and saves its state. A long
step checks between its inner steps, and raises ``Paused`` with its state; a caller that can save
that state calls the step within ``pausable``, and passes the state to it on resuming.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line installs signals before torch is imported
    from torch import Tensor

SIGNALS = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n))

_requested = threading.Event()
_pausable: ContextVar[dict[str, Tensor] | None] = ContextVar("pausable", default=None)


class Paused(Exception):
    """A step was interrupted between its inner steps. tensors: its complete state."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__("paused")
        self.tensors = dict(tensors)


def stop_requested() -> bool:
    """Whether the user requested to stop, within ``stoppable``."""
    return _requested.is_set()


def request() -> None:
    """Request to stop, as the first signal does."""
    _requested.set()


def should_pause() -> bool:
    """Whether a long step should raise ``Paused``: a stop is requested, and its state is saved."""
    return _requested.is_set() and _pausable.get() is not None


def take_state() -> dict[str, Tensor]:
    """The state in which this step paused before, returned only once; empty for a new step."""
    held = _pausable.get()
    found = dict(held or {})
    if held:
        held.clear()
    return found


@contextmanager
def pausable(tensors: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """A context in which a step may pause. tensors: the state in which it paused before."""
    token = _pausable.set(dict(tensors or {}))
    try:
        yield
    finally:
        _pausable.reset(token)


@contextmanager
def substep(name: str, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """A context for a part of a step that may pause, too; its state gets this name as prefix.

    tensors: the state in which the whole step paused before.
    """
    if _pausable.get() is None:
        yield
        return
    start = f"{name}/"
    own = {key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}
    try:
        with pausable(own):
            yield
    except Paused as pause:
        pause.tensors = {start + key: x for key, x in pause.tensors.items()}
        raise


@contextmanager
def stoppable() -> Iterator[None]:
    """A context in which the first signal only requests to stop, so that a step is always finished.

    A second one ends the program at once, by KeyboardInterrupt. Outside the main thread nothing is
    changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if _requested.is_set():
            raise KeyboardInterrupt
        _requested.set()

    before = {s: signal.getsignal(s) for s in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requested.clear()


def end_by_signals() -> None:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does: by KeyboardInterrupt."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in SIGNALS[1:]:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, handle)
