"""What a plan is measured on: an untrained system, or a run, and a few data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from fieldloom.assembly import TABLES, assemble, make_modality, open_source, require_sections
from fieldloom.engine import device as devices
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.modalities.modality import Modality
from fieldloom.modalities.sources import Source
from fieldloom.modalities.sources.images import DECODED
from fieldloom.modalities.sources.source import make_source
from fieldloom.permit import Permit
from fieldloom.preparation import add_micro_batch, add_source, add_suggestions
from fieldloom.progress import announce
from fieldloom.recipe import Recipe, merge
from fieldloom.registry import find, hints_of
from fieldloom.settings import parse_settings
from fieldloom.sizing import size_by_data
from fieldloom.system import System
from fieldloom.types import Data

FEW, BYTES = 64, 1 << 27
"""Data that a plan is measured on: at most so many, of at most so many bytes."""


@dataclass(frozen=True)
class Trial:
    """A system and a few data of its kind.

    about: which data they are, in words. generated: whether they are random numbers. again: reads
    the same data once more.
    """

    system: System
    source: Source
    about: str
    generated: bool
    again: Callable[[], Source]

    def will_stream(self, signals: int) -> bool:
        """Whether so many data will be decoded as they are needed, though these few are held."""
        values = self.source.data.values
        each = values.dtype.itemsize * math.prod(values.shape[1:])
        folder = self.system.settings.parts.get("source") == "folder" and not self.generated
        return folder and isinstance(values, Tensor) and signals * each > DECODED


def open_run(run: str, path: str | None, device: str, permit: Permit) -> Trial:
    """A trained run, with the first of its data, or of those at a path."""
    system = Run(run).read_system(device, permit)
    recipe = system.recipe if path is None else add_source(system.recipe, path, permit)
    count = few(system.modality, system.settings.field_stage.batch)
    source, about, again = find_data(recipe, system.modality, count, path is not None, permit)
    return Trial(system, source, about, again is None, again or (lambda: source))


def open_recipe(recipe: Recipe, given: bool, device: torch.device, permit: Permit) -> Trial:
    """An untrained recipe, with the first of its data.

    given: whether the user names them. Otherwise, where they are not here, data of their shape are
    generated.
    """
    require_sections(recipe)
    modality = make_modality(recipe["modality"], permit)
    count = few(modality, parse_settings(recipe).field_stage.batch)
    source, about, again = find_data(recipe, modality, count, given, permit)
    recipe = complete(add_suggestions(recipe, source, permit), source, permit)
    recipe = add_micro_batch(recipe, device, permit)
    system = assemble(recipe, permit).use(devices.kernels).to(device)
    return Trial(system, source, about, again is None, again or (lambda: source))


def few(modality: Modality, batch: int) -> int:
    """How many data are enough to measure on: a batch, as far as it is small."""
    each = math.prod(modality.shape()) * modality.channels
    return max(1, min(batch, FEW, BYTES // max(1, each)))


def complete(recipe: Recipe, source: Source, permit: Permit) -> Recipe:
    """The recipe with what follows from its data, as training has it; depths where none say so."""
    renderer = recipe.get("renderer")
    if isinstance(renderer, Mapping) and renderer.get("name") in ("volume", "occupancy"):
        recipe = recipe | {"renderer": {"near": 1.0, "far": 2.0, **renderer}}
    modality = make_modality(recipe["modality"], permit)
    known = {
        "signals": len(source.train),
        "classes": len(source.names),
        "names": list(source.names),
        "filter": source.filter,
    }
    return recipe | {"field": size_by_data(recipe["field"], modality), "known": known}


def find_data(
    recipe: Recipe, modality: Modality, count: int, given: bool, permit: Permit
) -> tuple[Source, str, Callable[[], Source] | None]:
    """The first data of a recipe, which ones they are, and what reads them once more; None where
    they had to be generated.

    given: whether the user names them, so that what cannot be read is an error.
    """
    try:
        limited = limit(recipe, count, permit)
        source = open_source(limited, modality, permit, quiet=not given)
    except InputError as error:
        if given:
            raise
        announce(f"{error} Data of random values, of the same shape, are measured instead.")
        return generate(modality, count), f"{count} data of random values", None
    again = partial(open_source, limited, modality, permit, quiet=True)
    return source, f"{len(source.data)} of the data", again


def limit(recipe: Recipe, count: int, permit: Permit) -> Recipe:
    """The recipe with the first ``count`` of its data alone, all to train on."""
    spec: Any = recipe.get("source")
    if spec is None:
        return recipe
    spec = {"name": spec} if isinstance(spec, str) else dict(spec)
    keys = hints_of(find("source", spec.get("name", ""), TABLES, permit))
    few = {"limit": count, "split": [1.0, 0.0]}
    return merge(recipe, {"source": {k: v for k, v in few.items() if k in keys}})


def generate(modality: Modality, count: int) -> Source:
    """Data of a modality's kind and size whose values are random."""
    data: Data = modality.random_data(count, Generator().manual_seed(0))
    extras = {} if data.coords is None else {"coords": data.coords}
    return make_source(data.values, None, (1.0, 0.0), False, cameras=data.cameras, extras=extras)
