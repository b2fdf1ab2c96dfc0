"""How data come to the device: one batch a step, read ahead by a thread where that helps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fieldloom.engine.stage import order, seed_everything, seed_of
from fieldloom.objectives import AnyBatch
from fieldloom.settings import Stage

Held = TypeVar("Held")
Item = TypeVar("Item")
Made = TypeVar("Made")

SAMPLED = 0, 0
"""The end of the key that seeds what the data of a step are sampled by: no player, no micro-step.
"""


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


def feed_steps(
    feed: Feed[Held], stage: Stage, seed: int, tag: int, steps: Iterable[int], count: int
) -> Generator[AnyBatch, None, None]:
    """The batches of steps, each a function of (seed, stage, step). Closing it ends its thread."""
    if not feed.ahead:
        for step in steps:
            yield fetch_step(feed, stage, seed, tag, step, count)
        return

    def read(step: int) -> Held:  # in a thread, beside which torch's generator serves the training
        generator = torch.Generator().manual_seed(seed_of(seed, tag, step, *SAMPLED))
        return feed.read(order(seed, step, count, stage.batch, stage.partial), generator)

    ready = prefetch(lambda step: (step, read(step)), steps, feed.ahead)
    try:
        for step, held in ready:
            seed_everything(seed, tag, step, *SAMPLED)
            yield feed.send(held)
    finally:
        ready.close()


def fetch_step(
    feed: Feed[Held], stage: Stage, seed: int, tag: int, step: int, count: int
) -> AnyBatch:
    """The batch of one step."""
    seed_everything(seed, tag, step, *SAMPLED)
    return feed.send(feed.read(order(seed, step, count, stage.batch, stage.partial), None))


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
