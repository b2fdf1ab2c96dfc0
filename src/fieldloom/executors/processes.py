"""Workers on this machine, each a process of its own with its share of the cores."""

from __future__ import annotations

import pickle

from fieldloom.executors.children import Program, be_child, python_path, run_children
from fieldloom.executors.work import Work, count_done
from fieldloom.executors.worker import serve
from fieldloom.process import count_cores

PROGRAM = "from fieldloom.executors.processes import main; main()"


def run(work: Work, workers: int | None = None) -> None:
    """Do all shards in so many processes; None: one a core. Each has its share of the threads.

    A worker that dies leaves its shard to the others. Raises Interrupted where the user asks to
    stop, which each worker does within its shard, and FieldloomError where shards are left.
    """
    left, asked = work.count - count_done(work), workers or count_cores()
    if not left:
        return
    threads = str(max(1, count_cores() // asked))
    share = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": python_path()}
    run_children(work, Program(PROGRAM, "a worker", share), [pickle.dumps(work)] * min(asked, left))


def main() -> None:
    """Be a worker."""
    be_child(lambda given: serve(pickle.loads(given)))
