"""Work on many data, a few at a time, with its progress shown."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fieldloom.progress import track


def in_batches(
    work: Callable[..., Tensor], data: Tensor, title: str, size: int = 64, **meta: Tensor
) -> Tensor:
    """``work`` on each part of the data, and of what they have beside; joined, on the CPU."""
    firsts = range(0, len(data), size)
    done = []
    for first in track(firsts, title, len(firsts), "batches"):
        some = slice(first, first + size)
        done.append(work(data[some], **{key: value[some] for key, value in meta.items()}).cpu())
    return torch.cat(done)
