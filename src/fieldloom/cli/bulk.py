"""Verbs as jobs of shards: what their options say, and where they write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloom.cli.console import say
from fieldloom.cli.options import Device, permit
from fieldloom.cli.outputs import check_not_own, folder_output, output_of_state
from fieldloom.errors import InputError, Interrupted

if TYPE_CHECKING:
    from fieldloom.codes.bulk import Origin
    from fieldloom.codes.shards import Done, How
    from fieldloom.system import System


Job = tuple["How", "Origin"]


def job_of(
    run: str,
    source: str | None,
    device: Device,
    executor: str | None,
    workers: int | None,
    shard: int | None,
) -> Job | None:
    """How a verb is computed as a job, and where its workers find the run and the data; None where
    it is done at once. Raises InputError for no executor."""
    if (executor, workers, shard) == (None, None, None):
        return None
    from fieldloom.codes.bulk import Origin
    from fieldloom.codes.shards import How
    from fieldloom.executors import find_executor

    find_executor(executor or "local")
    return How(shard, executor or "local", workers), Origin(run, source, device.value, permit())


def job_folder(run: str, out: Path | None, default: str, system: System) -> Path:
    """The folder of a job: a new one, or that of a job that has begun there.

    Raises InputError where it holds something else.
    """
    from fieldloom.codes.jobs import MANIFEST

    if out is not None and (out / MANIFEST).is_file():
        check_not_own(out)
        return out
    return free_folder(output_of_state(system, folder_output(run, out, default), out))


def free_folder(folder: Path) -> Path:
    """The folder. Raises InputError where it holds something, and no job."""
    from fieldloom.codes.jobs import MANIFEST

    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise InputError(f"'{folder}' holds files of no job: give another folder.")
    return folder


@contextmanager
def resumable() -> Iterator[None]:
    """A context whose work the same command goes on with."""
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(f"{stop}; the same command goes on from here.") from None


def tell(done: Done, what: str, folder: Path) -> None:
    """Say what a finished job has done."""
    say(f"{what} {done.count} of {done.job.signals}: {folder}")
