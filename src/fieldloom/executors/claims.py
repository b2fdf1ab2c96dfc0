"""Claims: which worker computes a shard now, so that no two compute the same.

A claim is a file ``00007.claim-0`` that exactly one worker can make. The claim of a dead worker is
taken over by making the next, ``00007.claim-1``, which again only one can make: the highest number
is the holder's. A worker of this host is dead where its process has ended; one of another host, of
which only the file is seen, where it has not touched its claim for ``LEASE``.

No result depends on claims: two workers that did the same shard, as after a pause of a machine that
is longer than the lease, would write the same file twice.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from fieldloom import atomic
from fieldloom.errors import shorten
from fieldloom.process import alive, birth

LEASE, BEAT = 600.0, 60.0
"""Seconds after which a silent worker of another host is taken for dead, and between two signs of
life."""

PATTERN = re.compile(r"([0-9]{5,})\.claim-([0-9]{1,9})")


class Claim(NamedTuple):
    """Who computes a shard. birth: when the process began, as the system counts it."""

    host: str
    process: int
    birth: str
    since: str


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[bool]:
    """A context in which this worker holds a shard, if it is free: whether it is."""
    path = take(folder, name)
    if path is None:
        yield False
        return
    ended = Event()
    Thread(target=_beat, args=(path, ended), daemon=True).start()
    try:
        yield True
    finally:
        ended.set()
        release(path)


def is_claimed(folder: Path, name: str) -> bool:
    """Whether a worker holds a shard, or has died of it."""
    return os.path.lexists(folder / f"{name}.claim-0")


def take(folder: Path, name: str) -> Path | None:
    """Claim a shard; None where a living worker holds it. Returns the claim's file."""
    generation = 0
    while os.path.lexists(folder / f"{name}.claim-{generation}"):
        generation += 1
    if generation and not is_dead(folder / f"{name}.claim-{generation - 1}"):
        return None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    mine = Claim(socket.gethostname(), os.getpid(), birth(os.getpid()), now)
    path = folder / f"{name}.claim-{generation}"
    return path if atomic.write_new(json.dumps(mine._asdict()) + "\n", path) else None


def release(path: Path) -> None:
    """Remove a claim, and then those that it took over."""
    stem, _, generation = path.name.rpartition("-")
    for number in range(int(generation), -1, -1):
        path.with_name(f"{stem}-{number}").unlink(missing_ok=True)


def read(path: Path) -> Claim | None:
    """Who made a claim; None where it is gone, or is none."""
    if not path.is_file():  # nor a pipe, which would be waited for
        return None
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(1 << 12))
        words = (shorten(str(found[key])) for key in ("host", "birth", "since"))
        process = found["process"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    host, born, since = words
    return Claim(host, process, born, since) if type(process) is int else None


def is_dead(path: Path) -> bool:
    """Whether the worker that made a claim has ended."""
    claim = read(path)
    if claim is not None and claim.host == socket.gethostname():
        return not alive(claim.process) or birth(claim.process) != claim.birth
    try:
        return _now_of(path.parent) - path.stat().st_mtime > LEASE
    except OSError:  # it was released just now
        return False


def read_holders(folder: Path) -> dict[int, tuple[Claim, bool]]:
    """Number of a shard -> who holds it, and whether that worker lives."""
    last: dict[int, int] = {}
    for file in os.listdir(folder):
        if found := PATTERN.fullmatch(file):
            number, generation = map(int, found.groups())
            last[number] = max(generation, last.get(number, 0))
    holders = {}
    for number, generation in sorted(last.items()):
        path = folder / f"{number:05d}.claim-{generation}"
        claim = read(path)
        if claim is not None:
            holders[number] = (claim, not is_dead(path))
    return holders


def sweep(folder: Path) -> None:
    """Remove what dead workers left: claims, and files that they were writing."""
    atomic.remove_partial(folder)
    for file in os.listdir(folder):
        if PATTERN.fullmatch(file) and is_dead(folder / file):
            (folder / file).unlink(missing_ok=True)


def _now_of(folder: Path) -> float:
    """The time of the file system, whose clock may be another than this host's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
        return os.stat(file.name).st_mtime


def _beat(path: Path, ended: Event) -> None:
    """Touch a claim until its work has ended."""
    while not ended.wait(BEAT):
        with suppress(OSError):
            os.utime(path)
