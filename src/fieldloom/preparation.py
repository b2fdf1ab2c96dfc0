"""Before training: the recipe with what its data and this machine say, and the data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from fieldloom.assembly import TABLES, assemble, open_source
from fieldloom.engine import device as devices
from fieldloom.errors import InputError, quote, quote_path
from fieldloom.modalities.sources import Source
from fieldloom.permit import NOTHING, Permit
from fieldloom.recipe import Recipe, merge
from fieldloom.registry import build as make
from fieldloom.registry import find, hints_of
from fieldloom.settings import parse_settings


def prepare(
    recipe: Recipe, device: torch.device, permit: Permit = NOTHING
) -> tuple[Recipe, Source]:
    """The recipe with what its data and this machine say, and the data.

    Paths become absolute; what the source said is kept under ``known`` and must not change; the
    micro-batch is chosen once, and reused on resume. Raises InputError where data have changed.
    """
    for section in ("modality", "field"):
        if section not in recipe:
            raise InputError(f"the recipe has no section '{section}'.")
    modality = make("modality", recipe["modality"], TABLES, permit)
    path = recipe.get("source", {}).get("path") if isinstance(recipe.get("source"), dict) else None
    if isinstance(path, str) and "\0" not in path:
        absolute = os.path.realpath(os.path.expanduser(path))
        if os.path.exists(absolute) and any("\ud800" <= c <= "\udfff" for c in absolute):
            raise InputError(f"source.path = {quote_path(path)} is not UTF-8: rename it.")
        if os.path.exists(absolute):
            recipe = merge(recipe, {"source": {"path": absolute}})
    source = open_source(recipe, modality, permit)
    recipe = add_suggestions(recipe, source, permit)
    facts = source.facts()
    check_same(recipe, facts)
    recipe = recipe | {"known": facts}
    field = parse_settings(recipe).field_stage
    if field.micro is None:
        parts = ("modality", "field", "renderer")
        bare = assemble({key: recipe[key] for key in parts if key in recipe}, permit)
        points = (field.points or bare.modality.grid().shape[1]) * bare.render.evaluations
        width = max(slot.shape[-1] for slot in bare.family.field.slots.values())
        micro = devices.micro_batch(device, field.batch, points, width)
        recipe = merge(recipe, {"train": {"field": {"micro": micro}}})
    return recipe, source


def check_same(recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Raise InputError where data are not those that a run's recipe knows. facts: theirs."""
    known, source = recipe.get("known", {}), recipe.get("source")
    path = source.get("path") if isinstance(source, dict) else None
    for key, now in facts.items():
        if key in known and known[key] != now:
            where = "" if path is None else f" ({quote_path(path)})"
            raise InputError(
                f"the data of the run{where} have changed: {key} was {quote(known[key])}, and is "
                f"{quote(now)}. If they lie elsewhere now, train --resume and evaluate take --set "
                "source.path=PLACE."
            )


def add_suggestions(recipe: Recipe, source: Source, permit: Permit = NOTHING) -> Recipe:
    """The recipe with what its data know, where it is silent and its parts ask for it."""
    for section, keys in source.suggests.items():
        given = recipe.get(section, "direct")
        given = given if isinstance(given, str | Mapping) else {}
        spec = {"name": given} if isinstance(given, str) else dict(given)
        if not isinstance(spec.get("name"), str):
            continue  # the registry says what is wrong with it
        accepted = hints_of(find(section, spec["name"], TABLES, permit))
        taken = {key: value for key, value in keys.items() if key in accepted}
        recipe = merge(recipe, {section: taken | spec})
    return recipe
