"""One image of any size, mode and kind of numbers as 8-bit grey or RGB."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.numbers import BYTE, EIGHT_BITS
from fieldloom.modalities.sources.pixels import (
    DEEP,
    PHOTOMETRIC,
    Scales,
    colours_of,
    numbers_of,
    pixels_of,
    scale_of,
)
from fieldloom.modalities.sources.source import Filter
from fieldloom.modalities.sources.summary import describe_size

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
ALONE = 1 << 24
"""The size in pixels from which images are decoded one at a time, in spite of threads."""


_alone = Lock()


def one_large_at_a_time(image: Image.Image) -> AbstractContextManager[object]:
    """A context in which only one thread at a time decodes a large image."""
    return _alone if image.width * image.height > ALONE else nullcontext()


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
        numbers = numbers_of(image, pixels)
        extent = float(numbers.min()), float(numbers.max())
        scale = scales.get(pixels) or scale_of(pixels, *extent, None)
        unit = scale.apply(numbers)
        unit = 1 - unit if negative else unit  # Pillow sees to that in 8 bits only
        if isinstance(clear, int):
            unit[numbers == clear] = 1
        return Image.fromarray(np.rint(unit * BYTE).astype(np.uint8))
    scale = scales.get(pixels, EIGHT_BITS)
    if (scale.low, scale.high) == (0, BYTE):
        return image
    image = colours_of(image)
    table = np.rint(scale.apply(np.arange(BYTE + 1)) * BYTE).astype(int).tolist()
    alpha = list(range(BYTE + 1)) if image.mode.endswith("A") else []
    return image.point(table * (len(image.getbands()) - bool(alpha)) + alpha)


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
