"""Before training: a recipe completed by facts of its data and of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fieldloom.assembly import (
    TABLES,
    assemble,
    make_modality,
    open_source,
    require_sections,
    sizes_left_out,
)
from fieldloom.engine import device as devices
from fieldloom.errors import (
    InputError,
    call_train,
    is_command,
    name_argument,
    quote,
    quote_path,
)
from fieldloom.modalities.sources import IMAGES, SOURCES, Source, readers_at
from fieldloom.modalities.sources.archives import is_pattern
from fieldloom.modalities.sources.files import find_path, is_address, locate, path_to_text
from fieldloom.modalities.sources.kinds import (
    SCENES,
    can_give,
    check_kind,
    describe_data,
    refuse_scene,
    suggest,
)
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import announce
from fieldloom.recipe import Recipe, merge
from fieldloom.registry import find, hints_of
from fieldloom.settings import parse_settings
from fieldloom.sizing import size_by_data


def say_moved() -> str:
    """What to do where the data of a run were moved."""
    if not is_command():
        return 'If they lie elsewhere now, train takes source={"path": PLACE} with resume=True.'
    return (
        "If they lie elsewhere now, train --resume --run RUN --source PLACE keeps the new place in "
        "the run, and evaluate takes --set source.path=PLACE."
    )


def prepare(
    recipe: Recipe, device: torch.device, permit: Permit = NOTHING
) -> tuple[Recipe, Source]:
    """The recipe, completed by facts of its data and of this machine, and the data.

    The path of the data becomes absolute; their facts are kept under ``known`` and must not change;
    the micro-batch is chosen once, and reused on resume. Raises InputError where data have changed.
    """
    require_sections(recipe)
    if "known" not in recipe:
        for part, sizes in sizes_left_out(recipe).items():
            taken = ", ".join(f"{key} = {size}" for key, size in sizes.items())
            announce(f"{part} takes its own sizes, since the recipe names none: {taken}")
    modality = make_modality(recipe["modality"], permit)
    recipe = make_path_absolute(recipe)
    source = open_source(recipe, modality, permit)
    recipe = add_suggestions(recipe, source, permit)
    modality = make_modality(recipe["modality"], permit)
    recipe = recipe | {"field": size_by_data(recipe["field"], modality)}
    facts = facts_of(source, recipe)
    check_same_data(recipe, facts)
    return add_micro_batch(recipe | {"known": facts}, device, permit), source


def add_source(recipe: Recipe, path: str, permit: Permit = NOTHING) -> Recipe:
    """The recipe with the data at a path, by its own reader, or by the one that suits these data.

    A reader that is chosen here is said, and what is divided is divided as it does by default.
    Raises InputError for data of another kind than the recipe's, for what does not exist, and for
    one picture where the recipe learns a set.
    """
    require_sections(recipe)
    own = recipe.get("source", {})
    own = {"name": own} if isinstance(own, str) else dict(own)
    name, called = own.get("name"), str(recipe.get("recipe", ""))
    kept = recipe | {"source": {**own, "path": path_to_text(path)}}
    elsewhere, others = is_address(path), is_of_others(own, permit)
    if elsewhere and (others or name == "huggingface"):
        return kept
    try:
        found = None if elsewhere or is_pattern(path) else find_path(path)
    except InputError:
        if name == "huggingface":  # a name there
            return kept
        raise
    if others:
        return kept
    kind, there = make_modality(recipe["modality"], permit).kind, readers_at(path, permit)
    similar = there if found is None else _add_similar(there, found)
    readers = [reader for reader in similar if can_give(reader, kind)]
    if not readers:
        check_kind({"name": there[0], "path": path}, kind, called)
    if there[0] in SCENES and kind == "images":
        raise refuse_scene(there[0], path, called, readers[0])
    one = found is not None and found.is_file() and there == ["folder"]
    if found is not None and one and _learns_set(recipe) and kind == "images":
        is_image = found.suffix.lower() in IMAGES
        what, many = ("image", "them") if is_image else ("file", "images")
        alone = f"{suggest('image', path)}, " if is_image else ""
        raise InputError(
            f"{quote_path(path)} is one {what}, and the recipe '{called}' learns a set of {many}: "
            f"{alone}{call_train(called, 'FOLDER')} takes a folder."
        )
    if name in readers:
        return kept
    reader = readers[0]
    announce(f"{quote_path(path)}: {describe_data(reader, path)}, read by the source '{reader}'")
    return merge(recipe, {"source": {"name": reader, "path": path_to_text(path)}})


def _learns_set(recipe: Recipe) -> bool:
    """Whether a recipe has codes of several data, as all have whose weights are not shared."""
    spec = recipe.get("conditioner", "shared")
    return (spec.get("name") if isinstance(spec, Mapping) else spec) != "shared"


def _add_similar(readers: Sequence[str], found: Path) -> list[str]:
    """Readers of a path with those that can read it, too, though others come first.

    A folder of images may be the frames of a video, an image alone its own source, an array voxels,
    and a video has its sound.
    """
    also = {
        "folder": ["video", *(["image"] if found.is_file() else [])],
        "array": ["voxels"],
        "video": ["audio"],
    }
    return [*readers, *(other for reader in readers for other in also.get(reader, ()))]


def is_of_others(spec: Mapping[str, Any], permit: Permit) -> bool:
    """Whether a source is no reader of the package's own, and reads a path."""
    name = spec.get("name")
    return (
        isinstance(name, str)
        and name not in SOURCES
        and "path" in hints_of(find("source", name, TABLES, permit))
    )


