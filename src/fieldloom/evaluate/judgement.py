"""Generated codes beside baselines: what the figures of a set are worth, and what was copied.

A figure alone says little: a generator that gives back its training data, or these with a little
noise, may reach any of them, and a small test set keeps even a perfect one from the ideal. So the
same protocol also judges what such generators would give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import pad

from fieldloom.errors import InputError, unknown
from fieldloom.evaluate.batches import in_batches
from fieldloom.evaluate.shapes import clouds_of
from fieldloom.metrics.clouds import distances, matching, normalise, two_sample
from fieldloom.metrics.clouds_features import Statistics
from fieldloom.metrics.features import Gabor
from fieldloom.metrics.paired import ssim_between
from fieldloom.metrics.sets import frechet, nearest
from fieldloom.modalities import Grid, Modality, Voxels
from fieldloom.modalities.sources import Source
from fieldloom.system import System

Codes = Float[Tensor, "_ tokens width"]
"""Codes of one kind, sets of which may differ in size."""

HELD = 1 << 27
"""Values of decoded shapes that are held at a time: half a GiB."""

NEAR = 1e-12
"""Rounding: pictures whose (1 - SSIM) / 2 is less are one picture."""

SHOWN = 32
"""Samples in the picture of nearest neighbours."""


# -- how signals are compared


class Measure(NamedTuple):
    """How signals are compared: pictures (n, channel, height, width), or clouds (n, points, 3).

    between:  distances (n, m) of every signal of one set to every one of another.
    features: (n, d), for a Frechet distance.
    says:     what both are.
    """

    between: Callable[[Tensor, Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    says: str


def _pixels(a: Tensor, b: Tensor) -> Tensor:
    # Not by a matrix product, which would put equal pictures apart.
    exact = "donot_use_mm_for_euclid_dist"
    rows = a.flatten(1).double()
    parts = [torch.cdist(rows, part.flatten(1).double(), 2.0, exact) for part in b.split(1024)]
    return torch.cat(parts, 1)


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    apart = (1 - ssim_between(a, b)) / 2
    return apart.masked_fill(apart < NEAR, 0)


def _chamfer(a: Tensor, b: Tensor) -> Tensor:
    one = normalise(a, "cloud")
    return distances(one, one if b is a else normalise(b, "cloud"), "chamfer", True)


def _gabor(pictures: Tensor) -> Tensor:
    return Gabor()(pictures.float())


MEASURES: Mapping[str, Measure] = {
    "ssim": Measure(_ssim, _gabor, "(1 - SSIM) / 2; frechet: of gabor's features, not FID"),
    "pixels": Measure(
        _pixels, _gabor, "Euclidean distance of values; frechet: of gabor's features, not FID"
    ),
    "chamfer": Measure(
        _chamfer,
        Statistics(0.5),
        "squared Chamfer distance of clouds, each less its mean and over one deviation; frechet: "
        "of cloud-statistics of clouds as they are, not FPD",
    ),
}


class Seen(NamedTuple):
    """A set as it is measured: each signal once, however often it stands there.

    distinct: (k, ...), without failures. places: (n,), where in ``distinct`` each signal of the set
    is; -1 for a failure.
    """

    distinct: Tensor
    places: Tensor

    @property
    def failures(self) -> int:
        return int((self.places < 0).sum())


def see(signals: Tensor) -> Seen:
    """A signal that is not finite throughout is a failure."""
    flat = signals.flatten(1)
    fine = flat.isfinite().all(1)
    distinct, inverse = flat[fine].unique(dim=0, return_inverse=True)
    places = torch.full((len(signals),), -1)
    places[fine] = inverse
    return Seen(distinct.unflatten(1, signals.shape[1:]), places)


def apart(measure: Measure, a: Seen, b: Seen) -> Float[Tensor, "n m"]:
    """Distances of every signal of a to every one of b; a failure is infinitely far from all."""
    if len(a.distinct) and len(b.distinct):
        found = measure.between(a.distinct, a.distinct if b is a else b.distinct)
    else:
        found = torch.zeros(len(a.distinct), len(b.distinct), dtype=torch.float64)
    return pad(found, (0, 1, 0, 1), value=math.inf)[a.places][:, b.places]


def features_of(measure: Measure, a: Seen) -> Float[Tensor, "n d"]:
    """Features of every signal, NaN of a failure."""
    found = measure.features(a.distinct) if len(a.distinct) else torch.zeros(0, 1)
    return pad(found.double(), (0, 0, 0, 1), value=math.nan)[a.places]


# -- two sets


class Pair(NamedTuple):
    """Distances within n references, to m samples, and within these; features of both."""

    rr: Float[Tensor, "n n"]
    rs: Float[Tensor, "n m"]
    ss: Float[Tensor, "m m"]
    real: Float[Tensor, "n d"]
    made: Float[Tensor, "m e"]

    def at(self, r: Int[Tensor, " a"], s: Int[Tensor, " b"]) -> Pair:
        """These references and these samples, each as often as it is named."""
        within = self.rr[r][:, r], self.rs[r][:, s], self.ss[s][:, s]
        return Pair(*within, self.real[r], self.made[s])


FIGURES = ("mmd", "coverage", "1nna", "1nna.reference", "1nna.sample", "frechet")


def figures(pair: Pair) -> dict[str, float]:
    """``FIGURES`` of two sets, as ``matching``, ``two_sample`` and ``frechet`` define them.

    mmd is infinite where all samples failed. frechet is of the samples that did not fail, and NaN
    where there are fewer than 2 of them.
    """
    found = matching(pair.rs) | two_sample(pair.rr, pair.rs, pair.ss)
    there = pair.made[~pair.made.isnan().any(1)]
    enough = min(len(pair.real), len(there)) > 1
    found["frechet"] = frechet(pair.real, there) if enough else math.nan
    return {name: found[name] for name in FIGURES}


def once(pair: Pair, seed: int) -> dict[str, float]:
    """The whole sets, as they are."""
    return figures(pair)


def bootstrap(pair: Pair, seed: int, rounds: int = 32, size: int = 32) -> dict[str, float]:
    """Means of the figures over rounds of ``size`` references and samples, drawn with replacement.

    What is drawn twice has a twin at distance 0, which raises 1-NNA of any generator, and Frechet
    distances of few samples are too large: such figures compare only with their like. Source: the
    code of "Autoregressive Generation of Neural Field Weights" (Fanselau and Muschal, 2024).
    """
    generator = Generator().manual_seed(seed)
    found = []
    for _ in range(rounds):
        r, s = (torch.randint(len(x), (size,), generator=generator) for x in (pair.rr, pair.ss))
        found.append(figures(pair.at(r, s)))
    return {name: sum(one[name] for one in found) / rounds for name in FIGURES}


PROTOCOLS: Mapping[str, Callable[[Pair, int], dict[str, float]]] = {
    "full": once,
    "bootstrap": bootstrap,
}


class Verdict(NamedTuple):
    """Figures of a set against a reference.

    size: signals of either that were compared. failures: of the whole set.
    """

    set: str
    reference: str
    protocol: str
    size: int
    failures: int
    figures: dict[str, float]


def judge(
    sets: Mapping[str, Tensor],
    references: Mapping[str, Tensor],
    measure: str,
    protocols: Sequence[str] = ("full", "bootstrap"),
    seed: int = 0,
) -> list[Verdict]:
    """Every set against every reference by every protocol, of ``PROTOCOLS``.

    sets, references: name -> pictures (n, channel, height, width) in [0, 1] or clouds (n, points,
    3); a sample that is not finite is a failure: it is judged, never left out (but of frechet). Of
    a set and a reference that differ in size the first ones of the larger are compared.

    measure: of ``MEASURES``. seed: of the draws, which are alike for all sets of one size.
    Raises InputError for an unknown name, an empty set, and a reference with a failure.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    for name in protocols:
        if name not in PROTOCOLS:
            raise unknown("protocol", name, PROTOCOLS)
    for name, signals in [*sets.items(), *references.items()]:
        if not len(signals):
            raise InputError(f"the set '{name}' is empty: at least 1 signal is judged.")
    how, made, real = MEASURES[measure], _looked(measure, sets), _looked(measure, references)
    verdicts = []
    for reference, (true, rr, wanted) in real.items():
        if true.failures:
            raise InputError(
                f"the reference '{reference}' holds {true.failures} failures: leave them out."
            )
        for name, (samples, ss, given) in made.items():
            whole = Pair(rr, apart(how, true, samples), ss, wanted, given)
            size = min(len(rr), len(ss))
            pair = whole.at(torch.arange(size), torch.arange(size))
            for protocol in protocols:
                found = PROTOCOLS[protocol](pair, seed)
                verdict = Verdict(name, reference, protocol, size, samples.failures, found)
                verdicts.append(verdict)
    return verdicts


