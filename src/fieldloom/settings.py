"""The settings of a recipe, parsed and checked once: training stages, evaluation, facts of data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fieldloom.errors import InputError, is_command, name_argument, quote, unknown
from fieldloom.metrics.cloud_features import CLOUD_DETECTORS, DEFAULT_CLOUD_DETECTOR
from fieldloom.metrics.cloud_protocols import PROTOCOLS
from fieldloom.metrics.detectors import DETECTORS
from fieldloom.recipe import STAGES, Recipe
from fieldloom.registry import build

Precision = Literal["float32", "tf32", "bfloat16"]
Execution = Literal["auto", "eager", "captured", "compiled"]
Schedule = Literal["cosine", "constant", "step", "inverse-sqrt"]
SCHEDULES: Mapping[Schedule, str] = {
    "cosine": "Half a cosine, from the whole rate to 0 over the steps.",
    "constant": "The whole rate at every step.",
    "step": "The rate times `factor` after every `every` steps (below 1: a fraction of all steps).",
    "inverse-sqrt": "The cosine's rate, from step `every` on times sqrt(every / step).",
}
"""Schedule of the learning rate -> what it is."""


@dataclass(frozen=True)
class Stage:
    """A section ``[train.X]`` of a recipe.

    steps, batch: optimizer steps, signals in each.
    optimizer: name and arguments; groups: settings of single groups of an objective's parameters
               (``groups.codes = { name = "sgd", rate = 1e-4, schedule = "constant" }``).
    schedule:  of the learning rate: ``cosine`` to 0 over the steps, ``constant``, ``step``, or
               ``inverse-sqrt``, for runs of any length: Adam's noise moves weights by a distance
               that grows as the rate times the root of the steps.
    every, factor: of the schedule ``step``: after every so many steps (below 1: a fraction of all
               steps) the rate is multiplied by the factor. ``inverse-sqrt`` takes ``every``: the
               cosine's rate is multiplied by sqrt(every / step) from that step on.
    warmup:    steps over which the rate rises linearly.
    clip:      the largest norm of the gradient of a player; None: any. ema: decay of the averaged
               weights that become the result; 0: weights are not averaged.
    points:    random points of each signal that a step sees; None: all. together: the same points
               of every signal of a batch.
    precision: of matrix products: ``float32``; ``tf32``, whose inputs CUDA rounds to 10 bits of
               mantissa (elsewhere it is the same as float32); ``bfloat16``, by autocast.
    execution: how a step runs: ``eager``; ``captured``, its kernels launched at once as a CUDA
               graph; ``compiled``, by inductor; ``auto``: captured where that is possible.
    micro:     signals of a micro-batch; None: by the machine's cache. divided: whether batches that
               are computed whole as published are cut into micro-batches, too, so that several
               processes can share them (set where a run begins with several).
    partial:   whether every epoch ends with its remainder as a smaller batch, as in much released
               code; otherwise batches run across the ends of epochs.
    save_every, log_every: steps between checkpoints, and between lines of the log.
    minutes:   a budget of time, from which ``steps`` follows by the pace measured when the stage
               begins, and with it ``warmup``, ``save_every`` and ``log_every``; then it is taken
               out of the run's recipe. Of a stage that goes on, further minutes. None: no budget.
    """

    steps: int = 1000
    batch: int = 32
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "adamw"})
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedule: Schedule = "cosine"
    every: int | float = 1000
    factor: float = 0.1
    warmup: int = 0
    clip: float | None = None
    ema: float = 0.0
    points: int | None = None
    together: bool = False
    precision: Precision = "float32"
    execution: Execution = "auto"
    micro: int | None = None
    divided: bool = False
    partial: bool = False
    save_every: int = 1000
    log_every: int = 50
    minutes: float | None = None

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "save_every", "log_every", "points", "micro")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"train: {name} = {value}: at least 1.")
        if not 0 < self.factor <= 1 or self.every <= 0:
            raise InputError(
                f"train: factor = {self.factor}, every = {self.every}: above 0, a factor at most 1."
            )
        if not 0 <= self.ema < 1 or self.warmup < 0 or (self.clip is not None and self.clip <= 0):
            raise InputError("train: ema is in [0, 1), warmup at least 0, clip positive.")
        if self.minutes is not None:
            check_minutes(self.minutes)


def check_minutes(minutes: Any) -> None:
    """Raise InputError for a budget of time that is no positive number."""
    number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
    if not number or not 0 < minutes < math.inf:
        what = name_argument("minutes") if is_command() else "minutes ="
        raise InputError(f"{what} {quote(minutes)} is not right: it is a number above 0, as 2.5.")


def parse_stage(name: str, spec: Any) -> Stage:
    """The checked section ``[train.name]``."""
    if not isinstance(spec, Mapping):
        raise InputError(f"train.{name} = {quote(spec)} is not right: it is a table.")
    return build(f"train.{name}", {"name": "stage", **spec}, {f"train.{name}": {"stage": Stage}})


PARTS = (
    "source", "modality", "renderer", "field", "conditioner", "encoder", "objective", "prior",
)  # fmt: skip
"""Sections of a recipe that name a part."""

PAIRED = (
    "psnr", "snr", "ws-psnr", "ssim", "flip", "mse", "accuracy", "iou", "chamfer", "mesh",
    "enlarge", "free-space",
)  # fmt: skip
IMAGE_SETS = ("frechet", "kid", "precision-recall", "density-coverage")
CLOUD_SETS = ("cloud-frechet", "cloud-kid", "cloud-precision-recall")
PATTERN = "fixed-pattern"
SHAPE_SETS = ("shapes", *CLOUD_SETS)
METRICS = (*PAIRED, *IMAGE_SETS, PATTERN, *SHAPE_SETS)

FIGURES = {
    "fid": "'frechet' with evaluate.detector = 'inception'",
    "rfid": "'frechet' with evaluate.detector = 'inception'",
    "precision": "'precision-recall' of images, 'cloud-precision-recall' of shapes,",
    "recall": "'precision-recall' of images, 'cloud-precision-recall' of shapes,",
    "density": "'density-coverage'",
    "coverage": "'density-coverage' of images, 'shapes' of shapes,",
    "cov": "'shapes'",
    "emd": "'shapes' with evaluate.protocol = 'pointflow'",
    "mmd": "'shapes'",
    "1nna": "'shapes'",
    "1-nna": "'shapes'",
    "jsd": "'shapes'",
}
"""Figures that a user asks for by their own name -> the metric that gives them, in words."""

OPTIONS = ("guidance", "sampler", "steps", "spacing", "top_k", "top_p", "temperature")
"""Options of sampling; each prior has some of them."""


@dataclass(frozen=True)
class Evaluation:
    """A section ``[evaluate]`` of a recipe.

    metrics:  of reconstruction (``psnr``, ``ssim``; of images also ``flip``; of sound ``snr``; of
              maps on the sphere ``ws-psnr``, weighted by area; of shapes ``mse``, ``accuracy``,
              ``iou``, ``chamfer``, and of one mesh ``mesh``: its surface against the original),
              of images that the source knows at any resolution ``enlarge`` (up to eightfold),
              of sets of images or of rendered views (``frechet``, ``kid``, ``precision-recall``,
              ``density-coverage``, in the features of ``detector``), of samples alone
              ``fixed-pattern``, of scenes ``free-space``, and of sets of shapes
              (``shapes``: the metrics of ``protocol``; ``cloud-frechet``, ``cloud-kid``,
              ``cloud-precision-recall``, in the features of ``cloud_detector``).
    detector: whose features compare sets of images; None: ``efficientnet-lite0`` where its
              weights are installed, or else ``gabor``. weights: the local file of its weights.
    cloud_detector: whose features compare sets of shapes, as clouds of points on their surfaces:
              ``points-v1`` or ``cloud-statistics``.
    protocol: how sets of shapes are compared: ``mnif``, ``hyperdiffusion`` or ``pointflow``.
    points:   of each surface, instead of the protocol's number: metrics then say so.
    resolution: of the grid that surfaces are found on; None: as trained.
    samples:  drawn from the prior, in equal numbers of each class where there are classes; None:
              256, or of shapes and views as many as there are test data. seed: of these samples.
    guidance: of the prior's sampling: 1 is plain conditional sampling.
    sampler, steps, spacing: of a diffusion prior: its sampler, its steps, and their spacing.
    top_k, top_p, temperature: of an autoregressive prior: the likeliest few tokens, the likeliest
              fraction, and below 1 safer ones.
    """

    metrics: tuple[str, ...] = ("psnr", "ssim")
    detector: str | None = None
    weights: str | None = None
    cloud_detector: str = DEFAULT_CLOUD_DETECTOR
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
                if (known := FIGURES.get(name.lower())) is not None:
                    raise InputError(f"unknown metric '{name}': {known} gives it.")
                raise unknown("metric", name, METRICS)
        if self.detector is not None and self.detector not in DETECTORS:
            raise unknown("detector", self.detector, DETECTORS)
        if self.cloud_detector not in CLOUD_DETECTORS:
            raise unknown("cloud_detector", self.cloud_detector, CLOUD_DETECTORS)
        if self.protocol not in PROTOCOLS:
            raise unknown("protocol", self.protocol, PROTOCOLS)

    def options(self) -> dict[str, Any]:
        """The options that the prior's ``sample`` is called with."""
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in given.items() if value is not None}


