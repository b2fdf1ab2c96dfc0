"""How data come to the device: one batch a step, read ahead by a thread where that helps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fieldloom.engine.stage import order, seed_everything, seed_of
from fieldloom.objectives import AnyBatch
from fieldloom.settings import Stage

Held = TypeVar("Held")
Item = TypeVar("Item")
Made = TypeVar("Made")


def key_of(seed: int, tag: int, step: int, part: int) -> tuple[int, int, int, int, int]:
    """The key that seeds what a part of a step's data is sampled by.

    Its player is 0, so that it is the key of no micro-step; a batch that is read whole is part 0.
    """
    return seed, tag, step, 0, part


@dataclass(frozen=True)
class Feed(Generic[Held]):
    """How a batch comes to the device, in two halves.

    read:  indices in the data (batch,) and a generator -> what the processor reads of them. What it
           samples comes from the generator; None: from torch's own.
    send:  what was read -> the batch on the device. What it samples comes from torch's generators.
    ahead: how many steps are read before they are asked for, by a thread; 0: none, and no thread.
    """

    read: Callable[[Tensor, torch.Generator | None], Held]
    send: Callable[[Held], AnyBatch]
    ahead: int = 0


@dataclass(frozen=True)
class Parts:
    """Which parts of each batch are read, each with random numbers of its own.

    size: signals of a part. own: whether a part, by its number, is this process's.
    """

    size: int
    own: Callable[[int], bool]


@dataclass(frozen=True)
class InParts:
    """A batch of ``count`` signals, of which this process holds some parts, by their numbers."""

    count: int
    size: int
    parts: Mapping[int, AnyBatch]

    def __len__(self) -> int:
        return self.count

    def part(self, signals: slice) -> AnyBatch:
        return self.parts[signals.start // self.size]

    def joined(self, others: Sequence[InParts] = ()) -> AnyBatch:
        """The parts that are held, as one batch."""
        first, *rest = self.parts.values()
        return first.joined(rest)

    def within(self, count: int) -> InParts:
        raise NotImplementedError("a batch that is held in parts is whole")

    def describe(self) -> str:
        return ", ".join(part.describe() for part in self.parts.values())


def feed_steps(
    feed: Feed[Any],
    stage: Stage,
    seed: int,
    tag: int,
    steps: Iterable[int],
    count: int,
    parts: Parts | None = None,
) -> Generator[AnyBatch, None, None]:
    """The batches of steps, each a function of (seed, stage, step). Closing it ends its thread.

    parts: which parts of a batch are read; None: a batch is read whole.
    """
    if not feed.ahead:
        for step in steps:
            yield fetch_step(feed, stage, seed, tag, step, count, parts)
        return

    def read(step: int) -> dict[int, Any]:  # in a thread: torch's generator serves the training
        found = {}
        for i, own in cut_batch(indices_of(step), parts).items():
            generator = torch.Generator().manual_seed(seed_of(*key_of(seed, tag, step, i)))
            found[i] = feed.read(own, generator)
        return found

    indices_of = lambda step: order(seed, step, count, stage.batch, stage.partial)
    ready = prefetch(lambda step: (step, read(step)), steps, feed.ahead)
    try:
        for step, held in ready:
            found = {}
            for i, x in held.items():
                seed_everything(*key_of(seed, tag, step, i))
                found[i] = feed.send(x)
            yield join_parts(found, len(indices_of(step)), parts)
    finally:
        ready.close()


def fetch_step(
    feed: Feed[Any],
    stage: Stage,
    seed: int,
    tag: int,
    step: int,
    count: int,
    parts: Parts | None = None,
) -> AnyBatch:
    """The batch of one step."""
    indices, found = order(seed, step, count, stage.batch, stage.partial), {}
    for i, own in cut_batch(indices, parts).items():
        seed_everything(*key_of(seed, tag, step, i))
        found[i] = feed.send(feed.read(own, None))
    return join_parts(found, len(indices), parts)


def cut_batch(indices: Tensor, parts: Parts | None) -> dict[int, Tensor]:
    """Number of a part -> its indices, of this process's parts of a batch."""
    if parts is None:
        return {0: indices}
    return {i: x for i, x in enumerate(indices.split(parts.size)) if parts.own(i)}


def join_parts(found: dict[int, AnyBatch], count: int, parts: Parts | None) -> AnyBatch:
    """The batch of ``count`` signals of which these parts were read."""
    if parts is None:
        return found[0]
    whole = {i: x.within(count) for i, x in found.items()}
    return InParts(count, parts.size, whole)


def prefetch(
    make: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Generator[Made, None, None]:
    """``map(make, items)``, of which a thread makes so many before they are asked for.

    An error comes where its item would have come. Closing it ends the thread.
    """
    with ThreadPoolExecutor(1, "prefetch") as worker:
        coming: deque[Future[Made]] = deque()
        try:
            for item in items:
                coming.append(worker.submit(partial(make, item)))
                if len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            worker.shutdown(cancel_futures=True)