def _looked(measure: str, sets: Mapping[str, Tensor]) -> dict[str, tuple[Seen, Tensor, Tensor]]:
    """Each set as it is seen, the distances within it, and its features."""
    how, seen = MEASURES[measure], {name: see(signals) for name, signals in sets.items()}
    return {name: (x, apart(how, x, x), features_of(how, x)) for name, x in seen.items()}


# -- what was copied


class Nearest(NamedTuple):
    """For each query the distance to the nearest known one and its place: (n,), (n,).

    Of a failure they are infinite and -1.
    """

    distances: Float[Tensor, " n"]
    places: Int[Tensor, " n"]


def nearest_signals(queries: Tensor, known: Tensor, measure: str) -> Nearest:
    """In signal space, by the measure."""
    found, places = apart(MEASURES[measure], see(queries), see(known)).min(1)
    return Nearest(found, places.masked_fill(found.isinf(), -1))


def nearest_codes(queries: Codes, known: Codes) -> Nearest:
    """In weight space: Euclidean, of codes as they are stored, with no alignment."""
    flat = queries.flatten(1)
    fine = flat.isfinite().all(1)
    found = torch.full((len(flat),), math.inf, dtype=torch.float64)
    places = torch.full((len(flat),), -1)
    if fine.any():
        found[fine], places[fine] = nearest(flat[fine], known.flatten(1))
    return Nearest(found, places)


