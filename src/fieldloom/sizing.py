"""Sizes of a field that follow from the data: ``finest = "data"`` in a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fieldloom.modalities import Modality
from fieldloom.recipe import Recipe

BY_DATA = "data"


def size_by_data(recipe: Recipe, modality: Modality) -> Recipe:
    """The recipe with numbers where its field says ``"data"``, by the shape of a datum.

    finest: cells of an axis as the longest axis has samples, so that the finest level of a grid has
    a vertex for each; on a sphere as many as leave a cell for each sample of a meridian.
    log2_hashmap_size: as many rows as a datum has samples, from 2^12 to 2^19.
    """
    field = recipe.get("field")
    if not isinstance(field, Mapping):
        return recipe
    shape = modality.shape()
    longest = max(shape)
    if getattr(modality, "sphere", False):
        longest = math.ceil(2 * shape[0] / math.pi)
    found = {
        "finest": longest,
        "log2_hashmap_size": min(max(math.ceil(math.log2(math.prod(shape))), 12), 19),
    }
    return {**recipe, "field": _fill(field, found)}


def _fill(part: Mapping[str, Any], found: Mapping[str, int]) -> dict[str, Any]:
    """A part's table, and those within it, with the numbers in place of ``"data"``."""
    filled: dict[str, Any] = {}
    for key, value in part.items():
        if isinstance(value, Mapping):
            filled[key] = _fill(value, found)
        else:
            filled[key] = found[key] if value == BY_DATA and key in found else value
    return filled
