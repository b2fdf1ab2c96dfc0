"""Stopping: the first signal asks, a second one ends the program at once.

Work that can be gone on with looks whether it is asked to stop, finishes a step, and keeps what it
has. A long step looks between its inner ones and raises ``Paused`` with where it was; whoever can
keep that calls it within ``pausable``, and hands it back there when the step is done again.
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

_asked = threading.Event()
_pausable: ContextVar[dict[str, Tensor] | None] = ContextVar("pausable", default=None)


class Paused(Exception):
    """A step was left between its inner steps. tensors: all that going on with it depends on."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__("paused")
        self.tensors = dict(tensors)


def asked() -> bool:
    """Whether the user asked to stop, within ``stoppable``."""
    return _asked.is_set()


def pause_asked() -> bool:
    """Whether a long step should raise ``Paused``: the user asked, and it would be kept."""
    return _asked.is_set() and _pausable.get() is not None


def kept() -> dict[str, Tensor]:
    """Where this step was left before, for it alone; empty where it begins."""
    held = _pausable.get()
    found = dict(held or {})
    if held:
        held.clear()
    return found


@contextmanager
def pausable(tensors: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Within it a step may pause. tensors: where it was left before."""
    token = _pausable.set(dict(tensors or {}))
    try:
        yield
    finally:
        _pausable.reset(token)


@contextmanager
def named(name: str, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Within a step that may pause, a part of it that may: what it keeps has this name before it.

    tensors: where the whole step was left before.
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
    """Within it a signal only asks, so that a step is always finished; a second one ends at once.

    Ends by KeyboardInterrupt. In a thread that is not the main one signals are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if _asked.is_set():
            raise KeyboardInterrupt
        _asked.set()

    before = {s: signal.getsignal(s) for s in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def end_by_signals() -> None:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does: by KeyboardInterrupt."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in SIGNALS[1:]:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, handle)
