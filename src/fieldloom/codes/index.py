"""Codes in our own files: one, or the shards of jobs with an index of how many codes each has.

A folder of jobs is read as one set, job after job by their names, so that there are two levels:
each job has an index of its own.
"""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldloom.codes import jobs
from fieldloom.codes.jobs import INDEX
from fieldloom.codes.mapped import MappedFile, map_tensors
from fieldloom.codes.stored import MAPPED, Part, StoredCodes
from fieldloom.engine.provenance import fingerprint
from fieldloom.engine.schemas import Job, Manifest
from fieldloom.engine.tensors import checksum, read_tensors, write_tensors
from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.progress import during

MANY = 256
"""Shards from which on an index is written, so that their rows are read once."""


# -- files of tensors


@dataclass(frozen=True)
class MappedPart:
    """A file of tensors with one row a code."""

    file: MappedFile
    names: frozenset[str]

    @property
    def size(self) -> int:
        return self.file.size

    def read(self, name: str, rows: slice | Tensor) -> Tensor:
        own = self.file.tensors[name]
        return own[rows] if isinstance(rows, slice) else own.index_select(0, rows)


def open_part(path: Path, count: int | None = None) -> MappedPart:
    """A file with ``codes``, of so many. Raises InputError where it has others, or none."""
    file = map_tensors(path)
    codes = file.tensors.get("codes")
    if codes is None:
        there = shorten(", ".join(sorted(file.tensors))) or "nothing"
        raise InputError(f"{quote_path(path)} holds no codes: it has {there}.")
    if count is not None and codes.shape[:1] != (count,):
        raise InputError(f"{quote_path(path)} does not hold the {count} codes that it should.")
    beside = {"places": torch.int64, "labels": torch.int64, "errors": None}
    names = {"codes"}
    for name, dtype in beside.items():
        own = file.tensors.get(name)
        if own is not None:
            if own.shape != codes.shape[:1] or dtype not in (None, own.dtype):
                raise InputError(
                    f"{quote_path(path)} is damaged: its {name} are no number for each code."
                )
            names.add(name)
    return MappedPart(file, frozenset(names))


@dataclass(frozen=True)
class OneFile:
    """Codes in one safetensors file, as ``encode`` and runs write it."""

    path: Path
    counts: Tensor

    def open(self, number: int, verify: bool) -> Part:
        part = open_part(self.path, int(self.counts[number]))
        numbers = metadata_of(part.file)
        expected = numbers.pop("checksum", None)
        if verify and expected is not None and expected != checksum(part.file.tensors, numbers):
            raise InputError(
                f"{quote_path(self.path)} is damaged: its content does not have the checksum it "
                "names."
            )
        return part

    def fingerprint(self) -> str:
        return metadata_of(map_tensors(self.path)).get("checksum") or jobs.hash_file(self.path)


def metadata_of(file: MappedFile) -> dict[str, Any]:
    """The numbers in a file's metadata; empty in files of other programs."""
    with suppress(ValueError, TypeError, RecursionError):
        found = json.loads(file.metadata.get("fieldloom", "{}"))
        if isinstance(found, dict):
            return found
    return {}


def made_by_weights(path: Path) -> set[str]:
    """The fingerprint of the weights that a file's codes were found with; {} where it has none."""
    made_by = metadata_of(map_tensors(path)).get("made_by")
    weights = made_by.get("weights") if isinstance(made_by, dict) else None
    return {weights} if isinstance(weights, str) else set()


# -- folders of shards


@dataclass(frozen=True)
class Shards:
    """Codes in the shards of finished jobs, folder after folder.

    firsts: the number of the first part that is in each folder, (folders,).
    """

    folders: tuple[Path, ...]
    firsts: Tensor
    counts: Tensor
    manifests: dict[int, Manifest] = field(default_factory=dict, repr=False)

    def open(self, number: int, verify: bool) -> Part:
        which = int(torch.searchsorted(self.firsts, number, right=True)) - 1
        folder, own = self.folders[which], number - int(self.firsts[which])
        path, count = jobs.shard_path(folder, own), int(self.counts[number])
        part = open_part(path, count)
        if verify:
            row = jobs.read_row(folder, own, self.manifest(which))
            if row is None or row.count != count:
                raise InputError(
                    f"{quote_path(folder / INDEX)} is of other shards: delete it, and it is made "
                    "again."
                )
            if row.hash is not None and row.hash != jobs.hash_file(path):
                raise InputError(
                    f"{quote_path(path)} is damaged: it is not the file that its row names by hash."
                )
        return part

    def manifest(self, which: int) -> Manifest:
        if which not in self.manifests:
            self.manifests[which] = require_manifest(self.folders[which])
        return self.manifests[which]

    def fingerprint(self) -> str:
        told = [fingerprint(self.manifest(i).job.content()) for i in range(len(self.folders))]
        return fingerprint([told, self.counts.tolist()])


