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

WHOLE, MULTIPLE = 1 << 28, 128
"""Numbers of a set that are read at a time (1 GiB of float32), in multiples of this many items,
so that a detector's batches are the same as for the whole set."""


def in_batches(
    work: Callable[..., Batched], title: str, *batches: Batched, size: int = 64
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


def read_parts(source: Source, indices: Tensor) -> Iterator[Tensor]:
    """Values of these data (n, *datum), floats in [0, 1], in parts of at most ``WHOLE`` numbers."""
    fits = WHOLE // math.prod(source.data.shape[1:])
    for some in indices.split(max(fits // MULTIPLE, 1) * MULTIPLE):
        yield source.read(some).tensor
