"""One worker: it takes the next shard that no one does, until none is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from fieldloom import stopping
from fieldloom.errors import Interrupted
from fieldloom.executors import claims
from fieldloom.executors.work import (
    Work,
    explain,
    failure_of,
    is_of_machine,
    is_settled,
    name_of,
    write_failure,
)

POLL = 0.5
"""Seconds between two looks at shards that other workers hold."""


def work_through(
    work: Work, tell: Callable[[], object] = lambda: None, keep_going: bool = False
) -> None:
    """Do the shards that no one has done, until all are done or have failed.

    Where the last ones are held by others, it waits for them: they may die. tell: called whenever
    there may be more that is done. keep_going: whether the other shards are done where one fails;
    an error of the machine (``is_of_machine``) ends the worker anyhow.

    Raises Interrupted where the user asks to stop, and what a shard raised.
    """
    do = work.start()
    with stopping.stoppable():
        while _pass(work, do, tell, keep_going):
            if stopping.stop_requested():
                raise Interrupted("stopped while others compute the last shards")
            time.sleep(POLL)
            tell()


def _pass(
    work: Work, do: Callable[[int], None], tell: Callable[[], object], keep_going: bool
) -> bool:
    """Do each shard that is free, and then those whose worker has died: it may have died of the
    shard, as for want of memory. Returns whether others held some."""
    held = False
    for orphans in (False, True):
        held = False
        for number in range(work.count):
            name = name_of(number)
            if is_settled(work, number) or (not orphans and claims.is_claimed(work.folder, name)):
                continue
            with claims.claimed(work.folder, name) as mine:
                held = held or not mine
                if not mine or is_settled(work, number):  # done while it was claimed
                    continue
                try:
                    attempt(work, number, do)
                except Interrupted:
                    raise
                except Exception as error:
                    if not keep_going or is_of_machine(error):
                        raise
            tell()
            if stopping.stop_requested():
                raise Interrupted(f"stopped after shard {number + 1} of {work.count}")
    return held


def attempt(work: Work, number: int, do: Callable[[int], None]) -> None:
    """Do a shard that is claimed. Raises what it raised, which is noted unless it was stopped."""
    try:
        do(number)
    except Interrupted:
        raise
    except Exception as error:
        write_failure(work, number, error)
        raise
    failure_of(work.folder, number).unlink(missing_ok=True)


def serve(work: Work) -> str:
    """Work as one of several workers. Returns why it ended early, in words, or "".

    Shards that failed have a note in the folder.
    """
    try:
        work_through(work, keep_going=True)
    except Interrupted:
        return ""
    except Exception as error:
        return explain(error)
    return ""
