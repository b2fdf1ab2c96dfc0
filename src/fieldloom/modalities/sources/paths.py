"""Paths, and what is made of them, of sets of a million files: few bytes a file, no objects."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

Item = TypeVar("Item")
Made = TypeVar("Made")

Names = tuple[str, ...]
"""The names of the folders between a folder of data and one of its files."""


class Each(Sequence[Made], Generic[Item, Made]):
    """What a function makes of each item of a sequence, made anew whenever it is asked for."""

    def __init__(self, items: Sequence[Item], make: Callable[[Item], Made]) -> None:
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Made]:
        return map(self.make, self.items)

    @overload
    def __getitem__(self, which: int) -> Made: ...

    @overload
    def __getitem__(self, which: slice) -> list[Made]: ...

    def __getitem__(self, which: int | slice) -> Any:
        if isinstance(which, slice):
            return [self[i] for i in range(*which.indices(len(self)))]
        return self.make(self.items[which])


class Paths(Sequence[Path]):
    """Files below a folder, in one block of bytes.

    A ``Path`` takes some 400 bytes; 1.3 million of them half a gigabyte.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        """names: the paths relative to ``root``, their folders divided by NUL (``divide_name``)."""
        block, ends = bytearray(), array("q", [0])
        for name in names:
            block += os.fsencode(name)
            ends.append(len(block))
        self.root, self.block, self.ends = root, bytes(block), ends

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __iter__(self) -> Iterator[Path]:
        return map(self.__getitem__, range(len(self)))

    @overload
    def __getitem__(self, which: int) -> Path: ...

    @overload
    def __getitem__(self, which: slice) -> list[Path]: ...

    def __getitem__(self, which: int | slice) -> Any:
        if isinstance(which, slice):
            return [self[i] for i in range(*which.indices(len(self)))]
        if not -len(self) <= which < len(self):
            raise IndexError(which)
        return self.root / self.name(which).replace("\0", "/")

    def name(self, which: int) -> str:
        """The path of a file relative to the folder, its folders divided by NUL."""
        which %= len(self)
        return os.fsdecode(self.block[self.ends[which] : self.ends[which + 1]])

    def take(self, which: Collection[int]) -> Paths:
        """The files of these indices."""
        return Paths(self.root, map(self.name, which))

    def folders(self) -> list[Names]:
        """The folders of each file, below the root; files of one folder share one tuple."""
        shared: dict[str, Names] = {}
        found = []
        for i in range(len(self)):
            folder = self.name(i).rpartition("\0")[0]
            if folder not in shared:
                shared[folder] = tuple(folder.split("\0")) if folder else ()
            found.append(shared[folder])
        return found


def divide_name(file: Path, root: Path) -> str:
    """The path of a file relative to a folder, its folders divided by NUL.

    These texts sort as paths do: by their folders, one by one.
    """
    start = "" if str(root) == "." else os.path.join(str(root), "")
    return str(file)[len(start) :].replace("/", "\0")


def stamp_file(file: Path) -> str:
    """A text that changes when a file's bytes may have: its path, size, and time of change."""
    try:
        found = os.stat(file)
    except OSError as error:
        return f"{file} unread: {error.errno}"
    return f"{file} {found.st_size} {found.st_mtime_ns}"
