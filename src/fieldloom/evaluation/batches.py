"""Work on many data, a few at a time, with its progress shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fieldloom.progress import track
from fieldloom.types import Data

Batched = Tensor | Data


def in_batches(
    work: Callable[..., Batched], title: str, *batches: Batched, size: int = 64
) -> Tensor:
    """``work`` on so many items at a time of batches of equal length; its values joined, on the
    CPU."""
    firsts = range(0, len(batches[0]), size)
    done = []
    for first in track(firsts, title, len(firsts), "batches"):
        made = work(*(part_of(batch, slice(first, first + size)) for batch in batches))
        done.append((made.tensor if isinstance(made, Data) else made).cpu())
    return torch.cat(done)


def part_of(batch: Any, which: slice) -> Any:
    return batch.part(which) if isinstance(batch, Data) else batch[which]
