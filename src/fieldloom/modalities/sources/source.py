"""What a source of data is, and how it is split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fieldloom.errors import InputError, quote

Limit = Annotated[int, Field(ge=1)] | None
Split = tuple[int | float, int | float]
Filter = Literal["bicubic", "bilinear", "lanczos", "box"]


@dataclass(frozen=True)
class Source:
    """A data set: uint8 in 0 .. 255 or float in [0, 1], in the modality's shape.

    data:   in memory, or mapped from a file.

    labels: (signals,) or None; names: of the classes; train, test: indices of the two parts.
    filter: how pictures were resized, for the record beside every metric.
    meta:   what else the modality's ``observe`` asks for (``coords`` of samples, ``c2w`` and
            ``intrinsics`` of views) or a mesh needs to stand where it stood (``frame``), one row a
            signal.
    suggests: section of a recipe -> keys that the data know (``renderer``: near, far), taken where
            the recipe is silent.
    """

    data: Tensor
    labels: Tensor | None
    names: tuple[str, ...]
    train: Tensor
    test: Tensor
    filter: str = "none"
    meta: Mapping[str, Tensor] = field(default_factory=dict)
    suggests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def take(self, index: Tensor) -> Tensor:
        """Data of these indices (n,) as they are stored, uint8 or float: (n, channel, *axes).

        Of a single place it is a view, so that data mapped from a file stay there.
        """
        if len(index) == 1:
            place = int(index) % len(self.data)
            return self.data[place : place + 1]
        return self.data[index]

    def read(self, index: Tensor) -> Tensor:
        """Data of these indices, float in [0, 1]: (n, channel, *axes)."""
        part = self.take(index)
        return part.float() / 255 if part.dtype == torch.uint8 else part

    def about(self, index: Tensor) -> dict[str, Any]:
        """The meta of these indices."""
        return {key: value[index] for key, value in self.meta.items()}

    def facts(self) -> dict[str, Any]:
        """What the system must know of its data: goes into the resolved recipe."""
        seen = hashlib.blake2b(digest_size=8)
        labels = [] if self.labels is None else [self.labels]
        meta = [value for key, value in self.meta.items() if key != "surface"]  # is judged by alone
        for one in [self.data, torch.cat([self.train, self.test]), *labels, *meta]:
            for piece in _pieces(one.numpy()):
                seen.update(piece)
        return {
            "signals": len(self.train),
            "classes": len(self.names),
            "names": list(self.names),
            "filter": self.filter,
            "fingerprint": seen.hexdigest(),
        }


def _pieces(array: NDArray[Any], limit: int = 1 << 24) -> Iterator[memoryview]:
    """The bytes of an array row-major, in pieces that lie together; only small ones are copied.

    limit: bytes that are copied at a time where the array is a view of another order.
    """
    if array.flags.c_contiguous or array.nbytes <= limit or array.ndim == 1:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    else:
        for part in array:
            yield from _pieces(part, limit)


def divide(count: int, split: Split, shuffle: bool) -> tuple[Tensor, Tensor]:
    """Places of the training and the test part.

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


def assemble(
    data: Tensor,
    labels: Sequence[Any] | None,
    split: Split,
    shuffle: bool,
    limit: Limit = None,
    filter: str = "none",
    meta: Mapping[str, Tensor] | None = None,
    suggests: Mapping[str, Mapping[str, Any]] | None = None,
) -> Source:
    """A Source of data and labels of any kind: classes are the sorted distinct labels."""
    if labels is not None:
        flat = np.asarray(labels).reshape(-1)
        if len(flat) != len(data):
            raise InputError(f"source: {len(flat)} labels for {len(data)} data.")
        labels = flat.tolist()
    meta = dict(meta or {})
    if limit is not None:
        limit = min(limit, len(data))
        data, labels = data[:limit], None if labels is None else labels[:limit]
        meta = {key: value[:limit] for key, value in meta.items()}
    names = () if labels is None else tuple(str(x) for x in sorted(set(labels)))
    place = {name: i for i, name in enumerate(names)}
    numbers = None if labels is None else torch.tensor([place[str(x)] for x in labels])
    parts = divide(len(data), split, shuffle)
    return Source(data, numbers, names, *parts, filter, meta, dict(suggests or {}))
