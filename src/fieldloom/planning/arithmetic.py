"""The arithmetic of plans: from seconds of one piece of work to a job on many machines.

It assumes that workers are as fast as this machine, and that they do not slow one another down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from fieldloom.errors import InputError, quote

MOST_SIGNALS = 10**15
FILES = 100_000
"""Files in one folder, beyond which many file systems take long to list it."""


class Span(NamedTuple):
    """A number that was measured several times, or what follows from it: least, median, most."""

    low: float
    middle: float
    high: float

    def times(self, factor: int | float) -> Span:
        """All three times a factor, which is not negative."""
        return Span(*(factor * x for x in self))

    def plus(self, other: Span) -> Span:
        """The sum of two pieces of work that are done one after the other."""
        return Span(*(a + b for a, b in zip(self, other, strict=True)))

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Span:
        """The span of at least one number."""
        ordered = sorted(numbers)
        return cls(ordered[0], ordered[len(ordered) // 2], ordered[-1])


NOTHING = Span(0.0, 0.0, 0.0)


def parse_count(name: str, value: Any) -> int:
    """A number of things: ``1e6``, ``1_000_000`` and ``1000000`` are the same.

    Raises InputError for what is no whole number from 1 to 10^15.
    """
    wrong = InputError(
        f"{name} {quote(value)} is not right: it is a whole number from 1 to 1e15, as 1e6 or "
        "1_000_000."
    )
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    try:
        number = int(value) if isinstance(value, int) else float(value)
    except (ValueError, OverflowError):
        raise wrong from None
    if not 1 <= number <= MOST_SIGNALS or number != int(number):
        raise wrong
    return int(number)


def count_rounds(pieces: int, workers: int) -> int:
    """How many pieces the busiest of some workers does."""
    return math.ceil(pieces / workers)


def busiest_worker(signals: int, shard: int, workers: int) -> int:
    """Signals of the worker that is done last, where each takes the next shard when it is free."""
    shards = math.ceil(signals / shard)
    rounds, last = count_rounds(shards, workers), signals - (shards - 1) * shard
    only_last = (shards - 1) % workers == 0  # the last round has the last shard alone
    return (rounds - 1) * shard + (last if only_last else shard)


def divide_micro(batch: int, micro: int, processes: int) -> int:
    """The micro-batch of a run that begins with several processes (``sharing.divide_batches``)."""
    return max(1, min(micro, batch // processes)) if processes > 1 else micro


def busiest_process(batch: int, micro: int, processes: int) -> int:
    """Signals of a batch that the busiest process computes: each takes every N-th micro-batch."""
    parts = [min(micro, batch - first) for first in range(0, batch, micro)]
    return max(sum(parts[rank::processes]) for rank in range(processes))


def sent_a_step(gradients: int, processes: int) -> int:
    """Bytes that each process sends a step, where these bytes are added up over all in a ring.

    Reduce-scatter and all-gather send (N - 1) / N of the bytes each, which no algorithm undercuts
    (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009).
    """
    return 2 * (processes - 1) * gradients // processes


def sent_of_rows(rows: int, processes: int) -> int:
    """Bytes that each process sends a step for the rows of a table that a batch reads.

    rows: their bytes. They are added up twice, by those who own them and then as gradients.
    """
    return 2 * sent_a_step(rows, processes)


def table_held(table: int, copies: int, processes: int) -> int:
    """Bytes that the first process holds of a table of codes, whose rows the processes share.

    table: bytes of all rows. copies: of each row that a checkpoint has: itself, moments, its
    average; while it trains it has a gradient, too. Of several processes the first one gathers all
    rows for a checkpoint.
    """
    gathered = copies * table if processes > 1 else 0
    return (copies + 1) * table // processes + gathered


def break_even(sent: int, seconds: int | float) -> float:
    """The network's speed, in Gbit/s, at which sending takes as long as computing."""
    return 8e-9 * sent / seconds if seconds else 0.0


def larger_shard(signals: int, files: int) -> int:
    """The least size of shards that leaves at most ``FILES`` files in the folder, rounded up.

    files: of each shard.
    """
    least = math.ceil(signals * files / FILES)
    unit = 10 ** max(0, len(str(least)) - 1)
    return math.ceil(least / unit) * unit


def smaller_shard(signals: int, workers: int) -> int:
    """The size of shards with which all workers have one, and the last ones hardly wait."""
    return max(1, signals // (4 * workers)) if signals >= 4 * workers else 1
