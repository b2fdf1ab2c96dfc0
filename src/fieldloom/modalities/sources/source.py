"""The class of data sets, and their division into a training and a test part."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fieldloom.errors import InputError, escape_bytes, quote, set_key
from fieldloom.geometry.mesh import Mesh
from fieldloom.modalities.modality import Resolution
from fieldloom.modalities.sources.summary import (
    NO_SUMMARY,
    Summary,
    count_things,
    describe_size,
    list_names,
)
from fieldloom.progress import BRIEF, Progress, during
from fieldloom.types import Cameras, Data, Lazy

PIECE = 1 << 24
"""Bytes that are read or copied at a time where a whole set is hashed."""

Limit = Annotated[int, Field(ge=1)] | None
Depth = Annotated[int, Field(ge=0)] | None
Split = tuple[int | float, int | float]
Filter = Literal["bicubic", "bilinear", "lanczos", "box"]

CONTENT = "content-"
"""How a fingerprint begins that is of the content of files, not of decoded pixels."""

PART_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Names of folders, in lower case, that are parts of a set, and never classes -> the part.

The names are those of Hugging Face's ``imagefolder`` (https://huggingface.co/docs/datasets).
"""


@dataclass(frozen=True)
class Attribute:
    """A further label of data, beside their class.

    names: its values. index: that of each datum, (n,).
    """

    names: tuple[str, ...]
    index: Tensor


@runtime_checkable
class Identified(Protocol):
    """Lazy values that know what they are made of, so that their fingerprint reads none of them.

    contents: a digest of the file of each item, (items, bytes) uint8. how: all else that the
    values depend on, as a text.
    """

    @property
    def contents(self) -> Tensor: ...

    @property
    def how(self) -> str: ...


