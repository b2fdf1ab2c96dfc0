"""Codes of a whole data set, found by a job that can be stopped at any time and resumed.

A shard (``codes.shards``) has the same codes to the bit whoever finds them (on a CPU), so that any
executor may, and shards that a killed worker had not finished are encoded again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fieldloom import stopping
from fieldloom.codes import jobs, shards
from fieldloom.codes.jobs import MANIFEST, read_manifest, remove
from fieldloom.codes.shards import How, Made, Task, read_shard, report_failures
from fieldloom.encoders import reconstruction_loss_in_stacks
from fieldloom.engine.run import Run
from fieldloom.engine.schemas import Job
from fieldloom.errors import InputError, escape_bytes, name_argument, quote
from fieldloom.inputs import held_out_part
from fieldloom.modalities.sources import Source
from fieldloom.permit import NOTHING, Permit
from fieldloom.preparation import known_fingerprint
from fieldloom.system import System

__all__ = ["MANIFEST", "EncodedJob", "EncodedSet", "Origin", "encode", "read", "remove"]

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


@dataclass(frozen=True, eq=False)
class EncodedJob:
    """A finished job of codes, which are read when they are asked for, and then stay in memory.

    folder: of its shards, which must be there until then. count: of codes. failed: index in the
    source -> why that signal has no code.
    """

    folder: Path
    count: int
    failed: dict[int, str]

    @cached_property
    def found(self) -> EncodedSet:
        """All codes, joined. Raises InputError where a shard is damaged."""
        return read(self.folder, True)

    @property
    def codes(self) -> Tensor:
        """(signals, tokens, width)."""
        return self.found.codes

    @property
    def indices(self) -> Tensor:
        """The index of each in the source, (signals,)."""
        return self.found.indices

    @property
    def errors(self) -> Tensor:
        """The final error of each, (signals,)."""
        return self.found.errors


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

    @property
    def about(self) -> dict[str, str]:
        """What the job is called for people."""
        named = {"run": self.run, "source": self.source or ""}
        return {key: escape_bytes(name) for key, name in named.items()}

    def known_data(self, system: System) -> str | None:
        """The fingerprint of the run's own data, which was compared when they were opened, so that
        they are hashed once."""
        return known_fingerprint(system.recipe) if self.source is None else None

    def open_system(self) -> System:
        return Run(self.run).read_system(self.device, self.permit)

    def open(self) -> tuple[System, Source, Tensor]:
        """The system, the data, and the indices of those that it is applied to; it says nothing."""
        system = self.open_system()
        return system, *held_out_part(system, self.source, quiet=True)


@dataclass(frozen=True, eq=False)
class Encode(Task):
    """The codes of data.

    worst: the largest final error of a code that has not failed. fingerprint: of the data, where it
    is known. find: what finds the codes of a shard; None: ``encode_shard``.
    """

    kind, title = "encode", "encoding"
    system: System
    source: Source
    places: Tensor
    worst: float = math.inf
    fingerprint: str | None = None
    find: Callable[[Tensor], EncodedSet] | None = None

    def shard_size(self) -> int:
        return shard_size(self.system, self.source, self.places)

    def describe(self, size: int) -> Job:
        return Job(
            signals=len(self.places),
            shard=size,
            worst=self.worst if math.isfinite(self.worst) else None,
            data=self.fingerprint or self.source.facts()["fingerprint"],
            places=digest_places(self.places),
            system=fingerprint_system(self.system),
        )

    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        if self.find is None:
            found = encode_shard(self.system, self.source, places, self.worst)
        else:
            found = self.find(places)
        tensors = {"codes": found.codes, "places": found.indices, "errors": found.errors}
        if self.source.labels is not None:
            tensors["labels"] = self.source.labels[found.indices]
        return Made(tensors, found.failed)


def open_encode(origin: Origin, worst: float) -> Encode:
    """The task, in a process that has loaded nothing yet."""
    system, source, indices = origin.open()
    return Encode(system, source, indices, worst, origin.known_data(system))


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
) -> EncodedJob:
    """Encode the data of a source at these indices, shard by shard into a folder; resumes its job.

    indices: (signals,), in the order of the result. worst: a signal whose final error (the system's
    reconstruction loss over what it was encoded from) is above it, or is no number, has failed: it
    is left out of the codes and named in its shard's row, with a warning.
    origin: where workers of other processes find the system and the data. shard, executor, workers,
    shared: as of ``shards.How``. find: what finds the codes of a shard from its indices, in this
    process, with the same result as ``encode_shard``.

    Raises InputError where the folder holds another job's codes, or an executor has no origin;
    FieldloomError where every signal failed, or shards are left.
    """
    if not system.encodes:
        raise InputError("this run cannot encode: it was trained without an encoder.")
    if not worst > -math.inf:  # which a job would take for none at all
        raise InputError(f"{name_argument('worst')} {quote(worst)} is not right: it is a number.")
    opens = None if origin is None else partial(open_encode, origin, worst)
    how = How(shard, executor, workers, opens, {} if origin is None else origin.about, shared)
    task = Encode(system, source, indices, worst, find=find)
    done = shards.run(task, Path(folder), how)
    report_failures(done.failed, done.job)
    return EncodedJob(Path(folder), done.count, done.failed)


def encode_shard(
    system: System, source: Source, indices: Tensor, worst: float = math.inf
) -> EncodedSet:
    """The codes of one shard, without those that failed. Raises Paused to stop within it."""
    left = stopping.take_state()
    codes, losses = ([left["codes"]], [left["losses"]]) if left else ([], [])
    done, reached = sum(map(len, codes)), 0
    for signal in system.signals(source.defer(indices), strict=False):
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


def read(folder: str | Path, quiet: bool = False) -> EncodedSet:
    """The codes of a finished job. quiet: its failures were said before.

    Raises InputError where there is none, or it is not finished, or a shard is damaged;
    FieldloomError where every signal failed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"'{folder}' holds no codes: there is no {MANIFEST} in it.")
    rows = shards.read_rows(folder, manifest)
    failed = {int(index): why for row in rows for index, why in row.failed.items()}
    if not quiet:
        report_failures(failed, manifest.job)
    parts = [read_shard(folder, number, manifest.job, row) for number, row in enumerate(rows)]
    for number, part in enumerate(parts):
        check_codes(part, jobs.shard_path(folder, number))
    if len({part["codes"].shape[1:] for part in parts}) > 1:
        raise InputError(f"the shards in '{folder}' hold codes of several shapes.")
    unknown = lambda part: torch.full((len(part["places"]),), math.nan)  # of samples
    codes, places = (torch.cat([part[key] for part in parts]) for key in KEYS[:2])
    errors = torch.cat([part.get("errors", unknown(part)) for part in parts])
    return EncodedSet(codes, places, errors, failed)