def parse_evaluation(spec: Any) -> Evaluation:
    """The checked section ``[evaluate]``."""
    if not isinstance(spec, Mapping):
        raise InputError(f"evaluate = {quote(spec)} is not right: it is a table.")
    tables = {"evaluate": {"evaluate": Evaluation}}
    return build("evaluate", {"name": "evaluate", **spec}, tables)


@dataclass(frozen=True)
class Settings:
    """Everything in a recipe but its parts.

    stages:   name -> its section ``[train.X]``, with defaults where the recipe has none.
    source:   the section ``[source]`` as a table; {} where a recipe has none.
    parts:    section -> name of its part, for the sections that the recipe has.
    signals, classes: numbers of training signals and of classes, 0 before the data are read.
              names: of the classes; filter: how images were resized.
    title:    the recipe's and the variant's name; paper: the publication that it reproduces.
    expected: published metrics; dead: unused parameters of the released code.
    kernels:  ``auto``: fields compute by what their device has; ``plain``: by torch's operations.
    """

    seed: int = 0
    stages: Mapping[str, Stage] = field(default_factory=dict)
    evaluation: Evaluation = Evaluation()
    source: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    signals: int = 0
    classes: int = 0
    names: tuple[str, ...] = ()
    filter: str = "none"
    title: str | None = None
    paper: str | None = None
    expected: Mapping[str, Any] = field(default_factory=dict)
    dead: Mapping[str, int] = field(default_factory=dict)
    kernels: str = "auto"

    @property
    def field_stage(self) -> Stage:
        """The stage ``field``, which trains the family and its encoder."""
        return self.stages["field"]


def parse_settings(recipe: Recipe) -> Settings:
    """The checked settings of a resolved recipe. Raises InputError."""
    known, train = recipe.get("known", {}), recipe.get("train", {})
    tables = {
        name: spec if isinstance(spec, Mapping) else {"name": spec}
        for name, spec in recipe.items()
        if name in PARTS
    }
    return Settings(
        seed=recipe.get("seed", 0),
        stages={name: parse_stage(name, train.get(name, {})) for name in STAGES},
        evaluation=parse_evaluation(recipe.get("evaluate", {})),
        source=tables.get("source", {}),
        parts={name: str(table.get("name")) for name, table in tables.items()},
        signals=known.get("signals", 0),
        classes=known.get("classes", 0),
        names=tuple(known.get("names", ())),
        filter=known.get("filter", "none"),
        title=recipe.get("recipe"),
        paper=recipe.get("paper"),
        expected=recipe.get("expected", {}),
        dead=recipe.get("dead", {}),
        kernels=recipe.get("kernels", "auto"),
    )
