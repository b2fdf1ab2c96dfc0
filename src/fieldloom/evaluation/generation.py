"""Samples against data: metrics of sets, agreement with labels, nearest training data."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from fieldloom.evaluation.batches import read_parts
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.results import Metric, Result
from fieldloom.metrics.probes import Classifier
from fieldloom.metrics.sets import nearest
from fieldloom.modalities.sources import Source
from fieldloom.progress import during

FITTED = 5000
"""Training data that the classifier of ``add_label_agreement`` is fitted to, at most."""


def evaluate_samples(evaluator: Evaluator, result: Result) -> Result:
    """Add samples of the prior and their metrics.

    Samples are compared with training images, held-out shapes, or the views of held-out objects.
    """
    system, settings = evaluator.system, evaluator.settings
    count, classes = evaluator.sample_count, 0 if system.prior is None else system.prior.classes
    labels = trained_classes(evaluator.source, classes, count) if classes else None
    evaluator.check_samples()
    codes = system.sample_codes(count, labels, settings.seed, **settings.options()).cpu()
    samples = evaluator.decode_samples(codes)
    with during("comparing the set of samples with data"):
        metrics = [*result.metrics, *evaluator.sample_metrics(codes, samples)]
    result = replace(
        result, metrics=metrics, samples=samples, sample_codes=codes, sample_labels=labels
    )
    if not evaluator.has_shape_of_data(samples):
        return result
    with during("finding the nearest training data of samples"):
        result = add_nearest_data(evaluator.source, result)
    with during("fitting a classifier of samples"):
        return add_label_agreement(evaluator.source, result)


def trained_classes(source: Source, classes: int, count: int) -> Tensor:
    """Classes (count,) to sample by, in turn: all that the training part has some data of.

    classes: of the prior. A character that is held out is a class of no training datum.
    """
    known = torch.arange(classes)
    if source.labels is not None and len(source.train):
        known = source.labels[source.train].unique()
    return known[torch.arange(count) % len(known)]


def test_of_trained_classes(source: Source) -> Tensor:
    """Indices of the test data whose class has training data: not those of held-out characters."""
    labels = source.labels
    if labels is None or not len(source.train):
        return source.test
    return source.test[torch.isin(labels[source.test], labels[source.train])]


def add_nearest_data(source: Source, result: Result) -> Result:
    """Add the distances of samples, and of test data, to their nearest training data."""
    samples = result.samples
    assert samples is not None
    of = f"{len(samples)} samples, {len(source.train)} training data"
    how = "Euclidean distance of values, median"
    distances, indices = nearest_training_data(source, samples)
    median = distances.median().item()
    metrics = [*result.metrics, Metric("nearest.sample", median, of, how)]
    known = test_of_trained_classes(source)
    if len(known):
        test = source.read(known).tensor
        usual = nearest_training_data(source, test)[0].median().item()
        ratio = median / usual if usual else math.nan
        metrics += [
            Metric("nearest.test", usual, f"{len(test)} test data", how),
            Metric("novelty", ratio, of, "ratio of the two above"),
        ]
    return replace(result, metrics=metrics, nearest=indices, distances=distances)


def nearest_training_data(source: Source, data: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distances (n,) to the nearest training data, and which of these they are (n,)."""
    distances = torch.full((len(data),), math.inf, dtype=torch.float64)
    indices, first = torch.zeros(len(data), dtype=torch.long), 0
    for train in read_parts(source, source.train):
        found, which = nearest(data.flatten(1), train.flatten(1))
        closer = ~(found >= distances)  # also where it is NaN
        distances[closer], indices[closer] = found[closer], which[closer] + first
        first += len(train)
    return distances, indices


def add_label_agreement(source: Source, result: Result) -> Result:
    """Add how often a classifier of training data gives samples the class they were sampled by."""
    samples, labels = result.samples, result.sample_labels
    if labels is None or samples is None or source.labels is None or len(source.names) < 2:
        return result
    fitted = source.train[:FITTED]
    classifier = Classifier(source.read(fitted).tensor, source.labels[fitted])
    score, of = classifier.score(samples, labels), f"{len(samples)} samples"
    how = f"fraction that an SVM of at most {FITTED} training data labels as asked"
    metrics = [*result.metrics, Metric("agreement", score, of, how)]
    known = test_of_trained_classes(source)
    if len(known):
        accuracy = classifier.score(source.read(known).tensor, source.labels[known])
        metrics.append(Metric("agreement.test", accuracy, f"{len(known)} test data", how))
    return replace(result, metrics=metrics)
