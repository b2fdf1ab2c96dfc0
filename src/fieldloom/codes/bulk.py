"""Codes of a whole data set, found by a job that can be stopped at any time and resumed.

The unit is a shard, a function of the job's folder and a number (``encode_number``): it writes the
shard's file and then its row (``codes.jobs``), with the same result to the bit whoever computes it
(on a CPU), so that any executor may, and shards that a killed worker had not finished are computed
again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fieldloom import atomic, stopping
from fieldloom.codes import jobs
from fieldloom.codes.jobs import MANIFEST, PAUSED, paused_path, read_manifest, remove, shard_path
from fieldloom.encoders import reconstruction_loss_in_stacks
from fieldloom.engine.lock import hold_lock
from fieldloom.engine.provenance import fingerprint
from fieldloom.engine.run import Run
from fieldloom.engine.schemas import Job, Shard
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError, Interrupted, escape_bytes
from fieldloom.executors import claims, find_executor
from fieldloom.executors.work import Work, forget_failures, numbers_in, row_of
from fieldloom.inputs import held_out_part
from fieldloom.modalities.sources import Source
from fieldloom.permit import NOTHING, Permit
from fieldloom.system import System

__all__ = ["MANIFEST", "EncodedSet", "Origin", "encode", "read", "remove"]

SHARD, NUMBERS, EFFORT = (16, 512), 1 << 22, 1 << 31
"""Limits of a shard: the least and the most signals, the most numbers of data that it reads, and
the most points that its fits evaluate (minutes on a CPU)."""

KEYS = ("codes", "places", "errors")
"""The tensors of a shard, one row a signal; ``places`` are indices in the source."""


class EncodedSet(NamedTuple):
    """Codes (signals, tokens, width), with the index in the source and the final error of each
    (signals,).

    failed: index in the source -> why that signal has no code.
    """

    codes: Tensor
    indices: Tensor
    errors: Tensor
    failed: dict[int, str]


@dataclass(frozen=True)
class Origin:
    """Where workers find the system and the data of a job: a run's folder, and a path or None.

    device, permit: as of ``Run.read_system``. Paths that exist become absolute: workers may start
    in another folder.
    """

    run: str
    source: str | None = None
    device: str = "auto"
    permit: Permit = NOTHING

    def __post_init__(self) -> None:
        for name in ("run", "source"):
            path = getattr(self, name)
            if path is not None and os.path.exists(path):
                object.__setattr__(self, name, os.path.abspath(path))

    def open(self) -> tuple[System, Source, Tensor]:
        """The system, the data, and the indices of those that are encoded; it says nothing."""
        system = Run(self.run).read_system(self.device, self.permit)
        return system, *held_out_part(system, self.source, quiet=True)


def encode(
    system: System,
    source: Source,
    indices: Tensor,
    folder: str | Path,
    shard: int | None = None,
    worst: float = math.inf,
    *,
    executor: str = "local",
    workers: int | None = None,
    origin: Origin | None = None,
    shared: bool = False,
    find: Callable[[Tensor], EncodedSet] | None = None,
) -> EncodedSet:
    """Encode the data of a source at these indices, shard by shard into a folder; resumes its job.

    indices: (signals,), in the order of the result. shard: signals of a shard; None: as many as the
    job began with, or by ``shard_size``. worst: a signal whose final error (the system's
    reconstruction loss over what it was encoded from) is above it, or is no number, has failed: it
    is left out of the codes and named in its shard's row, with a warning.
    executor, workers: of ``EXECUTORS``, and of how many workers. origin: where workers of other
    processes find the system and the data. shared: whether several commands may compute one job
    together; otherwise this one holds the folder's lock. find: what finds the codes of a shard from
    its indices, by the executor 'local', with the same result as ``encode_shard``.

    Raises InputError where the folder holds another job's codes, or an executor has no origin;
    FieldloomError where every signal failed, or shards are left.
    """
    if not system.encodes:
        raise InputError("this run cannot encode: it was trained without an encoder.")
    run_all, folder = find_executor(executor), Path(folder)
    if executor != "local" and origin is None:
        raise InputError(
            f"executor '{executor}': its workers load the system and the data themselves: give a "
            "run's folder and a path to the data, not what is in memory."
        )
    if shard is not None and shard < 1:
        raise InputError(f"shard = {shard}: a shard has at least 1 signal.")
    if not len(indices):
        raise InputError("there are no data to encode.")
    with make_folder(folder) if shared else hold_lock(folder):
        before = read_manifest(folder)
        if before is not None and not jobs.is_begun(folder, before):
            before = None
        size = shard or (before.job.shard if before else shard_size(system, source, indices))
        named = {} if origin is None else {"run": origin.run, "source": origin.source or ""}
        about = {key: escape_bytes(name) for key, name in named.items()}
        job = jobs.begin(folder, describe_job(system, source, indices, size, worst), about)
        parts = indices.split(size)
        atomic.remove_partial(folder, () if shared else names_of(len(parts)))
        forget_failures(folder)
        drop_damaged(folder, job)
        if executor == "local" or origin is None:
            encode_part = find or (lambda places: encode_shard(system, source, places, worst))
            do = partial(encode_number, encode_part, parts, folder, job)
            start: Callable[[], Callable[[int], None]] = lambda: do
        else:
            start = partial(open_and_encode, origin, folder, size, worst)
        run_all(Work(folder, len(parts), start, "encoding"), workers)
        claims.sweep(folder)
        found = read(folder)
    if not bool(torch.isin(found.indices, indices.cpu()).all()):
        raise InputError(f"the shards in '{folder}' are damaged: they hold indices of other data.")
    return found


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


def describe_job(system: System, source: Source, indices: Tensor, size: int, worst: float) -> Job:
    """What makes a job the same as another."""
    return Job(
        signals=len(indices),
        shard=size,
        worst=worst if math.isfinite(worst) else None,
        data=source.facts()["fingerprint"],
        places=hashlib.blake2b(indices.cpu().numpy().tobytes(), digest_size=8).hexdigest(),
        system=fingerprint_system(system),
    )


def open_and_encode(origin: Origin, folder: Path, size: int, worst: float) -> Callable[[int], None]:
    """What encodes the shard of a number, in a process that has loaded nothing yet.

    Raises InputError where what it loads is not what the job began with.
    """
    system, source, indices = origin.open()
    job = describe_job(system, source, indices, size, worst)
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"'{folder}' holds no job: there is no {MANIFEST} in it.")
    jobs.check_job(manifest.job, job, folder)
    encode_part = lambda places: encode_shard(system, source, places, worst)
    return partial(encode_number, encode_part, indices.split(size), folder, job)


def encode_number(
    find: Callable[[Tensor], EncodedSet],
    parts: Sequence[Tensor],
    folder: Path,
    job: Job,
    number: int,
) -> None:
    """Encode one shard: its file is written, then its row.

    Raises Interrupted where the user asks to stop, with the shard's state kept for later.
    """
    began, left = time.monotonic(), read_paused(folder, number, job)
    try:
        with stopping.pausable(left):
            found = find(parts[number])
    except stopping.Paused as pause:
        made_by = shard_provenance(job, number)
        write_tensors(paused_path(folder, number), pause.tensors, {}, made_by)
        raise Interrupted(f"stopped within shard {number + 1} of {len(parts)}") from None
    path = shard_path(folder, number)
    check_overwrite(path, job)
    tensors = {"codes": found.codes, "places": found.indices, "errors": found.errors}
    write_tensors(path, tensors, {}, shard_provenance(job, number))
    row = Shard(
        count=len(found.codes),
        failed={str(index): why for index, why in found.failed.items()},
        hash=jobs.hash_file(path),
        seconds=round(time.monotonic() - began, 3),
    )
    jobs.write_row(folder, number, row)
    paused_path(folder, number).unlink(missing_ok=True)
    if left:
        (folder / PAUSED).unlink(missing_ok=True)


def drop_damaged(folder: Path, job: Job) -> None:
    """Remove finished shards that are lost or damaged, with a warning, so that they are done
    again."""
    lost = []
    for number in numbers_in(folder, ".json"):
        if number < jobs.count_shards(job) and not is_whole(folder, number, job):
            lost.append(shard_path(folder, number).name)
            shard_path(folder, number).unlink(missing_ok=True)
            row_of(folder, number).unlink(missing_ok=True)
    if lost:
        warnings.warn(f"'{folder}': {', '.join(lost)} lost or damaged, done again.", stacklevel=3)


def encode_shard(
    system: System, source: Source, indices: Tensor, worst: float = math.inf
) -> EncodedSet:
    """The codes of one shard, without those that failed. Raises Paused to stop within it."""
    left = stopping.take_state()
    codes, losses = ([left["codes"]], [left["losses"]]) if left else ([], [])
    done, reached = sum(map(len, codes)), 0
    for signal in system.signals(source.read(indices), strict=False):
        reached += len(signal)
        if reached <= done:
            continue
        signal = signal.to(system.device)
        try:
            if stopping.should_pause():
                raise stopping.Paused(left)
            with stopping.substep("batch", left):
                code = system.encode_signal(signal)
        except stopping.Paused as pause:
            none = torch.zeros(0, *system.family.code_shape)
            pause.tensors["codes"] = torch.cat([none, *codes])
            pause.tensors["losses"] = torch.cat([torch.zeros(0), *losses])
            raise
        left = {}
        explain = (system.family, system.render.deterministic(), system.loss_at(signal))
        losses.append(reconstruction_loss_in_stacks(code, signal, *explain).cpu())
        codes.append(code.cpu())
    code, loss = torch.cat(codes), torch.cat(losses)
    finite = code.flatten(1).isfinite().all(1) & loss.isfinite()
    good = finite & (loss <= worst)
    failed = {
        int(indices[i]): f"its error {loss[i]:.6g} is above {worst:g}"
        if finite[i]
        else "its code or its error is no finite number"
        for i in (~good).nonzero().flatten().tolist()
    }
    return EncodedSet(code[good], indices[good], loss[good], failed)


def read(folder: str | Path) -> EncodedSet:
    """The codes of a finished job.

    Raises InputError where there is none, or it is not finished, or a shard is damaged;
    FieldloomError where every signal failed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"'{folder}' holds no codes: there is no {MANIFEST} in it.")
    job, numbers = manifest.job, range(jobs.count_shards(manifest.job))
    rows: list[Shard] = []
    for number in numbers:
        row = jobs.read_row(folder, number, manifest)
        if row is None:
            raise InputError(f"the codes in '{folder}' are not finished: encode goes on with them.")
        rows.append(row)
    failed = {int(index): why for row in rows for index, why in row.failed.items()}
    if len(failed) == job.signals:
        raise FieldloomError(f"every signal failed, the first because {first_reason(failed)}.")
    if failed:
        warnings.warn(
            f"{len(failed)} of {job.signals} signals failed and are left out, the first, of "
            f"place {min(failed)}, because {first_reason(failed)}.",
            stacklevel=2,
        )
    parts = [read_shard(folder, number, job, rows[number]) for number in numbers]
    if len({part["codes"].shape[1:] for part in parts}) > 1:
        raise InputError(f"the shards in '{folder}' hold codes of several shapes.")
    joined = {key: torch.cat([part[key] for part in parts]) for key in KEYS}
    return EncodedSet(joined["codes"], joined["places"], joined["errors"], failed)


