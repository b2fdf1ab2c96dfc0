"""What an evaluation returns: metrics, and the data and images that a report shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from fieldloom.errors import unknown
from fieldloom.evaluation.metric_table import Question
from fieldloom.types import Code

Part = Literal["test", "training", "given"]


class Metric(NamedTuple):
    """A measured number, what it was measured on, and how."""

    name: str
    value: float
    of: str
    how: str = ""

    def as_json(self) -> dict[str, Any]:
        """As JSON: a value that is not finite is null, and stands in ``how``."""
        if math.isfinite(self.value):
            return self._asdict()
        return self._asdict() | {"value": None, "how": f"{self.value}; {self.how}"}


class Score(NamedTuple):
    """Scores whose mean is a metric: mostly one of each datum, (n,).

    of: what is added to the description of the data.
    """

    name: str
    values: Tensor
    how: str = ""
    of: str = ""


class FeaturePair(NamedTuple):
    """Features (n, d) of images, and of what was decoded from their codes.

    prefix: of the metric's name; of: what is added to the description of the data.
    """

    true: Tensor
    made: Tensor
    prefix: str = ""
    of: str = ""


class Reconstruction(NamedTuple):
    """A part of a set, encoded and decoded.

    codes: (n, tokens, width); true, raw: in the data's shape, decoded values not clamped. scores,
    features: of the comparison.
    """

    codes: Code
    true: Tensor
    raw: Tensor
    scores: Sequence[Score]
    features: FeaturePair | None = None

    def keep(self, count: int) -> Reconstruction:
        """The same with so many of the values, so that the others need no memory."""
        return self._replace(true=self.true[:count].clone(), raw=self.raw[:count].clone())


@dataclass(frozen=True)
class Found:
    """What was computed before, by a job, which an evaluation then need not; None: nothing.

    reconstructions: of the held-out data, a part after the other, with the values of the first
    alone. codes: of samples; samples: the first of them, decoded; described: yields what all
    of them are compared by (``Evaluator.describe_part``), a part at a time.
    """

    reconstructions: Sequence[Reconstruction] | None = None
    codes: Code | None = None
    samples: Tensor | None = None
    described: Callable[[], Iterator[Tensor]] | None = None


class ReportImage(NamedTuple):
    """Images (n, 1 | 3, height, width) in [0, 1], side by side in one file of a report, or the
    frames of an animation where the file is a ``.gif``.

    question: beside whose answer a page shows them; empty: at its top.
    """

    file: str
    caption: str
    images: Tensor
    question: Question | Literal[""] = ""


@dataclass(frozen=True)
class Result:
    """Metrics, and what a report shows of the data that were measured.

    originals, reconstructions: in the modality's shape; of a set that comes in parts
               (``batches.WHOLE``) those of the first data, empty where each is too large.
    part:      what was measured: the ``test`` part of the source, its ``training`` part where there
               is no other, or data that were ``given`` instead.
    images:    further images of the report.
    codes:     of the reconstructions: (batch, tokens, width).
    samples:   decoded from sample_codes, where a prior was sampled, of many only the first;
               sample_labels: the classes of all.
    nearest:   for each of ``samples``, the index of its nearest datum in the training part of the
               source; distances: to it. None where samples are not compared with data by value.
    """

    metrics: list[Metric]
    originals: Tensor
    reconstructions: Tensor
    codes: Code
    samples: Tensor | None = None
    sample_codes: Tensor | None = None
    sample_labels: Tensor | None = None
    nearest: Tensor | None = None
    distances: Tensor | None = None
    images: Sequence[ReportImage] = ()
    part: Part = "test"

    def value(self, name: str) -> float:
        """The metric of a name: ``psnr``. Raises InputError for one that was not measured."""
        found = {metric.name: metric.value for metric in self.metrics}
        if name not in found:
            raise unknown("metric of this evaluation", name, found)
        return found[name]
