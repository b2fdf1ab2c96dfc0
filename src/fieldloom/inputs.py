"""The data that a trained system works on: those of its own recipe, or those at a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldloom.assembly import TABLES, make_modality, open_source, require_sections
from fieldloom.errors import InputError, call_train, quote_path
from fieldloom.modalities.sources import SOURCES, Source, readers_of, spec_of
from fieldloom.modalities.sources.files import find_path, path_to_text
from fieldloom.modalities.sources.kinds import (
    SCENES,
    can_give,
    check_kind,
    describe_data,
    refuse_scene,
    suggest,
)
from fieldloom.permit import NOTHING, Permit
from fieldloom.preparation import check_same_data, say_moved
from fieldloom.progress import announce
from fieldloom.recipe import Recipe, merge
from fieldloom.registry import find, hints_of
from fieldloom.system import System


def source_of(system: System, path: str | Path | None = None, quiet: bool = False) -> Source:
    """The source of a system's recipe, or the data at a path, read as those were.

    quiet: what is read of the recipe's own data was said before.

    Raises InputError where the recipe's own data are not those that the system was trained on.
    """
    if path is None:
        check_place(system.settings.source)
        source = open_source(system.recipe, system.modality, system.permit, quiet)
        check_same_data(system.recipe, source.facts())
        return source
    if not isinstance(path, str | Path):
        raise InputError(f"source: a {type(path).__name__} where a path or a Source is needed.")
    own = system.settings.source
    if _is_of_others(own, system.permit):  # such a reader knows best what it reads
        spec = {**own, "path": path_to_text(str(path))}
        return open_source({"source": spec}, system.modality, system.permit)
    spec = spec_of(str(path), own.get("name"))
    spec["path"] = path_to_text(spec["path"])
    if own.get("name") == spec["name"]:  # read as in training
        spec = {**own, **spec}
        for key in ("limit", "key", "label", "label_depth", "prefix"):
            spec.pop(key, None)
    trained = system.settings.filter
    readers: Mapping[str, Any] = SOURCES
    if trained != "none" and "filter" in hints_of(readers[spec["name"]]):
        spec["filter"] = trained
    return open_source({"source": spec}, system.modality, system.permit)


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
    try:
        found = find_path(path)
    except InputError:
        if name == "huggingface":  # a name there
            return kept
        raise
    if _is_of_others(own, permit):
        return kept
    kind, there = make_modality(recipe["modality"], permit).kind, readers_of(found)
    readers = [reader for reader in _add_similar(there, found) if can_give(reader, kind)]
    if not readers:
        check_kind({"name": there[0], "path": path}, kind, called)
    if there[0] in SCENES and kind == "images":
        raise refuse_scene(there[0], path, called, readers[0])
    if _learns_set(recipe) and kind == "images" and there == ["folder"] and found.is_file():
        raise InputError(
            f"{quote_path(path)} is one image, and the recipe '{called}' learns a set of them: "
            f"{suggest('image', path)}, {call_train(called, 'FOLDER')} takes a folder."
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


def check_place(spec: Mapping[str, Any]) -> None:
    """Raise InputError where the data of a run are no longer at their place.

    A path of Hugging Face may be a name, and that of a reader of others anything.
    """
    path, name = spec.get("path"), spec.get("name")
    if isinstance(path, str) and name in SOURCES and name != "huggingface":
        try:
            find_path(path)
        except InputError:
            raise InputError(
                f"the data of the run, {quote_path(path)}, do not exist, or cannot be seen. "
                f"{say_moved()}"
            ) from None


def _is_of_others(spec: Mapping[str, Any], permit: Permit) -> bool:
    """Whether a source is no reader of the package's own, and reads a path."""
    name = spec.get("name")
    return (
        isinstance(name, str)
        and name not in SOURCES
        and "path" in hints_of(find("source", name, TABLES, permit))
    )


def held_out_part(
    system: System, source: Source | str | Path | None = None
) -> tuple[Source, Tensor]:
    """A source, and the indices of those of its data that the system is applied to.

    Of the recipe's own source these are the test part, or all data where it has none; of another
    source, or of a path, all data.
    """
    if isinstance(source, Source):
        return source, torch.cat([source.train, source.test]).sort().values
    found = source_of(system, source)
    return found, found.test if source is None and len(found.test) else found.train
