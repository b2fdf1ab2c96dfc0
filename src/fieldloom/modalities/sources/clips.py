"""What is known of a video before it is decoded; of folders and image files, all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fieldloom.errors import InputError, quote_path
from fieldloom.modalities.sources.decoding import to_grey_or_rgb, upright_size
from fieldloom.modalities.sources.files import PIXELS, check_size, name_path
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.formats import SUFFIXES, count_frames, open_image
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pace import Pace, find_pace
from fieldloom.modalities.sources.pixels import Pixels
from fieldloom.modalities.sources.survey import (
    Facts,
    decide_scales,
    describe_scales,
    examine,
    name_scales,
    survey_images,
)

VIDEO = 1 << 33
"""The largest video in pixels of all its decoded frames."""
DELAYS = {"GIF": (0.01, 0.1, 0.01)}
"""Format -> the longest delay in seconds that browsers show as another one, that one, and the unit
of its times."""


Timed = tuple[float, Image.Image]
"""The time in seconds at which a frame is first shown, and the frame: upright, grey or RGB."""


@dataclass(frozen=True)
class Clip:
    """What is known of a video before its frames are decoded.

    decode:  the stored frames in the order in which they are shown.
    stored:  their number. pace: how they follow each other.
    options: what of the reading is part of the cache's key.
    taken, passed_over: for the summary.
    """

    files: Sequence[Path]
    decode: Callable[[], Iterator[Timed]]
    stored: int
    pace: Pace
    options: Mapping[str, Any] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, Sequence[str]] = field(default_factory=dict)


def open_folder(root: Path, channels: int, used: slice, large: bool, given: Range) -> Clip:
    """A folder: the first frame of each of its images.

    used: of the images, in their order; the others are not looked at. given: ``source.range``.
    """
    found = [file for file in list_folder(root) if file.is_file()]
    by_name = [f for f in found if f.suffix.lower() in SUFFIXES]
    if not by_name:
        raise InputError(f"{name_path(root)} holds no images: no video is there.")
    files, taken = sorted(by_name, key=_natural_key), {}
    if files != by_name:
        taken["order"] = "in the order of the numbers in their names"
    window = files[used]
    names = [quote_path(file) for file in window]
    survey = survey_images(names, window.__getitem__, large, given)
    taken |= survey.describe(channels)
    sizes = [_size_of(file, large) for file in window]
    taken |= _describe_sizes(sizes)

    def decode() -> Iterator[Timed]:
        for number, file in enumerate(files):
            with open_image(file, quote_path(file), large) as image:
                image = to_grey_or_rgb(image, channels, survey.scales)
                image.load()
            yield float(number), image

    rest = [f.name for f in found if f not in set(by_name)]
    passed_over = {"not images": rest}
    options = name_scales(survey.scales)
    return Clip(files, decode, len(files), Pace(len(files)), options, taken, passed_over)


def _describe_sizes(sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    others = sum(size != sizes[0] for size in sizes)
    told = f"{others:,} of another size than the first, cropped and resized to it"
    return {"sizes": told} if others else {}


def _natural_key(file: Path) -> tuple[list[str | int], str, str]:
    """Names in the order of their texts and numbers: ``frame2.png`` before ``frame10.png``."""
    parts = re.split(r"([0-9]+)", file.stem)  # every second one is a number
    key = [int(part) if i % 2 else part for i, part in enumerate(parts)]
    return key, file.suffix, file.name


def _size_of(file: Path, large: bool) -> tuple[int, int]:
    with open_image(file, quote_path(file), large) as image:
        return upright_size(image)


def open_image_file(file: Path, channels: int, large: bool, given: Range) -> Clip:
    """An image file of one or more frames, with the durations that it tells.

    given: ``source.range``.
    """
    name = quote_path(file)

    def iterate() -> Iterator[Image.Image]:
        with open_image(file, name, large) as image:
            count = count_frames(image)
            # a PNG may begin with an image for viewers without animation, which is no frame of it
            first = 1 if image.info.get("default_image") and count > 1 else image.tell()
            for number in range(first, max(count, first + 1)):
                image.seek(number)
                check_frame(file, image.height, image.width, large)
                yield image

    with open_image(file, name, large) as image:
        count, kind = count_frames(image), image.format or ""
        pixels = count * image.width * image.height
        check_size(name, pixels, "pixels in its frames", VIDEO, large)
    longest, instead, tick = DELAYS.get(kind, (0.0, 0.0, 0.0))
    told: list[tuple[tuple[int, int], float]] = []
    facts: list[Facts] = []
    bright: set[Pixels] = set()
    for image in iterate():
        facts.append(examine(image, given, bright))
        image.load()  # WebP tells a frame's duration then
        told.append((upright_size(image), image.info.get("duration") or 0))
    scales = decide_scales(facts, given)
    durations = [instead if time / 1000 <= longest else time / 1000 for _, time in told]
    starts = np.cumsum([0.0, *durations]).tolist()
    pace = Pace(len(told))
    if len(told) > 1 and all(durations):
        pace = find_pace(starts[:-1], starts[-1], tick)

    def decode() -> Iterator[Timed]:
        for start, image in zip(starts[:-1], iterate(), strict=True):
            yield start, to_grey_or_rgb(image, channels, scales).copy()

    options = {"images": True} | ({} if pace.even else {"rate": pace.rate})
    options |= name_scales(scales)
    taken = {"times": "without times, as even"} if len(told) > 1 and pace.rate is None else {}
    taken |= describe_scales(scales)
    taken |= _describe_sizes([size for size, _ in told])
    return Clip([file], decode, len(told), pace, options, taken)


def check_frame(file: Path, height: int, width: int, large: bool) -> None:
    """Raise Refused for a frame of a video that is too large."""
    what = f"{quote_path(file)} ({file.stat().st_size:,} bytes, frames of {height} x {width})"
    check_size(what, height * width, "pixels in a frame", PIXELS, large)
