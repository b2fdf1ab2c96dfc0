"""One picture of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.mapped import mapped
from fieldloom.modalities.sources.pictures import (
    ORIENTATION,
    UNREAD,
    check_pictures,
    fitted,
    plain,
)
from fieldloom.modalities.sources.source import Filter, Source, assemble, existing

LYING = {5, 6, 7, 8}
"""EXIF's orientations that swap height and width."""

ROWS = 256
"""Rows of a picture that are written to the cache at a time."""


def picture(modality: Grid, path: str, filter: Filter = "bicubic") -> Source:
    """One picture of any size and mode, mapped from a file into which it is decoded once.

    It keeps its own size, and suggests it, where the modality says none; otherwise it is
    centre-cropped and resized. Pillow's limit on pixels does not hold.
    """
    check_pictures(modality)
    file, size, used = existing(path), None, "none"
    if not modality.native and _size(file) != modality.size:  # its own is decoded but once
        size, used = (modality.size[0], modality.size[1]), filter
    options = {"size": size, "channels": modality.channels, "filter": used}
    array = mapped([file], options, lambda: _strips(file, size, modality.channels, filter))
    data = torch.from_numpy(array).permute(2, 0, 1)[None]
    suggests = {"modality": {"size": list(data.shape[2:])}}
    return assemble(data, None, (1.0, 0.0), shuffle=False, filter=used, suggests=suggests)


def _size(file: Path) -> tuple[int, int]:
    """(height, width) of a picture as it is to be seen."""
    with _opened(file) as image:
        width, height = image.size
        lying = image.getexif().get(ORIENTATION) in LYING
    return (width, height) if lying else (height, width)


def _strips(
    file: Path, size: tuple[int, int] | None, channels: int, filter: Filter
) -> Iterator[NDArray[np.uint8]]:
    """The picture, of this size or its own, from top to bottom: (rows, width, channel)."""
    with _opened(file) as image:
        image = plain(image, channels)
        image = image if size is None else fitted(image, size, filter)
        for top in range(0, image.height, ROWS):
            strip = image.crop((0, top, image.width, min(top + ROWS, image.height)))
            yield np.asarray(strip).reshape(-1, image.width, channels)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """A picture however large. Raises InputError where it cannot be read."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(file) as image:
            yield image
    except UNREAD as error:
        raise InputError(f"'{file}' is no picture that can be read: {error}.") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