class Novelty(NamedTuple):
    """How far samples are from what was trained on, beside how far held-out fields are.

    ratio:  of the medians; a memory has 0, a perfect generator about 1.
    nearer: the share of samples that are nearer than every held-out field; a perfect generator's is
            1 / (held-out fields + 1) on average.
    """

    samples: Nearest
    held: Nearest | None

    @property
    def ratio(self) -> float:
        if self.held is None:
            return math.nan
        return float(self.samples.distances.median() / self.held.distances.median())

    @property
    def nearer(self) -> float:
        if self.held is None:
            return math.nan
        return float((self.samples.distances < self.held.distances.min()).double().mean())


# -- baselines


def baselines(
    known: Codes,
    origin: Codes,
    count: int,
    noise: float = 0.1,
    generator: Generator | None = None,
) -> dict[str, Codes]:
    """Codes of generators that learn little, ``count`` of each.

    start:    the origin (1, tokens, width), from which fields were fitted, again and again
    noise:    training codes plus Gaussian noise: each number's deviation is the share ``noise`` of
              its own over the training codes. At a tenth fields are still themselves: such samples
              are copies that are no copies number by number (arXiv:2506.07998).
    gaussian: N(mean, covariance) of the training codes, drawn as mean + Z (codes - mean) /
              sqrt(n - 1) with Z of n columns: exact without a matrix of all weights by all weights,
              and of rank n - 1 where there are more numbers than codes
    fields:   training codes themselves, what a perfect memory gives

    Noise and fields are of different random training codes, each without replacement. Raises
    InputError for fewer than 2 training codes or than ``count``, and a negative share.
    """
    if len(known) < max(2, count) or noise < 0:
        raise InputError(
            f"{len(known)} training codes for {count} of each baseline, noise = {noise}: at least "
            "2 and as many, and a share of at least 0."
        )
    some, others = (torch.randperm(len(known), generator=generator)[:count] for _ in range(2))
    shaken = torch.randn(count, *known.shape[1:], generator=generator).to(known)
    mixed = torch.randn(count, len(known), generator=generator).to(known)
    mean = known.mean(0)
    spread = mixed @ (known - mean).flatten(1) / math.sqrt(len(known) - 1)
    return {
        "start": origin.expand(count, -1, -1),
        "noise": known[some] + noise * known.std(0) * shaken,
        "gaussian": mean + spread.view_as(shaken),
        "fields": known[others],
    }


