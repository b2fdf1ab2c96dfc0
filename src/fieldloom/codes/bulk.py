"""Codes of a whole data set, found by a job that can be stopped at any time and resumed.

    00000.safetensors   codes of the first data, with the index and final error of each
    manifest.json       the job, and of each finished shard the number of codes and the failures
    paused.safetensors  the state of a shard that was stopped before its end

A shard is written first, then the manifest. Shards that a killed job had not entered into the
manifest are computed again, with the same result to the bit (on a CPU).
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

from fieldloom import atomic, stopping
from fieldloom.encoders import reconstruction_loss_in_stacks
from fieldloom.engine.lock import hold_lock
from fieldloom.engine.provenance import fingerprint
from fieldloom.engine.schemas import Job, Manifest, Shard, parse_json, read_text, validate_content
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError, Interrupted, quote
from fieldloom.modalities.sources import Source
from fieldloom.progress import Progress
from fieldloom.system import System

SHARD, NUMBERS, EFFORT = (16, 512), 1 << 22, 1 << 31
"""Limits of a shard: the least and the most signals, the most numbers of data that it reads, and
the most points that its fits evaluate (minutes on a CPU)."""

MANIFEST, PAUSED = "manifest.json", "paused.safetensors"
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


def encode(
    system: System,
    source: Source,
    indices: Tensor,
    folder: str | Path,
    shard: int | None = None,
    worst: float = math.inf,
) -> EncodedSet:
    """Encode the data of a source at these indices, shard by shard into a folder; resumes its job.

    indices: (signals,), in the order of the result. shard: signals of a shard; None: as many as the
    job began with, or by ``shard_size``. worst: a signal whose final error (the system's
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
            before = None  # nothing is finished yet: another job may begin
        size = shard or (before.job.shard if before else shard_size(system, source, indices))
        job = Job(
            signals=len(indices),
            shard=size,
            worst=worst if math.isfinite(worst) else None,
            data=source.facts()["fingerprint"],
            places=hashlib.blake2b(indices.numpy().tobytes(), digest_size=8).hexdigest(),
            system=fingerprint_system(system),
        )
        manifest = before or Manifest(job=job, shards=[])
        check_job(manifest.job, job, folder)
        shards = map(shard_name, range(math.ceil(len(indices) / size)))
        atomic.remove_partial(folder, [MANIFEST, PAUSED, *shards])
        if before is None:
            write_manifest(folder, manifest)  # before the first shard: it says whose folder this is
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
    """Encode the shards that are missing or damaged; each is written, then entered.

    Raises Interrupted where the user asks to stop; finished shards are kept.
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
            check_overwrite(path, manifest.job, entered=number < len(done))
            write_tensors(path, tensors, {}, shard_provenance(manifest.job, number))
            failed = {str(index): why for index, why in found.failed.items()}
            entry = Shard(
                count=len(found.codes), failed=failed
            )  # kept small: the manifest is written after each shard
            manifest.shards[number : number + 1] = [entry]
            write_manifest(folder, manifest)
            (folder / PAUSED).unlink(missing_ok=True)
            count += 1
            progress.update(count)
            if stopping.stop_requested():
                raise Interrupted(f"stopped after shard {number + 1} of {len(parts)}")


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
    job, shards = manifest.job, manifest.shards
    if len(shards) < math.ceil(job.signals / job.shard):
        raise InputError(f"the codes in '{folder}' are not finished: encode goes on with them.")
    failed = {int(index): why for one in shards for index, why in one.failed.items()}
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
    return EncodedSet(joined["codes"], joined["places"], joined["errors"], failed)


def fingerprint_of_job(folder: Path) -> str | None:
    """The fingerprint of the system that a job's codes were found with."""
    manifest = read_manifest(folder)
    return None if manifest is None else manifest.job.system


def first_reason(failed: dict[int, str]) -> str:
    """Why the first of the failed signals failed."""
    return failed[min(failed)]


def shard_name(number: int) -> str:
    """The file name of a shard; never read from a manifest, which so cannot name other files."""
    return f"{number:05d}.safetensors"


def shard_provenance(job: Job, number: int) -> dict[str, str]:
    """The provenance that the file of a shard carries: the job, and its number."""
    return {"job": fingerprint(job.model_dump()), "shard": str(number)}


def read_shard(folder: Path, number: int, manifest: Manifest) -> dict[str, Tensor]:
    """The tensors ``KEYS`` of a finished shard. Raises InputError where it is damaged."""
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


def check_overwrite(path: Path, job: Job, entered: bool) -> None:
    """Raise InputError where a shard would overwrite a file that this job did not write.

    entered: whether the manifest has the shard already, so that it is computed again.
    """
    if entered or not path.exists():
        return
    try:
        own = read_tensors(path).made_by.get("job") == fingerprint(job.model_dump())
    except InputError:
        own = False
    if not own:
        raise InputError(f"'{path}' is there already, of something else: take another folder.")


def is_whole(folder: Path, number: int, manifest: Manifest) -> bool:
    """Whether a finished shard exists and is undamaged."""
    try:
        read_shard(folder, number, manifest)
    except InputError:
        return False
    return True


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a job; None where none has begun. Raises InputError where it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict) or not {"job", "shards"} <= set(content):
        raise InputError(f"'{path}' is no manifest of codes: take another folder.")
    return validate_content(Manifest, content, path)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    atomic.write_text(json.dumps(manifest.model_dump()) + "\n", folder / MANIFEST)


def read_paused(folder: Path, number: int, job: Job) -> dict[str, Tensor]:
    """The state in which this shard was stopped; empty where it was not."""
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
    """Remove a job's shards and manifest, once their codes are stored elsewhere."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is not None:
        for name in (*map(shard_name, range(len(manifest.shards))), PAUSED, MANIFEST):
            (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


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
