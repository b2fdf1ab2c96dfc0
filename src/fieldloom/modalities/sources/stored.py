"""Files that are read in parts, wherever they lie: on this machine, or behind an address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from fieldloom.errors import InputError, quote_path, shorten


@runtime_checkable
class Stored(Protocol):
    """A file of which any part can be read.

    name:  its path or its address, without credentials.
    size:  in bytes.
    stamp: a text that changes when the content may have: the size and the time of a file, the
           size and the ETag of an object.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def stamp(self) -> str: ...

    def read(self, start: int, length: int) -> bytes:
        """As many bytes from ``start`` on, fewer at the end. Raises InputError, with the name."""


@dataclass(frozen=True)
class StoredFile:
    """A file of this machine (``Stored``)."""

    path: Path
    size: int
    stamp: str

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self, start: int, length: int) -> bytes:
        try:
            with self.path.open("rb", buffering=0) as file:  # one handle a read: threads share none
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise unreadable(self.name, error) from None


def find_stored(path: Path) -> StoredFile:
    """The file at a path. Raises InputError where it cannot be seen."""
    try:
        seen = path.stat()
    except OSError as error:
        raise unreadable(str(path), error) from None
    return StoredFile(path, seen.st_size, f"{seen.st_size} {seen.st_mtime_ns}")


def unreadable(name: str, error: OSError) -> InputError:
    """The error for a file that cannot be read."""
    reason = shorten(error.strerror or str(error))
    return InputError(f"{quote_path(name)} cannot be read: {reason}.")
