"""How well a codec reconstructs signals: the upper bound of any prior on its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.evaluation import evaluator_of
from fieldloom.evaluation.batches import BATCH, in_batches, part_size
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.reconstruction import join_scores
from fieldloom.evaluation.results import Metric, Score
from fieldloom.modalities.sources import Source
from fieldloom.settings import Evaluation
from fieldloom.system import System
from fieldloom.types import Code, Data


@torch.no_grad()
def codec_upper_bound(evaluator: Evaluator, data: Data, codes: Code) -> list[Metric]:
    """How close data are to what their codes decode to, as fitted and after the codec.

    data: those that the codes (batch, tokens, width) were found from. The metrics are PSNR, for
    shapes also IoU and, on grids, the Chamfer distance: ``fitted.*`` of the codes as they are,
    ``ceiling.*`` after the codec. ``ceiling.weights`` is the squared error of the codes, as a
    fraction of their variance. Raises InputError where there is no codec to measure, and for views.
    """
    system = evaluator.system
    if system.prior is None or evaluator.upper_bound_by is None:
        raise InputError("a ceiling is of a prior's codec, on data that are no views.")
    codec = system.prior.codec
    codes = codes.to(system.device)
    coded = in_batches(lambda some: codec.decode(codec.encode(some)), "coding", codes).to(codes)
    lost = (coded - codes).square().sum() / (codes - codes.mean(0)).square().sum()
    of = f"{len(data)} training data"
    metrics = [Metric("ceiling.weights", lost.item(), of, "squared error, of the variance")]
    settings = Evaluation(metrics=evaluator.upper_bound_by)
    measured = type(evaluator)(system, evaluator.source, settings)
    for name, some in (("fitted", codes), ("ceiling", coded)):
        found = measured.paired_metrics(join_scores(list(decoded_scores(measured, data, some))), of)
        metrics += [metric._replace(name=f"{name}.{metric.name}") for metric in found]
    return metrics


def decoded_scores(evaluator: Evaluator, data: Data, codes: Code) -> Iterator[list[Score]]:
    """How close data are to what their codes decode to, a part at a time."""
    size = part_size(data.shape[1:], BATCH)
    for first in range(0, len(data), size):
        few = slice(first, first + size)
        own = data.part(few).as_float()
        raw = in_batches(evaluator.system.predict_at, "decoding", codes[few].cpu(), own)
        yield evaluator.paired_scores(own.tensor, raw)


def upper_bound_of_run(
    folder: str | Path, system: System, source: Source, count: int = 64
) -> list[Metric]:
    """``codec_upper_bound`` of a run's own codes, at most ``count`` of them, evenly spaced.

    Returns no metrics for data that have no upper bound, and of codes that the run was given, whose
    data are elsewhere. Raises InputError where the run's codes are of data that the source does not
    have.
    """
    evaluator = evaluator_of(system, source)
    if evaluator.upper_bound_by is None:
        return []
    run = Run(folder)
    if "codes" in run.read_environment():
        return []
    stored = run.read_codes(system)
    if "given" in stored.numbers:
        return []
    indices = stored.extras.get("places", source.train)
    if len(indices) and int(indices.max()) >= len(source.data):
        raise InputError(f"the codes of '{folder}' are of data that the source does not have.")
    few = torch.linspace(0, len(indices) - 1, min(count, len(indices))).round().long()
    return codec_upper_bound(evaluator, source.defer(indices[few]), stored.codes[few])
