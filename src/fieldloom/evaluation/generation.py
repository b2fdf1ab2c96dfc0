"""Samples against data: metrics of sets, agreement with labels, nearest training data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fieldloom.evaluation.batches import part_size, read_parts
from fieldloom.evaluation.evaluator import BrokenSamplesError, Evaluator
from fieldloom.evaluation.results import Metric, Result
from fieldloom.metrics.probes import Classifier
from fieldloom.metrics.sets import nearest
from fieldloom.metrics.spectra import fixed_pattern
from fieldloom.modalities.modality import spread
from fieldloom.modalities.sources import Source
from fieldloom.progress import during
from fieldloom.settings import PATTERN

FITTED = 5000
"""Training data that the classifier of ``add_label_agreement`` is fitted to, at most."""


def evaluate_samples(evaluator: Evaluator, result: Result) -> Result:
    """Add samples of the prior and their metrics.

    Samples are compared with training images, held-out shapes, or the views of held-out objects.
    Training data are read once, a part at a time, for all that they are compared with. Where codes
    or samples hold NaN or infinite values, be it of one alone, nothing is added, with a warning.
    """
    system, settings, source = evaluator.system, evaluator.settings, evaluator.source
    count, labels = evaluator.sample_count, labels_of_samples(evaluator)
    evaluator.check_samples()
    codes, samples = evaluator.found.codes, evaluator.found.samples
    if codes is None:
        codes = system.sample_codes(count, labels, settings.seed, **settings.options()).cpu()
    samples = evaluator.decode_samples(codes) if samples is None else samples
    if not (codes.isfinite().all() and samples.isfinite().all()):
        broken = len(codes) - int(codes.flatten(1).isfinite().all(1).sum())
        what = f"the codes of {broken} of {len(codes)}" if broken else "values decoded from them"
        return leave_out(result, what)
    before = result
    result = replace(result, samples=samples, sample_codes=codes, sample_labels=labels)
    compared = evaluator.has_shape_of_data(samples)
    known = some_of(test_of_trained_classes(source), part_size(source.data.shape[1:]))
    test = read_test(source, known, result) if compared else samples[:0]
    searches = [NearestSearch(x) for x in (samples, test)] if compared else []
    places = fitted_places(source)
    fitted = ChosenData(places if compared and labels is not None else places[:0])
    training = look_on(read_parts(source, source.train), [*searches, fitted])
    with during("comparing samples with data"):
        try:
            metrics = [*result.metrics, *evaluator.sample_metrics(codes, samples, training)]
        except BrokenSamplesError:  # of samples after the first
            return leave_out(before, "values decoded from them")
        if PATTERN in settings.metrics and compared and evaluator.has_images:
            metrics += pattern_metrics(samples, test)
        result = replace(result, metrics=metrics)
        if not compared:
            return result
        for _ in training:  # all that no metric of sets has asked for
            pass
    result = add_nearest_data(source, result, *searches)
    with during("fitting a classifier of samples"):
        return add_label_agreement(source, result, fitted.values, test, known)


def leave_out(result: Result, what: str) -> Result:
    """The result without samples, with a warning. what: of them is no number."""
    warnings.warn(f"no sample is measured: {what} are NaN or infinite.", stacklevel=3)
    return result


def pattern_metrics(samples: Tensor, test: Tensor) -> list[Metric]:
    """How much of their fine detail all samples share, and test images; none of fewer than 2."""
    how = "share of the power above a quarter cycle a pixel that all have in common"
    sets = {"pattern": (samples, "samples"), "pattern.test": (test, "test images")}
    return [
        Metric(name, fixed_pattern(images), f"{len(images)} {what}", how)
        for name, (images, what) in sets.items()
        if len(images) > 1
    ]


class NearestSearch:
    """The nearest of data that come in parts to each of some queries (n, *datum).

    distances: Euclidean (n,); indices: of the nearest, in the order of the data (n,).
    """

    def __init__(self, queries: Tensor) -> None:
        self.queries = queries
        self.distances = torch.full((len(queries),), math.inf, dtype=torch.float64)
        self.indices, self.first = torch.zeros(len(queries), dtype=torch.long), 0

    def add(self, part: Tensor) -> None:
        """Look at the next data (m, *datum)."""
        if len(self.queries):
            found, which = nearest(self.queries.flatten(1), part.flatten(1))
            closer = ~(found >= self.distances)  # also where it is NaN
            self.distances[closer], self.indices[closer] = found[closer], which[closer] + self.first
        self.first += len(part)


class ChosenData:
    """Those of data that come in parts which stand at some places (n,), ascending."""

    def __init__(self, places: Tensor) -> None:
        self.places, self.first = places, 0
        self.parts: list[Tensor] = []

    @property
    def values(self) -> Tensor:
        return torch.cat(self.parts) if len(self.parts) > 1 else self.parts[0]

    def add(self, part: Tensor) -> None:
        """Keep of the next data what is asked for; no more is held than that."""
        own = self.places - self.first
        own = own[(own >= 0) & (own < len(part))]
        if len(own) or not self.parts:
            self.parts.append(part if len(own) == len(part) else part[own])
        self.first += len(part)


def look_on(
    parts: Iterable[Tensor], watchers: Sequence[NearestSearch | ChosenData]
) -> Iterator[Tensor]:
    """The parts, each after the watchers have seen it."""
    for part in parts:
        for watcher in watchers:
            watcher.add(part)
        yield part


def read_test(source: Source, known: Tensor, result: Result) -> Tensor:
    """The test data of these indices, float; those that were reconstructed are not read again."""
    if len(result.originals) == len(source.test) and torch.equal(known, source.test):
        return result.originals
    return source.read(known).tensor


def some_of(indices: Tensor, most: int) -> Tensor:
    """At most so many of the indices, evenly spaced: data may be in the order of their classes."""
    return indices[torch.tensor(spread(len(indices), most), dtype=torch.long)]


def fitted_places(source: Source) -> Tensor:
    """Places in the training part of the data that the classifier is fitted to: at most ``FITTED``,
    and no more than a part."""
    most = min(FITTED, part_size(source.data.shape[1:]))
    return some_of(torch.arange(len(source.train)), most)


def labels_of_samples(evaluator: Evaluator) -> Tensor | None:
    """The classes (samples,) that samples are drawn by; None without classes."""
    prior, source = evaluator.system.prior, evaluator.source
    classes = 0 if prior is None else prior.classes
    return trained_classes(source, classes, evaluator.sample_count) if classes else None


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


def add_nearest_data(
    source: Source, result: Result, of_samples: NearestSearch, of_test: NearestSearch
) -> Result:
    """Add the distances of samples, and of test data, to their nearest training data."""
    distances = of_samples.distances
    of = f"{len(distances)} samples, {len(source.train)} training data"
    how = "Euclidean distance of values, median"
    median = distances.median().item()
    metrics = [*result.metrics, Metric("nearest.sample", median, of, how)]
    if len(of_test.distances):
        usual = of_test.distances.median().item()
        ratio = median / usual if usual else math.nan
        metrics += [
            Metric("nearest.test", usual, f"{len(of_test.distances)} test data", how),
            Metric("novelty", ratio, of, "ratio of the two above"),
        ]
    return replace(result, metrics=metrics, nearest=of_samples.indices, distances=distances)


def add_label_agreement(
    source: Source, result: Result, fitted: Tensor, test: Tensor, known: Tensor
) -> Result:
    """Add how often a classifier of training data gives samples the class they were sampled by.

    fitted: the training data of ``fitted_places``; test: the test data of the indices ``known``.
    """
    samples, labels = result.samples, result.sample_labels
    if labels is None or samples is None or source.labels is None or len(source.names) < 2:
        return result
    classes = source.labels[source.train[fitted_places(source)]]
    if len(classes.unique()) < 2:  # one of them is too rare to be among these
        return result
    classifier = Classifier(fitted, classes)
    score, of = classifier.score(samples, labels[: len(samples)]), f"{len(samples)} samples"
    most = min(FITTED, part_size(source.data.shape[1:]))
    how = f"fraction that an SVM of at most {most} training data labels as asked"
    metrics = [*result.metrics, Metric("agreement", score, of, how)]
    if len(known):
        accuracy = classifier.score(test, source.labels[known])
        metrics.append(Metric("agreement.test", accuracy, f"{len(known)} test data", how))
    return replace(result, metrics=metrics)
