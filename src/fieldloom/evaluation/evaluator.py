"""The evaluator of grids, and the base of those of other kinds of data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from fieldloom import memory
from fieldloom.errors import FieldloomError, InputError, unknown
from fieldloom.evaluation.batches import BATCH, MULTIPLE, in_batches, part_size, split_parts
from fieldloom.evaluation.image_sets import build_detector, image_set_metrics
from fieldloom.evaluation.large import draw_error, is_large, measure_in_strips
from fieldloom.evaluation.reconstruction import (
    AREA_HOW,
    frechet_of_pairs,
    image_scores,
    join_scores,
    mean_metrics,
    value_scores,
)
from fieldloom.evaluation.results import (
    FeaturePair,
    Found,
    Metric,
    Reconstruction,
    ReportImage,
    Result,
    Score,
)
from fieldloom.metrics.cloud_protocols import PROTOCOLS
from fieldloom.metrics.detectors import Detector
from fieldloom.metrics.paired import load_flip, ws_psnr
from fieldloom.modalities.sources import Source
from fieldloom.progress import during
from fieldloom.settings import SHAPE_SETS, Evaluation
from fieldloom.system import System
from fieldloom.types import Code, Data

SHOWN = 16
"""Data of a set in parts whose values are kept: those that a report draws."""

COMPARED = 4
"""Numbers for each of a part's: its own, the decoded one, their difference, and its square."""


class BrokenSamplesError(FieldloomError):
    """Decoded samples hold NaN or infinite values."""


