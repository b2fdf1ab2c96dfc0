"""Looking at data before anything is trained: what is read, and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fieldloom import export
from fieldloom import recipe as recipes
from fieldloom.assembly import make_modality, open_source, read_recipe
from fieldloom.atomic import write_bytes
from fieldloom.drawing import draw_contact_sheet
from fieldloom.engine.lock import check_free
from fieldloom.errors import InputError, quote_path
from fieldloom.modalities import Modality
from fieldloom.modalities.sources import SINGLE, WITHOUT_A_PATH, Source, readers_at, spec_of
from fieldloom.modalities.sources.arrays import CHANNELS
from fieldloom.modalities.sources.files import (
    Refused,
    find_path,
    find_similar,
    is_address,
    locate,
    shape_of_array,
)
from fieldloom.modalities.sources.kinds import describe_data
from fieldloom.modalities.sources.shards import size_of_first
from fieldloom.permit import NOTHING, Permit
from fieldloom.preparation import add_suggestions
from fieldloom.progress import announce

LONGEST = 256
"""The longer side that images of a set are reduced to, where the first is larger."""
VIEWS = 128
"""The size of the images of scenes."""


def inspect(
    source: str | Path,
    /,
    sheet: str | Path | None = None,
    recipe: str | recipes.Recipe | None = None,
    variant: str | None = None,
    *,
    trust: Sequence[str] = (),
    network: bool = False,
    large: bool = False,
    overwrite: bool = False,
    **overrides: Any,
) -> Source:
    """Read data as training would, and return them with a summary of what was read.

    >>> fieldloom.inspect("photographs", "sheet.png").summary.describe()

    source: a path, or the name of a recipe, whose own data are read, or ``glyphs``, ``digits`` or
    ``skimage``, which come with packages. sheet: a PNG to write, with
    small images of at most 64 of the data, or of the views or frames of a single datum. recipe,
    variant, overrides: the path's data are read as this recipe reads its own (as of ``build``,
    ``source={"limit": 20}``); None: by their kind (or by ``source={"name": "video"}``), in their
    own size; images of a set in the size of the first, at most 256.
    trust, network, large: as of ``train``. overwrite: whether a sheet that is there is replaced.

    Raises InputError for what cannot be read, for a sheet that is there already, and where one is
    asked for of data that cannot be shown as images.
    """
    if sheet is not None:
        check_free(Path(sheet), overwrite)
    permit = Permit((trust,) if isinstance(trust, str) else tuple(trust), network, large)
    chosen = None if recipe is None else read_recipe(recipe, variant, {})
    recipes.check_values(overrides, "overrides")
    named = overrides.get("source")
    named = named.get("name") if isinstance(named, Mapping) else named
    resolved = recipes.resolve(recipe_for(source, chosen, permit, named), overrides)
    found = read_data(resolved, permit)
    if sheet is not None and write_contact_sheet(found, sheet) is None:
        raise InputError("these data cannot be shown as images: there is no contact sheet.")
    return found.source


def recipe_for(
    source: str | Path,
    recipe: recipes.Recipe | None = None,
    permit: Permit = NOTHING,
    named: str | None = None,
) -> recipes.Recipe:
    """The recipe that reads data at a path, or that of a recipe's name.

    recipe: the path's data are read as this one reads its own. named: the name of the source that
    reads them; None: by what is at the path. Raises InputError for what is
    neither a path nor a recipe.
    """
    if recipe is None and source in WITHOUT_A_PATH and not Path(source).exists():
        return {"source": source, "modality": modality_of({"name": source}, permit)}
    try:
        readers_at(str(source), permit)
    except Refused:
        raise
    except InputError:
        if is_address(str(source)):
            raise
        stem = str(source).partition(":")[0]
        if recipe is None and stem in recipes.list_recipes():
            return recipes.load(str(source))
        raise InputError(
            f"{quote_path(source)} does not exist, or cannot be seen"
            f"{find_similar(str(source))}, and is no bundled recipe."
        ) from None
    own = {} if recipe is None else recipe.get("source", {})
    own = {"name": own} if isinstance(own, str) else dict(own)
    spec = spec_of(str(source), own.get("name"), named, permit)
    spec = {key: spec[key] for key in ("name", "path")}  # divided as in training
    if recipe is None:
        here = None if is_address(spec["path"]) else locate(spec["path"])
        if spec["name"] == "folder" and named is None and here is not None and here.is_file():
            spec["name"] = "image"  # one image, in its own size
        return {"source": spec, "modality": modality_of(spec, permit)}
    if own.get("name") == spec["name"]:
        return recipe | {"source": own | spec}
    if named is None:
        words = describe_data(spec["name"], spec["path"])
        announce(f"{quote_path(source)}: {words}, read by the source '{spec['name']}'")
    return recipe | {"source": spec}


def modality_of(spec: Mapping[str, Any], permit: Permit = NOTHING) -> dict[str, Any]:
    """The modality that shows the data of a source (``spec_of``) in their own size.

    Only headers are read.
    """
    name = spec["name"]
    if name in SINGLE:
        return {"name": name}
    if name in WITHOUT_A_PATH:
        return {"name": "image", "channels": 3 if name == "skimage" else 1}
    if name in ("folder", "packed", "tar"):
        height, width = size_of_first(name, spec["path"], permit)
        scale = min(1, LONGEST / max(height, width))
        return {"name": "image", "size": [max(1, round(n * scale)) for n in (height, width)]}
    path = find_path(spec["path"])
    if name == "meshes":
        return {"name": "voxel"}
    if name in ("multiview", "transforms", "srn", "nsvf", "colmap"):
        return {"name": "views", "size": VIEWS}
    if name == "voxels":
        return {"name": "voxel", "size": None}
    if name == "array":
        return _modality_of_array(shape_of_array(path))
    return {"name": "image"}


def _modality_of_array(shape: Sequence[int]) -> dict[str, Any]:
    """The modality of an array of images, or of voxels where it has one axis more."""
    plane = shape[:1] if len(shape) == 3 and shape[0] == 3 else shape[1:2]  # an RGB image's
    channels = next((n for n in (*shape[-1:], *plane) if n in CHANNELS), None)
    if len(shape) > 3 and channels is None:
        return {"name": "voxel", "size": None}
    return {"name": "image", "channels": 1 if channels in (None, 1) else 3}


class Inspected(NamedTuple):
    """Data, and their modality in their own size."""

    source: Source
    modality: Modality


def read_data(recipe: recipes.Recipe, permit: Permit = NOTHING) -> Inspected:
    """The data of a recipe, which is checked as that of a training."""
    recipes.validate(recipe)
    modality = make_modality(recipe["modality"], permit)
    found = open_source(recipe, modality, permit)
    suggested = add_suggestions(recipe, found, permit)["modality"]
    return Inspected(found, make_modality(suggested, permit))


def write_contact_sheet(data: Inspected, path: str | Path) -> Path | None:
    """Write a contact sheet as a PNG; None for data that cannot be shown as images."""
    drawn = draw_contact_sheet(data.source, data.modality)
    return None if drawn is None else write_bytes(export.png_bytes(drawn), path)
