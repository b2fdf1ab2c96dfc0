"""A job of shards, whatever its verb: shards are computed, written, and checked alike.

What is computed is a ``Task``: each worker loads it once, and asks it for one shard after the
other, by number. The shard's file is written first, then its row (``codes.jobs``); a shard without
a row is computed again, with the same result to the bit whoever does it (on a CPU).
"""

from __future__ import annotations

import hashlib
import math
import re
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fieldloom import atomic, stopping
from fieldloom.codes import jobs
from fieldloom.codes.jobs import MANIFEST, PAUSED, paused_path, read_manifest, shard_path
from fieldloom.engine.lock import hold_lock
from fieldloom.engine.provenance import fingerprint
from fieldloom.engine.schemas import Job, Manifest, Shard
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError, Interrupted, quote
from fieldloom.executors import claims, find_executor
from fieldloom.executors.work import Work, forget_failures, name_of, numbers_in, row_of
from fieldloom.progress import quiet

DIGESTS = "digests"
"""The tensor of a shard that holds the hash of the file of each of its data, (n, 16) uint8."""


class Made(NamedTuple):
    """What a shard holds. tensors: of its file, one row a datum, among them ``places``, the numbers
    of these data; failed: number of a datum -> why it has none; numbers: of its file, as JSON."""

    tensors: dict[str, Tensor]
    failed: dict[int, str]
    numbers: dict[str, Any] = {}


class Task(ABC):
    """What a job computes, loaded.

    kind:   the verb. title: of its progress.
    places: (signals,) int64, the numbers of its data, in the order of the shards.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    places: Tensor

    @abstractmethod
    def shard_size(self) -> int:
        """The number of data of a shard that takes minutes on a CPU."""

    @abstractmethod
    def describe(self, size: int) -> Job:
        """What makes a job the same as another. size: of a shard."""

    @abstractmethod
    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        """Compute the shard of these data: a function of the task and the number alone.

        What it writes itself lies in the job's folder. Raises Paused, with its state, where a stop
        is asked for within.
        """

    def files(self, job: Job, folder: Path, number: int, places: Sequence[int]) -> list[Path]:
        """The files that ``compute`` writes for these data, beside the shard's own."""
        return []


@dataclass(frozen=True)
class Done:
    """A finished job. count: of data that did not fail; failed: number of a datum -> why."""

    job: Job
    count: int
    failed: dict[int, str]


@dataclass(frozen=True)
class How:
    """How a job is computed.

    shard: data of a shard; None: as many as the job began with, or by the task. executor, workers:
    of ``EXECUTORS``, and of how many. opens: what loads the task in another process, which gets it
    by pickle; None where the task is of this process alone. about: what the job is called for
    people. shared: whether several commands may compute one job together; otherwise this one holds
    the folder's lock.
    """

    shard: int | None = None
    executor: str = "local"
    workers: int | None = None
    opens: Callable[[], Task] | None = None
    about: dict[str, str] = field(default_factory=dict)
    shared: bool = False


def run(task: Task, folder: Path, how: How) -> Done:
    """Compute all shards of a job into a folder, or those that are left of it.

    Raises InputError where the folder holds another job, or an executor cannot load the task;
    FieldloomError where shards are left; Interrupted where the user asks to stop.
    """
    run_all = find_executor(how.executor)
    if how.executor != "local" and how.opens is None:
        raise InputError(
            f"executor '{how.executor}': its workers load the system and the data themselves: give "
            "a run's folder and a path to the data, not what is in memory."
        )
    if how.shard is not None and how.shard < 1:
        raise InputError(f"shard = {how.shard}: a shard has at least 1 signal.")
    if not len(task.places):
        raise InputError(f"there are no data to {task.kind}.")
    with make_folder(folder) if how.shared else hold_lock(folder):
        before = read_manifest(folder)
        if before is not None and not jobs.is_begun(folder, before):
            before = None
        size = how.shard or (before.job.shard if before else task.shard_size())
        job = jobs.begin(folder, task.describe(size), how.about)
        count = jobs.count_shards(job)
        atomic.remove_partial(folder, () if how.shared else names_of(count))
        forget_failures(folder)
        drop_damaged(task, folder, job)
        if how.executor == "local" or how.opens is None:
            do = partial(do_number, task, folder, job)
            start: Callable[[], Callable[[int], None]] = lambda: do
        else:
            start = partial(open_and_do, how.opens, folder, size)
        run_all(Work(folder, count, start, task.title), how.workers)
        claims.sweep(folder)
        return verify(task, folder, job)


