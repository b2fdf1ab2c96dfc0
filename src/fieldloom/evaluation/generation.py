"""Samples against data: set metrics, agreement with labels, nearest training data."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.figures import SHAPES, Evaluation, Figure, Result
from fieldloom.evaluation.pictures import compared
from fieldloom.evaluation.shapes import (
    check_surfaces,
    clouds_of,
    decoded_clouds,
    has_surfaces,
    judged,
    protocol_of,
    surfaces_of,
    together,
)
from fieldloom.metrics.features import Detector
from fieldloom.metrics.probes import Classifier
from fieldloom.metrics.sets import nearest
from fieldloom.modalities import Voxels
from fieldloom.modalities.sources import Source
from fieldloom.system import System

JUDGED = 5000
JUDGE = f"fraction that an SVM of at most {JUDGED} training data labels as asked"


def generation(
    system: System, source: Source, how: Evaluation, detector: Detector | None, result: Result
) -> Result:
    """Samples against training pictures, held-out shapes, or the views of held-out objects."""
    held = source.test if len(source.test) else source.train
    plain = result.originals.ndim == 4  # pictures
    count = how.samples or (256 if plain else len(held))
    classes = system.prior.classes if system.prior is not None else 0
    labels = torch.arange(count) % classes if classes else None
    space = system.modality
    surfaces = bool(set(SHAPES) & set(how.metrics)) and has_surfaces(source)
    if surfaces:
        check_surfaces(source, protocol_of(how)[0].points)  # before the work
    codes = system.sample_codes(count, labels, how.seed, **how.options()).cpu()
    figures = list(result.figures)
    cameras = source.about(held)
    if "c2w" in cameras:  # each sample is seen as one held-out object is, again from the start
        place = torch.arange(count) % len(held)
        own = {key: cameras[key][place] for key in ("c2w", "intrinsics")}
        samples = in_batches(
            lambda part, **c: system.decode(part, cameras=c), codes, "sampling", 8, **own
        )
    else:
        shown = codes
        if "coords" in cameras and isinstance(space, Voxels):  # these grids are large: a few to see
            shown = codes[: together(space, how.resolution)]
        samples = in_batches(
            lambda part: system.decode(part, how.resolution), shown, "sampling", 64
        )
    if detector is not None:
        real = source.read(source.train) if plain else source.read(held)
        kind = "training pictures" if plain else "views of held-out objects"
        made = samples
        if not plain:
            real, made = real.flatten(0, 1), samples.flatten(0, 1)
        of = f"{len(made)} pictures of {count} samples, {len(real)} {kind}"
        figures += compared(how, detector, real, made, of, source.filter)
    if surfaces and isinstance(space, Voxels):
        points = protocol_of(how)[0].points
        true = surfaces_of(space, source, held, points)
        whole = len(samples) == count
        made = (
            clouds_of(space, samples, points)
            if whole
            else decoded_clouds(system, codes, points, how.resolution)
        )
        figures += judged(how, made, true)
    result = replace(
        result, figures=figures, samples=samples, sample_codes=codes, sample_labels=labels
    )
    if "c2w" in cameras or "coords" in cameras or samples.shape[1:] != source.data.shape[1:]:
        return result  # no two data share their observations: nothing to compare number by number
    return judged_labels(system, source, novelty(source, result))


def novelty(source: Source, result: Result) -> Result:
    """How far samples are from their nearest training data, beside how far test data are."""
    samples, train = result.samples, source.read(source.train)
    assert samples is not None
    against = f"{len(samples)} samples, {len(train)} training data"
    distances, indices = nearest(samples.flatten(1), train.flatten(1))
    far, how_far = distances.median().item(), "Euclidean distance of values, median"
    figures = [*result.figures, Figure("nearest.sample", far, against, how_far)]
    if len(source.test):
        test = source.read(source.test)
        usual = nearest(test.flatten(1), train.flatten(1))[0].median().item()
        ratio = far / usual if usual else math.nan
        figures += [
            Figure("nearest.test", usual, f"{len(test)} test data", how_far),
            Figure("novelty", ratio, against, "ratio of the two above"),
        ]
    return replace(result, figures=figures, nearest=indices, distances=distances)


def judged_labels(system: System, source: Source, result: Result) -> Result:
    """Whether samples look like the classes that they were asked to be."""
    samples, labels = result.samples, result.sample_labels
    if labels is None or samples is None or source.labels is None or len(source.names) < 2:
        return result
    train, known = source.read(source.train), source.labels[source.train]
    judge = Classifier(train[:JUDGED], known[:JUDGED])
    figures = [
        *result.figures,
        Figure("agreement", judge.score(samples, labels), f"{len(samples)} samples", JUDGE),
    ]
    if len(source.test):
        test = source.read(source.test)
        accuracy = judge.score(test, source.labels[source.test])
        figures.append(Figure("agreement.test", accuracy, f"{len(test)} test data", JUDGE))
    return replace(result, figures=figures)
