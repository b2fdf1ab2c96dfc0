"""What cells measure of a trained run beside its evaluation (benchmarks/cells.py).

Each measure takes the system, its run and its settings, and returns figures by name. ``MEASURES``
has them by the names that ``cells.toml`` calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from checkpoints import list_checkpoints
from torch import Tensor

from fieldloom import load
from fieldloom.assembly import open_source
from fieldloom.codecs.quantize import Quantize
from fieldloom.conditioners.conditioner import FlatWeights
from fieldloom.engine.run import Run
from fieldloom.evaluation import comparison, evaluator_of
from fieldloom.evaluation.influence import analyse_influence
from fieldloom.evaluation.reconstruction import join_scores
from fieldloom.evaluation.upper_bound import decoded_scores, upper_bound_of_run
from fieldloom.evaluation.views import psnr_by_support
from fieldloom.fields.mlp import FourierMlp
from fieldloom.modalities.sources import Source
from fieldloom.priors.autoregressive import Autoregressive
from fieldloom.system import System
from fieldloom.training import training_codes
from fieldloom.types import Code, Data

Figures = dict[str, float]
CHECKPOINTS = "checkpoints"
"""Beside a run, of cells that measure ``held-out``: the folder of its copied checkpoints."""

BATCH = 100
"""Codes whose tokens are predicted at a time."""


def measure_training(system: System, run: Run, count: int = 500) -> Figures:
    """How well training data come back: ``train.*``."""
    source = open_source(system.recipe, system.modality)
    data = source.defer(spread(source.train, count))
    scores = score(system, source, data, system.encode(data), f"{len(data)} training data")
    return {f"train.{name}": value for name, value in scores.items()}


def measure_refined(
    system: System, run: Run, steps: int = 150, rate: float | None = None, points: int | None = None
) -> Figures:
    """How well test data come back from codes that are optimised further: ``refined.*``."""
    source = open_source(system.recipe, system.modality)
    data = source.read(source.test)
    found = system.refine(data, "codes", steps, rate, points)
    scores = score(found.system, source, data, found.code, f"{len(data)} test data")
    return {f"refined.{name}": value for name, value in scores.items()}


def measure_codec(system: System, run: Run, count: int = 64) -> Figures:
    """Training fields as fitted, and after the prior's codec: ``fitted.*``, ``ceiling.*``."""
    source = open_source(system.recipe, system.modality)
    found = upper_bound_of_run(run.folder, system, source, count)
    return {metric.name: metric.value for metric in found}


def measure_samples(
    system: System, run: Run, how: dict[str, Any], count: int = 250, seed: int = 0
) -> Figures:
    """Samples against as many held-out data: MMD, coverage, 1-NNA and the rest of the verdict.

    A figure that is not finite is left out.
    """
    source = open_source(system.recipe, system.modality)
    codes, labels = training_codes(system, source, run)
    asked = comparison.draw_labels(system, source, count, seed)
    samples = {"samples": system.sample_codes(count, asked, seed, **how)}
    found = comparison.compare_with_baselines(system, source, codes, samples, labels)
    (own,) = (
        one
        for one in comparison.as_json(found)["verdicts"]
        if (one["set"], one["reference"], one["protocol"]) == ("samples", "held-out", "full")
    )
    return {name: value for name, value in own["figures"].items() if value is not None}


@torch.no_grad()
def measure_entropy(system: System, run: Run) -> Figures:
    """Nats a token of the training codes, by the prior and by each place's frequencies alone.

    ``marginal.entropy`` is of the frequencies in these very codes, so it is too low by about the
    number of entries in use over twice the number of codes.
    """
    prior = system.prior
    if not isinstance(prior, Autoregressive) or not isinstance(prior.codec, Quantize):
        raise TypeError("entropies are measured of an autoregressive prior of tokens.")
    codes, labels = training_codes(system, open_source(system.recipe, system.modality), run)
    total, ids = torch.zeros(()), []
    for some in torch.arange(len(codes)).split(BATCH):
        tokens = prior.tokenize(codes[some])
        label = labels[some] if prior.classes and labels is not None else None
        hidden = prior.hidden_states(tokens, label)[:, -prior.tokens :]
        total += prior.head.loss(hidden, tokens).sum().cpu()
        ids.append(tokens.cpu())
    every = torch.cat(ids)
    cross = total.item() / every.numel()
    return {"cross.entropy": cross, "marginal.entropy": place_entropy(every).mean().item()}