def check_codes(part: dict[str, Tensor], path: Path) -> None:
    """Raise InputError where a shard holds no codes."""
    codes = part.get("codes")
    whole = codes is not None and codes.ndim == 3 and codes.is_floating_point()
    if not whole:
        raise InputError(f"'{path}' does not hold the {len(part['places'])} codes of its shard.")


def fingerprint_of_job(folder: Path) -> str | None:
    """The fingerprint of the system that a job's codes were found with."""
    manifest = read_manifest(folder)
    return None if manifest is None else manifest.job.system


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


def digest_places(places: Tensor) -> str:
    """The fingerprint of the indices of a job's data, in their order."""
    return hashlib.blake2b(places.cpu().numpy().tobytes(), digest_size=8).hexdigest()


def fingerprint_system(system: System) -> str:
    """The fingerprint of everything but the data that a code depends on."""
    parts = ("modality", "renderer", "loss", "field", "conditioner", "encoder", "train")
    sections = {key: system.stored_recipe.get(key) for key in parts}
    sections["train"] = system.stored_recipe.get("train", {}).get("field")
    content = json.dumps(sections, sort_keys=True, default=str)
    return fingerprint_modules(content, system.family, system.encoder)


def fingerprint_modules(content: str, *modules: nn.Module) -> str:
    """The fingerprint of a text and of the weights of modules."""
    digest = hashlib.blake2b(content.encode(), digest_size=8)
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
