"""The tensors of a safetensors file as views of its bytes, which are memory-mapped, not read.

The layout is the length of a header (8 bytes), the header (JSON: name -> dtype, shape, offsets) and
the tensors' bytes, one after the other: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import warnings
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import torch
from torch import Tensor

from fieldloom.errors import InputError, quote_path

HEADER = 1 << 24
"""The most bytes of a header: it is parsed in memory."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class MappedFile:
    """A file's tensors, its metadata, and the bytes that are mapped.

    The file must not become shorter while its tensors are used; files that are written whole and
    renamed, as all of this package are, never do.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    size: int


def map_tensors(path: Path) -> MappedFile:
    """Map the tensors of a file. Raises InputError where it is missing, or is no such file."""
    if not path.is_file():  # nor a pipe, which would be waited for
        raise InputError(f"{quote_path(path)} does not exist, or is no file.")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, start = read_header(file, size)
            metadata = header.pop("__metadata__", {})
            placed = place_tensors(header, size - start)
            content = mmap(file.fileno(), 0, access=ACCESS_READ)
    except OSError as error:
        raise InputError(f"{quote_path(path)} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{quote_path(path)} is no safetensors file: {error}.") from None
    if not isinstance(metadata, dict):
        metadata = {}
    tensors = {
        name: view_bytes(content, dtype, shape, start + first)
        for name, (dtype, shape, first, _) in placed.items()
    }
    return MappedFile(path, tensors, metadata, size)


def read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header of a file of so many bytes, and where its tensors begin. Raises ValueError."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("it is shorter than its header says")
    if length > HEADER:
        raise ValueError(f"its header has {length} bytes, more than {HEADER}")
    try:
        header = json.loads(file.read(length))
    except ValueError:
        raise ValueError("its header is no JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    return header, 8 + length


Placed = tuple[torch.dtype, list[int], int, int]


def place_tensors(header: dict[str, Any], room: int) -> dict[str, Placed]:
    """Name -> dtype, shape, first and last byte of a tensor, in ``room`` bytes that they fill.

    Raises ValueError where they do not fill these bytes one after the other.
    """
    placed: dict[str, Placed] = {}
    for name, entry in header.items():
        what = f"its tensor {name[:40]!r}"
        if not isinstance(entry, dict) or entry.get("dtype") not in DTYPES:
            raise ValueError(f"{what} has no type of numbers that is known")
        dtype, shape, offsets = (
            DTYPES[entry["dtype"]],
            entry.get("shape"),
            entry.get("data_offsets"),
        )
        if not (are_counts(shape) and are_counts(offsets) and len(offsets) == 2):
            raise ValueError(f"{what} has no shape and two offsets")
        first, last = offsets
        if last - first != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{what} has a shape that is not that of its bytes")
        placed[name] = dtype, shape, first, last
    ends = [
        0,
        *itertools.chain(*sorted((first, last) for *_, first, last in placed.values())),
        room,
    ]
    if ends[::2] != ends[1::2]:
        raise ValueError("its tensors do not fill it one after the other: it may be cut off")
    return placed


def are_counts(numbers: Any) -> TypeGuard[list[int]]:
    """Whether this is a list of whole numbers, as sizes and offsets are."""
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)


def view_bytes(content: mmap, dtype: torch.dtype, shape: list[int], first: int) -> Tensor:
    """A tensor of mapped bytes, which must not be written to."""
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a buffer that cannot be written to
        return torch.frombuffer(content, dtype=dtype, count=count, offset=first).view(shape)
