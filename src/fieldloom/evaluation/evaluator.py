"""The evaluator of grids, and the base of those of other kinds of data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

from torch import Tensor

from fieldloom import memory
from fieldloom.errors import InputError, unknown
from fieldloom.evaluation.batches import in_batches, read_parts
from fieldloom.evaluation.image_sets import build_detector, image_set_metrics
from fieldloom.evaluation.large import draw_error, is_large, measure_in_strips
from fieldloom.evaluation.reconstruction import AREA_HOW, image_metrics, value_metrics
from fieldloom.evaluation.results import Metric, ReportImage, Result
from fieldloom.metrics.cloud_protocols import PROTOCOLS
from fieldloom.metrics.detectors import Detector
from fieldloom.metrics.paired import load_flip, ws_psnr
from fieldloom.modalities.sources import Source
from fieldloom.progress import during
from fieldloom.settings import SHAPE_SETS, Evaluation
from fieldloom.system import System
from fieldloom.types import Code


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
    """

    has_images: ClassVar[bool] = False
    upper_bound_by: ClassVar[tuple[str, ...] | None] = ("psnr",)

    def __init__(self, system: System, source: Source, settings: Evaluation | None = None) -> None:
        self.system, self.source, self.modality = system, source, system.modality
        self.settings = system.settings.evaluation if settings is None else settings
        self.held_out = source.test if len(source.test) else source.train
        self.detector: Detector | None = None

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
        """Metrics of the held-out data, encoded and decoded. of: these data in words."""
        if is_large(self.system, self.source, self.settings):
            codes = self.system.family.conditioner.origin(len(self.held_out)).detach()
            held_out, settings = self.held_out, self.settings
            return measure_in_strips(self.system, self.source, held_out, codes, settings, of)
        data = self.source.read(self.held_out)
        codes = in_batches(self.system.encode, "encoding", data)
        raw = in_batches(self.system.predict_at, "decoding", codes, data)
        true = data.tensor
        with during("comparing with the originals"):
            metrics = self.paired_metrics(true, raw, of)
        return Result(metrics, true, raw.clamp(0, 1), codes, images=self.error_images(true, raw))

    def paired_metrics(self, true: Tensor, raw: Tensor, of: str) -> list[Metric]:
        """How close decoded values (not clamped) are to their originals."""
        metrics = self.image_metrics(true, raw, of)
        return (
            metrics
            + self.area_metrics(true, raw, of)
            + value_metrics(self.settings.metrics, true, raw, of)
        )

    def image_metrics(
        self, true: Tensor, raw: Tensor, of: str, prefix: str = "", unit: str = "datum"
    ) -> list[Metric]:
        """As ``reconstruction.image_metrics``, by this evaluator's settings and detector."""
        asked, filter = self.settings.metrics, self.source.filter
        return image_metrics(asked, true, raw, of, self.detector, filter, prefix, unit)

    def area_metrics(self, true: Tensor, raw: Tensor, of: str) -> list[Metric]:
        """PSNR weighted by area, of maps on the sphere."""
        areas = self.modality.areas(true.shape[2]) if "ws-psnr" in self.settings.metrics else None
        if areas is None:
            return []
        return [Metric("ws-psnr", ws_psnr(raw, true, areas).mean().item(), of, AREA_HOW)]

    def error_images(self, true: Tensor, raw: Tensor) -> Sequence[ReportImage]:
        """The error map of a single datum's fit; none for systems with codes."""
        return [] if self.system.family.has_code else draw_error(true[0], raw[0])

    # -- samples of the prior

    def check_samples(self) -> None:
        """Raise InputError, before the work, where samples cannot be measured."""

    def decode_samples(self, codes: Code) -> Tensor:
        """The data of sampled codes, in [0, 1]; where data are large, only the first ones."""
        decode = lambda some: self.system.decode(some, self.settings.resolution)
        return in_batches(decode, "sampling", codes)

    def sample_metrics(self, codes: Code, samples: Tensor) -> list[Metric]:
        """Metrics of the set of samples against a set of data."""
        if self.detector is None:
            return []
        train = self.source.train
        of = f"{len(samples)} images of {len(codes)} samples, {len(train)} training images"
        return self.image_set_metrics(read_parts(self.source, train), samples, of)

    def image_set_metrics(self, real: Iterable[Tensor], fake: Tensor, of: str) -> list[Metric]:
        """As ``image_sets.image_set_metrics``, by this evaluator's settings and detector."""
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


def check_memory(settings: Evaluation, system: System, count: int) -> None:
    """Raise InputError where the metrics of ``count`` samples need more memory than there is."""
    numbers = math.prod(system.family.code_shape)
    if set(SHAPE_SETS) & set(settings.metrics):
        points = settings.points or PROTOCOLS[settings.protocol].points
        numbers += 6 * points  # float64
    datum = math.prod(system.modality.shape(settings.resolution)) * system.modality.value_dim
    size = (count * numbers + datum) * memory.FLOAT
    resolution = settings.resolution
    given = f"samples = {count}, points = {settings.points}, resolution = {resolution}"
    memory.check("evaluate", size, system.permit, given=given)
