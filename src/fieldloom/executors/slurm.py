"""Workers on the nodes of a SLURM cluster: one job array, submitted by submitit."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from fieldloom import stopping
from fieldloom.errors import InputError, Interrupted, shorten
from fieldloom.executors.work import Shown, Work, check_finished, count_done
from fieldloom.executors.worker import serve
from fieldloom.progress import Progress, announce

CLUSTER = "slurm"
"""Submitit's name of the cluster; its ``local`` are processes of this machine, for tests."""

MINUTES = 24 * 60
"""The time limit of a worker, which SBATCH_TIMELIMIT overrides."""

POLL, QUEUE = 2.0, 30.0
"""Seconds between two looks at the shards, and at the queue."""

GRACE = 10.0
"""Seconds in which tasks find that nothing is left; those that still wait are cancelled then."""

REQUEUES = 1000
"""How often a task is started again where its time is over; each goes on from finished shards."""

LOGS = "slurm-"
"""The folders of logs, in a job's own, begin so."""


def run(work: Work, workers: int | None = None) -> None:
    """Do all shards in an array of so many tasks, and wait for them.

    Each task takes shard after shard, and those of nodes that vanish. Partition, account, time,
    cores and GPUs of a task are those of sbatch's own environment (SBATCH_PARTITION, ...). Logs are
    in ``slurm-HOST-PROCESS/`` of the folder, which all nodes must see. Tasks that still wait in the
    queue when all shards are done are cancelled.

    Raises InputError without submitit, without SLURM, without a number of workers, and where sbatch
    refuses; Interrupted where the user asks to stop, which cancels the array; FieldloomError where
    shards are left.
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
    logs = work.folder / f"{LOGS}{socket.gethostname()}-{os.getpid()}"  # one of each command
    jobs = submit(submitit, work, min(workers, work.count - begun), logs)
    announce(f"{len(jobs)} tasks of SLURM, the first {jobs[0].job_id}; their logs: '{logs}'")
    with Progress(work.title, work.count, begun, "shards") as progress, stopping.stoppable():
        show = Shown(work, progress)
        look = time.monotonic() + POLL
        try:
            while show.done < work.count:
                if stopping.stop_requested():
                    raise Interrupted(f"stopped with {show.done} of {work.count} shards done")
                if time.monotonic() >= look:
                    if have_ended(jobs):
                        break
                    look = time.monotonic() + (QUEUE if CLUSTER == "slurm" else 0.0)
                time.sleep(POLL)
                show()
        finally:
            _leave(jobs, done=show.done == work.count)
    # the results of tasks are pickles, which are not read: rows and notes say all
    check_finished(work, [f"the tasks of SLURM have ended, their logs are in '{logs}'"])
    for path in work.folder.glob(f"{LOGS}*"):  # and those of commands that ended early
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def submit(submitit: Any, work: Work, count: int, logs: Path) -> list[Any]:
    """Put an array of so many tasks into the queue. Raises InputError where it is refused."""
    settings = {"name": "fieldloom", "timeout_min": MINUTES}
    if CLUSTER == "slurm":
        settings["slurm_array_parallelism"] = count
    try:
        executor = submitit.AutoExecutor(logs, CLUSTER, slurm_max_num_timeout=REQUEUES)
        executor.update_parameters(**settings)
        return list(executor.map_array(Task(), [work] * count))
    except (RuntimeError, OSError, ValueError) as error:
        shutil.rmtree(logs, ignore_errors=True)
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"executor 'slurm': no task was taken: {shorten(said[-1], 300)}."
        ) from None


def have_ended(jobs: list[Any]) -> bool:
    """Whether no task of an array waits or runs.

    squeue tells it on all clusters; sacct, which submitit asks, needs accounting.
    """
    if CLUSTER != "slurm":
        return all(job.done() for job in jobs)
    words = ["squeue", "--noheader", "--jobs", _array_of(jobs)]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    if told.returncode == 0:
        return not told.stdout.strip()
    return "Invalid job id" in told.stderr  # which has ended some time ago


def _leave(jobs: list[Any], done: bool) -> None:
    """Cancel what is left of an array. done: whether running tasks will end by themselves."""
    end = time.monotonic() + (GRACE if done else 0.0)
    while time.monotonic() < end and not have_ended(jobs):
        time.sleep(POLL)
    if CLUSTER == "slurm":
        subprocess.run(["scancel", _array_of(jobs)], capture_output=True, check=False)
    else:
        for job in jobs:
            job.cancel(check=False)


def _array_of(jobs: list[Any]) -> str:
    """The number of an array: that of its tasks is NUMBER_TASK."""
    return str(jobs[0].job_id).partition("_")[0]


class Task:
    """A task of the array; why it ended early stands in its log."""

    def __call__(self, work: Work) -> None:
        _end_where_requeuing_fails()
        if why := serve(work):
            print(f"error: {why}", flush=True)

    def checkpoint(self, work: Work) -> Any:
        """What SLURM starts again where the task's time is over, or another job takes its place:
        the same, which takes the next shard. Submitit calls it, and then ends the process."""
        return import_submitit().helpers.DelayedSubmission(self, work)


def _end_where_requeuing_fails() -> None:
    """Let what submitit raises within its handler of signals end the task, and be no failure of the
    shard that is being computed."""
    number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
    handle = signal.getsignal(number)
    if not callable(handle):
        return

    def end(number: int, frame: FrameType | None) -> None:
        try:
            handle(number, frame)
        except Exception as error:
            sys.exit(f"error: the task could not be started again: {error}")

    signal.signal(number, end)


def import_submitit() -> Any:
    """The package, or InputError that says how to get it."""
    try:
        import submitit
    except ImportError:
        raise InputError(
            "executor 'slurm' needs submitit: pip install 'fieldloom[slurm]'."
        ) from None
    return submitit
