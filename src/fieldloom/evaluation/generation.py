"""Samples against data: set metrics, agreement with labels, nearest training data."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.figures import Figure, Result
from fieldloom.metrics.features import Detector
from fieldloom.metrics.probes import Classifier
from fieldloom.metrics.sets import nearest
from fieldloom.modalities.sources import Source

JUDGED = 5000
JUDGE = f"fraction that an SVM of at most {JUDGED} training data labels as asked"


def evaluate_samples(own: Evaluator, detector: Detector | None, result: Result) -> Result:
    """Samples against training images, held-out shapes, or the views of held-out objects."""
    prior, count = own.system.prior, own.samples
    classes = prior.classes if prior is not None else 0
    labels = torch.arange(count) % classes if classes else None
    own.check()
    codes = own.system.sample_codes(count, labels, own.how.seed, **own.how.options()).cpu()
    samples = own.decode(codes).tensor
    figures = [*result.figures, *own.compare(codes, samples, detector)]
    result = replace(
        result, figures=figures, samples=samples, sample_codes=codes, sample_labels=labels
    )
    if not own.comparable(samples):
        return result
    return agreement(own.source, novelty(own.source, result))


def novelty(source: Source, result: Result) -> Result:
    """How far samples are from their nearest training data, beside how far test data are."""
    samples, train = result.samples, source.read(source.train).tensor
    assert samples is not None
    against = f"{len(samples)} samples, {len(train)} training data"
    distances, indices = nearest(samples.flatten(1), train.flatten(1))
    far, how_far = distances.median().item(), "Euclidean distance of values, median"
    figures = [*result.figures, Figure("nearest.sample", far, against, how_far)]
    if len(source.test):
        test = source.read(source.test).tensor
        usual = nearest(test.flatten(1), train.flatten(1))[0].median().item()
        ratio = far / usual if usual else math.nan
        figures += [
            Figure("nearest.test", usual, f"{len(test)} test data", how_far),
            Figure("novelty", ratio, against, "ratio of the two above"),
        ]
    return replace(result, figures=figures, nearest=indices, distances=distances)


def agreement(source: Source, result: Result) -> Result:
    """Whether samples look like the classes that they were asked to be."""
    samples, labels = result.samples, result.sample_labels
    if labels is None or samples is None or source.labels is None or len(source.names) < 2:
        return result
    train, known = source.read(source.train).tensor, source.labels[source.train]
    judge = Classifier(train[:JUDGED], known[:JUDGED])
    figures = [
        *result.figures,
        Figure("agreement", judge.score(samples, labels), f"{len(samples)} samples", JUDGE),
    ]
    if len(source.test):
        test = source.read(source.test).tensor
        accuracy = judge.score(test, source.labels[source.test])
        figures.append(Figure("agreement.test", accuracy, f"{len(test)} test data", JUDGE))
    return replace(result, figures=figures)
