"""One image of any size, mode and kind of numbers as 8-bit grey or RGB; the numbers of a set."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.files import Refused
from fieldloom.modalities.sources.formats import (
    BITS_PER_SAMPLE,
    Encoded,
    holds_more,
    open_image,
)
from fieldloom.modalities.sources.numbers import (
    BYTE,
    EIGHT_BITS,
    WORD,
    Kind,
    Range,
    Scale,
    check_range,
    decide_scale,
    describe_range,
)
from fieldloom.modalities.sources.source import Filter
from fieldloom.modalities.sources.summary import count_things, describe_size
from fieldloom.progress import track

ORIENTATION = 0x0112
"""EXIF's tag of an image's orientation."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> the transpose that sets an image upright; from 5 on sides are swapped."""
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339
"""Tags of TIFF 6.0."""
WORDS = re.compile(r"(RGB[AaX]?|LA?|CMYK);16|SGI16")
"""Pillow's decoders of colours of 16 bits; ``BGR;16`` is 16 bits of all three."""
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
"""Formats whose pixels are not the numbers that were saved."""
ALONE = 1 << 24
"""The size in pixels from which images are decoded one at a time, in spite of threads."""


_alone = Lock()


def one_large_at_a_time(image: Image.Image) -> AbstractContextManager[object]:
    """A context in which only one thread at a time decodes a large image."""
    return _alone if image.width * image.height > ALONE else nullcontext()


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


def decode_image(
    image: Image.Image,
    modality: Grid,
    filter: Filter = "bicubic",
    size: tuple[int, ...] | None = None,
    scales: Scales = MappingProxyType({}),
) -> NDArray[np.uint8]:
    """Any image -> uint8 (channel, height, width): turned by EXIF, on white, cropped, resized.

    size: None takes the modality's. scales: see ``to_grey_or_rgb``.
    """
    height, width = size or modality.size
    upright = to_grey_or_rgb(image, modality.channels, scales)
    array = np.asarray(crop_and_resize(upright, (height, width), filter))
    return array[None] if modality.channels == 1 else array.transpose(2, 0, 1)


def to_grey_or_rgb(
    image: Image.Image, channels: int, scales: Scales = MappingProxyType({})
) -> Image.Image:
    """Any image as 8-bit grey (1 channel) or RGB (3): turned by EXIF, on white.

    scales: of the set that it belongs to; without one an image of deep numbers decides alone.
    """
    image = to_eight_bits(image, scales)
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def to_eight_bits(image: Image.Image, scales: Scales, turned: bool = True) -> Image.Image:
    """An image of any numbers as one of 8 bits, where its scale's low is 0 and its high is 255."""
    pixels, clear = pixels_of(image), image.info.get("transparency")
    image.load()  # Pillow rotates TIFF itself
    negative = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0  # white is 0
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1)) if turned else None
    image = image if turn is None else image.transpose(turn)
    if pixels.kind in DEEP:
        numbers = _numbers(image, pixels)
        extent = float(numbers.min()), float(numbers.max())
        scale = scales.get(pixels) or _decide(pixels, *extent, None)
        unit = scale.apply(numbers)
        unit = 1 - unit if negative else unit  # Pillow sees to that in 8 bits only
        if isinstance(clear, int):
            unit[numbers == clear] = 1
        return Image.fromarray(np.rint(unit * BYTE).astype(np.uint8))
    scale = scales.get(pixels, EIGHT_BITS)
    if (scale.low, scale.high) == (0, BYTE):
        return image
    image = _colours(image)
    table = np.rint(scale.apply(np.arange(BYTE + 1)) * BYTE).astype(int).tolist()
    alpha = list(range(BYTE + 1)) if image.mode.endswith("A") else []
    return image.point(table * (len(image.getbands()) - bool(alpha)) + alpha)


def _colours(image: Image.Image) -> Image.Image:
    """An image as L, LA, RGB or RGBA, its numbers as they are."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode in ("LA", "RGBA"):
        return image
    clear = "A" in image.mode.replace("LAB", "") or "transparency" in image.info
    return image.convert("RGBA" if clear else "RGB")


def _numbers(image: Image.Image, pixels: Pixels) -> NDArray[np.float64]:
    """The numbers of a decoded image of one channel, as its file has them."""
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


@dataclass(frozen=True, slots=True)
class Facts:
    """What one image of a set is: its numbers and their extent, whether its file holds more."""

    pixels: Pixels
    low: float
    high: float
    more: bool


@dataclass(frozen=True)
class Survey:
    """What the images of a set are, and the scales of their numbers. faults: of unreadable ones."""

    facts: Mapping[int, Facts]
    faults: Mapping[int, InputError]
    scales: Scales

    def describe(self) -> dict[str, str]:
        """What is said of a set: ranges that are not the plain ones, and further frames."""
        more = sum(one.more for one in self.facts.values())
        first = f"the first of several frames in {count_things(more, 'file')}"
        return describe_scales(self.scales) | ({"first": first} if more else {})


def describe_scales(scales: Scales) -> dict[str, str]:
    """What is said of scales that are not the plain ones."""
    told = {pixels: scale.words for pixels, scale in scales.items() if scale.words}
    mixed = len(set(told.values())) > 1 or 0 < len(told) < len(scales)
    ranges = [f"{x} in {IN_WORDS[p.kind]}" if mixed else x for p, x in told.items()]
    return {"range": ", ".join(dict.fromkeys(ranges))} if ranges else {}


def name_scales(scales: Scales) -> dict[str, Any]:
    """The scales that are not the plain ones, as a part of a cache's key."""
    other = sorted((p.kind, x.low, x.high) for p, x in scales.items() if x != EIGHT_BITS)
    return {"range": other} if other else {}


