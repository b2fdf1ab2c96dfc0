"""Codes of a whole data set as a job that can be stopped at any moment and goes on where it was.

    00000.safetensors   codes of the first data, and for each its index and its final error
    manifest.json       what the job is; each finished shard's number of codes, and failures
    paused.safetensors  where a shard was left within

A shard is written, then the manifest; both beside their old selves, then renamed. What a killed job
had not entered into the manifest is done again, and comes out the same to the bit (on a CPU).
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fieldloom import export, stopping
from fieldloom.encoders import reconstruction_loss_in_stacks
from fieldloom.engine.lock import hold_lock
from fieldloom.engine.provenance import fingerprint as digest_of
from fieldloom.engine.schemas import Job, Manifest, Shard, parse_json, read_text, validate_content
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError, Interrupted, quote
from fieldloom.modalities.sources import Source
from fieldloom.progress import Progress
from fieldloom.system import System

SHARD, NUMBERS, EFFORT = (16, 512), 1 << 22, 1 << 31
"""Signals of a shard, from and to; how many numbers of their data one shard reads at most, and how
many points its fits see in all: minutes on a CPU."""

MANIFEST, PAUSED = "manifest.json", "paused.safetensors"
KEYS = ("codes", "places", "errors")
"""What a shard holds of each signal."""


class Codes(NamedTuple):
    """Codes (signals, tokens, width), each one's place in its source and final error (signals,).

    failed: place -> why there is no code of it.
    """

    codes: Tensor
    indices: Tensor
    errors: Tensor
    failed: dict[int, str]


def encode(
    system: System,
    source: Source,
    indices: Tensor,
    folder: str | Path,
    shard: int | None = None,
    worst: float = math.inf,
) -> Codes:
    """The codes of these indices of a source, shard by shard into a folder; goes on with its job.

    indices: (signals,), in the order of the result. shard: signals of one; None: as many as the job
    began with, or as ``shard_size`` has it. worst: a signal whose final error (the system's
    reconstruction loss over what it was encoded from) is above it, or is no number, has failed: it
    is left out of the codes and named in the manifest, with a warning.

    Raises InputError where the folder holds another job's codes, and FieldloomError where every
    signal failed.
    """
    if not system.encodes:
        raise InputError("this run cannot encode: it was trained without an encoder.")
    folder = Path(folder)
    with hold_lock(folder):
        if not len(indices):
            raise InputError("there are no data to encode.")
        before = read_manifest(folder)
        if before is not None and not before.shards and not (folder / PAUSED).is_file():
            before = None  # it has made nothing: another job may begin
        size = shard or (before.job.shard if before else shard_size(system, source, indices))
        job = Job(
            signals=len(indices),
            shard=size,
            worst=worst if math.isfinite(worst) else None,
            data=source.facts()["fingerprint"],
            places=hashlib.blake2b(indices.numpy().tobytes(), digest_size=8).hexdigest(),
            system=fingerprint(system),
        )
        manifest = before or Manifest(job=job, shards=[])
        check_job(manifest.job, job, folder)
        shards = map(shard_name, range(math.ceil(len(indices) / size)))
        export.remove_partial(folder, [MANIFEST, PAUSED, *shards])
        if before is None:
            write_manifest(folder, manifest)  # whose folder it is, from the first shard on
        encode_shards(system, source, indices.split(size), folder, manifest, worst)
    found = read(folder)
    if not bool(torch.isin(found.indices, indices.cpu()).all()):
        raise InputError(f"the shards in '{folder}' are damaged: they hold indices of other data.")
    return found


def check_job(begun: Job, asked: Job, folder: Path) -> None:
    """Raise InputError where a folder holds the codes of another job."""
    for key, value in asked.model_dump().items():
        if (other := getattr(begun, key)) != value:
            raise InputError(
                f"'{folder}' holds codes of another job: its {key} is {quote(other)}, not "
                f"{quote(value)}. Take another folder."
            )


def encode_shards(
    system: System,
    source: Source,
    parts: Sequence[Tensor],
    folder: Path,
    manifest: Manifest,
    worst: float,
) -> None:
    """Do the shards that are not there, or not whole; each is kept, then entered.

    Raises Interrupted, with what is finished kept, where the user asks to stop.
    """
    done = [is_whole(folder, number, manifest) for number in range(len(manifest.shards))]
    if not all(done):
        lost = [shard_name(number) for number, there in enumerate(done) if not there]
        warnings.warn(f"'{folder}': {', '.join(lost)} lost or damaged, done again.", stacklevel=3)
    title, count = "encoding", sum(done)
    with Progress(title, len(parts), count, "shards") as progress, stopping.stoppable():
        for number, indices in enumerate(parts):
            if number < len(done) and done[number]:
                continue
            left = read_paused(folder, number, manifest.job)
            try:
                with stopping.pausable(left):
                    found = encode_shard(system, source, indices, worst)
            except stopping.Paused as pause:
                write_paused(folder, number, manifest.job, pause)
                raise Interrupted(f"stopped within shard {number + 1} of {len(parts)}") from None
            tensors = {"codes": found.codes, "places": found.indices, "errors": found.errors}
            path = folder / shard_name(number)
            check_free(path, manifest.job, entered=number < len(done))
            write_tensors(path, tensors, {}, shard_provenance(manifest.job, number))
            failed = {str(place): why for place, why in found.failed.items()}
            entry = Shard(count=len(found.codes), failed=failed)  # no more: it is written each time
            manifest.shards[number : number + 1] = [entry]
            write_manifest(folder, manifest)
            (folder / PAUSED).unlink(missing_ok=True)
            count += 1
            progress.update(count)
            if stopping.stop_requested():
                raise Interrupted(f"stopped after shard {number + 1} of {len(parts)}")


def encode_shard(system: System, source: Source, indices: Tensor, worst: float = math.inf) -> Codes:
    """The codes of one shard, without those that failed. Raises Paused where it may be left."""
    left = stopping.take_state()
    codes, losses = ([left["codes"]], [left["losses"]]) if left else ([], [])
    done, reached = sum(map(len, codes)), 0
    for signal in system.signals(source.read(indices)):
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
        explain = (system.family, system.render.deterministic(), system.loss_fn)
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
    return Codes(code[good], indices[good], loss[good], failed)


def read(folder: str | Path) -> Codes:
    """The codes of a finished job.

    Raises InputError where there is none, or it is not finished, or a shard is damaged;
    FieldloomError where every signal failed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"'{folder}' holds no codes: there is no {MANIFEST} in it.")
    job, shards = manifest.job, manifest.shards
    if len(shards) < math.ceil(job.signals / job.shard):
        raise InputError(f"the codes in '{folder}' are not finished: encode goes on with them.")
    failed = {int(place): why for one in shards for place, why in one.failed.items()}
    if len(failed) == job.signals:
        raise FieldloomError(f"every signal failed, the first because {first_reason(failed)}.")
    if failed:
        warnings.warn(
            f"{len(failed)} of {job.signals} signals failed and are left out, the first, of "
            f"place {min(failed)}, because {first_reason(failed)}.",
            stacklevel=2,
        )
    parts = [read_shard(folder, number, manifest) for number in range(len(shards))]
    if len({part["codes"].shape[1:] for part in parts}) > 1:
        raise InputError(f"the shards in '{folder}' hold codes of several shapes.")
    joined = {key: torch.cat([part[key] for part in parts]) for key in KEYS}
    return Codes(joined["codes"], joined["places"], joined["errors"], failed)


