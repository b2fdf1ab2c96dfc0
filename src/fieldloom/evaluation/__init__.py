"""From a trained system and its data to figures, each with what it was measured on beside it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fieldloom.evaluation.batches import in_batches
from fieldloom.evaluation.costs import cost
from fieldloom.evaluation.figures import (
    METRICS,
    Evaluation,
    Figure,
    Result,
    Shown,
    check_room,
    parse,
)
from fieldloom.evaluation.generation import generation
from fieldloom.evaluation.large import is_large, streamed, wrong
from fieldloom.evaluation.pictures import detector_of
from fieldloom.evaluation.reconstruction import filmed, pictured, shaped
from fieldloom.metrics.features import Detector
from fieldloom.modalities import Views
from fieldloom.modalities.sources import Source
from fieldloom.system import System

__all__ = ["METRICS", "Evaluation", "Figure", "Result", "Shown", "evaluate", "in_batches", "parse"]


def evaluate(system: System, source: Source, foreign: bool = False) -> Result:
    """Reconstruction of the test part, samples against data, and what they cost.

    foreign: the source is not the one that was trained on: only its reconstruction is measured.
    """
    how = parse(system.recipe.get("evaluate", {}))
    pictures = source.data.ndim == 4 or isinstance(system.modality, Views)
    check_room(how, system, how.samples or len(source.test))
    wanted = min(len(source.train), how.samples or len(source.train))
    # before the work: it may be missing
    detector = detector_of(how, pictures, wanted, system.permit)
    if system.encodes:
        result = reconstruction(system, source, how, detector, foreign)
    else:
        originals = source.read(source.test if len(source.test) else source.train)
        code = system.family.conditioner.origin(1).detach().cpu()
        result = Result([], originals, originals[:0], code)
    result = replace(result, figures=result.figures + cost(system, result.codes))
    if system.prior is not None and not system.generates:
        warnings.warn("the prior is not trained yet: samples are not measured.", stacklevel=2)
    if foreign or not system.generates:
        return result
    return generation(system, source, how, detector, result)


def reconstruction(
    system: System, source: Source, how: Evaluation, detector: Detector | None, foreign: bool
) -> Result:
    """The test part, encoded and decoded; of views also those that were held out."""
    held = source.test if len(source.test) else source.train
    part = "given" if foreign else "test" if len(source.test) else "training"
    of = f"{len(held)} {part} data"
    if is_large(system, source, how):
        codes = system.family.conditioner.origin(len(held)).detach()
        return streamed(system, source, held, codes, how, of)
    originals, about = source.read(held), source.about(held)
    codes = in_batches(system.encode, originals, "encoding", index=held, **about)
    shown: list[Shown] = []
    if isinstance(system.modality, Views):
        kept = originals.shape[1] - system.modality.held
        seen, novel = parted(about, kept)
        raw = rendered(system, codes, seen)
        one_by_one = partial(pictured, how, filter=source.filter, unit="view")
        figures = one_by_one(originals[:, :kept].flatten(0, 1), raw.flatten(0, 1), of, None)
        if system.modality.held:
            raw, originals = rendered(system, codes, novel), originals[:, kept:]
            beyond = f"{len(originals)} {part} data, {originals.shape[1]} held-out views each"
            true, made = originals.flatten(0, 1), raw.flatten(0, 1)
            figures += one_by_one(true, made, beyond, detector, prefix="novel.")
        else:
            originals = originals[:, :kept]
    elif "coords" in about:
        raw = in_batches(partial(at, system), codes, "decoding", coords=about["coords"])
        figures = shaped(how, system.modality, originals, raw, of)
    else:
        raw = in_batches(system.predict, codes, "decoding")
        figures = pictured(how, originals, raw, of, detector, source.filter)
        figures += filmed(how, system.modality, originals, raw, of)
        figures += shaped(how, system.modality, originals, raw, of)
        if not system.family.code_shape[1]:  # a fit of this very datum: where is it wrong?
            shown = wrong(system.modality, originals[0], raw[0])
    return Result(figures, originals, raw.clamp(0, 1), codes, shown=shown)


def parted(cameras: dict[str, Any], kept: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cameras that are seen, and those that are held out."""
    mine = {key: cameras[key] for key in ("c2w", "intrinsics")}
    seen = {key: value[:, :kept] for key, value in mine.items()}
    return seen, {key: value[:, kept:] for key, value in mine.items()}


def rendered(system: System, codes: Tensor, cameras: dict[str, Any]) -> Tensor:
    """Each code seen by its own cameras, not clamped."""
    draw = lambda part, **own: system.predict(part, cameras=own)
    return in_batches(draw, codes, "rendering", 4, **cameras)


def at(system: System, codes: Tensor, coords: Tensor) -> Tensor:
    """The data of codes at scattered coordinates: (batch, points, value), not clamped."""
    values = torch.cat(list(system.evaluate(codes.to(system.device), coords.to(system.device))))
    return system.modality.denormalize(values)
