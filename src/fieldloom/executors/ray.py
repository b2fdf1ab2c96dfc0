"""Shards as tasks of Ray, on a cluster that runs already, or one of this machine."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from fieldloom import stopping
from fieldloom.errors import InputError, Interrupted
from fieldloom.executors import claims
from fieldloom.executors.work import (
    Shown,
    Work,
    check_finished,
    count_done,
    explain,
    failure_of,
    is_settled,
    name_of,
    write_failure,
)
from fieldloom.process import count_cores
from fieldloom.progress import Progress

POLL = 2.0
"""Seconds between two looks at the tasks."""


def run(work: Work, workers: int | None = None) -> None:
    """Do each shard as a task of one core, so many at a time; Ray repeats tasks of lost nodes.

    workers: None: all cores but one of this machine. The cluster is that of RAY_ADDRESS, where it
    is set; otherwise Ray starts on this machine, with at most all cores but one.

    Raises InputError without Ray; Interrupted where the user asks to stop, after the shards that
    are being computed; FieldloomError where shards are left.
    """
    ray = import_ray()
    begun = count_done(work)
    if begun == work.count:
        return
    spare = max(1, count_cores() - 1)
    count, own = workers or spare, not ray.is_initialized()
    if own and os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", log_to_driver=False)
    elif own:
        ray.init(num_cpus=min(count, spare), include_dashboard=False, log_to_driver=False)
    try:
        ended = _submit(ray, work, count, begun)
    finally:
        if own:
            ray.shutdown()
    check_finished(work, ended)


def _submit(ray: Any, work: Work, workers: int, begun: int) -> list[str]:
    """Hand out the shards, at most ``workers`` at a time. Returns why tasks failed, or ""."""
    task, pickled = ray.remote(num_cpus=1, max_retries=3)(do_shard), pickle.dumps(work)
    left = [number for number in range(work.count) if not is_settled(work, number)][::-1]
    running: dict[Any, int] = {}
    ended: list[str] = []
    with Progress(work.title, work.count, begun, "shards") as progress, stopping.stoppable():
        show = Shown(work, progress)
        while running or (left and not stopping.stop_requested()):
            while left and len(running) < workers and not stopping.stop_requested():
                number = left.pop()
                running[task.remote(pickled, number)] = number
            ready, _ = ray.wait(list(running), num_returns=1, timeout=POLL)
            for one in ready:
                number = running.pop(one)
                try:
                    why = ray.get(one)
                except Exception as error:  # the worker died, each time that Ray tried
                    why = explain(error)
                if why is None:
                    left.insert(0, number)
                    time.sleep(POLL if len(left) == 1 else 0)
                else:
                    ended.append(why)
            show()
        if stopping.stop_requested() and count_done(work) < work.count:
            raise Interrupted(f"stopped with {count_done(work)} of {work.count} shards done")
    return ended


@cache
def _started(pickled: bytes) -> tuple[Work, Callable[[int], None]]:
    """A job, and what does its shards: a process of Ray does several, and loads once."""
    work: Work = pickle.loads(pickled)
    return work, work.start()


def do_shard(pickled: bytes, number: int) -> str | None:
    """Do a shard. pickled: the work. Returns why it failed, or "", or None where another worker
    holds it."""
    try:
        work, do = _started(pickled)
        with claims.claimed(work.folder, name_of(number)) as mine:
            if not mine or is_settled(work, number):
                return "" if mine else None
            try:
                do(number)
            except Exception as error:
                write_failure(work, number, error)
                raise
            failure_of(work.folder, number).unlink(missing_ok=True)
    except Exception as error:
        return explain(error)
    return ""


def import_ray() -> Any:
    """The package, or InputError that says how to get it."""
    try:
        import ray
    except ImportError:
        raise InputError("executor 'ray' needs Ray: pip install 'fieldloom[ray]'.") from None
    return ray