def fingerprint_of_job(folder: Path) -> str | None:
    """The fingerprint of the system that a job's codes were found with."""
    manifest = read_manifest(folder)
    return None if manifest is None else manifest.job.system


def first_reason(failed: dict[int, str]) -> str:
    """Why the first of the signals that failed did."""
    return failed[min(failed)]


def shard_name(number: int) -> str:
    """Never read from a file: a manifest cannot name anything else."""
    return f"{number:05d}.safetensors"


def shard_provenance(job: Job, number: int) -> dict[str, str]:
    """What made a shard, as its file says it."""
    return {"job": digest_of(job.model_dump()), "shard": str(number)}


def read_shard(folder: Path, number: int, manifest: Manifest) -> dict[str, Tensor]:
    """codes, indices and errors of a finished shard. Raises InputError where it is not whole."""
    path = folder / shard_name(number)
    held = read_tensors(path)
    tensors, count = held.tensors, manifest.shards[number].count
    if held.made_by and held.made_by != shard_provenance(manifest.job, number):
        raise InputError(f"'{path}' is of another job: encode does that shard again.")
    codes = tensors.get("codes")
    whole = codes is not None and codes.ndim == 3 and codes.is_floating_point()
    whole = whole and "places" in tensors and tensors["places"].dtype == torch.int64
    if not whole or any(key not in tensors or tensors[key].shape[:1] != (count,) for key in KEYS):
        raise InputError(f"'{path}' does not hold the {count} codes of its shard.")
    return tensors


