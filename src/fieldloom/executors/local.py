"""This process alone; several such commands on one folder share its shards."""

from __future__ import annotations

from fieldloom.errors import InputError
from fieldloom.executors.work import Shown, Work, check_finished, count_done
from fieldloom.executors.worker import work_through
from fieldloom.progress import Progress


def run(work: Work, workers: int | None = None) -> None:
    """Do all shards here, one after the other.

    Raises InputError for more than one worker, Interrupted where the user asks to stop, and what a
    shard raised.
    """
    if workers not in (None, 1):
        raise InputError(f"workers = {workers}: 'local' is one; executor 'processes' has several.")
    with Progress(work.title, work.count, count_done(work), "shards") as progress:
        work_through(work, Shown(work, progress))
    check_finished(work, [])
