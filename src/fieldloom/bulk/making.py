"""decode, reconstruct and sample as jobs: their shards hold codes and a file for each datum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldloom.bulk.files import Files, write_files
from fieldloom.codes import bulk, files, shards
from fieldloom.codes.bulk import Origin, digest_places, fingerprint_modules, fingerprint_system
from fieldloom.codes.shards import DIGESTS, Done, How, Made, Task, digest_of, report_failures
from fieldloom.codes.stored import StoredCodes
from fieldloom.engine.schemas import Job
from fieldloom.engine.stage import seed_of
from fieldloom.errors import InputError
from fieldloom.metrics.paired import FIDELITY
from fieldloom.modalities.sources import Source
from fieldloom.system import Label, System
from fieldloom.types import Code

CODES = 1024
"""Samples of a shard of codes alone: as many as a prior draws at a time."""


class FileTask(Task):
    """A job with files of decoded data beside its shards, or (``form`` is None) without."""

    system: System
    form: Files | None

    def shard_size(self) -> int:
        return CODES if self.form is None else self.form.shard_size(self.system)

    def files(self, job: Job, folder: Path, number: int, places: Sequence[int]) -> list[Path]:
        suffix = job.options["format"]
        return [] if self.form is None else shards.files_at(folder, number, places, suffix)

    def write(
        self,
        folder: Path,
        number: int,
        tensors: dict[str, Tensor],
        failed: dict[int, str],
        frames: Tensor | None = None,
    ) -> Made:
        """The files of a shard's codes; a datum without a file has failed."""
        if self.form is None:
            good = tensors["codes"].flatten(1).isfinite().all(1)
            why = "its code is no finite number"
            failed |= {int(place): why for place in tensors["places"][~good]}
            return Made({name: tensor[good] for name, tensor in tensors.items()}, failed)
        places = tensors["places"].tolist()
        given = (self.system, tensors["codes"], folder, number, places, self.form, frames)
        written, digests, broken = write_files(*given)
        kept = {name: tensor[written] for name, tensor in tensors.items()}
        return Made(kept | {DIGESTS: digests}, failed | broken)

    @property
    def options(self) -> dict[str, str]:
        """What the files are, for the job's description."""
        return {"format": "none"} if self.form is None else self.form.options(self.system)


@dataclass(frozen=True, eq=False)
class Decode(FileTask):
    """The files of codes (signals, tokens, width)."""

    kind, title = "decode", "decoding"
    system: System
    codes: StoredCodes
    form: Files
    places: Tensor

    def describe(self, size: int) -> Job:
        return Job(
            signals=len(self.places),
            shard=size,
            worst=None,
            data=self.codes.fingerprint(),
            places=digest_places(self.places),
            system=fingerprint_system(self.system),
            kind=self.kind,
            options=self.options,
        )

    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        return self.write(folder, number, {"codes": self.codes[places], "places": places}, {})


@dataclass(frozen=True, eq=False)
class Reconstruct(FileTask):
    """The codes and files of data, with the PSNR (of sound SNR) in dB of each."""

    kind, title = "reconstruct", "reconstructing"
    system: System
    source: Source
    places: Tensor
    form: Files
    fingerprint: str | None = None

    def shard_size(self) -> int:
        encoded = bulk.shard_size(self.system, self.source, self.places)
        if not self.system.encoder.independent:
            return encoded  # whole batches
        return min(encoded, super().shard_size())

    def describe(self, size: int) -> Job:
        same = bulk.Encode(self.system, self.source, self.places, fingerprint=self.fingerprint)
        encoded = same.describe(size)
        return encoded.model_copy(update={"kind": self.kind, "options": self.options})

    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        found = bulk.encode_shard(self.system, self.source, places)
        tensors = {"codes": found.codes, "places": found.indices, "errors": found.errors}
        tensors[self.system.modality.fidelity] = self.ratios(found.codes, found.indices)
        frames = self.source.take(found.indices).frame if len(found.indices) else None
        return self.write(folder, number, tensors, found.failed, frames)

    def ratios(self, codes: Code, places: Tensor) -> Tensor:
        """PSNR (of sound SNR) in dB of codes at all points of their data: (batch,)."""
        ratio, found = FIDELITY[self.system.modality.fidelity], [torch.zeros(0)]
        for code, place in zip(codes.split(1), places.split(1), strict=True):
            datum = self.source.read(place)
            made = self.system.predict_at(code, datum).tensor
            found.append(ratio(made.flatten(1)[:, None], datum.tensor.flatten(1)[:, None]).float())
        return torch.cat(found)


