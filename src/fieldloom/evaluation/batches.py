"""Work on many data, a few at a time, with its progress shown."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fieldloom.progress import track
from fieldloom.types import Data

Batched = Tensor | Data


def in_batches(
    work: Callable[..., Batched], title: str, *batches: Batched, size: int = 64
) -> Tensor:
    """What ``work`` returns for batches of equal length, joined on the CPU.

    size: items that it is given at a time. title: of the progress that is shown.
    """
    firsts = range(0, len(batches[0]), size)
    done = []
    for first in track(firsts, title, len(firsts), "batches"):
        made = work(*(_slice(batch, slice(first, first + size)) for batch in batches))
        done.append((made.tensor if isinstance(made, Data) else made).cpu())
    return torch.cat(done)


def _slice(batch: Batched, which: slice) -> Batched:
    return batch.part(which) if isinstance(batch, Data) else batch[which]