# -- from a system


@dataclass(frozen=True)
class Question:
    """How samples of a system are judged.

    measure: as ``measure_of`` takes it.
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
    """The verdicts, and how novel the samples are in ``weights`` and in ``signals``.

    absent: reference -> how many of its data have no surface, and were left out.
    """

    measure: str
    verdicts: Sequence[Verdict]
    novelty: Mapping[str, Novelty]
    absent: Mapping[str, int]


def measure_of(system: System, source: Source, asked: str | None = None) -> str:
    """The measure of a system's data: ``ssim`` or ``pixels`` of pictures, ``chamfer`` of voxels.

    asked: None is the first that fits. Raises InputError for one that does not, and where data are
    neither pictures nor voxels on a grid, or have no codes.
    """
    axes = source.data.ndim - 2
    if not system.family.code_shape[1]:
        raise InputError("judge: this run's signals have no codes.")
    if isinstance(system.modality, Voxels) and axes == 3:
        fitting = ["chamfer"]
    elif isinstance(system.modality, Grid) and len(system.modality.shape()) == axes == 2:
        fitting = ["ssim", "pixels"]
    else:
        raise InputError("judge is of pictures and of voxels on a grid: this run has neither.")
    if asked is not None and asked not in fitting:
        raise unknown("measure of these data", asked, fitting)
    return asked or fitting[0]


def of_class(part: Tensor, source: Source, label: int | None) -> Tensor:
    """The places of a part, or those of one class."""
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

    absent: as of a judgement. held: places of the held-out data that fields are compared with.
    """

    sets: dict[str, Tensor]
    references: dict[str, Tensor]
    absent: dict[str, int]
    held: Tensor


def judgement(
    system: System,
    source: Source,
    known: Codes,
    samples: Codes,
    labels: Tensor | None = None,
    ask: Question = Question(),
) -> Judgement:
    """Samples and baselines against as many training and held-out data, by all protocols.

    known: the raw codes of training fields, with their labels. samples: codes, from anywhere.
    Raises InputError as ``measure_of`` and ``collect`` do.
    """
    measure = measure_of(system, source, ask.measure)
    found = collect(system, source, known, samples, labels, ask)
    verdicts = judge(found.sets, found.references, measure, seed=ask.seed)
    fields = signals_of(system, known, ask.points)
    compared = lambda code, signals: {
        "weights": nearest_codes(code, known),
        "signals": nearest_signals(signals, fields, measure),
    }
    ours, theirs = compared(samples.cpu(), found.sets["samples"]), {}
    if len(found.held):
        data, about = source.read(found.held), source.about(found.held)
        code = in_batches(system.encode, data, "encoding", index=found.held, **about)
        theirs = compared(code, signals_of(system, code, ask.points))
    novelty = {space: Novelty(own, theirs.get(space)) for space, own in ours.items()}
    return Judgement(measure, verdicts, novelty, found.absent)