def make_folder(folder: Path) -> nullcontext[None]:
    """Make a folder that several commands share. Raises InputError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be made: {error.strerror}.") from None
    return nullcontext()


def names_of(count: int) -> list[str]:
    """The names of a job's files, which this command alone writes."""
    numbers = [path.name for n in range(count) for path in jobs.files_of(Path(), n)]
    return [MANIFEST, PAUSED, *numbers]


def open_and_do(opens: Callable[[], Task], folder: Path, size: int) -> Callable[[int], None]:
    """What computes the shard of a number, in a process that has loaded nothing yet.

    Raises InputError where what it loads is not what the job began with.
    """
    task, manifest = opens(), read_manifest(folder)
    if manifest is None:
        raise InputError(f"'{folder}' holds no job: there is no {MANIFEST} in it.")
    job = task.describe(size)
    jobs.check_job(manifest.job, job, folder)
    return partial(do_number, task, folder, job)


def do_number(task: Task, folder: Path, job: Job, number: int) -> None:
    """Compute one shard: its file is written, then its row.

    Raises Interrupted where the user asks to stop, with the shard's state kept for later.
    """
    began, left = time.monotonic(), read_paused(folder, number, job)
    path, made_by = shard_path(folder, number), shard_provenance(job, number)
    try:
        with stopping.pausable(left), quiet():
            made = task.compute(folder, number, places_of(task, job, number))
    except stopping.Paused as pause:
        write_tensors(paused_path(folder, number), pause.tensors, {}, made_by)
        where = f"shard {number + 1} of {jobs.count_shards(job)}"
        raise Interrupted(f"stopped within {where}") from None
    check_overwrite(path, job)
    write_tensors(path, made.tensors, made.numbers, made_by)
    row = Shard(
        count=len(made.tensors["places"]),
        failed={str(index): why for index, why in made.failed.items()},
        hash=jobs.hash_file(path),
        seconds=round(time.monotonic() - began, 3),
    )
    jobs.write_row(folder, number, row)
    paused_path(folder, number).unlink(missing_ok=True)
    if left:
        (folder / PAUSED).unlink(missing_ok=True)


def places_of(task: Task, job: Job, number: int) -> Tensor:
    """The numbers of the data of a shard."""
    return task.places[number * job.shard : (number + 1) * job.shard]


# -- what is done


def shard_provenance(job: Job, number: int) -> dict[str, str]:
    """The provenance that the file of a shard carries: the job, and its number."""
    return {"job": fingerprint(job.content()), "shard": str(number)}


def read_shard(folder: Path, number: int, job: Job, row: Shard) -> dict[str, Tensor]:
    """The tensors of a finished shard. Raises InputError where it is damaged."""
    path, count = shard_path(folder, number), row.count
    held = read_tensors(path)
    if held.made_by and held.made_by != shard_provenance(job, number):
        raise InputError(f"'{path}' is of another job: {job.kind} does that shard again.")
    tensors = held.tensors
    whole = "places" in tensors and tensors["places"].dtype == torch.int64
    if not whole or any(tensor.shape[:1] != (count,) for tensor in tensors.values()):
        raise InputError(f"'{path}' does not hold the {count} rows of its shard.")
    if row.hash is not None and row.hash != jobs.hash_file(path):
        raise InputError(f"'{path}' is damaged: it is not the file that its row names by hash.")
    return tensors


def read_rows(folder: Path, manifest: Manifest) -> list[Shard]:
    """The rows of a finished job. Raises InputError where shards are left."""
    rows = []
    for number in range(jobs.count_shards(manifest.job)):
        row = jobs.read_row(folder, number, manifest)
        if row is None:
            what, verb = jobs.holds(manifest.job), manifest.job.kind
            raise InputError(
                f"the {what} in '{folder}' are not finished: {verb} goes on with them."
            )
        rows.append(row)
    return rows


def verify(task: Task, folder: Path, job: Job) -> Done:
    """Check every shard of a finished job, one at a time; raises InputError for a damaged one."""
    count, failed = 0, dict[int, str]()
    for number, row in enumerate(read_rows(folder, Manifest(job=job))):
        tensors = read_shard(folder, number, job, row)
        if not bool(torch.isin(tensors["places"], places_of(task, job, number).cpu()).all()):
            raise InputError(
                f"the shards in '{folder}' are damaged: they hold indices of other data."
            )
        check_files(task, folder, number, job, tensors)
        count += row.count
        failed |= {int(place): why for place, why in row.failed.items()}
    return Done(job, count, failed)


