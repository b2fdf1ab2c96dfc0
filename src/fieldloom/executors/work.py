"""The work of a job: shards by number, each of which is done when its row is there.

    00007.json       the row of a shard, which its worker writes last
    00007.error      why the shard failed
    00007.claim-0    which worker computes it now

What a shard computes is the caller's; names are made from numbers, never read from a file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fieldloom import atomic
from fieldloom.errors import FieldloomError, shorten
from fieldloom.progress import Progress


@dataclass(frozen=True)
class Work:
    """What workers do. count: of shards.

    start: called once by each worker, it loads what the worker needs and returns what does the
    shard of a number: the same result whoever calls it, and however often. Workers of other
    processes get it by pickle. title: of its progress.
    """

    folder: Path
    count: int
    start: Callable[[], Callable[[int], None]]
    title: str = "working"


PATTERN = re.compile(r"[0-9]{5,18}")
"""Names of shards."""


class Failure(NamedTuple):
    """Why a shard failed. again: whether another worker, on another machine, may do better."""

    why: str
    again: bool
    host: str


def name_of(number: int) -> str:
    """The name of a shard, without a suffix."""
    return f"{number:05d}"


def row_of(folder: Path, number: int) -> Path:
    """The path of a shard's row."""
    return folder / f"{name_of(number)}.json"


def failure_of(folder: Path, number: int) -> Path:
    """The path of the note why a shard failed."""
    return folder / f"{name_of(number)}.error"


def numbers_in(folder: Path, suffix: str) -> list[int]:
    """Numbers of the shards that have a file of a suffix, in order, by one listing."""
    found = (name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix))
    return sorted(int(x) for x in found if PATTERN.fullmatch(x) and name_of(int(x)) == x)


def is_done(work: Work, number: int) -> bool:
    """Whether a shard is finished."""
    return row_of(work.folder, number).is_file()


def count_done(work: Work) -> int:
    """The number of finished shards, by one listing of the folder."""
    return sum(number < work.count for number in numbers_in(work.folder, ".json"))


class Shown:
    """Shows how many shards are finished, which are counted where that takes a small part of the
    time."""

    def __init__(self, work: Work, progress: Progress) -> None:
        self.work, self.progress = work, progress
        self.done, self.next = progress.done, 0.0

    def __call__(self) -> None:
        before, began = self.done, time.monotonic()
        if began >= self.next or self.done >= self.work.count - 1:
            self.done, ended = count_done(self.work), time.monotonic()
            self.next = ended + 50 * (ended - began)
        if before < self.work.count:  # the end is said once
            self.progress.update(self.done)


def write_failure(work: Work, number: int, error: Exception) -> None:
    """Note why a shard failed, where that can be written."""
    found = Failure(explain(error), is_of_machine(error), socket.gethostname())
    with suppress(OSError):
        atomic.write_text(json.dumps(found._asdict()) + "\n", failure_of(work.folder, number))


def read_failure(folder: Path, number: int) -> Failure | None:
    """The note why a shard failed; None where there is none that can be read."""
    path = failure_of(folder, number)
    if not path.is_file():  # nor a pipe, which would be waited for
        return None
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(1 << 16))
        return Failure(shorten(found["why"], 300), found["again"] is True, shorten(found["host"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def read_failures(folder: Path, count: int) -> dict[int, Failure]:
    """Number -> why that shard failed, of shards that are not done."""
    done = set(numbers_in(folder, ".json"))
    asked = (n for n in numbers_in(folder, ".error") if n < count and n not in done)
    found = {number: read_failure(folder, number) for number in asked}
    return {number: failure for number, failure in found.items() if failure is not None}


def forget_failures(folder: Path) -> None:
    """Remove the notes of failures, so that these shards are tried again."""
    for number in numbers_in(folder, ".error"):
        failure_of(folder, number).unlink(missing_ok=True)


def is_settled(work: Work, number: int) -> bool:
    """Whether no worker should do a shard any more: it is done, or has failed for all."""
    if is_done(work, number):
        return True
    failure = read_failure(work.folder, number)
    return failure is not None and not failure.again


def is_of_machine(error: Exception) -> bool:
    """Whether an error is the machine's, as a full disk: its other shards would fail, too."""
    memory = isinstance(error, RuntimeError) and "memory" in str(error)
    return memory or isinstance(error, OSError | MemoryError)


def explain(error: Exception) -> str:
    """An error in words."""
    if isinstance(error, FieldloomError):
        return str(error).rstrip(".")
    if isinstance(error, OSError):
        full = error.errno == errno.ENOSPC
        why = "the disk is full" if full else error.strerror or shorten(str(error))
        return f"{why} ('{shorten(str(error.filename))}')" if error.filename else why
    return shorten(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", 300)


def check_finished(work: Work, ended: list[str]) -> None:
    """Raise FieldloomError where shards are left, naming the first that failed.

    ended: why each worker ended before there was nothing left; "" where it did not.
    """
    left = work.count - count_done(work)
    if not left:
        return
    failed, again = read_failures(work.folder, work.count), "the same command goes on from here"
    if failed:
        first = min(failed)
        why, where = failed[first].why, failed[first].host
        raise FieldloomError(
            f"{left} of {work.count} shards are not done; {len(failed)} failed, the first, "
            f"{name_of(first)}, on {where}, because {why}: {again}."
        )
    reasons = [why for why in ended if why] or ["no worker is left"]
    raise FieldloomError(f"{left} of {work.count} shards are not done: {reasons[0]}; {again}.")