@dataclass(frozen=True)
class Draw:
    """What is sampled. label: as of ``System.sample``, one for all or one for each of ``count``.

    form: of the files; None: codes alone. options: the prior's own.
    """

    count: int
    form: Files | None = None
    label: Label | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sample(FileTask):
    """Samples of a prior: those of a shard are drawn by (seed, number of the shard)."""

    kind, title = "sample", "sampling"
    system: System
    draw: Draw
    places: Tensor

    @property
    def form(self) -> Files | None:  # type: ignore[override]
        return self.draw.form

    def describe(self, size: int) -> Job:
        prior, draw = self.system.prior_for(1), self.draw
        labels = numbers_of(self.system, draw.label)
        asked = {"prior": fingerprint_modules("", prior), "seed": str(draw.seed)}
        asked["label"] = "any" if labels is None else digest_of(repr(labels.tolist()))
        asked |= {name: repr(value) for name, value in sorted(draw.options.items())}
        return Job(
            signals=len(self.places),
            shard=size,
            worst=None,
            data="",
            places=digest_places(self.places),
            system=fingerprint_system(self.system),
            kind=self.kind,
            options=self.options | asked,
        )

    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        labels = numbers_of(self.system, self.draw.label)
        own = None if labels is None else labels.expand(self.draw.count)[places]
        seed = seed_of(self.draw.seed, number)
        codes = self.system.sample_codes(len(places), own, seed, **self.draw.options).cpu()
        tensors = {"codes": codes, "places": places}
        return self.write(folder, number, tensors if own is None else tensors | {"labels": own}, {})


def numbers_of(system: System, label: Label | None) -> Tensor | None:
    """The numbers of classes, (1,) for all or one for each sample; None of any class."""
    if label is None:
        return None
    given: Any = label if isinstance(label, list | tuple | Tensor) else [label]
    return torch.as_tensor([system.class_of(x) if isinstance(x, str) else x for x in given])


# -- the jobs


def decode(
    system: System,
    codes: str | Path,
    folder: str | Path,
    form: Files = Files(),  # noqa: B008 (frozen)
    count: int | None = None,
    how: How = How(),  # noqa: B008 (frozen)
    origin: Origin | None = None,
) -> Done:
    """Decode codes that ``encode`` wrote, the first ``count`` or all, into a file for each.

    folder: of the shards; the files lie beside them, ``00007/003584.png``. origin: where workers of
    other processes find the system; its ``source`` is not used.

    Raises InputError for codes of another system, for a format that the data do not have, and where
    the folder holds another job; FieldloomError where shards are left, or every datum failed.
    """
    form.check(system)
    found = open_codes(system, codes, form, count)
    place = str(Path(codes).absolute())
    opens = None if origin is None else partial(open_decode, origin, place, form, count)
    return finish(found, folder, how, opens, origin)


def open_codes(system: System, codes: str | Path, form: Files, count: int | None) -> Decode:
    found = files.open_codes(codes, system)
    return Decode(system, found, form, torch.arange(len(found))[:count])


def open_decode(origin: Origin, codes: str, form: Files, count: int | None) -> Decode:
    return open_codes(origin.open_system(), codes, form, count)


def reconstruct(
    system: System,
    source: Source,
    indices: Tensor,
    folder: str | Path,
    form: Files = Files(),  # noqa: B008 (frozen)
    how: How = How(),  # noqa: B008 (frozen)
    origin: Origin | None = None,
) -> Done:
    """Encode the data of a source at these indices, and decode them into a file for each.

    The shards hold the codes, the final errors, and the PSNR (of sound SNR) of each datum in dB.
    Arguments and errors as of ``decode``.
    """
    if not system.encodes:
        raise InputError("this run cannot encode: it was trained without an encoder.")
    form.check(system)
    opens = None if origin is None else partial(open_reconstruct, origin, form, len(indices))
    return finish(Reconstruct(system, source, indices, form), folder, how, opens, origin)


def open_reconstruct(origin: Origin, form: Files, count: int) -> Reconstruct:
    system, source, indices = origin.open()
    return Reconstruct(system, source, indices[:count], form, origin.known_data(system))


def sample(
    system: System,
    draw: Draw,
    folder: str | Path,
    how: How = How(),  # noqa: B008 (frozen)
    origin: Origin | None = None,
) -> Done:
    """Draw samples from a prior, into codes and a file for each.

    They follow from the seed and the size of a shard alone; those of one call of ``System.sample``
    are others. Arguments and errors as of ``decode``, and those of ``System.sample_codes``.
    """
    system.prior_for(min(draw.count, CODES))
    if draw.form is not None:
        draw.form.check(system)
    labels = numbers_of(system, draw.label)
    if labels is not None and len(labels) not in (1, draw.count):
        raise InputError(f"label: {len(labels)} classes where one is needed, or {draw.count}.")
    opens = None if origin is None else partial(open_sample, origin, draw)
    return finish(Sample(system, draw, torch.arange(draw.count)), folder, how, opens, origin)


def open_sample(origin: Origin, draw: Draw) -> Sample:
    return Sample(origin.open_system(), draw, torch.arange(draw.count))


def finish(task: Task, folder: str | Path, how: How, opens: Any, origin: Origin | None) -> Done:
    """Compute a job, and say what failed."""
    about = {} if origin is None else origin.about
    done = shards.run(task, Path(folder), replace(how, opens=opens, about=about, shared=True))
    report_failures(done.failed, done.job)
    return done
