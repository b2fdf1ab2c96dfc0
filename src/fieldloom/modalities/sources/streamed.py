"""Images of sets that are larger than memory: decoded when a batch asks for them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom.errors import InputError, set_key
from fieldloom.modalities.sources.numbers import EIGHT_BITS
from fieldloom.modalities.sources.pixels import Scales

FORMAT = 1
"""The version of decoding: it has to change where decoding gives other numbers."""


@dataclass(frozen=True)
class LazyImages:
    """Images that are decoded on every read (``types.Lazy``), and never kept in memory.

    decode:  index of an image -> uint8 (channel, height, width).
    numbers: indices of the images that can be read, (n,).
    item:    the shape of one image.
    contents, how: see ``source.Identified``.
    threads: which decode a batch; this process's share of the cores when the set was opened.
    """

    decode: Callable[[int], NDArray[np.uint8]]
    numbers: Tensor
    item: tuple[int, ...]
    contents: Tensor
    how: str
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.item)

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8

    def read(self, which: slice | Tensor) -> Tensor:
        """The images of these indices, decoded in parallel: uint8 (n, channel, height, width).

        Raises InputError, which names the file, where one can not be read.
        """
        numbers = self.numbers[which].tolist()
        found = np.empty((len(numbers), *self.item), np.uint8)
        try:
            for i, image in enumerate(decode_all(self.decode, numbers, self.threads)):
                found[i] = image
        except InputError as error:
            fix = set_key("source.cache", "decoded")
            raise InputError(
                f"{error} Images of large sets are decoded as they are needed, so that this shows "
                f"only now: mend or remove the file, or {fix}, which tries all of them first."
            ) from None
        return torch.from_numpy(found)


def decode_all(
    decode: Callable[[int], NDArray[np.uint8]], numbers: Sequence[int], threads: int
) -> Iterator[NDArray[np.uint8]]:
    """Images of these numbers, in their order, decoded by so many threads.

    (Pillow decodes and resizes without Python's lock.)
    """
    if threads == 1 or len(numbers) < 2:
        return map(decode, numbers)
    return _make_pool(threads).map(decode, numbers)


@cache
def _make_pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "decoding")


if hasattr(os, "register_at_fork"):  # threads are not forked
    os.register_at_fork(after_in_child=_make_pool.cache_clear)


def describe_decoding(item: tuple[int, ...], filter: str, scales: Scales) -> str:
    """All that decoded images depend on, apart from their files, as a text."""
    plain = EIGHT_BITS.low, EIGHT_BITS.high
    other = sorted(
        [*map(str, pixels), *x] for pixels, s in scales.items() if (x := (s.low, s.high)) != plain
    )
    return json.dumps([FORMAT, item, filter, other])
