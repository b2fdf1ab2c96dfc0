"""Images, video and audio of codes as files: any part of them, at any resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom import export
from fieldloom.drawing.drawer import (
    WHOLE,
    Crop,
    Drawer,
    Drawn,
    Options,
    name_window,
    refuse_turns,
    refuse_views,
    report_strips,
)
from fieldloom.errors import InputError, name_argument
from fieldloom.modalities import Modality
from fieldloom.modalities.media import VIDEO_RATE
from fieldloom.modalities.modality import Resolution, sizes_of
from fieldloom.system import System
from fieldloom.types import Code, Data

IMAGES, VIDEOS = (".png", ".tif", ".tiff"), (".mp4", ".gif")


class Grids(Drawer):
    """Draws images, video and audio of any size, with few rows in memory at a time."""

    def __init__(self, system: System, options: Options) -> None:
        super().__init__(system, options)
        refuse_views(options)
        refuse_turns(options)
        self.modality = system.modality
        self.axes = len(self.modality.shape())
        if options.frame is not None and self.axes != 3:
            raise InputError(
                f"{name_argument('frame', options.frame)} needs frames: this run is of no video."
            )
        if options.crop is not None and self.axes not in (2, 3):
            raise InputError(f"{name_window()} is for images and video: this run is of neither.")
        self.crop = options.crop or WHOLE
        self.name = f"rendered{suffixes(self.modality, self.time('') is not None)[0]}"

    def time(self, suffix: str) -> float | None:
        """The time of the video's frame that such a file shows; None: it shows the whole datum."""
        cropped = self.options.crop is not None and self.axes == 3 and suffix not in VIDEOS
        return 0.5 if cropped and self.options.frame is None else self.options.frame

    def shape(self, path: Path) -> tuple[int, ...]:
        """Samples along each axis of what is drawn into a file."""
        one_image = self.time(path.suffix) is not None
        return shape_of(self.modality, self.options.resolution, self.crop, one_image)

    def check(self, path: Path) -> None:
        possible = suffixes(self.modality, self.time(path.suffix) is not None)
        if path.suffix not in possible:
            raise InputError(
                f"'{path.name}': these data are drawn as one of {', '.join(possible)}."
            )
        self.shape(path)

    def draw(self, code: Code, path: Path, data: Data | None = None) -> Drawn:
        shape, frame = self.shape(path), self.time(path.suffix)
        extent = None if self.axes == 1 else self.crop.extent(len(shape))
        strips = report_strips(self.system.strips(code, shape, extent, frame=frame), shape[0])
        modality = self.modality
        if len(shape) == 1:
            whole = torch.cat([strip for _, strip in strips], 1).clamp(0, 1)
            saved = modality.save(Data(whole[None]), path)
            assert saved is not None
            return Drawn(saved)
        if len(shape) == 2:
            write = export.png_from_strips if path.suffix == ".png" else export.tiff
            pixels = ((first, as_pixels(strip)) for first, strip in strips)
            return Drawn(write(pixels, (shape[0], shape[1], modality.channels), path))
        frames = (export.pixels(one) for _, strip in strips for one in strip.unbind(1))
        rate = (
            VIDEO_RATE if modality.rate is None else modality.rate * shape[0] / modality.shape()[0]
        )
        if path.suffix == ".mp4":
            return Drawn(export.mp4(frames, path, rate))
        return Drawn(export.gif(frames, path, 1 / rate))


def shape_of(
    modality: Modality, resolution: Resolution | None, crop: Crop = WHOLE, one_image: bool = False
) -> tuple[int, ...]:
    """Samples along each axis of what is drawn.

    One number (None: as trained) is the longer side of a crop whose pixels are as square as those
    trained on; a video keeps its frames. Two are rows and columns. one_image: an image of a video.
    """
    own = modality.shape()
    if len(own) == 1:
        return modality.shape(resolution)
    if isinstance(resolution, tuple):
        if len(own) == len(resolution) == 3 and not one_image:
            return resolution
        if len(resolution) != 2:
            given = "x".join(map(str, resolution))
            raise InputError(
                f"{name_argument('resolution')} {given} is not right: it is one number, or rows "
                "and columns, as 256x128."
            )
        sides = resolution[0], resolution[1]
    else:
        height = own[-2] * (crop.bottom - crop.top)
        width = own[-1] * (crop.right - crop.left)
        longest = max(own[-2:] if resolution is None else sizes_of(resolution, 2))
        scale = longest / max(height, width)
        if crop != WHOLE and min(height, width) * scale < 0.5:
            raise InputError(
                f"{name_window()}: at {longest} pixels of its longer side the other is less than "
                f"one: give rows and columns as {name_argument('resolution')}."
            )
        sides = max(1, round(height * scale)), max(1, round(width * scale))
    return sides if one_image or len(own) == 2 else (own[0], *sides)


def suffixes(modality: Modality, one_image: bool) -> tuple[str, ...]:
    """Suffixes of files for data, or for one frame of a video; the default comes first."""
    axes = len(modality.shape())
    if axes == 1:
        return modality.formats
    if axes > 3 or modality.channels not in (1, 3):
        raise InputError(
            "render draws audio, and images and video of 1 or 3 channels: this run's data have "
            f"{axes} axes and {modality.channels} channels."
        )
    return IMAGES if one_image or axes == 2 else VIDEOS


def as_pixels(strip: Tensor) -> NDArray[np.uint8]:
    """(channel, rows, columns) -> uint8 (rows, columns, channel): clamped to [0, 1], rounded."""
    return (strip.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
