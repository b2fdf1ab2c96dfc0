"""What the pixels of an image are: the kind of their numbers, and the numbers that are 0 and 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities.sources.numbers import (
    BYTE,
    EIGHT_BITS,
    WORD,
    Kind,
    Range,
    Scale,
    decide_scale,
    describe_range,
)

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF 6.0."""
WORDS = re.compile(r"(RGB[AaX]?|LA?|CMYK);16|SGI16")
"""Pillow's decoders of colours of 16 bits; ``BGR;16`` is 16 bits of all three."""
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
"""Formats whose pixels are not the numbers that were saved."""


class Pixels(NamedTuple):
    """What an image's pixels are, as far as its header tells.

    kind: numbers by their type, ``colours`` of a palette, a lossy format or a colour space, whose
          range is certain, or ``words``: colours of 16 bits, of which Pillow reads the upper 8.
    top:  the number that is white, where the file says so.
    stretched: whether Pillow has stretched the numbers so that ``top`` is 65,535 (PGM).
    unsigned: whether Pillow takes unsigned integers for signed ones (TIFF of 32 bits).
    """

    kind: Kind | Literal["colours", "words"]
    top: int | None = None
    stretched: bool = False
    unsigned: bool = False


Scales = Mapping[Pixels, Scale]
"""How the numbers of a set are read, by their kind."""

DEEP = ("uint16", "integer", "float")
"""Kinds of numbers that Pillow leaves as they are: one channel of more than 8 bits."""
IN_WORDS: dict[str, str] = {
    "bool": "bilevel images", "uint8": "8-bit images", "uint16": "16-bit images",
    "integer": "images of integers", "float": "images of floats", "colours": "images",
    "words": "16-bit colours",
}  # fmt: skip


def pixels_of(image: Image.Image) -> Pixels:
    """What an open image's pixels are, before they are decoded."""
    tags, tiles = getattr(image, "tag_v2", {}), getattr(image, "tile", [])
    if image.mode == "1":
        return Pixels("bool")
    if image.format == "PPM" and image.mode == "I":
        args = tiles[0][3] if tiles else None
        top = args[-1] if isinstance(args, tuple) else WORD
        return Pixels("uint16", top, stretched=True)
    if image.mode.startswith("I;16"):
        return Pixels("uint16", 4095 if tags.get(BITS_PER_SAMPLE) in (12, (12,)) else None)
    if image.mode == "I":
        return Pixels("integer", unsigned=bool(tags) and tags.get(SAMPLE_FORMAT, 1) in (1, (1,)))
    if image.mode == "F":
        return Pixels("float")
    if image.mode == "L" and tags.get(SAMPLE_FORMAT) in (2, (2,)):  # Pillow overlooks the sign
        return Pixels("integer")
    if WORDS.search(str(tiles)):
        return Pixels("words")
    plain = image.mode in ("L", "RGB") and image.format not in LOSSY
    return Pixels("uint8" if plain else "colours")


def colours_of(image: Image.Image) -> Image.Image:
    """An image as L, LA, RGB or RGBA, its numbers as they are."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode in ("LA", "RGBA"):
        return image
    clear = "A" in image.mode.replace("LAB", "") or "transparency" in image.info
    return image.convert("RGBA" if clear else "RGB")


def numbers_of(image: Image.Image, pixels: Pixels) -> NDArray[np.float64]:
    """The numbers of a decoded image of one channel, as its file has them: (height, width).

    Raises ValueError for numbers that are not finite.
    """
    array = np.asarray(image)
    if pixels.unsigned:
        array = array.view(np.uint32)
    elif array.dtype == np.uint8:
        array = array.view(np.int8)
    numbers = array.astype(np.float64)
    if pixels.stretched and pixels.top:
        numbers = np.rint(numbers * (pixels.top / WORD))
    if not np.isfinite(numbers).all():
        raise ValueError("it has numbers that are not finite (NaN or infinity)")
    return numbers


def scale_of(pixels: Pixels, low: float, high: float, given: Range) -> Scale:
    """The scale of a kind of images, whose numbers go from ``low`` to ``high`` in the whole set.

    given: ``source.range``. Raises InputError as ``decide_scale`` does.
    """
    what = f"the numbers of {IN_WORDS[pixels.kind]}"
    if pixels.kind == "bool" or (pixels.kind == "colours" and given is None):
        return EIGHT_BITS
    if pixels.top and given is None:
        told = f"{describe_range(0.0, float(pixels.top))} (as the files say)"
        return Scale(0.0, float(pixels.top), told)
    if pixels.kind == "colours":
        return decide_scale("uint8", low, high, given, what)
    if pixels.kind != "words":
        return decide_scale(pixels.kind, low, high, given, what)
    scale = decide_scale("uint16", low, high, given, what)  # in eight bits, as Pillow reads them
    first, last = scale.low // (BYTE + 1), scale.high // (BYTE + 1)
    levels = int(last - first) + 1
    if levels < 2:
        raise InputError(
            f"{scale.words}: of {IN_WORDS[pixels.kind]} the upper 8 bits are read, which are the "
            "same in this range."
        )
    few = f", as {levels} levels" if levels <= BYTE / 2 else ""
    return Scale(first, last, scale.words + few)
