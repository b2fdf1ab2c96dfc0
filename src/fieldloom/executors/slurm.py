"""Workers on the nodes of a SLURM cluster: one job array, submitted by submitit."""

from __future__ import annotations

import os
import shutil
import socket
import time
from typing import Any

from fieldloom import stopping
from fieldloom.errors import InputError, Interrupted
from fieldloom.executors.work import Shown, Work, check_finished, count_done
from fieldloom.executors.worker import serve
from fieldloom.progress import Progress, announce

CLUSTER = "slurm"
"""Submitit's name of the cluster; its ``local`` are processes of this machine, for tests."""

MINUTES = 24 * 60
"""The time limit of a worker, which SBATCH_TIMELIMIT overrides."""

POLL = 5.0
"""Seconds between two looks at the array; submitit asks SLURM itself at most once a minute."""


def run(work: Work, workers: int | None = None) -> None:
    """Do all shards in an array of so many tasks, and wait for them.

    Each task takes shard after shard, and those of nodes that vanish. Partition, account, time,
    cores and GPUs of a task are those of sbatch's own environment (SBATCH_PARTITION, ...). Logs are
    in ``slurm-HOST-PROCESS/`` of the folder, which all nodes must see.

    Raises InputError without submitit, without SLURM, and without a number of workers; Interrupted
    where the user asks to stop, which cancels the array; FieldloomError where shards are left.
    """
    submitit = import_submitit()
    if workers is None:
        raise InputError("workers: executor 'slurm' needs a number of tasks, as --workers 16.")
    if CLUSTER == "slurm" and shutil.which("sbatch") is None:
        raise InputError(
            "executor 'slurm': there is no sbatch on this machine; submit from a node of the "
            "cluster, or take executor 'processes', which computes here."
        )
    begun = count_done(work)
    if begun == work.count:
        return
    logs = work.folder / f"slurm-{socket.gethostname()}-{os.getpid()}"  # one of each command
    executor = submitit.AutoExecutor(folder=logs, cluster=CLUSTER)
    count = min(workers, work.count - begun)
    executor.update_parameters(name="fieldloom", timeout_min=MINUTES)
    if CLUSTER == "slurm":
        executor.update_parameters(slurm_array_parallelism=count)
    jobs = executor.map_array(Task(), [work] * count)
    announce(f"{count} tasks of SLURM, the first {jobs[0].job_id}; their logs: '{logs}'")
    with Progress(work.title, work.count, begun, "shards") as progress, stopping.stoppable():
        show = Shown(work, progress)
        try:
            while not all(job.done() for job in jobs):
                if stopping.stop_requested():
                    raise Interrupted(
                        f"stopped with {count_done(work)} of {work.count} shards done"
                    )
                time.sleep(POLL)
                show()
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise
        show()
    # the results of tasks are pickles, which are not read: rows and notes say all
    check_finished(work, [f"the tasks of SLURM have ended, their logs are in '{logs}'"])
    shutil.rmtree(logs, ignore_errors=True)


class Task:
    """A task of the array; why it ended early stands in its log."""

    def __call__(self, work: Work) -> None:
        if why := serve(work):
            print(f"error: {why}", flush=True)

    def checkpoint(self, work: Work) -> Any:
        """What SLURM starts again where the task's time is over, or another job takes its place:
        the same, which takes the next shard. Submitit calls it, and then ends the process."""
        return import_submitit().helpers.DelayedSubmission(self, work)


def import_submitit() -> Any:
    """The package, or InputError that says how to get it."""
    try:
        import submitit
    except ImportError:
        raise InputError(
            "executor 'slurm' needs submitit: pip install 'fieldloom[slurm]'."
        ) from None
    return submitit
