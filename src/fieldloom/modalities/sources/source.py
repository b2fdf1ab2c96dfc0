"""What a source of data is, and how it is split."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fieldloom.errors import InputError, quote
from fieldloom.types import Cameras, Data, Lazy

PIECE = 1 << 24
"""Bytes that are read or copied at a time where a whole set is looked at."""

Limit = Annotated[int, Field(ge=1)] | None
Split = tuple[int | float, int | float]
Filter = Literal["bicubic", "bilinear", "lanczos", "box"]


@dataclass(frozen=True)
class Source:
    """A data set, and how it is divided.

    data:   all of them, in the modality's shape, with their classes as ``label``: in memory, mapped
            from a file, or lazy.
    names:  of the classes. train, test: indices of the two parts.
    filter: how images were resized, for the record beside every metric.
    suggests: section of a recipe -> keys that the data know (``renderer``: near, far), taken where
            the recipe is silent.
    """

    data: Data
    names: tuple[str, ...]
    train: Tensor
    test: Tensor
    filter: str = "none"
    suggests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def labels(self) -> Tensor | None:
        """The class of each datum, where there are classes."""
        return self.data.label

    def take(self, index: Tensor) -> Data:
        """Data of these indices (n,) as they are stored, uint8 or float.

        Of a single one it is a view, so that data mapped from a file stay there.
        """
        return replace(self.data.part(index), index=index)

    def read(self, index: Tensor) -> Data:
        """Data of these indices, float in [0, 1]."""
        return self.take(index).as_float()

    def facts(self) -> dict[str, Any]:
        """What the system must know of its data: goes into the resolved recipe."""
        seen = hashlib.blake2b(digest_size=8)
        beside = self.data.beside()
        order = ("label", "frame", "coords", "c2w", "intrinsics")  # not surface: only judged by
        parts = [torch.cat([self.train, self.test]), *(beside[k] for k in order if k in beside)]
        for one in itertools.chain(_tensors(self.data.values), parts):
            for piece in _pieces(one.numpy()):
                seen.update(piece)
        return {
            "signals": len(self.train),
            "classes": len(self.names),
            "names": list(self.names),
            "filter": self.filter,
            "fingerprint": seen.hexdigest(),
        }


def _tensors(values: Tensor | Lazy) -> Iterator[Tensor]:
    """The values as they are, or a few items after another where they are read when asked for."""
    if isinstance(values, Tensor):
        yield values
    else:
        step = max(1, PIECE // math.prod(values.shape[1:]))
        for first in range(0, values.shape[0], step):
            yield values.read(slice(first, first + step))


def _pieces(array: NDArray[Any], limit: int = PIECE) -> Iterator[memoryview]:
    """The bytes of an array row-major, in pieces that lie together; only small ones are copied.

    limit: bytes that are copied at a time where the array is a view of another order.
    """
    if array.flags.c_contiguous or array.nbytes <= limit or array.ndim == 1:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    else:
        for part in array:
            yield from _pieces(part, limit)


def divide(count: int, split: Split, shuffle: bool) -> tuple[Tensor, Tensor]:
    """Indices of the training and the test part.

    split: fractions that add up to at most 1, or numbers of signals. shuffle: in an order that is
    the same in every run, whatever its seed; otherwise the first ones train, and of numbers of
    signals the last ones test, since data sets keep a validation part between the two.
    """
    wrong = InputError(f"source.split = {quote(list(split))} does not fit {count} signals.")
    if not all(0 <= part <= max(count, 1) for part in split):  # NaN is neither
        raise wrong
    fractions = sum(split) <= 1
    train = round(split[0] * count) if fractions else int(split[0])
    test = round(sum(split) * count) - train if fractions else int(split[1])
    if train < 1 or test < 0 or train + test > count:
        raise wrong
    order = torch.arange(count)
    if shuffle:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    first = train if fractions or shuffle else count - test
    return order[:train], order[first : first + test]


@dataclass(frozen=True)
class FirstItems:
    """The first so many of lazy values."""

    values: Lazy
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *self.values.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def read(self, which: slice | Tensor) -> Tensor:
        return self.values.read(torch.arange(self.count)[which])


def source_of(
    values: Tensor | Lazy,
    labels: Sequence[Any] | None,
    split: Split,
    shuffle: bool,
    limit: Limit = None,
    filter: str = "none",
    suggests: Mapping[str, Mapping[str, Any]] | None = None,
    cameras: Cameras | None = None,
    extras: Mapping[str, Tensor] | None = None,
) -> Source:
    """A Source of values and labels of any kind: classes are the sorted distinct labels.

    limit: only the first so many. extras: coords, frame and surface, as ``Data`` has them.
    """
    count, extras = values.shape[0], extras or {}
    if labels is not None:
        flat = np.asarray(labels).reshape(-1)
        if len(flat) != count:
            raise InputError(f"source: {len(flat)} labels for {count} data.")
        labels = flat.tolist()
    if limit is not None and limit < count:
        count, some = limit, slice(limit)
        values = values[some] if isinstance(values, Tensor) else FirstItems(values, limit)
        labels = None if labels is None else labels[some]
        cameras = None if cameras is None else cameras.part(some)
        extras = {key: value[some] for key, value in extras.items()}
    names = () if labels is None else tuple(str(x) for x in sorted(set(labels)))
    number = {name: i for i, name in enumerate(names)}
    label = None if labels is None else torch.tensor([number[str(x)] for x in labels])
    data = Data(values, cameras, label=label, **extras)
    return Source(data, names, *divide(count, split, shuffle), filter, dict(suggests or {}))
