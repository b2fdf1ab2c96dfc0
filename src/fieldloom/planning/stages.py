"""The stages of a job: hours, memory, disk and network of each, by arithmetic from what was
measured."""

from __future__ import annotations

from dataclasses import dataclass

from fieldloom.planning import arithmetic
from fieldloom.planning.arithmetic import Span
from fieldloom.planning.measuring import Measured, Step

HOUR = 3600.0


@dataclass(frozen=True)
class Request:
    """What is asked for, as of ``plan``. shard: 0 until its default is known."""

    signals: int
    workers: int
    processes: int
    price: int | float | None
    shard: int

    @property
    def shards(self) -> int:
        return -(-self.signals // self.shard)


@dataclass(frozen=True)
class Sizes:
    """Bytes of one signal, as they are held, read and written.

    array: of its data in memory, as floats. read: of its data on disk, or as an array of bytes
    where that was not ``counted``. streamed: whether workers read only the data that they need;
    otherwise each reads all. held: of its data where they are not streamed.
    code: of its code in memory. file: of its code in a shard's file. decoded: of its decoded data
    as 8-bit numbers. weights: of the system, all signals' together. trial: data of the trial.
    """

    array: int
    read: int
    counted: bool
    streamed: bool
    held: int
    code: int
    file: float
    decoded: int
    weights: int
    trial: int


@dataclass(frozen=True)
class StagePlan:
    """What a stage takes.

    work: what is done, in words. workers: how many do it. hours: until the last one is done.
    memory: bytes of each. disk: bytes that are written. read: bytes of data that all of them read.
    sent: bytes that each process sends a step to add up gradients; gbits: the speed of its network,
    in Gbit/s, below which that takes longer than computing. cost: hours of all, times the price.
    """

    name: str
    work: str
    workers: int
    hours: Span
    memory: int
    disk: int = 0
    read: int = 0
    sent: int = 0
    gbits: float = 0.0
    cost: Span | None = None


def priced(stage: StagePlan, price: int | float | None) -> StagePlan:
    """The stage with what its workers cost."""
    if price is None:
        return stage
    return StagePlan(**{**vars(stage), "cost": stage.hours.times(stage.workers * price)})


def data_read(asked: Request, sizes: Sizes, signals: int, workers: int) -> int:
    """Bytes that workers read for so many signals (of several epochs: each time again)."""
    return signals * sizes.read if sizes.streamed else workers * asked.signals * sizes.read


def data_held(asked: Request, sizes: Sizes) -> int:
    """Bytes of data that each worker holds from beginning to end."""
    return 0 if sizes.streamed else max(0, asked.signals - sizes.trial) * sizes.held


def training_stage(asked: Request, sizes: Sizes, step: Step) -> StagePlan:
    """A stage of training, whose processes share each batch.

    Of the stage ``field`` a table of codes grows with the signals, of whose rows each process owns
    some; in the others all codes are held.
    """
    stage, batch = step.stage, step.stage.batch
    processes = asked.processes if step.cut else 1
    micro = arithmetic.divide_micro(batch, step.micro, processes)
    busiest = arithmetic.busiest_process(batch, micro, processes)
    seconds = step.measured.seconds.times(busiest)
    table = step.table * asked.signals // sizes.trial
    sent = arithmetic.sent_a_step(step.gradients - step.table, processes)
    sent += arithmetic.sent_of_rows(step.table * batch // sizes.trial, processes)
    field = step.name == "train field"
    copies = 1 + step.moments + bool(stage.ema)  # of a row: itself, moments, its average
    more = arithmetic.table_held(table, copies, processes) - (copies + 1) * step.table
    more += data_held(asked, sizes) if field else asked.signals * sizes.code
    done = f"{stage.steps:,} steps of {batch} {'signals' if field else 'codes'}"
    return StagePlan(
        step.name,
        f"{done}, {describe_epochs(stage.steps * batch / asked.signals)}",
        asked.processes,
        seconds.times(stage.steps / HOUR),
        step.measured.memory + more,
        disk=step.state + copies * (table - step.table),
        read=data_read(asked, sizes, stage.steps * batch, asked.processes) if field else 0,
        sent=sent,
        gbits=arithmetic.break_even(sent, seconds.middle),
    )


def describe_epochs(epochs: int | float) -> str:
    """How often each signal is seen."""
    return f"{epochs:.3g} epochs"


def bulk_stage(
    asked: Request,
    sizes: Sizes,
    name: str,
    measured: Measured,
    *,
    work: str,
    disk: int | float = 0,
    reads: bool = False,
    workers: int | None = None,
) -> StagePlan:
    """A job of shards, of which each worker takes the next one when it is free.

    disk: bytes written of each signal. reads: whether workers read the data. workers: None: as many
    as are asked for.
    """
    count = asked.workers if workers is None else workers
    busiest = arithmetic.busiest_worker(asked.signals, asked.shard, count)
    memory = measured.memory
    if reads:  # the data of a whole shard are read at once
        memory += max(0, asked.shard - measured.units) * sizes.array + data_held(asked, sizes)
    return StagePlan(
        name,
        work,
        count,
        measured.seconds.times(busiest / HOUR),
        memory,
        disk=round(asked.signals * disk),
        read=data_read(asked, sizes, asked.signals, count) if reads else 0,
    )


def fitting_stage(asked: Request, sizes: Sizes, step: Step) -> StagePlan:
    """Fitting each signal by a training of its own, of which each worker takes the next one."""
    stage = step.stage
    each = step.measured.seconds.times(stage.batch * stage.steps)
    rounds = arithmetic.count_rounds(asked.signals, asked.workers)
    return StagePlan(
        "fit",
        f"{asked.signals:,} signals, each by a training of {stage.steps:,} steps",
        asked.workers,
        each.times(rounds / HOUR),
        step.measured.memory,
        disk=asked.signals * sizes.weights,
        read=asked.signals * sizes.read,
    )


def closed_stage(asked: Request, sizes: Sizes, measured: Measured) -> StagePlan:
    """The closed forms of a codec and a prior, by one process that holds all codes."""
    return StagePlan(
        "fit codec",
        "statistics of all codes",
        1,
        measured.seconds.times(asked.signals / HOUR),
        measured.memory + asked.signals * sizes.code,
    )


def join_stage(asked: Request, sizes: Sizes, write: Measured, read: Measured) -> StagePlan:
    """Joining the shards into one file: one process reads them, holds all codes, writes them."""
    each = write.seconds.plus(read.seconds)
    held = write.memory + 2 * asked.signals * sizes.code
    return StagePlan(
        "join codes",
        "one file instead of a folder of shards (--out FILE)",
        1,
        each.times(asked.signals / HOUR),
        held,
        disk=round(asked.signals * sizes.file),
        read=round(asked.signals * sizes.file),
    )
