"""Work that is repeated while something else runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeatedly(work: Callable[[], object], pause: float) -> Iterator[None]:
    """Call ``work`` every ``pause`` seconds in a thread meanwhile, and once at the end.

    Raises at the end what it raised, after which it is not called again.
    """
    done = threading.Event()
    failed: list[Exception] = []

    def watch() -> None:
        while not done.wait(pause):
            try:
                work()
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if not failed:
            work()
    if failed:
        raise failed[0]
