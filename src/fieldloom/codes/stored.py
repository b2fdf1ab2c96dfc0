"""Codes that lie in files, which are read as far as they are asked for.

What the files are (``codes.index``, ``codes.nef``, ``codes.functa``) is a list of parts.
"""

from __future__ import annotations

import html
import operator
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fieldloom.errors import InputError, printable, quote, quote_path
from fieldloom.system import System
from fieldloom.types import Code

MAPPED, FILES = 1 << 28, 128
"""The most bytes, and files, of parts that stay mapped."""

PIECE = 1 << 24
"""Bytes of codes that are read at a time, where all of them are."""

SHOWN, NUMBERS = 8, 1 << 20
"""The most codes whose fields a notebook shows, and the most numbers of all their weights."""

NONE = torch.zeros(0, dtype=torch.int64)

Which = int | slice | Tensor | Sequence[int]


@runtime_checkable
class Part(Protocol):
    """A part of the codes, of one file. size: bytes that it maps; names: of its columns.

    ``read`` may answer with a view of what is mapped, which is copied before it is handed on.
    """

    @property
    def size(self) -> int: ...

    @property
    def names(self) -> frozenset[str]: ...

    def read(self, name: str, rows: slice | Tensor) -> Tensor: ...


@runtime_checkable
class Parts(Protocol):
    """The parts of a set of codes. counts: the number of codes of each, (parts,)."""

    @property
    def counts(self) -> Tensor: ...

    def open(self, number: int, verify: bool) -> Part: ...

    def fingerprint(self) -> str: ...