def check_free(path: Path, job: Job, entered: bool) -> None:
    """Raise InputError for a file of that name that no job of this kind wrote.

    entered: the manifest names it, and it is done again.
    """
    if entered or not path.exists():
        return
    try:
        own = read_tensors(path).made_by.get("job") == digest_of(job.model_dump())
    except InputError:
        own = False
    if not own:
        raise InputError(f"'{path}' is there already, of something else: take another folder.")


def is_whole(folder: Path, number: int, manifest: Manifest) -> bool:
    """Whether a finished shard is there, and whole."""
    try:
        read_shard(folder, number, manifest)
    except InputError:
        return False
    return True


def read_manifest(folder: Path) -> Manifest | None:
    """What a job has written down; None where none has begun. Raises InputError."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict) or not {"job", "shards"} <= set(content):
        raise InputError(f"'{path}' is no manifest of codes: take another folder.")
    return validate_content(Manifest, content, path)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    export.text(json.dumps(manifest.model_dump()) + "\n", folder / MANIFEST)


def read_paused(folder: Path, number: int, job: Job) -> dict[str, Tensor]:
    """Where this shard was left; empty where it begins."""
    path = folder / PAUSED
    if not path.is_file():
        return {}
    try:
        held = read_tensors(path)
    except InputError as error:
        warnings.warn(f"{error} Its shard is done from the start.", stacklevel=3)
        return {}
    whole = {"codes", "losses"} <= set(held.tensors)
    return held.tensors if whole and held.made_by == shard_provenance(job, number) else {}


def write_paused(folder: Path, number: int, job: Job, pause: stopping.Paused) -> None:
    write_tensors(folder / PAUSED, pause.tensors, {}, shard_provenance(job, number))


def remove(folder: str | Path) -> None:
    """A job's shards and manifest, once their codes are kept elsewhere."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is not None:
        for name in (*map(shard_name, range(len(manifest.shards))), PAUSED, MANIFEST):
            (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def shard_size(system: System, source: Source, indices: Tensor) -> int:
    """Signals of a shard: fewer where each costs more to do again.

    Where codes of a batch depend on one another, a shard is whole batches.
    """
    datum = source.take(indices[:1])
    extras = (x for name, x in datum.extras().items() if name not in ("index", "label"))
    numbers = math.prod(datum.shape) + sum(x.numel() for x in extras)
    size = min(max(NUMBERS // max(numbers, 1), SHARD[0]), SHARD[1])
    size = min(size, max(1, EFFORT // max(1, system.encoder.point_evaluations(numbers))))
    if system.encoder.independent:
        return size
    batch = system.encode_batch(datum)
    return math.ceil(size / batch) * batch


def fingerprint(system: System) -> str:
    """Of everything that a code is a function of, beside the data."""
    parts = ("modality", "renderer", "loss", "field", "conditioner", "encoder", "train")
    told = {key: system.stored_recipe.get(key) for key in parts}
    told["train"] = system.stored_recipe.get("train", {}).get("field")
    seen = hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=8)
    for module in (system.family, system.encoder):
        for name, tensor in sorted(module.state_dict().items()):
            seen.update(name.encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            seen.update(flat.view(torch.uint8).numpy().data)
    return seen.hexdigest()
