"""What an evaluation is asked for, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from fieldloom import memory
from fieldloom.errors import InputError, quote, unknown
from fieldloom.metrics.clouds import PROTOCOLS
from fieldloom.metrics.features import DETECTORS
from fieldloom.registry import build
from fieldloom.types import Code

if TYPE_CHECKING:
    from fieldloom.system import System


class Figure(NamedTuple):
    """A number, what it was measured on, and how."""

    name: str
    value: float
    of: str
    how: str = ""


PAIRED = ("psnr", "ssim", "mse", "accuracy", "iou", "chamfer")
PICTURES = ("frechet", "kid", "precision-recall")
SHAPES = ("shapes", "cloud-frechet")
METRICS = (*PAIRED, *PICTURES, *SHAPES)


OPTIONS = ("guidance", "sampler", "steps", "spacing", "top_k", "top_p", "temperature")
"""Of sampling; which of them a prior has is the prior's."""


@dataclass(frozen=True)
class Evaluation:
    """A section ``[evaluate]`` of a recipe.

    metrics:  of reconstruction (``psnr``, ``ssim``; of shapes ``mse``, ``accuracy``, ``iou``,
              ``chamfer``), of sets of pictures or of rendered views (``frechet``, ``kid``,
              ``precision-recall``, in the features of ``detector``; ``weights``: its local file),
              and of sets of shapes (``shapes``: the figures of ``protocol``; ``cloud-frechet``, in
              the features of a point-cloud detector).
    protocol: how sets of shapes are judged: ``mnif``, ``hyperdiffusion`` or ``pointflow``.
    points:   of each surface, where not the protocol's: figures are then marked so.
    resolution: of the grid that surfaces are found on; None: as trained.
    samples:  drawn from the prior, in equal numbers of each class where there are classes, with its
              options (``OPTIONS``) where they are given; None: 256, or of shapes and views as many
              as there are test data. seed: of these samples.
    """

    metrics: tuple[str, ...] = ("psnr", "ssim")
    detector: str = "gabor"
    weights: str | None = None
    protocol: str = "mnif"
    points: int | None = None
    resolution: int | None = None
    samples: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    steps: int | None = None
    spacing: str | None = None
    top_k: int | None = None
    top_p: float | None = None
    temperature: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "points", "resolution", "steps", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"evaluate.{name} = {value}: at least 1.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"evaluate.seed = {self.seed}: from 0 to 2^63 - 1.")
        for name in self.metrics:
            if name not in METRICS:
                raise unknown("metric", name, METRICS)
        if self.detector not in DETECTORS:
            raise unknown("detector", self.detector, DETECTORS)
        if self.protocol not in PROTOCOLS:
            raise unknown("protocol", self.protocol, PROTOCOLS)

    def options(self) -> dict[str, Any]:
        """What the prior's ``sample`` is given."""
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in given.items() if value is not None}


class Shown(NamedTuple):
    """Pictures (n, 1 | 3, height, width) in [0, 1], side by side in a file of a report."""

    file: str
    caption: str
    pictures: Tensor


@dataclass(frozen=True)
class Result:
    """Figures, and the data that the pictures of a report show, in the modality's shape.

    shown: pictures as they are. originals and reconstructions are empty where they are too large
    to be held. nearest: for each sample the place in the training set of its nearest datum;
    distances to it.
    """

    figures: list[Figure]
    originals: Tensor
    reconstructions: Tensor
    codes: Code
    samples: Tensor | None = None
    sample_codes: Tensor | None = None
    sample_labels: Tensor | None = None
    nearest: Tensor | None = None
    distances: Tensor | None = None
    shown: Sequence[Shown] = ()


def check_room(how: Evaluation, system: System, count: int) -> None:
    """Raise InputError where what ``count`` samples are judged by would not fit this machine."""
    numbers = math.prod(system.family.code_shape)
    if set(SHAPES) & set(how.metrics):
        points = how.points or PROTOCOLS[how.protocol].points
        numbers += 6 * points  # float64
    datum = math.prod(system.modality.shape(how.resolution)) * system.modality.value_dim
    held = (count * numbers + datum) * memory.FLOAT
    given = f"samples = {count}, points = {how.points}, resolution = {how.resolution}"
    memory.check("evaluate", held, system.permit, given=given)


def parse(spec: Any) -> Evaluation:
    """The checked section ``[evaluate]``."""
    if not isinstance(spec, Mapping):
        raise InputError(f"evaluate = {quote(spec)} is not right: it is a table.")
    tables = {"evaluate": {"evaluate": Evaluation}}
    return build("evaluate", {"name": "evaluate", **spec}, tables)