def report_failures(failed: dict[int, str], job: Job) -> None:
    """Warn where data failed. Raises FieldloomError where all did."""
    if len(failed) == job.signals:
        raise FieldloomError(f"every signal failed, the first because {first_reason(failed)}.")
    if failed:
        warnings.warn(
            f"{len(failed)} of {job.signals} signals failed and are left out, the first, of "
            f"place {min(failed)}, because {first_reason(failed)}.",
            stacklevel=3,
        )


def first_reason(failed: dict[int, str]) -> str:
    """Why the first of the failed signals failed."""
    return failed[min(failed)]


def drop_damaged(task: Task, folder: Path, job: Job) -> None:
    """Remove finished shards that are lost or damaged, with a warning, so that they are done
    again."""
    lost = []
    for number in numbers_in(folder, ".json"):
        if number < jobs.count_shards(job) and not is_whole(task, folder, number, job):
            lost.append(shard_path(folder, number).name)
            shard_path(folder, number).unlink(missing_ok=True)
            row_of(folder, number).unlink(missing_ok=True)
    if lost:
        warnings.warn(f"'{folder}': {', '.join(lost)} lost or damaged, done again.", stacklevel=4)


def is_whole(task: Task, folder: Path, number: int, job: Job) -> bool:
    """Whether a shard that has a row is there, and undamaged, with all of its files."""
    try:
        row = jobs.read_row(folder, number, Manifest(job=job))
        if row is None:
            return False
        check_files(task, folder, number, job, read_shard(folder, number, job, row))
    except InputError:
        return False
    return True


def check_overwrite(path: Path, job: Job) -> None:
    """Raise InputError where a shard would overwrite a file that this job did not write."""
    if not path.exists():
        return
    try:
        own = read_tensors(path).made_by.get("job") == fingerprint(job.content())
    except InputError:
        own = False
    if not own:
        raise InputError(f"'{path}' is there already, of something else: take another folder.")


def read_paused(folder: Path, number: int, job: Job) -> dict[str, Tensor]:
    """The state in which this shard was stopped; empty where it was not."""
    for path in (paused_path(folder, number), folder / PAUSED):
        if not path.is_file():
            continue
        try:
            held = read_tensors(path)
        except InputError as error:
            warnings.warn(f"{error} Its shard is done from the start.", stacklevel=3)
            continue
        if held.made_by == shard_provenance(job, number):
            return held.tensors
    return {}


# -- files of data beside the shards


def files_at(folder: Path, number: int, places: Sequence[int], suffix: str) -> list[Path]:
    """The files of data, ``00007/003584.png``: names are made from numbers, never read.

    Raises InputError for a suffix that leads elsewhere.
    """
    if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) is None:
        raise InputError(f"'{folder / MANIFEST}' is damaged: {quote(suffix)} is no suffix.")
    return [folder / name_of(number) / f"{place:06d}{suffix}" for place in places]


def digests_of(paths: Sequence[Path]) -> Tensor:
    """The hashes of files, (n, 16) uint8."""
    found = [torch.tensor(list(bytes.fromhex(jobs.hash_file(x))), dtype=torch.uint8) for x in paths]
    return torch.stack(found) if found else torch.zeros(0, 16, dtype=torch.uint8)


def check_files(
    task: Task, folder: Path, number: int, job: Job, tensors: dict[str, Tensor]
) -> None:
    """Raise InputError where a file of a datum is not the one that the shard names by hash."""
    paths = task.files(job, folder, number, tensors["places"].tolist())
    for path, expected in zip(paths, tensors.get(DIGESTS, torch.zeros(len(paths), 0)), strict=True):
        if not path.is_file():
            raise InputError(f"'{path}' is lost: the same command does its shard again.")
        if jobs.hash_file(path) != bytes(expected.tolist()).hex():
            raise InputError(f"'{path}' is damaged: it is not the file that its shard names.")


def digest_of(*parts: bytes | str) -> str:
    """16 hexadecimal digits of what describes a job."""
    seen = hashlib.blake2b(digest_size=8)
    for part in parts:
        seen.update(part.encode() if isinstance(part, str) else part)
    return seen.hexdigest()


def clip(size: float, least: int, most: int) -> int:
    """A whole number of data of a shard within limits."""
    return min(max(math.floor(size), least), most)
