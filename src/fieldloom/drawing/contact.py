"""A contact sheet of data: small images side by side, each with its index and its class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from fieldloom import export
from fieldloom.errors import printable
from fieldloom.modalities import Modality
from fieldloom.modalities.sources import Source

TILES, SIDE, CAPTION = 64, 112, 14
"""The most tiles, the longer side of one, and the height of its caption, in pixels."""


def draw_contact_sheet(
    source: Source, modality: Modality, most: int = TILES
) -> NDArray[np.uint8] | None:
    """Evenly spaced data, or the views or frames of a single datum: uint8 (height, width, 3).

    Returns None for data that cannot be shown as images.
    """
    images = modality.tiles(source.data, most)
    if not images:
        return None
    tiles = [_draw_tile(image, _caption(source, i)) for i, image in images.items()]
    return export.join_tiles(tiles, min(len(tiles), max(1, round(1.3 * len(tiles) ** 0.5))))


def _caption(source: Source, index: int) -> str:
    if source.labels is None or len(source.data) == 1:  # a frame, or a view, of it
        return str(index)
    return f"{index}: {source.names[int(source.labels[index])]}"


def _draw_tile(image: Tensor, caption: str) -> NDArray[np.uint8]:
    """A square tile on white with the image in its middle, and the caption below."""
    pixels = Image.fromarray(export.pixels(image))
    scale = SIDE / max(pixels.size)
    small = scale >= 1  # small images are enlarged by whole numbers, so that pixels stay visible
    scale = max(1, int(scale)) if small else scale
    width, height = (max(1, round(side * scale)) for side in pixels.size)
    filter = Image.Resampling.NEAREST if small else Image.Resampling.BOX
    tile = Image.new("RGB", (SIDE, SIDE + CAPTION), "white")
    tile.paste(pixels.resize((width, height), filter), ((SIDE - width) // 2, (SIDE - height) // 2))
    text = "".join(c if c.isascii() else "?" for c in printable(caption))  # the built-in font's
    ImageDraw.Draw(tile).text((2, SIDE + 1), text, fill="black")
    return np.asarray(tile)
