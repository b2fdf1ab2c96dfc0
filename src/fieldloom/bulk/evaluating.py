"""The expensive parts of an evaluation as jobs: reconstructions, codes of samples, and samples.

A shard holds what ``evaluation`` would find of the same data in the same batches, so that figures
of joined shards are those of one process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fieldloom.codes import bulk, jobs, shards
from fieldloom.codes.bulk import Origin, digest_places, fingerprint_modules, fingerprint_system
from fieldloom.codes.shards import Done, How, Made, Task, clip, digest_of
from fieldloom.engine.schemas import Job
from fieldloom.engine.tensors import read_tensors
from fieldloom.evaluation import Evaluator, evaluator_of
from fieldloom.evaluation.batches import MULTIPLE
from fieldloom.evaluation.evaluator import SHOWN
from fieldloom.evaluation.generation import labels_of_samples
from fieldloom.evaluation.large import is_large
from fieldloom.evaluation.results import FeaturePair, Found, Reconstruction, Score
from fieldloom.executors import claims
from fieldloom.inputs import source_of
from fieldloom.priors.prior import BATCH
from fieldloom.recipe import Recipe
from fieldloom.types import Code

EVALUATED = "evaluated"
"""The folder of these jobs, beside the report; it is removed when the figures are there."""

EFFORT, MOST = 1 << 31, 512
"""The most points that the samples of a shard are decoded at (minutes on a CPU), and the most
samples."""


@dataclass(frozen=True, eq=False)
class Part(Task):
    """A part of an evaluation.

    draws: whether it is of samples. folder: of all parts. data: the fingerprint of the source.
    """

    kind = "evaluate"
    draws: ClassVar[bool] = False
    evaluator: Evaluator
    places: Tensor
    folder: Path
    data: str

    @property
    def multiple(self) -> int:
        """Of how many data a shard is a multiple: of whole batches."""
        return MULTIPLE

    def describe(self, size: int) -> Job:
        evaluator, system = self.evaluator, self.evaluator.system
        detector = "none" if evaluator.detector is None else evaluator.detector.identity
        asked = [part.title for part in PARTS if isinstance(self, part)]
        options = {"part": asked[0], "measured": digest_of(repr(evaluator.settings), detector)}
        if self.draws and system.prior is not None:
            options["prior"] = fingerprint_modules("", system.prior)
        return Job(
            signals=len(self.places),
            shard=size,
            worst=None,
            data=self.data,
            places=digest_places(self.places),
            system=fingerprint_system(system),
            kind=self.kind,
            options=options,
        )


class Reconstructions(Part):
    """Held-out data, encoded, decoded, and compared with the originals; their places are those in
    the source."""

    title = "reconstructing"

    def shard_size(self) -> int:
        return bulk.shard_size(self.evaluator.system, self.evaluator.source, self.places)

    @property
    def multiple(self) -> int:
        return self.evaluator.multiple

    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        part = self.evaluator.reconstruct_part(self.evaluator.source.read(places))
        each = lambda values: values.reshape(len(places), -1, *values.shape[1:])
        tensors = {"codes": part.codes, "places": places}
        tensors |= {f"score.{i}": each(x.values) for i, x in enumerate(part.scores)}
        words: dict[str, Any] = {"scores": [[x.name, x.how, x.of] for x in part.scores]}
        if part.features is not None:
            tensors["features.true"] = each(part.features.true)
            tensors["features.made"] = each(part.features.made)
            words["features"] = [part.features.prefix, part.features.of]
        return Made(tensors, {}, words)

    def read(self, tensors: Mapping[str, Tensor], words: Mapping[str, Any]) -> Reconstruction:
        """What a shard holds, without values of data."""
        flat = lambda name: tensors[name].flatten(0, 1)
        scores = [
            Score(name, flat(f"score.{i}"), how, of)
            for i, (name, how, of) in enumerate(words["scores"])
        ]
        pair = None
        if "features" in words:
            pair = FeaturePair(flat("features.true"), flat("features.made"), *words["features"])
        nothing = torch.empty(0)
        return Reconstruction(tensors["codes"], nothing, nothing, scores, pair)

    def join(self, done: Done, folder: Path) -> list[Reconstruction]:
        """The parts of all shards; of the first data the values, which are computed again."""
        parts = [self.read(*held) for held in read_all(folder, done)]
        first = self.evaluator.reconstruct_part(self.evaluator.source.read(self.places[:SHOWN]))
        parts[0] = parts[0]._replace(true=first.true, raw=first.raw)
        return parts


class Codes(Part):
    """Codes of samples: those of one call, of which each shard draws its own batches."""

    title, draws = "drawing", True

    def shard_size(self) -> int:
        return BATCH

    @property
    def multiple(self) -> int:
        return BATCH

    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        evaluator, settings = self.evaluator, self.evaluator.settings
        part, labels = (int(places[0]), int(places[-1]) + 1), labels_of_samples(evaluator)
        codes = evaluator.system.sample_codes(
            evaluator.sample_count, labels, settings.seed, part, **settings.options()
        )
        return Made({"codes": codes.cpu(), "places": places}, {})

    def join(self, done: Done, folder: Path) -> Code:
        return torch.cat([tensors["codes"] for tensors, _ in read_all(folder, done)])


class Samples(Part):
    """What decoded samples are compared by, and the values of the first of them."""

    title, draws = "sampling", True

    def shard_size(self) -> int:
        system, settings = self.evaluator.system, self.evaluator.settings
        points = math.prod(system.modality.shape(settings.resolution))
        return clip(EFFORT / (points * system.render.evaluations), 1, MOST)

    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        evaluator, first = self.evaluator, int(places[0])
        codes = read_codes_of(self.folder / Codes.title, places)
        described, values = list[Tensor](), list[Tensor]()
        for some in codes.split(evaluator.kept_samples):  # as many as are in memory at a time
            made = evaluator.decode_part(some, first + sum(map(len, values)))
            described.append(found) if (found := evaluator.describe_part(made)) is not None else 0
            values.append(made)
        tensors = {"places": places}
        if described:
            joined = torch.cat(described)
            tensors["described"] = joined.reshape(len(places), -1, *joined.shape[1:])
        if first < evaluator.kept_samples:
            tensors["values"] = torch.cat(values)
        return Made(tensors, {})

    def join(self, done: Done, folder: Path) -> Tensor:
        """The values of the first samples."""
        kept, values = self.evaluator.kept_samples, list[Tensor]()
        for tensors, _ in read_all(folder, done):
            if "values" not in tensors:
                break
            values.append(tensors["values"])
        return torch.cat(values)[:kept]

    def described(self, done: Done, folder: Path) -> Iterator[Tensor]:
        """What samples are compared by, a shard after the other."""
        for tensors, _ in read_all(folder, done):
            if "described" in tensors:
                yield tensors["described"].flatten(0, 1)


PARTS: tuple[type[Part], ...] = (Reconstructions, Codes, Samples)


def read_all(folder: Path, done: Done) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """The tensors and words of each shard of a finished job, which were compared by hash."""
    for number in range(jobs.count_shards(done.job)):
        held = read_tensors(jobs.shard_path(folder, number))
        yield held.tensors, held.numbers


def read_codes_of(folder: Path, places: Tensor) -> Code:
    """The codes of some samples, of the shards that hold them."""
    manifest = jobs.read_manifest(folder)
    assert manifest is not None
    size = manifest.job.shard
    numbers = range(int(places[0]) // size, int(places[-1]) // size + 1)
    held = [read_tensors(jobs.shard_path(folder, number)).tensors["codes"] for number in numbers]
    start = int(places[0]) - numbers[0] * size
    return torch.cat(held)[start : start + len(places)]


# -- the jobs


def finder(
    folder: Path, how: How, origin: Origin | None, foreign: bool = False
) -> Callable[[Evaluator], Found]:
    """What finds the expensive parts of an evaluation by jobs, for ``evaluation.evaluate``.

    folder: of the jobs. how: ``shard`` is rounded up to whole batches. origin: where workers of
    other processes find the system and the data. foreign: whether the data are not those that the
    system was trained on.
    """

    def find(evaluator: Evaluator) -> Found:
        system = evaluator.system
        if is_large(system, evaluator.source, evaluator.settings):
            return Found()  # a single datum
        found, data = Found(), evaluator.source.facts()["fingerprint"]
        run = partial(run_part, evaluator, folder, how, origin)
        if system.encodes:
            held_out = Reconstructions(evaluator, evaluator.held_out, folder, data)
            found = replace(found, reconstructions=held_out.join(*run(held_out)))
        if system.generates and not foreign:
            evaluator.check_samples()
            drawn = Codes(evaluator, torch.arange(evaluator.sample_count), folder, data)
            codes = drawn.join(*run(drawn))
            decoded = Samples(evaluator, drawn.places, folder, data)
            done = run(decoded)
            described = partial(decoded.described, *done)
            found = replace(found, codes=codes, samples=decoded.join(*done), described=described)
        return found

    return find


def run_part(
    evaluator: Evaluator, folder: Path, how: How, origin: Origin | None, task: Part
) -> tuple[Done, Path]:
    """Compute the job of a part; what a job of other settings has left is removed before."""
    own, opens = folder / task.title, None
    if origin is not None:
        opens = partial(open_part, type(task), origin, evaluator.system.recipe, folder.absolute())
    about = {} if origin is None else origin.about
    before = jobs.read_manifest(own)
    other = before is not None and task.describe(before.job.shard) != before.job
    if other and not any(lives for _, lives in claims.read_holders(own).values()):
        jobs.remove(own)
        before = None
    size = before.job.shard if before is not None else how.shard or task.shard_size()
    size = -(-size // task.multiple) * task.multiple
    return shards.run(task, own, replace(how, shard=size, opens=opens, about=about)), own


def open_part(kind: type[Part], origin: Origin, recipe: Recipe, folder: Path) -> Part:
    """A part, in a process that has loaded nothing yet. recipe: as it is evaluated."""
    system = origin.open_system()
    system.recipe = recipe
    evaluator = evaluator_of(system, source_of(system, origin.source, quiet=True))
    evaluator.load_detector()
    places = torch.arange(evaluator.sample_count) if kind.draws else evaluator.held_out
    data = origin.known_data(system) or evaluator.source.facts()["fingerprint"]
    return kind(evaluator, places, folder, data)


def remove(folder: Path) -> None:
    """Remove the jobs of an evaluation whose figures are there."""
    for part in PARTS:
        if (folder / part.title).is_dir():
            jobs.remove(folder / part.title)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
