"""A job whose shards are squares, for workers that need no torch."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fieldloom import atomic, stopping
from fieldloom.errors import Interrupted
from fieldloom.executors.work import Work, row_of

PATIENCE = 300.0
"""Seconds of a shard that is neither let go nor asked to stop."""


def square(
    folder: Path, seconds: float, full: tuple[int, ...], held: int | None, number: int
) -> None:
    """A shard is a thousand squares; on a full disk it cannot be written."""
    time.sleep(seconds)
    if held is not None and number >= held:
        wait_until((folder / "go").exists)
    if number in full:
        raise OSError(28, "No space left on device", str(folder / f"{number:05d}.squares"))
    content = "".join(f"{(number + i) ** 2}\n" for i in range(1000))
    atomic.write_text(content, folder / f"{number:05d}.squares")
    with (folder / "did").open("a") as file:  # who did what
        file.write(f"{number} {os.getpid()}\n")
    row = {"hash": hashlib.sha256(content.encode()).hexdigest()}
    atomic.write_text(json.dumps(row), row_of(folder, number))


def start(
    folder: Path, seconds: float, full: tuple[int, ...], held: int | None
) -> Callable[[int], None]:
    return partial(square, folder, seconds, full, held)


def job(
    folder: Path,
    count: int = 7,
    seconds: float = 0.0,
    full: tuple[int, ...] = (),
    held: int | None = None,
) -> Work:
    """held: the number from which on shards wait for ``let_go``, however slow the machine is."""
    folder.mkdir(exist_ok=True)
    return Work(folder, count, partial(start, folder, seconds, full, held))


def let_go(folder: Path) -> None:
    (folder / "go").touch()


def wrong(number: int) -> None:
    if number == 3:
        raise ValueError("three is wrong")


def start_wrong(folder: Path) -> Callable[[int], None]:
    do = start(folder, 0.0, (), None)
    return lambda number: wrong(number) or do(number)


def deadly(number: int) -> None:
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def start_deadly(folder: Path) -> Callable[[int], None]:
    do = start(folder, 0.02, (), None)
    return lambda number: deadly(number) or do(number)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait within a shard, which ends where it is asked to stop."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        if stopping.stop_requested():
            raise Interrupted("stopped within")
        time.sleep(0.02)


def start_patient() -> Callable[[int], None]:
    return lambda number: wait_until(lambda: False)


def results(folder: Path) -> dict[str, bytes]:
    """What is of the job, and nothing of its workers."""
    kept = [path for path in sorted(folder.iterdir()) if path.name not in ("did", "go")]
    return {path.name: path.read_bytes() for path in kept}


def done_by(folder: Path) -> list[tuple[int, int]]:
    """(number of a shard, process that did it), in the order in which they were done."""
    return [tuple(map(int, line.split())) for line in (folder / "did").read_text().splitlines()]