def survey_images(
    names: Sequence[str], read: Callable[[int], Encoded], large: bool, given: Range = None
) -> Survey:
    """Look at all images of a set, in parallel, to decide what their numbers stand for.

    given: ``source.range``. Images of deep numbers are decoded, and those of 8 bits until one is
    not of 0 and 1 alone. Raises InputError for numbers without a certain range, or outside the
    given one; Refused where an image is too large.
    """
    check_range(given)
    bright: set[Pixels] = set()

    def look(number: int) -> Facts | InputError:
        try:
            with (
                open_image(read(number), names[number], large) as image,
                one_large_at_a_time(image),
            ):
                return examine(image, given, bright)
        except Refused:
            raise
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool:
        tried = pool.map(look, range(len(names)))
        seen = list(track(tried, "reading headers", len(names), "images"))
    facts = {i: x for i, x in enumerate(seen) if isinstance(x, Facts)}
    faults = {i: x for i, x in enumerate(seen) if isinstance(x, InputError)}
    return Survey(facts, faults, decide_scales(facts.values(), given))


def decide_scales(facts: Iterable[Facts], given: Range) -> Scales:
    """The scale of each kind of numbers in a set of images. given: ``source.range``.

    Raises InputError for numbers without a certain range, or outside the given one.
    """
    extents: dict[Pixels, tuple[float, float]] = {}
    for one in facts:
        low, high = extents.get(one.pixels, (one.low, one.high))
        extents[one.pixels] = min(low, one.low), max(high, one.high)
    return {pixels: _decide(pixels, *extent, given) for pixels, extent in extents.items()}


def examine(image: Image.Image, given: Range, bright: set[Pixels]) -> Facts:
    """The facts about an open image, which is decoded where its numbers decide.

    bright: kinds of 8 bits whose scale is certain by now; those that this image shows are added.
    """
    pixels, more = pixels_of(image), holds_more(image)
    certain = pixels.kind == "bool" or pixels.kind == "colours" or pixels in bright
    low, high = 0.0, 1.0 if pixels.kind == "bool" else float(BYTE)
    if given is None and certain:
        return Facts(pixels, low, high, more)
    image.load()
    if pixels.kind in DEEP:
        numbers = _numbers(image, pixels)
        low, high = float(numbers.min()), float(numbers.max())
    elif pixels.kind != "bool":
        found = np.reshape(_colours(image).getextrema(), (-1, 2))
        found = found[: len(found) - (len(found) in (2, 4))]  # without alpha
        low, high = float(found[:, 0].min()), float(found[:, 1].max())
    if pixels.kind == "uint8" and high > 1:
        bright.add(pixels)
    if pixels.kind == "words":
        low, high = low * (BYTE + 1), high * (BYTE + 1)
    return Facts(pixels, low, high, more)


def _decide(pixels: Pixels, low: float, high: float, given: Range) -> Scale:
    """The scale of a kind of images, whose numbers go from ``low`` to ``high`` in the whole set."""
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


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an image after its EXIF orientation is applied."""
    swapped = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    return image.size if swapped else (image.height, image.width)


def crop_and_resize(image: Image.Image, size: tuple[int, int], filter: Filter) -> Image.Image:
    """An image of (height, width) = ``size``: centre-cropped and resized where it has another."""
    wanted = (size[1], size[0])
    if image.size == wanted:
        return image
    return ImageOps.fit(image, wanted, Image.Resampling[filter.upper()])


def check_image_modality(modality: Grid) -> None:
    """Raise InputError for a modality that is not of grey or RGB images."""
    if len(modality.size) != 2 or modality.channels not in (1, 3):
        raise InputError(
            "this source reads images: the modality needs two axes and 1 or 3 channels."
        )


def describe_resizing(
    sizes: Collection[tuple[int, ...]], size: tuple[int, ...], filter: str, crops: bool = True
) -> dict[str, str]:
    """What is said of images (height, width) that are resized to one size, if any are."""
    other = sorted({one for one in sizes if one != size}, key=math.prod)
    if not other:
        return {}
    named = dict.fromkeys(describe_size(one) for one in (other[0], other[-1]))
    cropped = crops and any(h * size[1] != w * size[0] for h, w in other)
    how = "cropped and resized" if cropped else "resized"
    return {"resized": f"{how} from {' ... '.join(named)} ({filter})"}