class Evaluator:
    """Measures a system on data. This class measures grids of any axes (maps on a sphere among
    them); its subclasses say what differs for data of their kind.

    has_images:     whether data are images or views, whose sets a detector can compare.
    upper_bound_by: metrics that the upper bound of a codec is measured by; None: these data have
                    no upper bound.
    settings:       ``[evaluate]`` of the recipe, where nothing else is given.
    held_out:       indices of the data that are measured: the test part of the source, or its
                    training part where there is none.
    detector:       of set metrics; None until ``load_detector``.
    found:          what was computed before.
    """

    has_images: ClassVar[bool] = False
    upper_bound_by: ClassVar[tuple[str, ...] | None] = ("psnr",)

    def __init__(self, system: System, source: Source, settings: Evaluation | None = None) -> None:
        self.system, self.source, self.modality = system, source, system.modality
        self.settings = system.settings.evaluation if settings is None else settings
        self.held_out = source.test if len(source.test) else source.train
        self.detector: Detector | None = None
        self.found = Found()

    @property
    def sample_count(self) -> int:
        """How many samples are drawn from the prior."""
        return self.settings.samples or len(self.held_out)

    def load_detector(self) -> None:
        """Load the detector, where the recipe has metrics of sets of images, and FLIP's package.

        Raises InputError where it cannot be loaded: call this before any long work.
        """
        if "flip" in self.settings.metrics:
            load_flip()
        if self.has_images:
            train = len(self.source.train)
            smallest = min(train, self.settings.samples or train)
            self.detector = build_detector(self.settings, smallest, self.system.permit)

    # -- reconstruction

    def reconstruct(self, of: str) -> Result:
        """Metrics of the held-out data, encoded and decoded a part at a time.

        of: these data in words.
        """
        if is_large(self.system, self.source, self.settings):
            codes = self.system.family.conditioner.origin(len(self.held_out)).detach()
            held_out, settings = self.held_out, self.settings
            return measure_in_strips(self.system, self.source, held_out, codes, settings, of)
        parts = self.found.reconstructions or list(self.reconstruct_parts())
        metrics = self.paired_metrics(join_scores([x.scores for x in parts]), of)
        pairs = [x.features for x in parts if x.features is not None]
        if self.detector is not None:
            metrics += frechet_of_pairs(pairs, self.detector, self.source.filter, of)
        true, raw, codes = parts[0].true, parts[0].raw, torch.cat([x.codes for x in parts])
        return Result(metrics, true, raw.clamp(0, 1), codes, images=self.error_images(true, raw))

    def reconstruct_parts(self) -> Iterator[Reconstruction]:
        """The held-out data a part at a time; of several the first values alone are kept."""
        for number, some in enumerate(split_parts(self.source, self.held_out, self.multiple)):
            part = self.reconstruct_part(self.source.read(some))
            if len(some) < len(self.held_out):
                part = part.keep(0 if number else SHOWN)
            yield part

    @property
    def multiple(self) -> int:
        """Of how many data a part is a multiple, so that batches are those of the whole set."""
        return BATCH if self.detector is None else MULTIPLE

    def reconstruct_part(self, data: Data) -> Reconstruction:
        """A part of the data, encoded, decoded, and compared with the originals."""
        codes = in_batches(self.system.encode, "encoding", data)
        raw = in_batches(self.system.predict_at, "decoding", codes, data)
        true = data.tensor
        with during("comparing with the originals"):
            scores = self.paired_scores(true, raw)
            return Reconstruction(codes, true, raw, scores, self.paired_features(true, raw))

    def paired_scores(self, true: Tensor, raw: Tensor) -> list[Score]:
        """How close decoded values (not clamped) are to their originals, each datum."""
        scores = self.image_scores(true, raw) + self.area_scores(true, raw)
        return scores + value_scores(self.settings.metrics, true, raw)

    def image_scores(self, true: Tensor, raw: Tensor) -> list[Score]:
        """As ``reconstruction.image_scores``."""
        return image_scores(self.settings.metrics, true, raw)

    def paired_features(
        self, true: Tensor, raw: Tensor, prefix: str = "", of: str = ""
    ) -> FeaturePair | None:
        """What a Frechet distance compares, where one is asked for. prefix, of: as of the pair."""
        if self.detector is None or "frechet" not in self.settings.metrics:
            return None
        made = self.detector(raw.clamp(0, 1))
        return FeaturePair(self.detector(true).cpu(), made.cpu(), prefix, of)

    def paired_metrics(self, scores: Sequence[Score], of: str) -> list[Metric]:
        """The metrics of all scores. of: the data in words."""
        return mean_metrics(scores, of)

    def area_scores(self, true: Tensor, raw: Tensor) -> list[Score]:
        """PSNR weighted by area, of maps on the sphere."""
        areas = self.modality.areas(true.shape[2]) if "ws-psnr" in self.settings.metrics else None
        return [] if areas is None else [Score("ws-psnr", ws_psnr(raw, true, areas), AREA_HOW)]

    def error_images(self, true: Tensor, raw: Tensor) -> Sequence[ReportImage]:
        """The error map of a single datum's fit; none for systems with codes."""
        return [] if self.system.family.has_code else draw_error(true[0], raw[0])

    # -- samples of the prior

    def check_samples(self) -> None:
        """Raise InputError, before the work, where samples cannot be measured."""

    def decode_samples(self, codes: Code) -> Tensor:
        """The data of sampled codes, in [0, 1]; of many only the first ones, as many as a part."""
        return self.decode_part(codes[: self.kept_samples])

    @property
    def kept_samples(self) -> int:
        """Of how many samples, the first ones, the values are kept."""
        return self.samples_at_a_time

    @property
    def samples_at_a_time(self) -> int:
        """How many decoded samples are in memory at a time."""
        axes = self.modality.shape(self.settings.resolution)
        return part_size((*axes, self.modality.value_dim))

    def decode_part(self, codes: Code, first: int = 0) -> Tensor:
        """The data of sampled codes, in [0, 1]. first: how many samples come before these."""
        decode = lambda some: self.system.decode(some, self.settings.resolution)
        return in_batches(decode, "sampling", codes)

    def decode_parts(self, codes: Code, samples: Tensor) -> Iterator[Tensor]:
        """The data of all codes a part at a time, of which ``samples`` are the first."""
        yield samples
        for first in range(len(samples), len(codes), self.samples_at_a_time):
            yield self.decode_part(codes[first : first + self.samples_at_a_time], first)

    def sample_metrics(
        self, codes: Code, samples: Tensor, training: Iterable[Tensor]
    ) -> list[Metric]:
        """Metrics of the set of samples against a set of data.

        samples: decoded from the first of the codes. training: the training data, a part at a time.
        """
        if self.detector is None:
            return []
        count = len(self.source.train)
        of = f"{len(codes)} images of {len(codes)} samples, {count} training images"
        return self.image_set_metrics(training, self.describe_parts(codes, samples), of)

    def describe_part(self, samples: Tensor) -> Tensor | None:
        """What sets of samples are compared by: features of images; None where they are not."""
        return None if self.detector is None else self.detector(samples).cpu()

    def describe_parts(self, codes: Code, samples: Tensor) -> Iterator[Tensor]:
        """As ``describe_part``, a part of all codes at a time; ``samples`` are of the first."""
        if self.found.described is not None:
            yield from self.found.described()
            return
        for part in self.decode_parts(codes, samples):
            if not part.isfinite().all():
                raise BrokenSamplesError("samples hold NaN or infinite values.")
            described = self.describe_part(part)
            assert described is not None
            yield described

    def image_set_metrics(
        self, real: Iterable[Tensor], fake: Iterable[Tensor], of: str
    ) -> list[Metric]:
        """As ``image_sets.image_set_metrics``, by this evaluator's settings and detector.

        fake: features, a part at a time.
        """
        assert self.detector is not None
        filter = self.source.filter
        return image_set_metrics(self.settings, self.detector, real, fake, of, filter)

    def has_shape_of_data(self, samples: Tensor) -> bool:
        """Whether samples can be compared with data number by number."""
        return samples.shape[1:] == self.source.data.shape[1:]

    # -- samples compared with baselines

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of ``measures.MEASURES`` by which these data can be compared, the default first."""
        return ()

    def choose_measure(self, asked: str | None = None) -> str:
        """The measure that is asked for, or the default. Raises InputError where none fits."""
        if not self.system.family.has_code:
            raise InputError("judge: this run's signals have no codes.")
        if not self.measures:
            raise InputError(
                "judge is of pictures and of shapes with surfaces: this run has neither."
            )
        if asked is not None and asked not in self.measures:
            raise unknown("measure of these data", asked, self.measures)
        return asked or self.measures[0]

    def check_points(self, points: int) -> None:
        """Raise InputError, before the work, where data have no clouds of this many points."""

    def decode_for_measure(self, codes: Code, points: int) -> Tensor:
        """The decoded codes in the form that measures take; NaN where decoding failed.

        points: in the cloud of each shape.
        """
        return in_batches(self.system.decode, "decoding", codes)

    def read_for_measure(self, indices: Tensor, points: int) -> Tensor:
        """The data of these indices, in the form that measures take."""
        return self.source.read(indices).tensor


def check_memory(
    settings: Evaluation, system: System, count: int, source: Source | None = None
) -> None:
    """Raise InputError where an evaluation needs more memory than there is.

    Counted is what is held at a time: codes and clouds of ``count`` samples, codes of all data that
    are measured and, of these and their reconstructions, or of samples and what they are compared
    with, a part of each set. source: of the data; None: samples alone are counted.
    """
    code = math.prod(system.family.code_shape)
    datum = math.prod(system.modality.shape(settings.resolution)) * system.modality.value_dim
    drawn = 2 * min(count, part_size((datum,))) * datum  # once in the batches that are joined
    clouds = 0
    if set(SHAPE_SETS) & set(settings.metrics):
        points = settings.points or PROTOCOLS[settings.protocol].points
        clouds = 6 * count * points  # float64
    held = count * code + clouds
    if source is None:
        held += drawn
    elif not is_large(system, source, settings):
        data = math.prod(source.data.shape[1:])
        part = lambda indices: data * min(len(indices), part_size((data,)))
        held_out = source.test if len(source.test) else source.train
        compared = drawn + 3 * part(source.train) + part(source.test) if count else 0
        held += 2 * len(held_out) * code + max(COMPARED * part(held_out), compared)
    resolution = settings.resolution
    given = f"samples = {count}, points = {settings.points}, resolution = {resolution}"
    memory.check("evaluate", held * memory.FLOAT, system.permit, given=given)