def fingerprint_of_job(folder: Path) -> str | None:
    """The fingerprint of the system that a job's codes were found with."""
    manifest = read_manifest(folder)
    return None if manifest is None else manifest.job.system


def first_reason(failed: dict[int, str]) -> str:
    """Why the first of the failed signals failed."""
    return failed[min(failed)]


def shard_provenance(job: Job, number: int) -> dict[str, str]:
    """The provenance that the file of a shard carries: the job, and its number."""
    return {"job": fingerprint(job.model_dump()), "shard": str(number)}


def read_shard(folder: Path, number: int, job: Job, row: Shard) -> dict[str, Tensor]:
    """The tensors ``KEYS`` of a finished shard. Raises InputError where it is damaged."""
    path, count = shard_path(folder, number), row.count
    held = read_tensors(path)
    if held.made_by and held.made_by != shard_provenance(job, number):
        raise InputError(f"'{path}' is of another job: encode does that shard again.")
    tensors = held.tensors
    codes = tensors.get("codes")
    whole = codes is not None and codes.ndim == 3 and codes.is_floating_point()
    whole = whole and "places" in tensors and tensors["places"].dtype == torch.int64
    if not whole or any(key not in tensors or tensors[key].shape[:1] != (count,) for key in KEYS):
        raise InputError(f"'{path}' does not hold the {count} codes of its shard.")
    if row.hash is not None and row.hash != jobs.hash_file(path):
        raise InputError(f"'{path}' is damaged: it is not the file that its row names by hash.")
    return tensors


