"""The most that tensors hold at a time, counted where torch makes them.

What the process holds, in the system's words, depends on what it did before and on how the C
library keeps memory that was freed; this count is the same every time.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Holdings(TorchDispatchMode):
    """Bytes of the storages that operations take and make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, made)):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf.untyped_storage())
        return made

    def count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.known.remove(key)
        self.now -= size


def peak_of(call: Callable[[], object]) -> int:
    """Bytes that tensors hold at most while a call runs, with what it takes."""
    gc.collect()
    with Holdings() as holdings:
        call()
    return holdings.most