def make_path_absolute(recipe: Recipe) -> Recipe:
    """The recipe with an absolute ``source.path``, where it has one that exists, or a pattern.

    A path that is not UTF-8 becomes a ``file:`` URI, since a recipe's file must be UTF-8.
    """
    source = recipe.get("source")
    path = source.get("path") if isinstance(source, dict) else None
    if not isinstance(path, str) or "\0" in path or is_address(path):
        return recipe
    absolute = os.path.realpath(locate(path))
    known = os.path.exists(absolute) or (source or {}).get("name") == "tar"
    kept = path_to_text(absolute) if known else path_to_text(path)
    return merge(recipe, {"source": {"path": kept}})


def add_micro_batch(recipe: Recipe, device: torch.device, permit: Permit = NOTHING) -> Recipe:
    """The recipe with a micro-batch of stage ``field``, by this machine where it has none."""
    field = parse_settings(recipe).field_stage
    if field.micro is not None:
        return recipe
    parts = ("modality", "field", "renderer")
    bare = assemble({key: recipe[key] for key in parts if key in recipe}, permit)
    points = (field.points or bare.modality.grid().shape[1]) * bare.render.evaluations
    micro = devices.micro_batch(device, field.batch, points, bare.family.widest)
    return merge(recipe, {"train": {"field": {"micro": micro}}})


def facts_of(source: Source, recipe: Recipe) -> dict[str, Any]:
    """The facts of a source, with a fingerprint of the kind that a run's recipe has."""
    return source.facts(recipe.get("known", {}))


def known_fingerprint(recipe: Recipe) -> str | None:
    """The fingerprint of the data that a run was trained on, where its recipe says it."""
    return recipe.get("known", {}).get("fingerprint")


def check_same_data(recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Raise InputError where a source's facts differ from those of the run's recipe."""
    known, source = recipe.get("known", {}), recipe.get("source")
    path = source.get("path") if isinstance(source, dict) else None
    same = known.get("fingerprint") == facts.get("fingerprint")  # perhaps classes are renamed
    for key, now in facts.items():
        if key in known and known[key] != now and not (same and key == "names"):
            where = "" if path is None else f" ({quote_path(path)})"
            raise InputError(
                f"the data of the run{where} have changed: {key} was {quote(known[key])}, and is "
                f"{quote(now)}. Other data need a run of their own (another "
                f"{name_argument('run')}), or are evaluated with {name_argument('source')}. "
                f"{say_moved()}"
            )


def add_suggestions(recipe: Recipe, source: Source, permit: Permit = NOTHING) -> Recipe:
    """The recipe with keys that its source suggests, where its parts have them and it does not.

    That of a run is complete, though its source may suggest more by now. Where the recipe holds
    out no views (``held = 0``), the source may.
    """
    if "known" in recipe:
        return recipe
    for section, keys in source.suggests.items():
        given = recipe.get(section, "direct")
        given = given if isinstance(given, str | Mapping) else {}
        spec = {"name": given} if isinstance(given, str) else dict(given)
        if not isinstance(spec.get("name"), str):
            continue  # the registry raises the error
        accepted = hints_of(find(section, spec["name"], TABLES, permit))
        taken = {key: value for key, value in keys.items() if key in accepted}
        own = {key: value for key, value in spec.items() if key != "held" or value}
        recipe = merge(recipe, {section: taken | own})
    return recipe
