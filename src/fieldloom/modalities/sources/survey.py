"""The images of a set, before they are decoded: their kinds of pixels, and one scale for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities.sources.decoding import one_large_at_a_time
from fieldloom.modalities.sources.files import Refused
from fieldloom.modalities.sources.formats import Encoded, holds_more, open_image
from fieldloom.modalities.sources.numbers import BYTE, DARK, EIGHT_BITS, Range, check_range
from fieldloom.modalities.sources.pixels import (
    DEEP,
    IN_WORDS,
    Pixels,
    Scales,
    colours_of,
    numbers_of,
    pixels_of,
    scale_of,
)
from fieldloom.modalities.sources.summary import count_things
from fieldloom.progress import BRIEF, track


@dataclass(frozen=True, slots=True)
class Facts:
    """What one image of a set is: its numbers and their extent, whether it is grey, whether its
    file holds more."""

    pixels: Pixels
    low: float
    high: float
    grey: bool
    more: bool


@dataclass(frozen=True)
class Survey:
    """What the images of a set are, and the scales of their numbers. faults: of unreadable ones."""

    facts: Mapping[int, Facts]
    faults: Mapping[int, InputError]
    scales: Scales

    def describe(self, channels: int = 3) -> dict[str, str]:
        """What is said of a set: ranges that are not the plain ones, grey and colour, further
        frames.

        channels: of the data that the images become: 1 is grey, 3 colour.
        """
        grey = sum(one.grey for one in self.facts.values())
        more = sum(one.more for one in self.facts.values())
        return describe_images(self.scales, len(self.facts), grey, more, channels)


def describe_images(
    scales: Scales, count: int, grey: int, more: int, channels: int = 3
) -> dict[str, str]:
    """What is said of ``count`` images, as ``Survey.describe`` says it.

    grey, more: how many of them are grey, and how many files hold more than one image.
    """
    first = f"the first of several frames in {count_things(more, 'file')}"
    changed = grey if channels == 3 else count - grey
    many = "" if changed == count else f"{changed:,} "
    words = f"{many}grey, as RGB" if channels == 3 else f"{many}in colour, made grey"
    told = describe_scales(scales) | ({"colour": words} if changed else {})
    return told | ({"first": first} if more else {})


def is_grey(image: Image.Image) -> bool:
    """Whether an open image has no colours, as its header and its palette tell."""
    if image.mode in ("P", "PA"):
        palette = np.reshape(image.getpalette() or [], (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def describe_scales(scales: Scales) -> dict[str, str]:
    """What is said of scales that are not the plain ones."""
    told = {pixels: scale.words for pixels, scale in scales.items() if scale.words}
    mixed = len(set(told.values())) > 1 or 0 < len(told) < len(scales)
    ranges = [f"{x} in {IN_WORDS[p.kind]}" if mixed else x for p, x in told.items()]
    return {"range": ", ".join(dict.fromkeys(ranges))} if ranges else {}


def name_scales(scales: Scales) -> dict[str, Any]:
    """The scales that are not the plain ones, as a part of a cache's key."""
    plain = EIGHT_BITS.low, EIGHT_BITS.high
    other = sorted((p.kind, *x) for p, s in scales.items() if (x := (s.low, s.high)) != plain)
    return {"range": other} if other else {}


def survey_images(
    names: Sequence[str], read: Callable[[int], Encoded], large: bool, given: Range = None
) -> Survey:
    """Look at all images of a set, in parallel, to decide what their numbers stand for.

    given: ``source.range``. Images of deep numbers are decoded, and those of 8 bits until one is
    not dark throughout. Raises InputError for numbers without a certain range, or outside the
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
        seen = list(track(tried, "reading headers", len(names), "images", BRIEF))
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
    return {pixels: scale_of(pixels, *extent, given) for pixels, extent in extents.items()}


def examine(image: Image.Image, given: Range, bright: set[Pixels]) -> Facts:
    """The facts about an open image, which is decoded where its numbers decide.

    bright: kinds of 8 bits whose scale is certain by now; those that this image shows are added.
    """
    pixels, grey, more = pixels_of(image), is_grey(image), holds_more(image)
    certain = pixels.kind == "bool" or pixels.kind == "colours" or pixels in bright
    low, high = 0.0, 1.0 if pixels.kind == "bool" else float(BYTE)
    if given is None and certain:
        return Facts(pixels, low, high, grey, more)
    image.load()
    if pixels.kind in DEEP:
        numbers = numbers_of(image, pixels)
        low, high = float(numbers.min()), float(numbers.max())
    elif pixels.kind != "bool":
        found = np.reshape(colours_of(image).getextrema(), (-1, 2))
        found = found[: len(found) - (len(found) in (2, 4))]  # without alpha
        low, high = float(found[:, 0].min()), float(found[:, 1].max())
    if pixels.kind == "uint8" and high >= DARK:
        bright.add(pixels)
    if pixels.kind == "words":
        low, high = low * (BYTE + 1), high * (BYTE + 1)
    return Facts(pixels, low, high, grey, more)
