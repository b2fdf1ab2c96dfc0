"""From a trained system and its data to figures, each with what it was measured on beside it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fieldloom.engine import device as devices
from fieldloom.errors import InputError, unknown
from fieldloom.metrics.cost import inference, macs, parameters
from fieldloom.metrics.features import DETECTORS, Detector
from fieldloom.metrics.paired import psnr, ssim, ssim_protocol
from fieldloom.metrics.probes import Classifier
from fieldloom.metrics.sets import frechet, kid, nearest, neighbourhoods
from fieldloom.modalities.sources import Source
from fieldloom.progress import track
from fieldloom.registry import build
from fieldloom.system import System
from fieldloom.types import Code


class Figure(NamedTuple):
    """A number, what it was measured on, and how."""

    name: str
    value: float
    of: str
    how: str = ""


@dataclass(frozen=True)
class Evaluation:
    """A section ``[evaluate]`` of a recipe.

    metrics:  of reconstruction (``psnr``, ``ssim``) and of sets (``frechet``,
              ``precision-recall``), the latter in the features of ``detector`` (``weights``: its
              local file).
    samples:  drawn from the prior, in equal numbers of each class where there are classes, with its
              options guidance, sampler and steps. seed: of these samples.
    """

    metrics: tuple[str, ...] = ("psnr", "ssim")
    detector: str = "gabor"
    weights: str | None = None
    samples: int = 256
    guidance: float | None = None
    sampler: str | None = None
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"evaluate.samples = {self.samples}: at least 1.")
        for name in self.metrics:
            if name not in METRICS:
                raise unknown("metric", name, METRICS)
        if self.detector not in DETECTORS:
            raise unknown("detector", self.detector, DETECTORS)

    def options(self) -> dict[str, Any]:
        """What the prior's ``sample`` is given."""
        named = {"guidance": self.guidance, "sampler": self.sampler, "steps": self.steps}
        return {key: value for key, value in named.items() if value is not None}


METRICS = ("psnr", "ssim", "frechet", "kid", "precision-recall")
SETS = {"frechet", "kid", "precision-recall"}
JUDGED = 5000
JUDGE = f"share that an SVM of at most {JUDGED} training data labels as asked"


@dataclass(frozen=True)
class Result:
    """Figures, and the data that the pictures of a report show, all (n, channel, *axes) in [0, 1].

    nearest: for each sample the place in the training set of its nearest datum; distances to it.
    """

    figures: list[Figure]
    originals: Tensor
    reconstructions: Tensor
    codes: Code
    samples: Tensor | None = None
    sample_codes: Code | None = None
    sample_labels: Tensor | None = None
    nearest: Tensor | None = None
    distances: Tensor | None = None


def parse(spec: dict[str, Any]) -> Evaluation:
    """The checked section ``[evaluate]``."""
    tables = {"evaluate": {"evaluate": Evaluation}}
    return build("evaluate", {"name": "evaluate", **spec}, tables)


def evaluate(system: System, source: Source, foreign: bool = False) -> Result:
    """Reconstruction of the test part, samples against the training part, and what they cost.

    foreign: the source is not the one that was trained on: only its reconstruction is measured.
    """
    how = parse(system.recipe.get("evaluate", {}))
    detector = detector_of(how, source)  # before the work: it may be missing
    held = source.test if len(source.test) else source.train
    part = "given" if foreign else "test" if len(source.test) else "training"
    originals = source.read(held)
    codes = in_batches(system.encode, originals, "encoding")
    raw = in_batches(system.predict, codes, "decoding")
    figures = reconstruction(how, originals, raw, part, detector, source.filter)
    figures += cost(system, codes)
    result = Result(figures, originals, raw.clamp(0, 1), codes)
    if system.prior is not None and not system.generates:
        warnings.warn("the prior is not trained yet: samples are not measured.", stacklevel=2)
    if foreign or not system.generates:
        return result
    return generation(system, source, how, detector, result)


def in_batches(
    work: Callable[[Tensor], Tensor], data: Tensor, title: str, size: int = 64
) -> Tensor:
    parts = data.split(size)
    return torch.cat([work(part).cpu() for part in track(parts, title, len(parts), "batches")])


def reconstruction(
    how: Evaluation,
    originals: Tensor,
    raw: Tensor,
    part: str,
    detector: Detector | None,
    filter: str,
) -> list[Figure]:
    """PSNR (not clamped; the mean of each datum's), SSIM, Frechet distance of reconstructions."""
    of = f"{len(originals)} {part} data"
    figures = []
    if "psnr" in how.metrics:
        figures.append(Figure("psnr", psnr(raw, originals).mean().item(), of, "dB, mean per datum"))
    if "ssim" in how.metrics and originals.ndim == 4:
        value = ssim(raw.clamp(0, 1), originals).mean().item()
        figures.append(Figure("ssim", value, of, ssim_protocol(tuple(originals.shape[2:]))))
    if detector is not None and "frechet" in how.metrics and len(originals) > 1:
        value = frechet(detector(originals), detector(raw.clamp(0, 1)))
        figures.append(Figure(f"r{detector.figure}", value, of, _seen(detector, filter)))
    return figures


