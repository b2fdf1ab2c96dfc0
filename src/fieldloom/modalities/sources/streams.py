"""Rows of a stream, written once to tar archives in the cache, so that any of them can be read.

A stream can be read from its beginning alone, and training asks for rows in any order. Each archive
is written whole or not at all, and how far the stream was written is noted after each: a process
that is stopped, or that finds the disk full, goes on there. Of several processes one writes.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fieldloom import atomic
from fieldloom.errors import InputError, quote_path
from fieldloom.memory import format_bytes
from fieldloom.progress import APART, announce

NOTE = "stream.json"
"""The file that says how far a stream was written."""
SHARD = 1 << 27
"""Bytes of images from which on an archive is full."""
KEY, LABEL = "img", "json.label"
"""The extension of a row's image, of any format, and the place of its class (``tars.Wanted``)."""


class Row(NamedTuple):
    """A row of a stream: the encoded image, "" where there is none, and its class."""

    content: bytes
    label: int | str | None


@dataclass(frozen=True)
class Written:
    """How far a stream was written.

    rows, size: their number, and the bytes of the archives. shards: the names of these. whole:
    whether the stream has ended. state: where it goes on, as its library says it. about: what is
    known of the stream, such as the names of its classes.
    """

    rows: int = 0
    size: int = 0
    shards: tuple[str, ...] = ()
    whole: bool = False
    state: Any = None
    about: Any = None

    def holds(self, limit: int | None) -> bool:
        """Whether the first ``limit`` rows are there, or all of them."""
        return self.whole or (limit is not None and self.rows >= limit)


@dataclass(frozen=True)
class Stream:
    """An open stream. rows: the rows after those that are written; state: where it goes on after
    the rows that were taken; about: see ``Written``; count, size: the number of all rows, and their
    bytes, None where they are unknown."""

    rows: Iterator[Row]
    state: Callable[[], Any]
    about: Any
    count: int | None = None
    size: int | None = None


def read_note(folder: Path) -> Written:
    """How far the stream of a folder was written; not at all where an archive is missing."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        told = json.loads((folder / NOTE).read_bytes())
        found = Written(**told | {"shards": tuple(told["shards"])})
        plain = all(re.fullmatch(r"\d+-\d+\.tar", name) for name in found.shards)
        if plain and all((folder / name).is_file() for name in found.shards):
            return found
    return Written()


def write_stream(
    folder: Path,
    limit: int | None,
    name: str,
    begin: Callable[[Written], AbstractContextManager[Stream]],
) -> Written:
    """Write the first ``limit`` rows of a stream to a folder, or all; those that are there stay.

    name: of the stream, for messages. begin: a context with its rows after those that are written,
    entered only where some are missing. Raises InputError where the disk is full: what was written
    stays.
    """
    if (written := read_note(folder)).holds(limit):
        return written
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            written = read_note(folder)  # another process may have written it meanwhile
            if written.holds(limit):
                return written
            atomic.remove_partial(folder)
            with begin(written) as stream:
                return _write(folder, limit, name, written, stream)
    except OSError as error:
        held = read_note(folder)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise InputError(
            f"{name} cannot be written to the cache {quote_path(folder)}: {reason}. {held.rows:,} "
            f"rows ({format_bytes(held.size)}) are there, and the next start goes on behind them; "
            "FIELDLOOM_CACHE sets another folder."
        ) from None


def _write(folder: Path, limit: int | None, name: str, written: Written, stream: Stream) -> Written:
    _say_size(folder, limit, name, written, stream)
    rows = stream.rows if limit is None else islice(stream.rows, limit - written.rows)
    written, said = replace(written, about=stream.about), time.monotonic()
    while shard := take_shard(rows):
        path = write_shard(folder, written.rows, shard)
        written = replace(
            written,
            rows=written.rows + len(shard),
            size=written.size + path.stat().st_size,
            shards=(*written.shards, path.name),
            state=stream.state(),
        )
        _write_note(folder, written)
        if time.monotonic() - said > APART:
            said = time.monotonic()
            announce(f"{name}: {written.rows:,} rows written, {format_bytes(written.size)}")
    written = replace(written, whole=limit is None or written.rows < limit)
    _write_note(folder, written)
    return written


def _write_note(folder: Path, written: Written) -> None:
    atomic.write_text(json.dumps(asdict(written)), folder / NOTE)


def _say_size(folder: Path, limit: int | None, name: str, written: Written, stream: Stream) -> None:
    """Say what will be written. Raises InputError where the disk has too little room for it."""
    rows = "all rows" if limit is None else f"the first {limit:,} rows"
    size, count = stream.size, stream.count
    if size is not None and count:
        size = size * min(limit or count, count) // count
    about = (
        "of a size that is not known beforehand" if size is None else f"about {format_bytes(size)}"
    )
    begun = f"; {written.rows:,} are there" if written.rows else ""
    announce(f"{name}: {rows} are written to {quote_path(folder)} once, {about}{begun}")
    room = shutil.disk_usage(folder).free + written.size
    if size is not None and size > room:
        raise InputError(
            f"{name} takes about {format_bytes(size)}, and {quote_path(folder)} has room for "
            f"{format_bytes(room)}: source.limit takes fewer rows, FIELDLOOM_CACHE sets another "
            "folder."
        )


def take_shard(rows: Iterator[Row]) -> list[Row]:
    """The next rows, as many as an archive holds; none at the end."""
    found, size = list[Row](), 0
    for row in rows:
        found.append(row)
        size += len(row.content) + tarfile.BLOCKSIZE
        if size >= SHARD:
            break
    return found


def write_shard(folder: Path, first: int, rows: Sequence[Row]) -> Path:
    """Write rows, whose numbers begin with ``first``, as an archive of samples, atomically."""

    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for number, row in enumerate(rows, first):
                parts = {KEY: row.content}
                if row.label is not None:
                    parts["json"] = json.dumps({"label": row.label}).encode()
                for extension, content in parts.items():
                    member = tarfile.TarInfo(f"{number:012}.{extension}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))

    return atomic.write_atomically(folder / f"{first:012}-{len(rows)}.tar", write)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context in which one process of those that ask for the same path is at a time.

    Where a file system has no such locks all go on: they write the same.
    """
    with path.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