def check_overwrite(path: Path, job: Job) -> None:
    """Raise InputError where a shard would overwrite a file that this job did not write."""
    if not path.exists():
        return
    try:
        own = read_tensors(path).made_by.get("job") == fingerprint(job.model_dump())
    except InputError:
        own = False
    if not own:
        raise InputError(f"'{path}' is there already, of something else: take another folder.")


def is_whole(folder: Path, number: int, job: Job) -> bool:
    """Whether a shard that has a row is there, and undamaged."""
    try:
        row = jobs.read_row(folder, number, jobs.Manifest(job=job))
        if row is None:
            return False
        read_shard(folder, number, job, row)
    except InputError:
        return False
    return True


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
        whole = {"codes", "losses"} <= set(held.tensors)
        if whole and held.made_by == shard_provenance(job, number):
            return held.tensors
    return {}


def shard_size(system: System, source: Source, indices: Tensor) -> int:
    """Signals of a shard: the fewer, the more each of them costs to encode again.

    Where codes of a batch depend on one another, a shard consists of whole batches.
    """
    datum = source.take(indices[:1])
    extras = (x for name, x in datum.extras().items() if name not in ("index", "label"))
    numbers = math.prod(datum.shape) + sum(x.numel() for x in extras)
    size = min(max(NUMBERS // max(numbers, 1), SHARD[0]), SHARD[1])
    size = min(size, max(1, EFFORT // max(1, system.encoder.point_evaluations(numbers))))
    if system.encoder.independent:
        return size
    batch = system.encode_batch_size(datum)
    return math.ceil(size / batch) * batch


def fingerprint_system(system: System) -> str:
    """The fingerprint of everything but the data that a code depends on."""
    parts = ("modality", "renderer", "loss", "field", "conditioner", "encoder", "train")
    sections = {key: system.stored_recipe.get(key) for key in parts}
    sections["train"] = system.stored_recipe.get("train", {}).get("field")
    content = json.dumps(sections, sort_keys=True, default=str)
    digest = hashlib.blake2b(content.encode(), digest_size=8)
    for module in (system.family, system.encoder):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
