"""Samples compared with baselines: metrics of sets, and how much of the training data is memorised.

A set metric alone says little: a generator that returns its training data, perhaps with a little
noise, may reach any value, and a small test set keeps even a perfect generator from the ideal. So
such generators are measured by the same protocol.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.evaluation import evaluator_of
from fieldloom.evaluation.baselines import baseline_codes
from fieldloom.evaluation.batches import BATCH, in_batches, part_size
from fieldloom.evaluation.measures import MEASURES
from fieldloom.evaluation.memorisation import (
    CodeSet,
    Novelty,
    nearest_codes,
    nearest_in_parts,
)
from fieldloom.evaluation.set_metrics import RESAMPLINGS, SetComparison, compare_sets
from fieldloom.modalities.sources import Source
from fieldloom.progress import during
from fieldloom.system import System

HELD_OUT = "held-out"
"""The name of the set, and of the reference, of held-out data."""


@dataclass(frozen=True)
class ComparisonOptions:
    """How samples of a system are compared with data and with baselines.

    measure: as ``Evaluator.choose_measure`` takes it.
    points:  of the cloud of each shape.
    noise:   of the baseline, as ``baseline_codes`` takes it.
    label:   the class that was sampled: baselines and references are then of this class alone,
             while nearest fields are searched in all classes.
    seed:    of all random numbers.
    """

    measure: str | None = None
    points: int = 2048
    noise: float = 0.1
    label: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """Samples and baselines against references, and how novel the samples are.

    sets:    metrics of every set against every reference by every protocol.
    novelty: name of a set of samples -> space (``weights``, ``signals``) -> its novelty there.
    absent:  reference -> how many of its data have no surface, and were left out.
    """

    measure: str
    sets: Sequence[SetComparison]
    novelty: Mapping[str, Mapping[str, Novelty]]
    absent: Mapping[str, int]


def indices_of_class(part: Tensor, source: Source, label: int | None) -> Tensor:
    """The indices of a part of the source, or those of one class."""
    return part if label is None or source.labels is None else part[source.labels[part] == label]


def sample_count(source: Source, label: int | None = None, asked: int | None = None) -> int:
    """How many samples are compared, with as many training and as many held-out data.

    asked: None: at most 64, and few enough for two sets of held-out data. Raises InputError where
    the class has fewer training or held-out data; a source without held-out data needs none.
    """
    parts = (source.train, source.test)
    train, test = (len(indices_of_class(part, source, label)) for part in parts)
    if asked is None:
        return max(1, min(64, train, test // 2 or test or train))
    for name, there in {"training": train, "held-out": test or asked}.items():
        if there < asked:
            raise InputError(
                f"{asked} samples are judged against as many {name} data: there are {there}."
            )
    return asked


def draw_labels(system: System, source: Source, count: int, seed: int) -> Tensor | None:
    """The classes of random training data, to sample a prior by; None where it has no classes."""
    if system.prior is None or not system.prior.classes or source.labels is None:
        return None
    indices = torch.randint(len(source.train), (count,), generator=Generator().manual_seed(seed))
    return source.labels[source.train[indices]]


class ComparedSets(NamedTuple):
    """Sets and references as ``compare_sets`` takes them.

    absent: as of ``Comparison``. held_out: indices of held-out data, whose distances to training
    fields those of samples are compared with.
    """

    sets: dict[str, Tensor]
    references: dict[str, Tensor]
    absent: dict[str, int]
    held_out: Tensor


def compare_with_baselines(
    system: System,
    source: Source,
    known: CodeSet,
    samples: Mapping[str, CodeSet],
    labels: Tensor | None = None,
    options: ComparisonOptions = ComparisonOptions(),
) -> Comparison:
    """Compare samples and baselines with as many training and held-out data, by all protocols.

    known: the raw codes of training fields, with their labels. samples: name -> codes, the same
    number for each name. Raises InputError as ``Evaluator.choose_measure`` and
    ``collect_sets`` do.
    """
    evaluator = evaluator_of(system, source)
    measure, points = evaluator.choose_measure(options.measure), options.points
    found = collect_sets(system, source, known, samples, labels, options)
    with during("comparing sets with references"):
        sets = compare_sets(found.sets, found.references, measure, seed=options.seed)
    queries = {name: (codes.cpu(), found.sets[name]) for name, codes in samples.items()}
    if len(found.held_out):
        codes = in_batches(system.encode, "encoding", source.defer(found.held_out))
        queries[HELD_OUT] = codes, evaluator.decode_for_measure(codes, points)
    fields = (evaluator.decode_for_measure(some, points) for some in split_codes(system, known))
    with during("finding the nearest training fields of samples"):
        signals = nearest_in_parts([x for _, x in queries.values()], fields, measure)
        neighbours = {
            name: {"weights": nearest_codes(codes, known), "signals": close}
            for (name, (codes, _)), close in zip(queries.items(), signals, strict=True)
        }
    of_held_out = neighbours.pop(HELD_OUT, {})
    novelty = {
        name: {space: Novelty(close, of_held_out.get(space)) for space, close in own.items()}
        for name, own in neighbours.items()
    }
    return Comparison(measure, sets, novelty, found.absent)


def split_codes(system: System, codes: CodeSet) -> tuple[Tensor, ...]:
    """Codes, in parts whose decoded data are in memory one at a time."""
    shape = (*system.modality.shape(), system.modality.value_dim)
    return codes.split(part_size(shape, BATCH))


def collect_sets(
    system: System,
    source: Source,
    known: CodeSet,
    samples: Mapping[str, CodeSet],
    labels: Tensor | None = None,
    options: ComparisonOptions = ComparisonOptions(),
) -> ComparedSets:
    """The sets and references that ``compare_with_baselines`` compares.

    The sets are the samples, ``baseline_codes``, and, where there are enough held-out data for two
    sets, ``held-out``: not the data of the reference of that name, but what a perfect generator
    would return. References are data, not fields. Raises InputError as ``sample_count``
    and ``baseline_codes`` do, for samples of unequal number, and for a name that a baseline has.
    """
    sizes = sorted({len(codes) for codes in samples.values()})
    if len(sizes) != 1:
        raise InputError(f"sets of samples are judged that are equally large: these have {sizes}.")
    count, generator = sizes[0], Generator().manual_seed(options.seed)
    label, points = options.label, options.points
    sample_count(source, label, count)
    shuffled = {}
    for name, part in {"training": source.train, HELD_OUT: source.test}.items():
        indices = indices_of_class(part, source, label)
        shuffled[name] = indices[torch.randperm(len(indices), generator=generator)]
    trained = known if label is None or labels is None else known[labels == label]
    origin = system.family.conditioner.origin(1).detach().cpu()
    codes = baseline_codes(trained, origin, count, options.noise, generator)
    if taken := sorted(samples.keys() & {*codes, HELD_OUT}):
        raise InputError(f"samples cannot be called '{taken[0]}': a baseline is.")
    codes = {name: own.cpu() for name, own in samples.items()} | codes
    evaluator = evaluator_of(system, source)
    sets = {name: evaluator.decode_for_measure(own, points) for name, own in codes.items()}
    references, absent = {}, {}
    for name, indices in shuffled.items():
        if len(indices):
            signals = evaluator.read_for_measure(indices[:count], points)
            fine = signals.flatten(1).isfinite().all(1)
            references[name], absent[name] = signals[fine], int((~fine).sum())
    held_out, others = shuffled[HELD_OUT][:count], shuffled[HELD_OUT][count : 2 * count]
    if len(others) == count:
        sets[HELD_OUT] = evaluator.read_for_measure(others, points)
    return ComparedSets(sets, references, absent, held_out)


def as_json(found: Comparison) -> dict[str, Any]:
    """The content of ``judge.json``: a number that is not finite is null."""
    return {
        "measure": found.measure,
        "of": MEASURES[found.measure].description,
        "protocols": {name: own.description for name, own in RESAMPLINGS.items()},
        "verdicts": [_set_as_json(own) for own in found.sets],
        "references without a surface, left out": dict(found.absent),
        "nearest training fields": {
            name: {space: _novelty_as_json(own) for space, own in spaces.items()}
            for name, spaces in found.novelty.items()
        },
    }


def _set_as_json(found: SetComparison) -> dict[str, Any]:
    entries = found._asdict()
    metrics = entries.pop("metrics")
    return entries | {"figures": {name: _finite(value) for name, value in metrics.items()}}


def _novelty_as_json(found: Novelty) -> dict[str, Any]:
    held_out = [] if found.held_out is None else found.held_out.distances.tolist()
    return {
        "samples": [_finite(x) for x in found.samples.distances.tolist()],
        "places in the training codes": found.samples.indices.tolist(),
        "held-out": [_finite(x) for x in held_out],
        "ratio of medians": _finite(found.ratio),
        "nearer than all held-out": _finite(found.nearer),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
