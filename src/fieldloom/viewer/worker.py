"""The one thread that computes: pieces of work wait in a queue, those that no one wants are left.

Torch takes all cores for one piece already, so that several at a time would only be slower.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from fieldloom.progress import quiet
from fieldloom.viewer.refusals import Refused, Unwanted

T = TypeVar("T")

POLL = 0.2
"""Seconds between two looks whether a client still waits."""

_unwanted: ContextVar[Event | None] = ContextVar("unwanted", default=None)


def stop_if_unwanted() -> None:
    """Raise Unwanted where no one waits for the work that this thread does; long work asks it."""
    event = _unwanted.get()
    if event is not None and event.is_set():
        raise Unwanted


def await_future(future: Future[T]) -> asyncio.Future[T]:
    """A future of a thread as one of this loop; an error that no one asks for is not printed."""
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    return waiting


class Worker:
    """A thread that does pieces of work, one after the other, in the context that it was made in.

    Nothing is announced on the terminal meanwhile.
    """

    def __init__(self, name: str) -> None:
        self.queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.context, self.current, self.closed = copy_context(), Event(), False
        self.thread = Thread(target=self._serve, name=name, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while (piece := self.queue.get()) is not None:
            piece()

    def submit(self, work: Callable[[], T], unwanted: Event | None = None) -> Future[T]:
        """Queue work; the future has its result. unwanted: set where no one waits for it."""
        future, left = Future[T](), unwanted or Event()

        def do() -> None:
            if self.closed or left.is_set() or not future.set_running_or_notify_cancel():
                future.cancel()
                return
            self.current = left
            _unwanted.set(left)
            try:
                with quiet():
                    future.set_result(work())
            except BaseException as error:  # the thread goes on whatever happens
                future.set_exception(error)

        if self.closed:
            future.cancel()
        else:
            self.queue.put(lambda: self.context.copy().run(do))
        return future

    async def do(
        self, work: Callable[[], T], is_gone: Callable[[], Awaitable[bool]] | None = None
    ) -> T:
        """The result of work, awaited. is_gone: whether the client that waits for it has gone.

        Raises Unwanted where it has, and Refused where the server closes.
        """
        unwanted = Event()
        waiting = await_future(self.submit(work, unwanted))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=POLL)
                if not waiting.done() and is_gone is not None and await is_gone():
                    raise Unwanted
        finally:
            if not waiting.done():
                unwanted.set()
                waiting.cancel()
        if waiting.cancelled():
            raise Refused(503, "the viewer is closed.")
        return waiting.result()

    def close(self, seconds: int | float = 5) -> bool:
        """Do nothing more; wait so long for the piece that is being done. Whether it has ended.

        If not, the interpreter waits for it at its end: torch aborts a program that ends meanwhile.
        """
        self.closed = True
        self.current.set()
        self.queue.put(None)
        self.thread.join(seconds)
        if self.thread.is_alive():
            atexit.register(self.thread.join)
        return not self.thread.is_alive()