@dataclass(frozen=True)
class Source:
    """A data set, and its division.

    data:   all data, in the modality's shape, with their classes as ``label``: in memory,
            memory-mapped, or lazy.
    names:  of the classes.
    train, test: indices of the two parts.
    filter: how images were resized, which is recorded with every metric.
    suggests: section of a recipe -> settings that the data know (``renderer``: near, far); they
            apply where the recipe has none.
    summary: what the reader read, how it took it, and what it passed over.
    originals: of meshes, how each is read, in the modality's coordinates; () of other data.
    truth:  of data that are known at any resolution: (indices (n,), resolution) -> (n, channel,
            height, width), float in [0, 1].
    attributes: further labels by name, such as ``font``.
    """

    data: Data
    names: tuple[str, ...]
    train: Tensor
    test: Tensor
    filter: str = "none"
    suggests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    summary: Summary = NO_SUMMARY
    originals: Sequence[Callable[[], Mesh]] = ()
    truth: Callable[[Tensor, Resolution], Tensor] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def labels(self) -> Tensor | None:
        """The class of each datum, where there are classes."""
        return self.data.label

    def take(self, index: Tensor) -> Data:
        """Data of these indices (n,) as they are stored, uint8 or float.

        A single datum is a view, so that memory-mapped data are not copied.
        """
        return replace(self.data.part(index), index=index)

    def read(self, index: Tensor) -> Data:
        """Data of these indices, float in [0, 1]."""
        return self.take(index).as_float()

    def defer(self, index: Tensor) -> Data:
        """As ``take``, but lazy values stay lazy: what is asked for is read, part by part."""
        values = self.data.values
        if isinstance(values, Tensor):
            return self.take(index)
        bare = replace(self.data, values=torch.empty(*self.data.shape[:2], 0))
        return replace(bare.part(index), values=ChosenItems(values, index.cpu()), index=index)

    def facts(self, known: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """The facts about the data that are part of a resolved recipe.

        The fingerprint is of all values or, where these are read from many files, of the content of
        the files. known: the facts that they will be compared with: where their fingerprint is of
        values, as older versions made all, this one is, too, which reads everything once.
        """
        values, before = self.data.values, str(known.get("fingerprint", CONTENT))
        by_content = values if isinstance(values, Identified) else None
        by_content = by_content if before.startswith(CONTENT) else None
        seen = hashlib.blake2b(digest_size=8)
        extras = self.data.extras()
        order = ("label", "frame", "coords", "c2w", "intrinsics")  # surface is for evaluation only
        if "c2w" in extras:
            extras["c2w"] = extras["c2w"].float()  # as runs of before, whose cameras were float32
        parts = [torch.cat([self.train, self.test]), *(extras[k] for k in order if k in extras)]
        whole = _tensors(values)
        if by_content is not None:
            seen.update(by_content.how.encode())
            whole = iter([by_content.contents])
        with during("fingerprinting the data"):
            for one in itertools.chain(whole, parts):
                for piece in _pieces(one.numpy()):
                    seen.update(piece)
        return {
            "signals": len(self.train),
            "classes": len(self.names),
            "names": list(self.names),
            "filter": self.filter,
            "fingerprint": f"{'' if by_content is None else CONTENT}{seen.hexdigest()}",
        }


def _tensors(values: Tensor | Lazy) -> Iterator[Tensor]:
    """The values as one tensor, or batches of the items of lazy values."""
    if isinstance(values, Tensor):
        yield values
    else:
        count, step = values.shape[0], max(1, PIECE // math.prod(values.shape[1:]))
        title = "fingerprinting the data"
        with Progress(title, count, unit="images", least=BRIEF) as progress:
            for first in range(0, count, step):
                yield values.read(slice(first, first + step))
                progress.update(min(first + step, count))


def _pieces(array: NDArray[Any], limit: int = PIECE) -> Iterator[memoryview]:
    """The bytes of an array in row-major order, in contiguous pieces.

    limit: the largest number of bytes that is copied at a time, where the array is not contiguous.
    """
    if array.flags.c_contiguous or array.nbytes <= limit or array.ndim == 1:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    else:
        for part in array:
            yield from _pieces(part, limit)


def divide(count: int, split: Split, shuffle: bool) -> tuple[Tensor, Tensor]:
    """Indices of the training and the test part.

    split: fractions that add up to at most 1, or numbers of signals. shuffle: whether the order is
    random, but the same for all seeds; otherwise the first signals are the training part, and where
    the split has numbers of signals the last ones are the test part, since data sets have a
    validation part in between.
    Raises InputError for a split that does not fit.
    """
    fix = set_key("source.split", [0.9, 0.1])
    wrong = InputError(
        f"source.split = {quote(list(split))} does not fit {count} signals: {fix} fits any number."
    )
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


def dividing_parts(
    parts: Sequence[str] | None, split: Split = (0.9, 0.1)
) -> tuple[str, str] | None:
    """Which of the folders of parts are trained on and tested, where folders divide a set.

    They do where there are ``train``, and ``test`` or else ``val``, and ``split`` is of fractions
    that leave a test part; numbers of signals and [1.0, 0.0] are kept to.
    """
    kinds = {PART_OF[part.lower()] for part in parts or ()}
    test = "test" if "test" in kinds else "val"
    asked = sum(split) <= 1 and split[1] > 0
    return ("train", test) if asked and {"train", test} <= kinds else None


def divide_by_parts(parts: Sequence[str], kinds: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Indices of the data in the folders of the training and of the test part."""
    own = [PART_OF[part.lower()] for part in parts]
    train, test = ([i for i, part in enumerate(own) if part == kind] for kind in kinds)
    return torch.tensor(train), torch.tensor(test)


def choose(
    limit: int,
    count: int,
    labels: Sequence[Any] | None = None,
    parts: Sequence[str] | None = None,
) -> Sequence[int]:
    """Indices, ascending, of the ``limit`` of ``count`` data that are used.

    Without labels and parts they are the first ones. Of each class it is the same number, as far as
    there are so many, and the first ones; each part keeps its fraction, but at least one.
    """
    if limit >= count or (labels is None and parts is None):
        return range(min(limit, count))
    labels, parts = labels or [0] * count, parts or [""] * count
    rank = _count_up(list(zip(parts, labels, strict=True)))
    balanced = sorted(range(count), key=rank.__getitem__)  # the first of each class, the second ...
    sizes = Counter(parts)
    place = _count_up([parts[i] for i in balanced])
    fraction = {i: n / sizes[parts[i]] for i, n in zip(balanced, place, strict=True)}
    return sorted(sorted(balanced, key=fraction.__getitem__)[:limit])


def _count_up(kinds: Sequence[Any]) -> list[int]:
    """For each of the kinds, how many of the same are before it."""
    seen = Counter[Any]()
    found = []
    for kind in kinds:
        found.append(seen[kind])
        seen[kind] += 1
    return found


@dataclass(frozen=True)
class ChosenItems:
    """Some of the items of lazy values. which: their indices, (n,)."""

    values: Lazy
    which: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.which), *self.values.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def read(self, which: slice | Tensor) -> Tensor:
        return self.values.read(self.which[which])


@dataclass(frozen=True)
class ChosenIdentified(ChosenItems):
    """The same of values that know what they are made of (``Identified``)."""

    @property
    def contents(self) -> Tensor:
        return cast(Identified, self.values).contents[self.which]

    @property
    def how(self) -> str:
        return cast(Identified, self.values).how


def make_source(
    values: Tensor | Lazy,
    labels: Sequence[Any] | None,
    split: Split,
    shuffle: bool,
    limit: Limit = None,
    filter: str = "none",
    suggests: Mapping[str, Mapping[str, Any]] | None = None,
    cameras: Cameras | None = None,
    extras: Mapping[str, Tensor] | None = None,
    summary: Summary = NO_SUMMARY,
    classes: Sequence[str] | None = None,
    parts: Sequence[str] | None = None,
    parted: str = "the folders",
) -> Source:
    """A Source of values and labels of any type; classes are the sorted distinct labels.

    limit: the number of data that are used (``choose``). extras: coords, frame and surface, as in
    ``Data``. summary: what the reader knows; the rest is added here: the number of data, their
    classes, their size, and how they are divided. classes: the names of all classes, where labels
    are their numbers. parts: the part of each datum, a key of ``PART_OF``, which divides the data
    where ``dividing_parts`` says so; parted: by what, in words. Raises
    InputError where the number of labels is wrong.
    """
    count, extras = values.shape[0], extras or {}
    if labels is not None:
        flat = np.asarray(labels).reshape(-1)
        if len(flat) != count:
            raise InputError(f"source: {len(flat)} labels for {count} data.")
        labels = flat.tolist()
    if limit is not None and limit < count:
        chosen = choose(limit, count, labels)
        some = slice(limit) if labels is None else torch.tensor(chosen)
        if isinstance(values, Tensor):
            values = values[some]
        else:
            chosen_of = ChosenIdentified if isinstance(values, Identified) else ChosenItems
            values = chosen_of(values, torch.tensor(chosen))
        labels = None if labels is None else [labels[i] for i in chosen]
        cameras = None if cameras is None else cameras.part(some)
        extras = {key: value[some] for key, value in extras.items()}
        count = limit
    kinds = [] if labels is None else range(len(classes)) if classes else sorted(set(labels))
    called = classes or map(name_class, kinds)
    names = () if labels is None else tuple(map(escape_bytes, called))
    number = {label: i for i, label in enumerate(kinds)}
    label = None if labels is None else torch.tensor([number[x] for x in labels])
    data = Data(values, cameras, label=label, **extras)
    by = dividing_parts(parts, split)
    if parts is not None and by is not None:
        train, test = divide_by_parts(parts, by)
        folders = list(dict.fromkeys(p for kind in by for p in parts if PART_OF[p.lower()] == kind))
        words = f"divided by {parted} {list_names(folders)}: "
    else:
        train, test = divide(count, split, shuffle)
        words = ""
    told = _complete(summary, data, names, len(train), len(test), words)
    if count > 1 and split[1] > 0 and not len(test):
        told = replace(told, taken={**told.taken, "split": "too few to hold any out for the test"})
    return Source(data, names, train, test, filter, dict(suggests or {}), told)


def name_class(label: Any) -> str:
    """The name of a class: ``cat`` of the bytes ``b"cat"``, ``3`` of 3 and of 3.0."""
    if isinstance(label, bytes):
        return label.decode("utf-8", "backslashreplace")
    whole = isinstance(label, float) and label.is_integer()
    return str(int(label) if whole else label)


def _complete(
    summary: Summary, data: Data, names: Sequence[str], train: int, test: int, divided_by: str
) -> Summary:
    """The summary of a reader with what the data themselves tell, where it does not say so."""
    classes = {"classes": f"{count_things(len(names), 'class')} ({list_names(names)})"}
    if data.coords is not None:
        size = f"{data.shape[1]:,} samples each"
    elif data.cameras is not None:
        size = f"{count_things(data.shape[1], 'view')} of {describe_size(data.shape[3:])}"
    else:
        size = describe_size(data.shape[2:])
    left = len(data) - train - test
    rest = f", {left:,} unused" if left else ""
    divided = {"split": f"{divided_by}{train:,} to train on, {test:,} to test{rest}"}
    taken = {
        **(classes if names else {}),
        "size": size,
        **summary.taken,
        **(divided if test or left else {}),
    }
    return replace(summary, count=len(data), taken=taken)
