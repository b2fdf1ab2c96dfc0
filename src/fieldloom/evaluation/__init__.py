"""From a trained system and its data to metrics, each with what it was measured on beside it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace

from fieldloom.errors import unknown
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.costs import cost
from fieldloom.evaluation.evaluator import Evaluator, origin_of
from fieldloom.evaluation.figures import Figure, Result, Shown, check_room
from fieldloom.evaluation.generation import evaluate_samples
from fieldloom.evaluation.images import Images
from fieldloom.evaluation.shapes import Shapes
from fieldloom.evaluation.video import Video
from fieldloom.evaluation.views import Views
from fieldloom.modalities.sources import Source
from fieldloom.system import System

EVALUATORS: Mapping[str, type[Evaluator]] = {
    "images": Images,
    "video": Video,
    "audio": Evaluator,
    "grids": Evaluator,
    "shapes": Shapes,
    "views": Views,
}
"""A modality's ``kind`` -> what measures such data."""

__all__ = ["EVALUATORS", "Evaluator", "Figure", "Result", "Shown", "evaluate", "evaluator_of",
           "in_batches"]  # fmt: skip


def evaluator_of(system: System, source: Source) -> Evaluator:
    """What measures a system on these data. Raises InputError for a kind of data without one."""
    kind = system.modality.kind
    if kind not in EVALUATORS:
        raise unknown("kind of data", kind, EVALUATORS)
    return EVALUATORS[kind](system, source)


def evaluate(system: System, source: Source, foreign: bool = False) -> Result:
    """Reconstruction of the test part, samples against data, and what they cost.

    foreign: the source is not the one that was trained on: only its reconstruction is measured.
    """
    own = evaluator_of(system, source)
    check_room(own.how, system, own.how.samples or len(source.test))
    detector = own.detector()
    if system.encodes:
        part = "given" if foreign else "test" if len(source.test) else "training"
        result = own.reconstruct(f"{len(own.held)} {part} data", detector)
    else:
        originals = source.read(own.held).tensor
        result = Result([], originals, originals[:0], origin_of(system))
    result = replace(result, figures=result.figures + cost(system, result.codes))
    if system.prior is not None and not system.generates:
        warnings.warn("the prior is not trained yet: samples are not measured.", stacklevel=2)
    if foreign or not system.generates:
        return result
    return evaluate_samples(own, detector, result)