def place_entropy(ids: Tensor) -> Tensor:
    """Of the frequencies of ids (count, places) at each place, in nats: (places,)."""
    found = []
    for column in ids.T:
        chances = column.unique(return_counts=True)[1].double() / len(column)
        found.append(-(chances * chances.log()).sum())
    return torch.stack(found)


@torch.no_grad()
def measure_start(system: System, run: Run, count: int = 200) -> Figures:
    """The start of fitted fields: ``dead.units``, and how well training data are fitted from it.

    Counted are hidden units that no place of the grid makes positive: with ReLU they are dead.
    """
    conditioner = system.family.conditioner
    if not isinstance(conditioner, FlatWeights):
        raise TypeError("a start is measured of codes that are weights (flat-weights).")
    source = open_source(system.recipe, system.modality)
    data = source.read(spread(source.train, count))
    active = count_active(system, conditioner.origin(1))
    with torch.enable_grad():
        codes = system.encode(data)
    scores = score(system, source, data, codes, f"{len(data)} training data")
    return {"dead.units": float((~active).sum()), "units": float(active.numel())} | {
        f"fitted.{name}": value for name, value in scores.items()
    }


def count_active(system: System, code: Code) -> Tensor:
    """Which hidden units of a field of code (1, ...) are positive somewhere: (units,)."""
    field, found = copy(system.family.field), []
    if not isinstance(field, FourierMlp):
        raise TypeError("units are counted of the field 'fourier-mlp'.")
    plain = field.activation

    def watched(x: Tensor) -> Tensor:
        found.append((x > 0).flatten(0, -2).any(0))
        return plain(x)

    field.activation = watched
    field(system.modality.grid(), system.family.conditioner(code))
    return torch.cat(found)


def measure_influence(
    system: System, run: Run, tokens: int = 16, count: int = 20, seed: int = 0
) -> Figures:
    """How local the influence of a token is (arXiv:2310.05624, Fig. 5): ``concentration``."""
    source = open_source(system.recipe, system.modality)
    found = analyse_influence(system, source.read(source.test[:count]), tokens, seed)
    if found.mean_locality is None:
        raise ValueError("none of these tokens has any influence.")
    return {"concentration": found.mean_locality}


def measure_held_out(system: System, run: Run, count: int = 200) -> Figures:
    """PSNR of test data after each checkpoint that was kept, and at the end: ``held.STEP``.

    Checkpoints have the averaged weights where the stage averages them (``ema``).
    """
    source = open_source(system.recipe, system.modality)
    data = source.read(spread(source.test, count))
    of = f"{len(data)} test data"
    found = {
        f"held.{step}": score(own, source, data, own.encode(data), of)["psnr"]
        for step, path in list_checkpoints(run.folder.parent / CHECKPOINTS).items()
        for own in [load(path, "cpu")]
    }
    last = system.settings.stages["field"].steps
    return found | {f"held.{last}": score(system, source, data, system.encode(data), of)["psnr"]}


def measure_support(system: System, run: Run, views: int = 5, count: int = 12) -> Figures:
    """PSNR of held-out views by the number of support views (Fig. 4): ``support.0`` is of one."""
    source = open_source(system.recipe, system.modality)
    data = source.read(source.test[:count])
    found = psnr_by_support(system, data, list(range(1, views + 1)))
    return {f"support.{i}": value for i, value in enumerate(found)}


def spread(part: Tensor, count: int) -> Tensor:
    """At most ``count`` of a part's indices, evenly spaced."""
    count = min(count, len(part))
    return part[torch.linspace(0, len(part) - 1, count).round().long()]


def score(system: System, source: Source, data: Data, codes: Code, of: str) -> Figures:
    """The recipe's metrics of reconstructions."""
    evaluator = evaluator_of(system, source)
    scores = join_scores(list(decoded_scores(evaluator, data, codes)))
    return {metric.name: metric.value for metric in evaluator.paired_metrics(scores, of)}


MEASURES: dict[str, Callable[..., Figures]] = {
    "training": measure_training,
    "refined": measure_refined,
    "codec": measure_codec,
    "samples": measure_samples,
    "entropy": measure_entropy,
    "start": measure_start,
    "influence": measure_influence,
    "held-out": measure_held_out,
    "support": measure_support,
}
