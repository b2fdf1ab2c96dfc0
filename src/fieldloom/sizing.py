"""Numbers of a field that follow from the data: ``finest = "data"`` in a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fieldloom.modalities import Modality

BY_DATA = "data"
"""What stands in a recipe in place of such a number."""

LEAST = 16
"""The least cells of an axis of a finest level."""
ROWS = 12, 19
"""Binary logarithms of the fewest and the most rows of a level."""


def size_by_data(field: Any, modality: Modality) -> Any:
    """The table of a recipe's field with numbers for ``"data"``, by the shape of a datum.

    ``finest``: cells of an axis, as many as the longest axis has samples; on a sphere cells as long
    as a meridian's samples are apart; of views twice as many as pixels, since contracted space
    leaves half the domain to what they look at. ``log2_hashmap_size``: as many rows as a datum has
    samples, within ``ROWS``. ``low``, ``high``: the corners of the box that a scene lies in, or
    else -1 and 1. Other keys are as they were.
    """
    shape = modality.shape()
    longest = max(shape)
    if getattr(modality, "sphere", False):
        longest = math.ceil(2 * shape[0] / math.pi)  # the coordinates go from -1 to 1
    if modality.kind == "views":
        longest *= 2
    least, most = ROWS
    box = getattr(modality, "box", None)
    found: dict[str, Any] = {
        "low": -1.0 if box is None else list(box[:3]),
        "high": 1.0 if box is None else list(box[3:]),
        "finest": max(longest, LEAST),
        "log2_hashmap_size": min(max(math.ceil(math.log2(math.prod(shape))), least), most),
    }
    return _fill(field, found)


def _fill(part: Any, found: Mapping[str, Any]) -> Any:
    """A part's table, and those within it, with the numbers in place of ``"data"``."""
    if not isinstance(part, Mapping):
        return part
    return {
        key: found[key] if value == BY_DATA and key in found else _fill(value, found)
        for key, value in part.items()
    }
