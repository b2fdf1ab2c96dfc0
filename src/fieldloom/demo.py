"""The demonstration: letters, trained in seconds, drawn at any resolution, measured and shown.

The steps of training follow from a budget and from the pace of this machine, and are written into
the run, so that it is resumed to the same weights. ``evaluate`` measures the run in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fieldloom import evaluation, report
from fieldloom.engine.run import Run
from fieldloom.errors import FieldloomError, InputError
from fieldloom.evaluation import Metric, ReportImage, Result
from fieldloom.evaluation.image_sets import build_detector, feature_set_metrics
from fieldloom.evaluation.references import COUNT, load_references
from fieldloom.inputs import source_of
from fieldloom.metrics.detectors import Detector
from fieldloom.modalities.sources import Source
from fieldloom.progress import announce, during
from fieldloom.recipe import Recipe, load, resolve
from fieldloom.report import Live
from fieldloom.report.questions import Answer
from fieldloom.settings import PAIRED, Evaluation, check_minutes
from fieldloom.system import System
from fieldloom.training import check_resumed, train
from fieldloom.types import Code

RECIPE = "mnif:letters"
MINUTES = 1.25
SHARES = {"field": 0.6, "prior": 0.4}
"""Of the minutes, by stage: the field's shapes are what one sees first."""

FEWEST = 500
"""Steps of the field before letters can be read."""

JUDGED = ("kid", "precision-recall")
"""Of sets, as few as these can be judged by."""
HELD_OUT = 48
"""Held-out data that are reconstructed, the first ones."""
RESOLUTION = 256
WORD = "FIELDLOOM"
"""Its letters are what the morph goes through, one after another."""
BETWEEN, RESTING = 10, 4
"""Frames of the morph from a letter to the next, and on each letter."""
STEPS = 4
"""Steps of the page's slider from a letter to the next."""


def recipe_of(minutes: int | float) -> Recipe:
    """The recipe with a budget for each stage. Raises InputError for minutes not above 0."""
    check_minutes(minutes)
    budgets = {name: {"minutes": minutes * share} for name, share in SHARES.items()}
    return load(RECIPE, change={"train": budgets})


def train_letters(folder: Path, device: str = "auto", minutes: int | float | None = None) -> System:
    """Train the letters into a run, or go on with the one in the folder, by its own budget.

    minutes: None: ``MINUTES``. Raises InputError where the folder holds another recipe's run.
    """
    goes_on, recipe = Run(folder).exists, recipe_of(MINUTES if minutes is None else minutes)
    if goes_on:
        check_own(folder)
    if goes_on and minutes is not None:
        announce(f"'{folder}' goes on by its own budget: --minutes is for a new --out.")
    if not goes_on:
        announce(
            f"training a model of letters at 28 x 28 for {60 * (minutes or MINUTES):.0f} s, then "
            "about as long to measure and draw it; Ctrl-C is fine: the same command goes on."
        )
    system = train(recipe, str(folder), "all", device, goes_on, resumed_by="the same command")
    steps = system.settings.stages["field"].steps
    if steps < FEWEST:
        announce(
            f"only {steps:,} steps of the field fitted into the time, and letters need some "
            f"{FEWEST:,}: this machine is slow or busy. --minutes M with a new --out trains longer."
        )
    return system


def check_own(folder: Path) -> None:
    """Raise InputError where a folder holds the run of another recipe, as an older demo's."""
    try:
        check_resumed(folder, RECIPE)
    except InputError:
        raise InputError(
            f"'{folder}' holds a run of another recipe than '{RECIPE}': give another --out, or "
            "delete it."
        ) from None


def measure(system: System, source: Source) -> Result:
    """Reconstructions and enlargements of held-out characters, and samples judged quickly.

    The set metrics compare ``COUNT`` samples with as many training data; ``evaluate`` takes more.
    Raises FieldloomError where samples are no numbers.
    """
    detector = build_detector(Evaluation(JUDGED), COUNT)
    assert detector is not None
    paired = [name for name in system.settings.evaluation.metrics if name in PAIRED]
    changed = {"evaluate": {"metrics": paired, "samples": COUNT}}
    before = system.recipe
    system.recipe = resolve(before, changed)
    try:
        few = replace(source, test=source.test[:HELD_OUT])
        result = evaluation.evaluate(system, few)
    finally:
        system.recipe = before
    if result.samples is None:
        raise FieldloomError("this run's samples are NaN or infinite: train anew, in a new --out.")
    with during(f"judging {COUNT} samples"):
        judged = judge(result.samples, source, detector)
    return replace(result, metrics=[*result.metrics, *judged])