def collect(
    system: System,
    source: Source,
    known: Codes,
    samples: Codes,
    labels: Tensor | None = None,
    ask: Question = Question(),
) -> Collected:
    """What ``judgement`` of the same arguments judges.

    The sets are ``samples``, those of ``baselines``, and, where there are twice as many held-out
    data, ``held-out``: others than the reference of that name, to which they are what a perfect
    generator gives. References are data, not fields. Raises InputError as ``count_of`` and
    ``baselines`` do.
    """
    count, generator = len(samples), Generator().manual_seed(ask.seed)
    count_of(source, ask.label, count)
    drawn = {}
    for name, part in {"training": source.train, "held-out": source.test}.items():
        places = of_class(part, source, ask.label)
        drawn[name] = places[torch.randperm(len(places), generator=generator)]
    own = known if ask.label is None or labels is None else known[labels == ask.label]
    origin = system.family.conditioner.origin(1).detach().cpu()
    codes = {"samples": samples.cpu()}
    codes |= baselines(own, origin, count, ask.noise, generator)
    sets = {name: signals_of(system, code, ask.points) for name, code in codes.items()}
    references, absent = {}, {}
    for name, places in drawn.items():
        if len(places):
            signals = as_signals(system.modality, source.read(places[:count]), ask.points)
            fine = signals.flatten(1).isfinite().all(1)
            references[name], absent[name] = signals[fine], int((~fine).sum())
    held, spare = drawn["held-out"][:count], drawn["held-out"][count : 2 * count]
    if len(spare) == count:
        sets["held-out"] = as_signals(system.modality, source.read(spare), ask.points)
    return Collected(sets, references, absent, held)


def signals_of(system: System, codes: Codes, points: int) -> Tensor:
    """What codes decode to on the training grid, as a measure takes it; NaN where that failed."""
    values = math.prod(system.modality.shape())
    decoded = (
        as_signals(system.modality, in_batches(system.decode, part, "decoding"), points)
        for part in codes.split(max(1, HELD // values))
    )
    return torch.cat(list(decoded))


def as_signals(modality: Modality, data: Tensor, points: int) -> Tensor:
    """Pictures as they are; of shapes clouds (n, points, 3), NaN where there is no surface."""
    if not isinstance(modality, Voxels):
        return data
    fine = data.flatten(1).isfinite().all(1).view(-1, 1, 1, 1, 1)
    return clouds_of(modality, torch.where(fine, data, 0.0), points)


def asked_labels(system: System, source: Source, count: int, seed: int) -> Tensor | None:
    """Classes to ask a prior for, those of random training data; None where it has none."""
    if system.prior is None or not system.prior.classes or source.labels is None:
        return None
    places = torch.randint(len(source.train), (count,), generator=Generator().manual_seed(seed))
    return source.labels[source.train[places]]


# -- what is shown


def neighbours(
    system: System, samples: Codes, known: Codes, novelty: Mapping[str, Novelty]
) -> Tensor:
    """The first samples, and the training fields nearest to each in signals and in weights.

    Pictures (3 rows, 3, height, width), three a row; white where a sample has no neighbour.
    """
    shown = []
    for i, sample in enumerate(samples[:SHOWN].cpu()):
        places = [int(novelty[space].samples.places[i]) for space in ("signals", "weights")]
        data = system.decode(torch.stack([sample, *(known[place] for place in places)]))
        row = [system.modality.picture(datum.nan_to_num(0)) for datum in data]
        pictures = [picture for picture in row if picture is not None]
        blank = torch.ones_like(pictures[0])
        near = zip(pictures[1:], places, strict=True)
        shown += [pictures[0], *(blank if at < 0 else picture for picture, at in near)]
    return torch.stack(shown)


def as_json(found: Judgement) -> dict[str, Any]:
    """What ``judgement`` found as JSON has it: a number that is not finite is null."""
    return {
        "measure": found.measure,
        "of": MEASURES[found.measure].says,
        "protocols": {
            "full": "whole sets, once",
            "bootstrap": "means of 32 rounds of 32 samples and 32 references with replacement",
        },
        "verdicts": [_plain(verdict._asdict()) for verdict in found.verdicts],
        "references without a surface, left out": dict(found.absent),
        "nearest training fields": {
            space: _plain(
                {
                    "samples": own.samples.distances.tolist(),
                    "places in the training codes": own.samples.places.tolist(),
                    "held-out": [] if own.held is None else own.held.distances.tolist(),
                    "ratio of medians": own.ratio,
                    "nearer than all held-out": own.nearer,
                }
            )
            for space, own in found.novelty.items()
        },
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_plain(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
