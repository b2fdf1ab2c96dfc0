"""Who computes the shards of a job: this process, several of this machine, SLURM, or Ray.

All drive the same function of a shard's number, and know nothing of what it computes.
"""

from __future__ import annotations

from collections.abc import Callable

from fieldloom.errors import unknown
from fieldloom.executors import local, processes, ray, slurm
from fieldloom.executors.work import Work

Executor = Callable[[Work, int | None], None]
"""Does all shards of a job, with so many workers (None: its own number), or raises."""

EXECUTORS: dict[str, Executor] = {
    "local": local.run,
    "processes": processes.run,
    "slurm": slurm.run,
    "ray": ray.run,
}


def find_executor(name: str) -> Executor:
    """The executor of a name. Raises InputError for another."""
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    return EXECUTORS[name]
