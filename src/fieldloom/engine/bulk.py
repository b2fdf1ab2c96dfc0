"""Codes of a whole data set as a job that can be stopped at any moment and goes on where it was.

    00000.safetensors  codes of the first places, and for each its place and its final error
    manifest.json      what the job is; each finished shard's file, number of codes, and failures

A shard is written, then the manifest; both beside their old selves, then renamed. What a killed job
had not entered into the manifest is done again, and comes out the same to the bit (on a CPU).
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldloom import export
from fieldloom.encoders import Fit, errors
from fieldloom.engine.run import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError
from fieldloom.modalities.sources import Source
from fieldloom.progress import Progress
from fieldloom.renderers import still
from fieldloom.system import System

SHARD, NUMBERS, EFFORT = (16, 512), 1 << 22, 1 << 31
"""Signals of a shard, from and to; how many numbers of their data one shard reads at most, and how
many points its fits see in all: minutes on a CPU."""


class Codes(NamedTuple):
    """Codes (signals, tokens, width), each one's place in its source and final error (signals,).

    failed: place -> why there is no code of it.
    """

    codes: Tensor
    places: Tensor
    errors: Tensor
    failed: dict[int, str]


def encode(
    system: System,
    source: Source,
    places: Tensor,
    folder: str | Path,
    shard: int | None = None,
    worst: float = math.inf,
) -> Codes:
    """The codes of these places of a source, shard by shard into a folder; goes on with its job.

    places: (signals,), in the order of the result. shard: signals of one; None: as many as the job
    began with, or as ``shard_size`` has it. worst: a signal whose final error (the system's
    mismatch over what it was encoded from) is above it, or is no number, has failed: it is left out
    of the codes and named in the manifest, with a warning.

    Raises InputError where the folder holds another job's codes, and FieldloomError where every
    signal failed.
    """
    if not system.encodes:
        raise InputError("this run cannot encode: it was trained without an encoder.")
    folder = Path(folder)
    before = read_manifest(folder)
    begun = None if before is None else before["job"]["shard"]
    size = shard or begun or shard_size(system, source, places)
    job = {
        "signals": len(places),
        "shard": size,
        "worst": worst if math.isfinite(worst) else None,
        "data": source.facts()["fingerprint"],
        "places": hashlib.blake2b(places.numpy().tobytes(), digest_size=8).hexdigest(),
        "system": fingerprint(system),
    }
    manifest = before or {"job": job, "shards": []}
    for key, value in manifest["job"].items():
        if job.get(key) != value:
            raise InputError(
                f"'{folder}' holds codes of another job: its {key} is {value}, not {job.get(key)}. "
                "Take another folder."
            )
    parts = places.split(size)
    with Progress("encoding", len(parts), len(manifest["shards"]), "shards") as progress:
        for number in range(len(manifest["shards"]), len(parts)):
            found = encoded(system, source, parts[number], worst)
            name = f"{number:05d}.safetensors"
            tensors = {"codes": found.codes, "places": found.places, "errors": found.errors}
            write_tensors(folder / name, tensors, {})
            entry = {  # no more: this file is written again for each shard
                "file": name,
                "count": len(found.codes),
                "failed": {str(place): why for place, why in found.failed.items()},
            }
            manifest["shards"].append(entry)
            export.text(json.dumps(manifest) + "\n", folder / "manifest.json")
            progress.update(number + 1)
    return read(folder)


def encoded(system: System, source: Source, places: Tensor, worst: float = math.inf) -> Codes:
    """The codes of one shard, without those that failed."""
    codes, losses = [], []
    data, about = source.read(places), source.about(places)
    for signal in system.signals(data, index=places, **about):
        signal = signal.to(system.device)
        code = system.encode_signal(signal)
        explain = (system.family, still(system.render), system.mismatch)
        losses.append(errors(code, signal, *explain).cpu())
        codes.append(code.cpu())
    code, loss = torch.cat(codes), torch.cat(losses)
    finite = code.flatten(1).isfinite().all(1) & loss.isfinite()
    good = finite & (loss <= worst)
    failed = {
        int(places[i]): f"its error {loss[i]:.6g} is above {worst:g}"
        if finite[i]
        else "its code or its error is no finite number"
        for i in (~good).nonzero().flatten().tolist()
    }
    return Codes(code[good], places[good], loss[good], failed)


def read(folder: str | Path) -> Codes:
    """The codes of a finished job.

    Raises InputError where there is none, or it is not finished; FieldloomError where every signal
    failed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"'{folder}' holds no codes: there is no manifest.json in it.")
    job, shards = manifest["job"], manifest["shards"]
    if len(shards) < math.ceil(job["signals"] / job["shard"]):
        raise InputError(f"the codes in '{folder}' are not finished: encode goes on with them.")
    failed = {int(place): why for one in shards for place, why in one["failed"].items()}
    if len(failed) == job["signals"]:
        raise FieldloomError(f"every signal failed, the first because {first_of(failed)}.")
    if failed:
        warnings.warn(
            f"{len(failed)} of {job['signals']} signals failed and are left out, the first, of "
            f"place {min(failed)}, because {first_of(failed)}.",
            stacklevel=2,
        )
    parts = [read_tensors(folder / one["file"])[0] for one in shards]
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return Codes(joined["codes"], joined["places"], joined["errors"], failed)


def first_of(failed: dict[int, str]) -> str:
    return failed[min(failed)]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What a job has written down; None where none has begun."""
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"'{path}' is damaged and cannot be read: {error}.") from None
    if not isinstance(found, dict) or not {"job", "shards"} <= set(found):
        raise InputError(f"'{path}' is no manifest of codes: take another folder.")
    return found


def remove(folder: str | Path) -> None:
    """A job's shards and manifest, once their codes are kept elsewhere."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        return
    (folder / "manifest.json").unlink()
    for one in manifest["shards"]:
        (folder / one["file"]).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def shard_size(system: System, source: Source, places: Tensor) -> int:
    """Signals of a shard: fewer where each costs more to do again.

    Where codes of a batch depend on one another, a shard is whole batches.
    """
    one = places[:1]
    numbers = source.take(one).numel() + sum(x.numel() for x in source.about(one).values())
    size = min(max(NUMBERS // max(numbers, 1), SHARD[0]), SHARD[1])
    if isinstance(system.encoder, Fit):
        points = system.encoder.points or numbers
        size = min(size, max(1, EFFORT // max(1, system.encoder.steps * points)))
    if system.encoder.separable:
        return size
    batch = system.recipe.get("train", {}).get("field", {}).get("batch", 32)
    return math.ceil(size / batch) * batch


def fingerprint(system: System) -> str:
    """Of everything that a code is a function of, beside the data."""
    parts = ("modality", "renderer", "loss", "field", "conditioner", "encoder", "train")
    told = {key: system.recipe.get(key) for key in parts}
    told["train"] = system.recipe.get("train", {}).get("field")
    seen = hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=8)
    for module in (system.family, system.encoder):
        for name, tensor in sorted(module.state_dict().items()):
            seen.update(name.encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            seen.update(flat.view(torch.uint8).numpy().data)
    return seen.hexdigest()
