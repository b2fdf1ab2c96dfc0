"""The decoded images of a large set, in one file of the cache: decoded once, and read from there.

Beside the file of images stands one with a byte for each image, which says whether it is there. So
an interrupted process goes on where it stopped, and processes that decode the same set at the same
time share the work: each begins at another part, and leaves out what others have written.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldloom.errors import InputError, quote_path, set_key
from fieldloom.memory import format_bytes
from fieldloom.modalities.sources.cache import cache_folder
from fieldloom.modalities.sources.files import Refused
from fieldloom.modalities.sources.streamed import decode_all
from fieldloom.process import count_cores
from fieldloom.progress import BRIEF, Progress, announce

PART = 16 << 20
"""Bytes of images that are decoded between two entries of what is there."""
MISSING, THERE, UNREADABLE = 0, 1, 2
"""What the second file says of an image."""

Decode = Callable[[int], NDArray[np.uint8]]
"""Index of an image -> its values, uint8 of the shape of an item."""


@dataclass(frozen=True)
class Decoded:
    """A file of ``count`` images. path: of the images; beside it, with ``.seen``, what is there."""

    path: Path
    count: int
    item: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of an image."""
        return math.prod(self.item)

    @property
    def seen(self) -> Path:
        return self.path.with_suffix(".seen")

    def state(self) -> NDArray[np.uint8]:
        """What is said of each image: ``MISSING``, ``THERE`` or ``UNREADABLE``, (n,)."""
        found = np.zeros(self.count, np.uint8)
        try:
            whole = self.path.stat().st_size == self.count * self.size
            told = np.frombuffer(self.seen.read_bytes() if whole else b"", np.uint8)
        except OSError:
            return found
        return told if len(told) == self.count and told.max(initial=0) <= UNREADABLE else found

    def open(self) -> Decode:
        """What reads an image: it raises InputError where the file has become shorter."""
        file = self.path.open("rb", buffering=0)

        def read(number: int) -> NDArray[np.uint8]:
            found = np.empty(self.item, np.uint8)
            got = os.preadv(file.fileno(), [found.reshape(-1).data], number * self.size)
            if got != self.size:
                raise InputError(
                    f"the cache {quote_path(self.path)} ends too early: delete it, and it is made "
                    "again."
                )
            return found

        return read


def decode_once(
    decode: Decode,
    contents: NDArray[np.uint8],
    how: str,
    item: tuple[int, ...],
    good: NDArray[np.bool_],
    name: str,
) -> tuple[Decode, dict[int, InputError]]:
    """Decode a set into the cache, as far as it is not there: what reads it, and what is broken.

    Images that could not be decoded are tried again.

    contents: a digest of each image's file, (n, bytes); how: all else that the values depend on.
    good: which images can be opened, (n,). name: of the set. Raises InputError where the images do
    not fit on the disk, which is asked before, or cannot be written.
    """
    key = hashlib.blake2b(how.encode() + contents.tobytes(), digest_size=12).hexdigest()
    cached = Decoded(cache_folder() / f"decoded-{name}-{key}.images", len(contents), item)
    faults: dict[int, InputError] = {}
    state = cached.state()
    left = good & (state != THERE)
    if left.any():
        if (state[left] == MISSING).any():
            check_disk(cached)
        try:
            fill(cached, decode, left, faults)
        except OSError as error:
            raise InputError(
                f"the cache {quote_path(cached.path.parent)} cannot be written "
                f"({error.strerror or error}): what was decoded is kept; make room, set "
                f"FIELDLOOM_CACHE to another folder, or {set_key('source.cache', 'none')}."
            ) from None
    return cached.open(), faults


def check_disk(cached: Decoded) -> None:
    """Say how much a cache takes, and how much is free. Raises InputError where it does not fit."""
    folder = cached.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        there = cached.path.stat().st_blocks * 512 if cached.path.exists() else 0
    except OSError as error:
        raise InputError(
            f"the cache {quote_path(folder)} cannot be written: {error.strerror}."
        ) from None
    whole = cached.count * cached.size
    what = f"{cached.count:,} images take {format_bytes(whole)} decoded"
    if whole - there > free:
        raise InputError(
            f"{set_key('source.cache', 'decoded')}: {what}, and {quote_path(folder)} has "
            f"{format_bytes(free)} free: delete what is old there, set FIELDLOOM_CACHE to a folder "
            f"on another disk, or {set_key('source.cache', 'none')}."
        )
    begun = f", of which {format_bytes(there)} are there" if there else ""
    announce(f"{what}{begun}, in {quote_path(folder)}; {format_bytes(free)} are free")


def fill(
    cached: Decoded, decode: Decode, left: NDArray[np.bool_], faults: dict[int, InputError]
) -> None:
    """Decode the images of a mask (n,) into a cache, part by part."""

    def attempt(number: int) -> NDArray[np.uint8]:
        try:
            return decode(number)
        except Refused:
            raise
        except InputError as error:
            faults[number] = error
            return np.zeros(cached.item, np.uint8)

    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    images, seen = (os.open(path, flags, 0o644) for path in (cached.path, cached.seen))
    try:
        if os.fstat(images).st_size != cached.count * cached.size:  # it is new, or was cut
            os.truncate(seen, 0)
        os.truncate(images, cached.count * cached.size)
        os.truncate(seen, cached.count)
        total = int(left.sum())
        with Progress("decoding once", total, unit="images", least=BRIEF) as progress:
            done = 0
            for part in parts_of(cached, left):
                state = np.frombuffer(os.pread(seen, len(part), int(part[0])), np.uint8)
                own = part[left[part] & (state != THERE)].tolist()  # others may work, too
                for number, image in zip(own, decode_all(attempt, own, count_cores()), strict=True):
                    write_whole(images, image, number * cached.size)
                os.fsync(images)
                for number in own:
                    told = UNREADABLE if number in faults else THERE
                    os.pwrite(seen, bytes([told]), number)
                done += int(left[part].sum())
                progress.update(done)
    finally:
        os.close(images)
        os.close(seen)


def parts_of(cached: Decoded, left: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Numbers of images in a row, of the parts in which some are left; each process begins
    elsewhere."""
    size = max(1, PART // cached.size)
    parts = [np.arange(i, min(i + size, cached.count)) for i in range(0, cached.count, size)]
    parts = [part for part in parts if left[part].any()]
    first = os.getpid() * 7 % max(1, len(parts))
    yield from parts[first:] + parts[:first]


def write_whole(file: int, image: NDArray[np.uint8], place: int) -> None:
    """Write all of an image at a place of a file, in as many pieces as the system takes."""
    rest = memoryview(image.tobytes())
    while len(rest):
        written = os.pwrite(file, rest, place)
        rest, place = rest[written:], place + written
