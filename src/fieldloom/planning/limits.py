"""Where a plan would not scale, in sentences."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

from fieldloom.memory import format_bytes, total_memory
from fieldloom.planning import arithmetic
from fieldloom.planning.measuring import Step
from fieldloom.planning.stages import Request, Sizes, StagePlan

FILES_OF_A_SHARD = 2
"""Its codes and its row; claims are removed."""

LINK = 10.0
"""The speed of a network, in Gbit/s, that a stage which needs more is named for."""


def find_limits(
    asked: Request,
    sizes: Sizes,
    steps: Sequence[Step],
    stages: Sequence[StagePlan],
    shards: bool,
) -> Iterator[str]:
    """What would not scale: processes and workers without work, one writer, files, memory, disk.

    shards: whether codes are written in shards.
    """
    yield from limits_of_training(asked, steps, stages)
    if shards:
        yield from limits_of_shards(asked, sizes)
    yield from limits_of_machines(asked, sizes, stages)


def limits_of_training(
    asked: Request, steps: Sequence[Step], stages: Sequence[StagePlan]
) -> Iterator[str]:
    """Processes that a batch does not reach, and gradients that a network does not carry."""
    count, there = asked.processes, {stage.name: stage for stage in stages}
    for step in steps:
        stage, batch = there.get(step.name), step.stage.batch
        if stage is None:
            continue
        taken = step.stage.steps
        if taken > 1 and (seen := taken * batch) < asked.signals:
            section = stage.name.replace(" ", ".")
            yield (
                f"{stage.name}: {taken:,} steps see {seen:,} of the signals; "
                f"{section}.steps={-(-asked.signals // batch)} sees each once."
            )
        if count == 1:
            continue
        if not step.cut:
            yield (
                f"{stage.name}: its signals are compared with one another, so that one process of "
                f"{count} works."
            )
        elif batch < count:
            yield f"{stage.name}: a batch of {batch} is shared by {batch} of {count} processes."
        if stage.gbits > LINK:
            yield (
                f"{stage.name}: each process sends {format_bytes(stage.sent)} a step; below "
                f"{stage.gbits:.3g} Gbit/s that takes longer than computing."
            )


def limits_of_shards(asked: Request, sizes: Sizes) -> Iterator[str]:
    """Too few shards for the workers, or too many for a folder."""
    shards, files = asked.shards, FILES_OF_A_SHARD * asked.shards
    if shards < asked.workers:
        fewer = arithmetic.smaller_shard(asked.signals, asked.workers)
        more = f": --shard {fewer} gives each some" if fewer < asked.shard else ""
        yield f"encode: {shards:,} shards of {asked.shard} for {asked.workers} workers{more}."
    if files > arithmetic.FILES:
        size = arithmetic.larger_shard(asked.signals, FILES_OF_A_SHARD)
        yield (
            f"encode: {shards:,} shards of {asked.shard} are {files:,} files in one folder, which "
            f"many file systems list slowly: --shard {size} leaves {-(-asked.signals // size):,} "
            "shards, or several jobs share the data, each with a folder of its own."
        )
    indices = 8 * asked.signals
    if indices > 1 << 30:
        yield (
            f"encode: the list of signals alone is {format_bytes(indices)} in each worker: divide "
            "the data into several jobs."
        )


def limits_of_machines(asked: Request, sizes: Sizes, stages: Sequence[StagePlan]) -> Iterator[str]:
    """More memory, or disk, than this machine has; data that every worker holds whole."""
    has = total_memory()
    for stage in stages:
        if stage.memory > has:
            yield (
                f"{stage.name}: {format_bytes(stage.memory)} of memory for each worker, and this "
                f"machine has {format_bytes(has)}."
            )
    if not sizes.streamed and asked.signals > sizes.trial:
        whole = format_bytes(asked.signals * sizes.held)
        yield (
            f"every worker reads and holds all data ({whole}), unless they are a memory-mapped "
            "array: a folder of files is read as it is needed."
        )
    disk, free = sum(stage.disk for stage in stages), shutil.disk_usage(".").free
    if disk > free:
        yield f"{format_bytes(disk)} are written in all; here {format_bytes(free)} are free."
