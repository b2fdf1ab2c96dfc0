"""The folder of a job: its description, and a row of each finished shard.

    manifest.json            the job, written once before its first shard
    00000.safetensors        what was found of the first data: codes, their indices and errors
    00000.json               the row of that shard: the number of data, the failures, its hash
    00000/                   of verbs that write files of data, those of this shard
    00000.paused             the state of a shard that was stopped before its end

Beside them stand, while workers compute, their claims and the notes of failures
(``executors``). Each file has one writer at a time, and the whole is a listing of the folder.
Manifests of older versions hold the rows themselves, and are read the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fieldloom import atomic
from fieldloom.engine.schemas import Job, Manifest, Shard, parse_json, read_text, validate_content
from fieldloom.errors import InputError, quote
from fieldloom.executors import claims
from fieldloom.executors.work import (
    Failure,
    failure_of,
    name_of,
    numbers_in,
    read_failures,
    row_of,
)

MANIFEST, PAUSED, INDEX = "manifest.json", "paused.safetensors", "index.safetensors"
"""PAUSED: of older versions, whose jobs had one shard at a time. INDEX: see ``codes.index``."""

BESIDE = ".shards"
"""What the folder of a job is called beside the file that is made of it."""


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard; never read from a manifest, which so cannot name other files."""
    return folder / f"{name_of(number)}.safetensors"


def paused_path(folder: Path, number: int) -> Path:
    """The file of the state in which a shard was stopped."""
    return folder / f"{name_of(number)}.paused"


def folder_of(path: Path) -> Path:
    """The folder of a job, by itself or by the file that is made of its shards."""
    beside = path.with_name(f"{path.name}{BESIDE}") if path.name else path
    return beside if beside.is_dir() and not path.is_dir() else path


def count_shards(job: Job) -> int:
    return math.ceil(job.signals / job.shard)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a job; None where none has begun. Raises InputError where it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict) or "job" not in content:
        raise InputError(f"'{path}' is no manifest of a job: take another folder.")
    return validate_content(Manifest, content, path)


def read_row(folder: Path, number: int, manifest: Manifest) -> Shard | None:
    """The row of a shard; None where it is not finished. Raises InputError where it is damaged."""
    path = row_of(folder, number)
    if path.is_file():
        return validate_content(Shard, parse_json(read_text(path), path), path)
    return manifest.shards[number] if number < len(manifest.shards) else None


def write_row(folder: Path, number: int, row: Shard) -> None:
    """Write the row of a shard, whose file is complete."""
    atomic.write_text(json.dumps(row.model_dump()) + "\n", row_of(folder, number))


def begin(folder: Path, job: Job, about: dict[str, str]) -> Job:
    """Write the manifest of a job, if there is none yet; of several that begin, one writes it.

    Rows in the manifest of an older version become files. Returns the job of the manifest. Raises
    InputError where the folder holds another job's codes.
    """
    manifest = read_manifest(folder)
    if manifest is not None and manifest.job != job and not is_begun(folder, manifest):
        (folder / MANIFEST).unlink(missing_ok=True)  # nothing is done yet: another job may begin
        manifest = None
    if manifest is None:
        new = Manifest(job=job, about=about)
        if atomic.write_new(json.dumps(new.content()) + "\n", folder / MANIFEST):
            return job
        manifest = read_manifest(folder) or new
    check_job(manifest.job, job, folder)
    if manifest.shards:
        for number, row in enumerate(manifest.shards[: count_shards(job)]):
            if not row_of(folder, number).is_file():
                write_row(folder, number, row)
        manifest.shards = []
        atomic.write_text(json.dumps(manifest.content()) + "\n", folder / MANIFEST)
    return manifest.job


def is_begun(folder: Path, manifest: Manifest) -> bool:
    """Whether anything of a job is done, paused, or being computed."""
    made = numbers_in(folder, ".json") or numbers_in(folder, ".paused")
    started = bool(manifest.shards or made) or (folder / PAUSED).is_file()
    return started or any(lives for _, lives in claims.read_holders(folder).values())


def check_job(begun: Job, asked: Job, folder: Path) -> None:
    """Raise InputError where a folder holds what another job found."""
    own = {"kind": begun.kind, **begun.model_dump(), **begun.options}
    for key, value in {"kind": asked.kind, **asked.model_dump(), **asked.options}.items():
        if key != "options" and own.get(key) != value:
            raise InputError(
                f"'{folder}' holds {holds(begun)} of another job: its {key} is "
                f"{quote(own.get(key))}, not {quote(value)}. Take another folder."
            )


def holds(job: Job) -> str:
    """What the shards of a job hold, in words."""
    return "codes" if job.kind == "encode" else "shards"


def hash_file(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        digest = lambda: hashlib.blake2b(digest_size=16)
        return hashlib.file_digest(file, digest).hexdigest()


def remove(folder: str | Path) -> None:
    """Remove a job's files, once its codes are stored elsewhere."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is not None:
        claims.sweep(folder)
        suffixes = (path.suffix for path in files_of(folder, 0))
        numbers = {n for suffix in suffixes for n in numbers_in(folder, suffix)}
        for number in sorted(numbers):
            if number < count_shards(manifest.job):
                for path in files_of(folder, number):
                    path.unlink(missing_ok=True)
        for name in (PAUSED, INDEX, MANIFEST):
            (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def files_of(folder: Path, number: int) -> Iterator[Path]:
    """All files of a shard; the row first, without which it is not finished."""
    for path in (row_of, shard_path, paused_path, failure_of):
        yield path(folder, number)


class State(NamedTuple):
    """How far a job is. codes: data that are done; failed: those that failed; seconds: that a
    finished shard took, None where no row says so; failures: number of a shard -> why it failed;
    holders: number of a shard -> who computes it, and whether that worker lives.
    """

    job: Job
    about: dict[str, str]
    shards: int
    done: int
    codes: int
    failed: int
    paused: int
    seconds: float | None
    failures: dict[int, Failure]
    holders: dict[int, tuple[claims.Claim, bool]]

    @property
    def left(self) -> int:
        return self.shards - self.done

    @property
    def workers(self) -> int:
        """Workers that live; each computes one shard at a time."""
        return sum(lives for _, lives in self.holders.values())

    @property
    def time_left(self) -> float | None:
        """Seconds for what is left, by what finished shards took, with the workers that live, or
        one."""
        return None if self.seconds is None else self.seconds * self.left / max(1, self.workers)


def read_state(folder: Path) -> State:
    """How far a job is, without reading its codes. Raises InputError where there is none."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"'{folder}' holds no job: there is no {MANIFEST} in it.")
    count = count_shards(manifest.job)
    numbers = {*range(len(manifest.shards)), *numbers_in(folder, ".json")}
    found = (read_row(folder, number, manifest) for number in sorted(numbers) if number < count)
    rows = [row for row in found if row is not None]
    took = [row.seconds for row in rows if row.seconds is not None]
    return State(
        job=manifest.job,
        about=manifest.about,
        shards=count,
        done=len(rows),
        codes=sum(row.count for row in rows),
        failed=sum(len(row.failed) for row in rows),
        paused=len(numbers_in(folder, ".paused")),
        seconds=sum(took) / len(took) if took else None,
        failures=read_failures(folder, count),
        holders={n: held for n, held in claims.read_holders(folder).items() if n < count},
    )
