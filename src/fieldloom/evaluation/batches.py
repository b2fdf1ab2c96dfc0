"""Work on many data, a few at a time, with a progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fieldloom.modalities.sources import Source
from fieldloom.progress import track
from fieldloom.types import Data

Batched = Tensor | Data

WHOLE, BATCH, MULTIPLE = 1 << 28, 64, 128
"""Numbers of a set that are in memory at a time (1 GiB of float32); the items of a batch; and of
how many items a part is a multiple where a detector sees it, so that all batches are those of the
whole set."""


def in_batches(
    work: Callable[..., Batched], title: str, *batches: Batched, size: int = BATCH
) -> Tensor:
    """What ``work`` returns for batches of equal length, joined on the CPU.

    size: items in a batch. title: of the progress bar.
    """
    firsts = range(0, len(batches[0]), size)
    done = []
    for first in track(firsts, title, len(firsts), "batches"):
        made = work(*(_slice(batch, slice(first, first + size)) for batch in batches))
        done.append((made.tensor if isinstance(made, Data) else made).cpu())
    return torch.cat(done)


def _slice(batch: Batched, which: slice) -> Batched:
    return batch.part(which) if isinstance(batch, Data) else batch[which]


def part_size(shape: tuple[int, ...], multiple: int = MULTIPLE) -> int:
    """Data of this shape that are in memory at a time: at most ``WHOLE`` numbers, or ``multiple``
    data."""
    return max(WHOLE // math.prod(shape) // multiple, 1) * multiple


def split_parts(source: Source, indices: Tensor, multiple: int = MULTIPLE) -> tuple[Tensor, ...]:
    """Indices of data, in parts that are in memory one at a time."""
    return indices.split(part_size(source.data.shape[1:], multiple))


def read_parts(source: Source, indices: Tensor) -> Iterator[Tensor]:
    """Values of these data (n, *datum), floats in [0, 1], a part at a time, with a progress bar."""
    parts = split_parts(source, indices)
    shown = track(parts, "reading data", len(parts), "parts") if len(parts) > 1 else parts
    for some in shown:
        yield source.read(some).tensor