def judge(samples: Tensor, source: Source, detector: Detector) -> list[Metric]:
    """KID with its standard error, precision and recall of samples, against reference features."""
    real, made = load_references("letters", source, detector), detector(samples).cpu()
    of = f"{len(made)} samples, {len(real)} training images"
    return feature_set_metrics(JUDGED, detector, real, made, of, source.filter)


def draw_letters(system: System, source: Source, result: Result, rows: int = 3) -> ReportImage:
    """Samples in columns by their class, at ``RESOLUTION``: one image."""
    assert result.sample_codes is not None
    assert result.sample_labels is not None
    classes = result.sample_labels.unique()
    places = [(result.sample_labels == c).nonzero()[:, 0][:rows] for c in classes]
    fewest = min(len(place) for place in places)
    half = math.ceil(len(classes) / 2)
    lines = [
        torch.cat(list(decode(system, result.sample_codes[[int(p[row]) for p in part]])), 2)
        for part in (places[:half], places[half:])
        if part
        for row in range(fewest)
    ]
    width = max(line.shape[2] for line in lines)
    lines = [torch.nn.functional.pad(x, (0, width - x.shape[2])) for x in lines]
    caption = f"Samples of each letter that was trained on, drawn at {RESOLUTION} x {RESOLUTION}"
    return ReportImage("letters.png", caption, torch.cat(lines, 1)[None])


def decode(system: System, codes: Tensor) -> Tensor:
    """Codes as images of ``RESOLUTION``."""
    return system.decode(codes, RESOLUTION).tensor


def sample_word(system: System, source: Source, seed: int = 0) -> tuple[list[str], Code]:
    """The letters of ``WORD`` that there are, and a sampled code of each."""
    letters = [letter for letter in WORD if letter in source.names]
    labels = torch.tensor([source.names.index(letter) for letter in letters])
    options = system.settings.evaluation.options()
    return letters, system.sample_codes(len(labels), labels, seed, **options).cpu()


def draw_morph(system: System, codes: Code) -> ReportImage:
    """Frames (n, channel, height, width) through letters' codes, and back to the first: along
    lines between them, slow at their ends.
    """
    steps = torch.arange(BETWEEN) / BETWEEN
    eased = torch.cat([torch.zeros(RESTING), (1 - (torch.pi * steps).cos()) / 2])
    pairs = zip(codes, codes.roll(-1, 0), strict=True)
    between = torch.cat([torch.lerp(a, b, eased[:, None, None]) for a, b in pairs])
    frames = torch.cat([decode(system, few) for few in between.split(16)])
    return ReportImage("morph.gif", "From letter to letter, between sampled codes", frames)


def make_slider(letters: Sequence[str], codes: Code) -> Live:
    """The same way as a page: ``STEPS`` on the line from each letter to the next."""
    found, names = [], []
    for a, b, first, last in zip(codes, codes[1:], letters, letters[1:], strict=False):
        found += [torch.lerp(a, b, i / STEPS) for i in range(STEPS)]
        names += [first, *(f"{first} to {last}, {i} of {STEPS}" for i in range(1, STEPS))]
    says = f"From letter to letter through {''.join(letters)}, by a slider"
    return Live("morph.html", says, torch.stack([*found, codes[-1]]), [*names, letters[-1]], True)


def run_demo(
    folder: Path, device: str = "auto", minutes: int | float | None = None
) -> list[Answer]:
    """Train, measure and draw the letters; everything is written into the folder of the run.

    Returns the report's answers, in sentences and figures.

    A run that is there is gone on with, by its own budget. Raises InputError as ``train`` does, and
    Interrupted where the user stops it.
    """
    system = train_letters(folder, device, minutes)
    source = source_of(system, quiet=True)
    result = measure(system, source)
    with during(f"drawing letters at {RESOLUTION} x {RESOLUTION}"):
        letters, codes = sample_word(system, source)
        images = [draw_letters(system, source, result), draw_morph(system, codes)]
    result = replace(result, images=[*images, *result.images])
    pages = [make_slider(letters, codes)]
    return report.write(Run(folder), system, source, result, RESOLUTION, pages=pages)