def generation(
    system: System, source: Source, how: Evaluation, detector: Detector | None, result: Result
) -> Result:
    """Samples against training data: set metrics, agreement with labels, nearest data."""
    count, classes = how.samples, len(source.names)
    labels = torch.arange(count) % classes if classes else None
    codes = system.sample_codes(count, labels, how.seed, **how.options())
    samples = in_batches(system.decode, codes.cpu(), "sampling")
    train, test = source.read(source.train), result.originals
    against = f"{count} samples, {len(train)} training data"
    figures = list(result.figures)
    if detector is not None:
        seen = _seen(detector, source.filter)
        real, fake = (detector(x.to(system.device)).cpu() for x in (train, samples))
        if "frechet" in how.metrics:
            figures.append(Figure(detector.figure, frechet(real, fake), against, seen))
        if "kid" in how.metrics:
            figures.append(Figure("kid", kid(real, fake), against, seen))
        if "precision-recall" in how.metrics:
            found = neighbourhoods(real, fake)
            figures += [
                Figure(name, value, against, f"{seen}, k = 3") for name, value in found.items()
            ]
    distances, places = nearest(samples.flatten(1), train.flatten(1))
    far, how_far = distances.median().item(), "Euclidean distance of values, median"
    figures.append(Figure("nearest.sample", far, against, how_far))
    if len(source.test):
        usual = nearest(test.flatten(1), train.flatten(1))[0].median().item()
        figures += [
            Figure("nearest.test", usual, f"{len(test)} test data", how_far),
            Figure("novelty", far / usual, against, "ratio of the two above"),
        ]
    if labels is not None and source.labels is not None and classes > 1:
        known = source.labels[source.train]
        judge = Classifier(train[:JUDGED], known[:JUDGED])
        figures.append(Figure("agreement", judge.score(samples, labels), f"{count} samples", JUDGE))
        if len(source.test):
            accuracy = judge.score(test, source.labels[source.test])
            figures.append(Figure("agreement.test", accuracy, f"{len(test)} test data", JUDGE))
    return replace(
        result,
        figures=figures,
        samples=samples,
        sample_codes=codes,
        sample_labels=labels,
        nearest=places,
        distances=distances,
    )


def cost(system: System, codes: Code) -> list[Figure]:
    """Parameters, multiply-accumulates a datum, decoding speed, peak memory."""
    slots = system.family.field.slots
    points = system.modality.grid().shape[1]
    some = codes[:16].to(system.device)
    system.predict(some)  # warm
    devices.synchronize(system.device)
    began = time.perf_counter()
    system.predict(some)
    devices.synchronize(system.device)
    rate = len(some) / (time.perf_counter() - began)
    where = f"{system.device.type}, {torch.get_num_threads()} threads"
    return [
        Figure("learnable", parameters(system.family), "family", "parameters"),
        Figure("encoder", parameters(system.encoder), "encoder", "parameters: rates, tables"),
        Figure("inference", inference(slots), "one field", "parameters"),
        Figure(
            "gmacs",
            macs(slots, projections(system), points) / 1e9,
            f"one datum, {points} points",
            "1e9 multiply-accumulates of linear layers",
        ),
        Figure("decoded", rate, f"{len(some)} data", f"data/s, {where}"),
        Figure("memory", devices.peak_memory(system.device), "this process", "bytes, peak"),
    ]


def projections(system: System) -> int:
    """Weights of the linear maps from a code to weights, applied once a datum."""
    linear = [m for m in system.family.conditioner.modules() if isinstance(m, nn.Linear)]
    return sum(module.weight.numel() for module in linear)


def detector_of(how: Evaluation, source: Source) -> Detector | None:
    """The detector of the set metrics, where any is asked for and the data are pictures."""
    if not SETS & set(how.metrics) or source.data.ndim != 4:
        return None
    if min(len(source.train), how.samples) <= 3:
        warnings.warn("set metrics need more than 3 data and samples: left out.", stacklevel=2)
        return None
    make = DETECTORS[how.detector]
    return make(weights=how.weights) if how.weights else make()


def _seen(detector: Detector, filter: str) -> str:
    return f"{detector.name}, resized {detector.filter}; data resized {filter}"
