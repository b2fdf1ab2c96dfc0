"""Generated codes beside baselines: what the figures of a set are worth, and what was copied.

A figure alone says little: a generator that gives back its training data, or these with a little
noise, may reach any of them, and a small test set keeps even a perfect one from the ideal. So the
same protocol also judges what such generators would give.
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
from fieldloom.evaluation.baselines import baselines
from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.copies import Codes, Nearest, Novelty, nearest_codes, nearest_signals
from fieldloom.evaluation.measures import MEASURES
from fieldloom.evaluation.verdicts import RESAMPLINGS, Verdict, judge
from fieldloom.modalities.sources import Source
from fieldloom.system import System


@dataclass(frozen=True)
class Question:
    """How samples of a system are judged.

    measure: as ``Evaluator.measure`` takes it.
    points:  of the cloud of each shape.
    noise:   of the baseline, as ``baselines`` takes it.
    label:   the class that was asked for: baselines and references are then of it alone. Nearest
             fields are looked for in all.
    seed:    of everything that is drawn.
    """

    measure: str | None = None
    points: int = 2048
    noise: float = 0.1
    label: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Judgement:
    """The verdicts, and how novel the samples are.

    novelty: set of samples -> ``weights`` and ``signals`` -> where these are.
    absent: reference -> how many of its data have no surface, and were left out.
    """

    measure: str
    verdicts: Sequence[Verdict]
    novelty: Mapping[str, Mapping[str, Novelty]]
    absent: Mapping[str, int]


def of_class(part: Tensor, source: Source, label: int | None) -> Tensor:
    """The indices of a part, or those of one class."""
    return part if label is None or source.labels is None else part[source.labels[part] == label]


def count_of(source: Source, label: int | None = None, asked: int | None = None) -> int:
    """How many samples are judged, against as many training and as many held-out data.

    asked: None is 64 at most, and so few that held-out data make two sets. Raises InputError where
    there are fewer training or held-out data of the class; no held-out data at all are none to ask.
    """
    train, test = (len(of_class(x, source, label)) for x in (source.train, source.test))
    if asked is None:
        return max(1, min(64, train, test // 2 or test or train))
    for name, there in {"training": train, "held-out": test or asked}.items():
        if there < asked:
            raise InputError(
                f"{asked} samples are judged against as many {name} data: there are {there}."
            )
    return asked


class Collected(NamedTuple):
    """Sets and references as ``judge`` takes them.

    absent: as of a judgement. held: indices of the held-out data that fields are compared with.
    """

    sets: dict[str, Tensor]
    references: dict[str, Tensor]
    absent: dict[str, int]
    held: Tensor


def judgement(
    system: System,
    source: Source,
    known: Codes,
    samples: Mapping[str, Codes],
    labels: Tensor | None = None,
    ask: Question = Question(),
) -> Judgement:
    """Samples and baselines against as many training and held-out data, by all protocols.

    known: the raw codes of training fields, with their labels. samples: name -> codes, from
    anywhere, of each name as many. Raises InputError as ``Evaluator.measure`` and ``collect`` do.
    """
    own = evaluator_of(system, source)
    measure = own.measure(ask.measure)
    found = collect(system, source, known, samples, labels, ask)
    verdicts = judge(found.sets, found.references, measure, seed=ask.seed)
    fields = own.signals(known, ask.points)
    compared = lambda code, signals: {
        "weights": nearest_codes(code, known),
        "signals": nearest_signals(signals, fields, measure),
    }
    theirs: dict[str, Nearest] = {}
    if len(found.held):
        code = in_batches(system.encode, "encoding", source.read(found.held))
        theirs = compared(code, own.signals(code, ask.points))
    novelty = {
        name: {
            space: Novelty(own, theirs.get(space))
            for space, own in compared(code.cpu(), found.sets[name]).items()
        }
        for name, code in samples.items()
    }
    return Judgement(measure, verdicts, novelty, found.absent)


def collect(
    system: System,
    source: Source,
    known: Codes,
    samples: Mapping[str, Codes],
    labels: Tensor | None = None,
    ask: Question = Question(),
) -> Collected:
    """What ``judgement`` of the same arguments judges.

    The sets are those of the samples, of ``baselines``, and, where there are twice as many held-out
    data, ``held-out``: others than the reference of that name, to which they are what a perfect
    generator gives. References are data, not fields. Raises InputError as ``count_of`` and
    ``baselines`` do, for samples of unequal number, and for a name that a baseline has.
    """
    sizes = sorted({len(code) for code in samples.values()})
    if len(sizes) != 1:
        raise InputError(f"sets of samples are judged that are equally large: these have {sizes}.")
    count, generator = sizes[0], Generator().manual_seed(ask.seed)
    count_of(source, ask.label, count)
    drawn = {}
    for name, part in {"training": source.train, "held-out": source.test}.items():
        indices = of_class(part, source, ask.label)
        drawn[name] = indices[torch.randperm(len(indices), generator=generator)]
    trained = known if ask.label is None or labels is None else known[labels == ask.label]
    origin = system.family.conditioner.origin(1).detach().cpu()
    codes = baselines(trained, origin, count, ask.noise, generator)
    if taken := sorted(samples.keys() & {*codes, "held-out"}):
        raise InputError(f"samples cannot be called '{taken[0]}': a baseline is.")
    codes = {name: code.cpu() for name, code in samples.items()} | codes
    own = evaluator_of(system, source)
    sets = {name: own.signals(code, ask.points) for name, code in codes.items()}
    references, absent = {}, {}
    for name, indices in drawn.items():
        if len(indices):
            signals = own.references(indices[:count], ask.points)
            fine = signals.flatten(1).isfinite().all(1)
            references[name], absent[name] = signals[fine], int((~fine).sum())
    held, spare = drawn["held-out"][:count], drawn["held-out"][count : 2 * count]
    if len(spare) == count:
        sets["held-out"] = own.references(spare, ask.points)
    return Collected(sets, references, absent, held)


def asked_labels(system: System, source: Source, count: int, seed: int) -> Tensor | None:
    """Classes to ask a prior for, those of random training data; None where it has none."""
    if system.prior is None or not system.prior.classes or source.labels is None:
        return None
    indices = torch.randint(len(source.train), (count,), generator=Generator().manual_seed(seed))
    return source.labels[source.train[indices]]


def as_json(found: Judgement) -> dict[str, Any]:
    """What ``judgement`` found as JSON has it: a number that is not finite is null."""
    return {
        "measure": found.measure,
        "of": MEASURES[found.measure].says,
        "protocols": {name: how.says for name, how in RESAMPLINGS.items()},
        "verdicts": [_plain(verdict._asdict()) for verdict in found.verdicts],
        "references without a surface, left out": dict(found.absent),
        "nearest training fields": {
            name: {space: _far(own) for space, own in spaces.items()}
            for name, spaces in found.novelty.items()
        },
    }


def _far(own: Novelty) -> dict[str, Any]:
    far = {
        "samples": own.samples.distances.tolist(),
        "places in the training codes": own.samples.indices.tolist(),
        "held-out": [] if own.held is None else own.held.distances.tolist(),
        "ratio of medians": own.ratio,
        "nearer than all held-out": own.nearer,
    }
    return _plain(far)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_plain(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
