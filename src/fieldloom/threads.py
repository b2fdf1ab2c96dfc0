"""Whole pieces of work on the threads of this process, each of which computes by itself.

torch divides each operation among its threads, and waits for the slowest of them: many operations
are many waits, and beside another program's process each of these can take as long as the system
lets that process run. Here a thread takes a whole piece, computes it alone, and takes the next.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Result = TypeVar("Result")


def run_pieces(pieces: Sequence[Callable[[], Result]], apart: bool = True) -> list[Result]:
    """The results of all pieces, in their order, each computed by one thread alone.

    As many pieces run at a time as torch has threads, without gradients (in inference mode and
    under autocast where the caller is); pieces of a piece are computed by its thread. apart:
    whether pieces are worth the cost of other threads; otherwise the calling thread computes them,
    one by one, in the same way. No result depends on the number of threads.
    """
    count = min(torch.get_num_threads(), len(pieces))
    if count < 2 or not apart:
        with one_thread(), torch.no_grad():
            return [piece() for piece in pieces]
    results: list[Result | None] = [None] * len(pieces)
    left = deque(enumerate(pieces))
    inference = torch.is_inference_mode_enabled()
    casts, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def work() -> None:
        # modes are of a thread
        autocast = torch.autocast("cpu", dtype, casts, cache_enabled=False)
        with torch.no_grad(), torch.inference_mode(inference), autocast:
            while True:
                try:
                    place, piece = left.popleft()  # atomic: a thread that is held up takes fewer
                except IndexError:
                    return
                results[place] = piece()

    pool = make_pool(torch.get_num_threads())
    futures = [pool.submit(work) for _ in range(count)]
    try:
        for future in futures:
            future.result()
    finally:  # also where the user stopped it, or a piece failed
        left.clear()
        wait(futures)
    return results  # type: ignore[return-value]


def share_out(sizes: Mapping[str, int], count: int) -> list[list[str]]:
    """Names in at most ``count`` groups whose sizes are about the same: each largest one first.

    For small pieces of work, each of which would cost the others Python's lock.
    """
    groups: list[list[str]] = [[] for _ in range(count)]
    sums = [0] * count
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        least = sums.index(min(sums))
        groups[least].append(name)
        sums[least] += sizes[name]
    return [group for group in groups if group]


SHARED = 1 << 16
"""Numbers of a hidden layer up to which a step is computed by one thread.

Measured on two cores, CAVIA and fits of small fields: at 25,000 numbers two threads are no faster
than one, at 65,000 1.28 times, at 100,000 1.6 times; beside another busy process they are 7 to 10
times slower, where one is as fast as before.
"""


def threads_by_work(numbers: int, cpu: bool) -> AbstractContextManager[None]:
    """A context for steps whose hidden layers hold so many numbers: small ones take one thread.

    It is a rule of sizes, never of the machine's load: the same work is computed in the same way.
    """
    return one_thread() if cpu and numbers <= SHARED else nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """A context in which the operations of the calling thread are not divided among threads."""
    count = torch.get_num_threads()
    if count == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


@cache
def make_pool(count: int) -> ThreadPoolExecutor:
    """``count`` threads, whose operations torch does not divide further; made once."""
    started = Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # torch sets up a thread when it is first asked, and not again
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, "fieldloom", initializer=start)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(count)  # for threads to come: ``start`` has set theirs, too
    return pool


if hasattr(os, "register_at_fork"):  # threads are not forked
    os.register_at_fork(after_in_child=make_pool.cache_clear)