def find_jobs(folder: Path) -> list[Path]:
    """The folder of a job, or the folders of jobs that are in it, by name."""
    if (folder / jobs.MANIFEST).is_file():
        return [folder]
    return sorted(x for x in folder.iterdir() if (x / jobs.MANIFEST).is_file())


def open_shards(folder: Path) -> Shards:
    """The shards of a job, or of all jobs in a folder. Raises InputError where none is finished."""
    folders = find_jobs(folder)
    if not folders:
        raise InputError(f"{quote_path(folder)} holds no codes: there is no {jobs.MANIFEST} in it.")
    counts = [count_codes(one) for one in folders]
    sizes = torch.tensor([0, *(len(x) for x in counts[:-1])])
    return Shards(tuple(folders), sizes.cumsum(0), torch.cat(counts))


def require_manifest(folder: Path) -> Manifest:
    """The manifest of a job. Raises InputError where there is none."""
    manifest = jobs.read_manifest(folder)
    if manifest is None:
        raise InputError(f"{quote_path(folder)} holds no job: there is no {jobs.MANIFEST} in it.")
    return manifest


def count_codes(folder: Path) -> Tensor:
    """The number of codes of each shard of a finished job, (shards,), from its index or its rows.

    Where there are many rows, the index is written, so that they are read once. Raises InputError
    where the job is not finished.
    """
    manifest = require_manifest(folder)
    job, shards = manifest.job, jobs.count_shards(manifest.job)
    counts = read_index(folder, job)
    if counts is not None:
        return counts
    unfinished = InputError(
        f"the codes in {quote_path(folder)} are not finished: the command that began them goes on "
        "with them."
    )
    if shards > len(manifest.shards) + len(jobs.numbers_in(folder, ".json")):
        raise unfinished
    found = []
    with during(f"reading the rows of {shards} shards"):
        for number in range(shards):
            row = jobs.read_row(folder, number, manifest)
            if row is None:
                raise unfinished
            found.append(row.count)
    counts = torch.tensor(found, dtype=torch.int64)
    check_counts(counts, job, folder)
    if shards >= MANY:
        write_index(folder, job, counts)
    return counts


def check_counts(counts: Tensor, job: Job, folder: Path) -> None:
    """Raise InputError where shards cannot have so many codes."""
    if not bool(((counts >= 0) & (counts <= job.shard)).all()):
        raise InputError(
            f"{quote_path(folder)} is damaged: a shard of it has more codes than its {job.shard} "
            "signals."
        )


def read_index(folder: Path, job: Job) -> Tensor | None:
    """The index of a job; None where there is none, or one of another job."""
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        held = read_tensors(path)
    except InputError as error:
        warnings.warn(f"{error} It is made again.", stacklevel=4)
        return None
    counts = held.tensors.get("counts")
    if held.made_by != {"job": fingerprint(job.content())} or counts is None:
        return None
    if counts.dtype != torch.int64 or counts.shape != (jobs.count_shards(job),):
        return None
    check_counts(counts, job, folder)
    return counts


def write_index(folder: Path, job: Job, counts: Tensor) -> None:
    """Write the index of a job, where its folder can be written to."""
    made_by = {"job": fingerprint(job.content())}
    with suppress(OSError):
        write_tensors(folder / INDEX, {"counts": counts}, {}, made_by)


def map_file(path: Path, mapped: int = MAPPED, verify: bool = True) -> StoredCodes:
    """The codes of one safetensors file. Raises InputError where it has none."""
    count = len(open_part(path).file.tensors["codes"])
    return StoredCodes(path, OneFile(path, torch.tensor([count])), mapped, verify)
