"""The pictures of scenes: composited, resized, and freed of their lens, in one step.

Images are composited on a background, then resized, and never cropped: where the modality has other
proportions, fx and fy differ, and every ray stays correct. Those of a distorting lens become those
of a pinhole camera in the same step. EXIF orientations are ignored, since cameras refer to the
pixels as they are stored, but where only the turned image has the proportions of its camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom import memory
from fieldloom.errors import InputError
from fieldloom.geometry.cameras import Size
from fieldloom.geometry.distortion import Lens, sample_lens
from fieldloom.modalities.sources.decoding import (
    ORIENTATION,
    one_large_at_a_time,
    to_eight_bits,
    upright_size,
)
from fieldloom.modalities.sources.formats import Encoded, open_image
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pixels import Scales
from fieldloom.modalities.sources.summary import describe_size
from fieldloom.modalities.sources.survey import survey_images
from fieldloom.permit import Permit
from fieldloom.progress import BRIEF, track

Background = Literal["white", "black"]
FullSize = tuple[float, float]
"""(height, width) of the image that a camera's intrinsics are of."""
NamedImage = tuple[str, Encoded]
"""The name of an image, for messages, and its file or its bytes."""


class Shot(NamedTuple):
    """An image, and the camera that it was taken with.

    full: (height, width) that the camera is of. intrinsics: fx, fy, cx, cy in pixels of it, of a
    pinhole camera where there is no lens. pinhole: those of the camera that the image becomes.
    """

    image: NamedImage
    full: FullSize
    intrinsics: Tensor
    lens: Lens | None
    pinhole: Tensor


def read_pictures(
    shots: Sequence[Shot], size: Size, background: Background, permit: Permit, given: Range
) -> tuple[Tensor, list[Size], dict[str, str]]:
    """The images of shots, read in parallel: uint8 (shots, 3, height, width).

    Also the size that each is stored in, and what is said of their numbers. given: as of
    ``source.range``. Raises InputError for images that are not their camera's, and where all of
    them would not fit into memory.
    """
    shape, large = (len(shots), 3, *size), permit.large
    memory.check(f"{len(shots):,} views of {describe_size(size)}", math.prod(shape), permit)
    data = np.empty(shape, np.uint8)

    def read(index: int) -> tuple[Size, str]:
        (name, file), full, intrinsics, lens, pinhole = shots[index]
        with open_image(file, name, large) as image, one_large_at_a_time(image):
            stored, upright = (image.height, image.width), upright_size(image)
            turned = not _agree(stored, full) and _agree(upright, full)
            stored = upright if turned else stored
            _check_proportions(name, stored, full)
            asks = image.getexif().get(ORIENTATION, 1) in range(2, 9)
            picture = _composite(image, background, survey.scales, turned)
            if lens is None:
                data[index] = _resize_image(picture, size)
            else:
                data[index] = _undistort(picture, size, full, pinhole, intrinsics, lens)
            return stored, TURNED if turned else NOT_TURNED if asks else ""

    sizes, turns = list[Size](), list[str]()
    names = [shot.image[0] for shot in shots]
    survey = survey_images(names, lambda i: shots[i].image[1], large, given)
    with ThreadPoolExecutor() as pool:
        each = pool.map(read, range(len(shots)))
        for stored, turn in track(each, "reading views", len(shots), "images", BRIEF):
            sizes.append(stored)
            turns.append(turn)
    words = [f"{turns.count(kind):,} {kind}" for kind in (TURNED, NOT_TURNED) if kind in turns]
    exif = {"turned": ", ".join(words)} if words else {}
    return torch.from_numpy(data), sizes, survey.describe() | exif


TURNED = "turned by EXIF, as their cameras are"
NOT_TURNED = "not turned by EXIF, since cameras are of the pixels as they are stored"


def _agree(stored: Size, full: FullSize) -> bool:
    """Whether an image may be a copy of the image (height, width) that its camera is of."""
    height, width = full
    # A smaller copy is rounded to whole pixels; anything further off was cropped.
    return abs(stored[0] / height - stored[1] / width) <= 1 / min(height, width)


def _check_proportions(name: str, stored: Size, full: FullSize) -> None:
    """Raise InputError where an image cannot be a copy of the image that its camera is of."""
    if not _agree(stored, full):
        raise InputError(
            f"{name} is {stored[0]} x {stored[1]} pixels, where its camera is of {full[0]:g} x "
            f"{full[1]:g} (height x width): the proportions must agree."
        )


def _composite(
    image: Image.Image, background: Background, scales: Scales, turned: bool
) -> Image.Image:
    """An image, of straight alpha if any, as RGB. turned: by its EXIF orientation."""
    image = to_eight_bits(image, scales, turned)
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        # On the background first: averaging the colours of transparent pixels would leave a rim.
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def _resize_image(image: Image.Image, size: Size) -> NDArray[np.uint8]:
    """An RGB image as uint8 (3, height, width), resized by areas."""
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(image).transpose(2, 0, 1)


def _undistort(
    image: Image.Image,
    size: Size,
    full: FullSize,
    pinhole: Tensor,
    intrinsics: Tensor,
    lens: Lens,
) -> NDArray[np.uint8]:
    """What a pinhole camera sees of a lens's image: uint8 (3, height, width), by areas."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    seen = sample_lens(pixels, size, full, pinhole, intrinsics, lens)
    return seen.round().clamp(0, 255).to(torch.uint8).numpy()


def stored_size(named: NamedImage, large: bool) -> Size:
    """(height, width) of an image as it is stored."""
    name, file = named
    with open_image(file, name, large) as image:
        return image.height, image.width