class StoredCodes:
    """Codes (signals, tokens, width) in files, of which only those are read that are asked for.

    ``codes[i]`` is one code, ``codes[a:b]`` and ``codes[indices]`` are some, always in float32;
    ``codes.read(which, name)`` reads a column beside them: ``places`` (indices in the source),
    ``errors`` (final reconstruction losses), ``labels`` (classes), as far as ``names`` has them.
    The files may be larger than memory. It can be pickled, and be used after a fork: each process
    maps the files itself.

    A notebook shows what they are and, where the system is known that they are of, a page of the
    fields of the first ones.

    path: where they are, for messages. mapped: the most bytes of files that stay mapped, which
    count as this process's until they are dropped, beside one file. verify: whether each file is
    compared with its hash when it is first opened. system: whose codes they are, where it is known.
    """

    def __init__(self, path: Path, parts: Parts, mapped: int = MAPPED, verify: bool = True) -> None:
        self.path, self.parts, self.mapped, self.verify = path, parts, mapped, verify
        self.system: System | None = None
        counts = parts.counts.numpy()
        self.ends = counts.cumsum()
        self.starts = self.ends - counts
        self.checked = np.zeros(len(counts), dtype=bool)
        self.opened, self.held = OrderedDict[int, Part](), 0
        if not len(counts) or not self.ends[-1]:
            raise InputError(f"{quote_path(path)} holds no codes.")
        self.some = int(np.flatnonzero(counts)[0])
        first = self.parts.open(self.some, verify=False)
        self.names = first.names
        self.code_shape = check_codes(first.read("codes", slice(0)), path)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"opened": OrderedDict(), "held": 0, "system": None}

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self), *self.code_shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def nbytes(self) -> int:
        """The bytes of all codes in memory."""
        return len(self) * self.code_shape[0] * self.code_shape[1] * self.dtype.itemsize

    def __getitem__(self, which: Which) -> Tensor:
        """One code (tokens, width), or some (n, tokens, width). Raises IndexError."""
        return self.read(which)

    def __iter__(self) -> Iterator[Tensor]:
        for piece in self.pieces():
            yield from piece

    def pieces(self) -> Iterator[Code]:
        """All codes in order, some (n, tokens, width) at a time."""
        step = max(1, PIECE // max(1, self.nbytes // len(self)))
        for first in range(0, len(self), step):
            yield self.read(slice(first, first + step))

    def read(self, which: Which, name: str = "codes") -> Tensor:
        """The codes, or another column, at an index, a slice, or indices (n,).

        Raises IndexError for indices that are out of range, InputError for a column that there is
        not, and for files that are damaged.
        """
        if name not in self.names:
            there = ", ".join(sorted(self.names))
            raise InputError(
                f"{quote_path(self.path)} has no {quote(name)} of its codes: it has {there}."
            )
        if isinstance(which, slice):
            first, last, step = which.indices(len(self))
            if step == 1:
                return self._read_slice(first, last, name)
            which = torch.arange(first, last, step) if (last - first) * step > 0 else NONE
        if isinstance(which, Tensor | Sequence):
            return self._read_rows(torch.as_tensor(which if len(which) else NONE), name)
        return self._read_rows(torch.tensor([operator.index(which)]), name)[0]

    def _read_slice(self, first: int, last: int, name: str) -> Tensor:
        """The codes from ``first`` to ``last``, part after part."""
        count = max(0, last - first)
        found = self._empty(count, name)
        begin, end = np.searchsorted(self.ends, [first, last - 1], side="right").tolist()
        for number in range(begin, end + 1) if count else ():
            start, stop = int(self.starts[number]), int(self.ends[number])
            if stop > start:
                left, right = max(first, start), min(last, stop)
                part = self._open(number).read(name, slice(left - start, right - start))
                found[left - first : right - first] = part
        return found

    def _empty(self, count: int, name: str) -> Tensor:
        """A tensor for so many codes, or numbers beside them."""
        none = self._open(self.some).read(name, slice(0))
        dtype = self.dtype if name == "codes" else none.dtype
        return torch.empty(count, *none.shape[1:], dtype=dtype)

    def _read_rows(self, rows: Tensor, name: str) -> Tensor:
        """The codes of these indices (n,): those of a part together, then in their order."""
        if rows.dtype == torch.bool or rows.is_floating_point() or rows.is_complex():
            raise IndexError(f"codes are read by whole numbers, not by {rows.dtype}.")
        count, rows = len(self), rows.cpu().reshape(-1).long()
        wrong = rows[(rows < -count) | (rows >= count)]
        if len(wrong):
            raise IndexError(f"{int(wrong[0])} is not one of the {count} codes in '{self.path}'.")
        if not len(rows):
            return self._read_slice(0, 0, name)
        ordered, order = torch.where(rows < 0, rows + count, rows).sort()
        numbers = np.searchsorted(self.ends, ordered.numpy(), side="right")
        firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
        groups = ordered.tensor_split(firsts[1:].tolist())
        found = [
            self._open(number).read(name, own - int(self.starts[number]))
            for number, own in zip(numbers[firsts].tolist(), groups, strict=True)
        ]
        result = self._empty(len(rows), name)
        return result.index_copy_(0, order, torch.cat(found).to(result.dtype))

    def _open(self, number: int) -> Part:
        """A part, which stays mapped until others take its place."""
        part = self.opened.get(number)
        if part is not None:
            self.opened.move_to_end(number)
            return part
        part = self.parts.open(number, self.verify and not self.checked[number])
        self.checked[number] = True
        if check_codes(part.read("codes", slice(0)), self.path) != self.code_shape:
            raise InputError(f"{quote_path(self.path)} holds codes of several shapes.")
        if missing := self.names - part.names:
            raise InputError(
                f"{quote_path(self.path)}: its part {number} has no {min(missing)!r}, as others."
            )
        self.opened[number] = part
        self.held += part.size
        while len(self.opened) > 1 and (self.held > self.mapped or len(self.opened) > FILES):
            self.held -= self.opened.popitem(last=False)[1].size
        return part

    def fingerprint(self) -> str:
        """A text that differs for other codes, without reading them."""
        return self.parts.fingerprint()

    def describe(self) -> str:
        """``1,000 codes of 1 x 64 numbers in 'encoded', with errors, labels``."""
        tokens, width = self.code_shape
        beside = ", ".join(sorted(self.names - {"codes"}))
        what = f"{len(self):,} codes of {tokens:,} x {width:,} numbers in {quote_path(self.path)}"
        return printable(f"{what}, with {beside}" if beside else what)

    def _repr_html_(self) -> str:
        """The description, and a page of the first codes' fields."""
        told = f"<p>{html.escape(self.describe())}</p>"
        if self.system is None:
            return told
        count = min(len(self), SHOWN, NUMBERS // self.system.family.numbers)
        if not count:
            return told
        try:
            names = [f"code {i}" for i in range(count)]
            shown = self.system.show(self.read(slice(count)), names)
        except InputError as error:
            return f"{told}<p>{html.escape(str(error))}</p>"
        return told + shown._repr_html_()


def check_codes(some: Tensor, path: Path) -> tuple[int, int]:
    """The shape of a code. Raises InputError where these are no codes (n, tokens, width)."""
    if some.ndim != 3 or not some.is_floating_point():
        raise InputError(
            f"the codes in {quote_path(path)} are {some.dtype} of {tuple(some.shape)[1:]} each: "
            "codes are floating-point, (tokens, width) each."
        )
    return some.shape[1], some.shape[2]
