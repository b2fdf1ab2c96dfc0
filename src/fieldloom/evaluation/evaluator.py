"""How the data of one kind are measured: what every kind has, and how plain grids are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from fieldloom.errors import InputError, unknown
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.figures import Figure, Result, Shown
from fieldloom.evaluation.large import error_map, is_large, measure_in_strips
from fieldloom.evaluation.pictures import compare_sets, detector_of
from fieldloom.evaluation.reconstruction import image_metrics, value_metrics
from fieldloom.metrics.features import Detector
from fieldloom.modalities.sources import Source
from fieldloom.settings import Evaluation
from fieldloom.system import System
from fieldloom.types import Code, Data


class Evaluator:
    """A system, its data, and how they are measured. This class measures grids of any axes; those
    of other kinds of data say what differs.

    seen:     whether sets of these data are compared in the features of a detector of pictures.
    ceiling:  metrics that a codec's upper bound is measured by; None: these data have none.
    """

    seen: ClassVar[bool] = False
    ceiling: ClassVar[tuple[str, ...] | None] = ("psnr",)

    def __init__(self, system: System, source: Source, how: Evaluation | None = None) -> None:
        self.system, self.source, self.modality = system, source, system.modality
        self.how = system.settings.evaluation if how is None else how
        self.held = source.test if len(source.test) else source.train

    @property
    def measures(self) -> tuple[str, ...]:
        """How two signals may be compared (``measures.MEASURES``), the usual way first."""
        return ()

    @property
    def samples(self) -> int:
        """How many samples are drawn, where nothing is asked for."""
        return self.how.samples or len(self.held)

    def detector(self) -> Detector | None:
        """The detector of set metrics, where any is asked for: before the work, since it may be
        missing."""
        if not self.seen:
            return None
        train = len(self.source.train)
        return detector_of(self.how, min(train, self.how.samples or train), self.system.permit)

    # -- reconstruction

    def reconstruct(self, of: str, detector: Detector | None) -> Result:
        """The held-out data, encoded and decoded. of: what they are, for the metrics."""
        if is_large(self.system, self.source, self.how):
            codes = self.system.family.conditioner.origin(len(self.held)).detach()
            return measure_in_strips(self.system, self.source, self.held, codes, self.how, of)
        originals = self.source.read(self.held)
        codes = in_batches(self.system.encode, "encoding", originals)
        raw = in_batches(self.system.predict_at, "decoding", codes, originals)
        true = originals.tensor
        metrics = self.paired(true, raw, of, detector)
        return Result(metrics, true, raw.clamp(0, 1), codes, shown=self.errors_of(true, raw))

    def paired(self, true: Tensor, raw: Tensor, of: str, detector: Detector | None) -> list[Figure]:
        """How close decoded values (not clamped) are to their originals."""
        found = image_metrics(self.how, true, raw, of, detector, self.source.filter)
        return found + value_metrics(self.how, true, raw, of)

    def errors_of(self, true: Tensor, raw: Tensor) -> Sequence[Shown]:
        """Where a fit of a single datum is wrong."""
        return [] if self.system.family.has_code else error_map(true[0], raw[0])

    # -- generation

    def check(self) -> None:
        """Raise InputError where samples could not be measured; before the work."""

    def decode(self, codes: Code) -> Data:
        """What codes of samples look like, clamped; of large data perhaps only the first ones."""
        made = in_batches(lambda some: self.system.decode(some, self.how.resolution), "sampling",
                          codes)  # fmt: skip
        return Data(made)

    def compare(self, codes: Code, samples: Tensor, detector: Detector | None) -> list[Figure]:
        """Set metrics of samples, beside data."""
        if detector is None:
            return []
        real = self.source.read(self.source.train).tensor
        of = f"{len(samples)} pictures of {len(codes)} samples, {len(real)} training pictures"
        return compare_sets(self.how, detector, real, samples, of, self.source.filter)

    def comparable(self, samples: Tensor) -> bool:
        """Whether samples and data share their observations, and can be compared number by
        number."""
        return samples.shape[1:] == self.source.data.shape[1:]

    # -- samples beside baselines

    def signals(self, codes: Code, points: int) -> Tensor:
        """What codes decode to on the training grid, as a measure takes it; NaN where that
        failed. points: of each shape's cloud."""
        return in_batches(self.system.decode, "decoding", codes)

    def check_signals(self, points: int) -> None:
        """Raise InputError where ``references`` would; before the work."""

    def references(self, indices: Tensor, points: int) -> Tensor:
        """Data of these indices as a measure takes them."""
        return self.source.read(indices).tensor

    def measure(self, asked: str | None = None) -> str:
        """The measure that is asked for, or the usual one. Raises InputError where none fits."""
        if not self.system.family.has_code:
            raise InputError("judge: this run's signals have no codes.")
        if not self.measures:
            raise InputError(
                "judge is of pictures and of shapes with surfaces: this run has neither."
            )
        if asked is not None and asked not in self.measures:
            raise unknown("measure of these data", asked, self.measures)
        return asked or self.measures[0]


def origin_of(system: System) -> Tensor:
    """The code that every descent begins at: (1, tokens, width)."""
    return system.family.conditioner.origin(1).detach().cpu()
