"""One image of any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fieldloom.errors import quote_path, set_key
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.cache import memory_map
from fieldloom.modalities.sources.decoding import (
    check_image_modality,
    crop_and_resize,
    describe_resizing,
    to_grey_or_rgb,
    upright_size,
)
from fieldloom.modalities.sources.files import find_file
from fieldloom.modalities.sources.formats import open_image
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pixels import Scales
from fieldloom.modalities.sources.source import Filter, Source, make_source
from fieldloom.modalities.sources.summary import Summary
from fieldloom.modalities.sources.survey import name_scales, survey_images
from fieldloom.permit import NOTHING, Permit

STRIP = 1 << 22
"""Pixels that are written to the cache at a time: whole rows, at least one."""


def read_image(
    modality: Grid,
    path: str,
    filter: Filter = "bicubic",
    range: Range = None,
    permit: Permit = NOTHING,
) -> Source:
    """One image of any size and mode, decoded once into the memory-mapped cache.

    It keeps its own size, and suggests it, where the modality has none; otherwise it is
    centre-cropped and resized. range: the numbers that become 0 and 1 (see ``numbers``).
    """
    check_image_modality(modality)
    hint = f": {set_key('source.name', 'folder')} reads the images in it"
    file, size, used = find_file(path, hint), None, "none"
    survey = survey_images([quote_path(file)], lambda _: file, permit.large, range)
    if survey.faults:
        raise survey.faults[0]
    taken = survey.describe(modality.channels)
    with open_image(file, quote_path(file), permit.large) as image:
        own = upright_size(image)
    if not modality.native and own != modality.size:  # images of native size are cached only once
        size, used = (modality.size[0], modality.size[1]), filter
        taken |= describe_resizing([own], size, filter)
    options: dict[str, Any] = {"size": size, "channels": modality.channels, "filter": used}
    options |= name_scales(survey.scales)
    decode = lambda: _strips(file, size, modality.channels, filter, survey.scales, permit.large)
    array = memory_map([file], options, decode)
    data = torch.from_numpy(array).permute(2, 0, 1)[None]
    suggests = {"modality": {"size": list(data.shape[2:])}}
    told = Summary("image", taken=taken)
    return make_source(
        data, None, (1.0, 0.0), shuffle=False, filter=used, suggests=suggests, summary=told
    )


def _strips(
    file: Path,
    size: tuple[int, int] | None,
    channels: int,
    filter: Filter,
    scales: Scales,
    large: bool,
) -> Iterator[NDArray[np.uint8]]:
    """Strips (rows, width, channel) of the image from top to bottom, of this size or its own."""
    with open_image(file, quote_path(file), large) as image:
        image = to_grey_or_rgb(image, channels, scales)
        image = image if size is None else crop_and_resize(image, size, filter)
        image.load()
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        yield np.asarray(strip).reshape(-1, image.width, channels)
