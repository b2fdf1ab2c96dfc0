"""The data that a trained system works on: those of its own recipe, or those at a path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldloom.assembly import open_source
from fieldloom.errors import InputError, quote_path
from fieldloom.modalities.sources import SOURCES, Source, spec_of
from fieldloom.modalities.sources.archives import is_pattern
from fieldloom.modalities.sources.files import find_path, is_address, path_to_text
from fieldloom.preparation import check_same_data, facts_of, is_of_others, say_moved
from fieldloom.registry import hints_of
from fieldloom.system import System


def source_of(system: System, path: str | Path | None = None, quiet: bool = False) -> Source:
    """The source of a system's recipe, or the data at a path, read as those were.

    quiet: what is read was said before.

    Raises InputError where the recipe's own data are not those that the system was trained on.
    """
    if path is None:
        check_place(system.settings.source)
        source = open_source(system.recipe, system.modality, system.permit, quiet)
        check_same_data(system.recipe, facts_of(source, system.recipe))
        return source
    if not isinstance(path, str | Path):
        raise InputError(f"source: a {type(path).__name__} where a path or a Source is needed.")
    own = system.settings.source
    if is_of_others(own, system.permit):  # such a reader knows best what it reads
        spec = {**own, "path": path_to_text(str(path))}
        return open_source({"source": spec}, system.modality, system.permit, quiet)
    spec = spec_of(str(path), own.get("name"), permit=system.permit)
    spec["path"] = path_to_text(spec["path"])
    if own.get("name") == spec["name"]:  # read as in training
        spec = {**own, **spec}
        for key in ("limit", "key", "label", "label_depth", "prefix"):
            spec.pop(key, None)
    trained = system.settings.filter
    readers: Mapping[str, Any] = SOURCES
    if trained != "none" and "filter" in hints_of(readers[spec["name"]]):
        spec["filter"] = trained
    return open_source({"source": spec}, system.modality, system.permit, quiet)


def check_place(spec: Mapping[str, Any]) -> None:
    """Raise InputError where the data of a run are no longer at their place.

    A path of Hugging Face may be a name, that of a reader of others anything, and an address or a
    pattern is looked up by its reader.
    """
    path, name = spec.get("path"), spec.get("name")
    if isinstance(path, str) and name in SOURCES and name != "huggingface":
        if is_address(path) or (name == "tar" and is_pattern(path)):
            return
        try:
            find_path(path)
        except InputError:
            raise InputError(
                f"the data of the run, {quote_path(path)}, do not exist, or cannot be seen. "
                f"{say_moved()}"
            ) from None


def held_out_part(
    system: System, source: Source | str | Path | None = None, quiet: bool = False
) -> tuple[Source, Tensor]:
    """A source, and the indices of those of its data that the system is applied to.

    Of the recipe's own source these are the test part, or all data where it has none; of another
    source, or of a path, all data. quiet: what is read was said before.
    """
    if isinstance(source, Source):
        return source, torch.cat([source.train, source.test]).sort().values
    found = source_of(system, source, quiet)
    return found, found.test if source is None and len(found.test) else found.train
