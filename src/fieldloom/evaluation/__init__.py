"""From a trained system and its data to metrics, each with what it was measured on, and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

from fieldloom.errors import unknown
from fieldloom.evaluation.audio import AudioEvaluator
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.costs import cost_metrics
from fieldloom.evaluation.evaluator import SHOWN, Evaluator, check_memory
from fieldloom.evaluation.generation import evaluate_samples
from fieldloom.evaluation.images import ImageEvaluator
from fieldloom.evaluation.results import Found, Metric, Part, ReportImage, Result
from fieldloom.evaluation.shapes import ShapeEvaluator
from fieldloom.evaluation.video import VideoEvaluator
from fieldloom.evaluation.views import ViewEvaluator
from fieldloom.modalities.sources import Source
from fieldloom.progress import during
from fieldloom.system import System

EVALUATORS: Mapping[str, type[Evaluator]] = {
    "images": ImageEvaluator,
    "video": VideoEvaluator,
    "audio": AudioEvaluator,
    "grids": Evaluator,
    "shapes": ShapeEvaluator,
    "views": ViewEvaluator,
}
"""A modality's ``kind`` -> the evaluator of such data."""

__all__ = ["EVALUATORS", "Evaluator", "Metric", "ReportImage", "Result", "evaluate",
           "evaluator_of", "in_batches"]  # fmt: skip


def evaluator_of(system: System, source: Source) -> Evaluator:
    """The evaluator of a system on these data. Raises InputError for a kind of data without one."""
    kind = system.modality.kind
    if kind not in EVALUATORS:
        raise unknown("kind of data", kind, EVALUATORS)
    return EVALUATORS[kind](system, source)


def evaluate(
    system: System,
    source: Source,
    foreign: bool = False,
    find: Callable[[Evaluator], Found] | None = None,
) -> Result:
    """Metrics of the reconstructed test part, of samples, and of cost.

    foreign: the source is not the one that was trained on: only its reconstruction is measured.
    find: computes what takes most of the time elsewhere, once the evaluator is ready.
    Raises InputError where a metric of the recipe cannot be computed.
    """
    evaluator = evaluator_of(system, source)
    settings, held_out = evaluator.settings, evaluator.held_out
    sampled = system.generates and not foreign
    check_memory(settings, system, evaluator.sample_count if sampled else 0, source)
    evaluator.load_detector()
    evaluator.found = Found() if find is None else find(evaluator)
    part: Part = "given" if foreign else "test" if len(source.test) else "training"
    if system.encodes:
        result = evaluator.reconstruct(f"{len(held_out)} {part} data")
    else:
        originals = source.read(held_out[:SHOWN]).tensor
        origin = system.family.conditioner.origin(1).detach().cpu()
        result = Result([], originals, originals[:0], origin)
    with during("measuring parameters and the speed of decoding"):
        costs = cost_metrics(system, result.codes)
    result = replace(result, metrics=result.metrics + costs, part=part)
    if system.prior is not None and not system.generates:
        warnings.warn("the prior is not trained yet: samples are not measured.", stacklevel=2)
    if foreign or not system.generates:
        return result
    return evaluate_samples(evaluator, result)
