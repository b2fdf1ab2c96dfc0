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
    file = existing(path)
    own = _size(file)
    height, width = own if modality.native else modality.size
    size, used = (height, width), "none" if own == (height, width) else filter
    options = {"size": size, "channels": modality.channels, "filter": used}
    array = mapped([file], options, lambda: _strips(file, size, modality.channels, filter))
    data = torch.from_numpy(array).permute(2, 0, 1)[None]
    suggests = {"modality": {"size": [height, width]}}
    return assemble(data, None, (1.0, 0.0), shuffle=False, filter=used, suggests=suggests)


def _size(file: Path) -> tuple[int, int]:
    """(height, width) of a picture as it is to be seen."""
    with _opened(file) as image:
        width, height = image.size
        lying = image.getexif().get(ORIENTATION) in LYING
    return (width, height) if lying else (height, width)


def _strips(
    file: Path, size: tuple[int, int], channels: int, filter: Filter
) -> Iterator[NDArray[np.uint8]]:
    """The picture from top to bottom: (rows, width, channel)."""
    height, width = size
    with _opened(file) as image:
        image = fitted(plain(image, channels), size, filter)
        for top in range(0, height, ROWS):
            strip = image.crop((0, top, width, min(top + ROWS, height)))
            yield np.asarray(strip).reshape(-1, width, channels)


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
