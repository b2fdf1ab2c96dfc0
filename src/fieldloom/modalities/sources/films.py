"""One film: a video file, or a folder of its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.mapped import mapped
from fieldloom.modalities.sources.pictures import SUFFIXES as PICTURES
from fieldloom.modalities.sources.pictures import UNREAD, fitted, plain
from fieldloom.modalities.sources.source import Filter, Source, assemble, existing
from fieldloom.progress import track

SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ogv"}


@dataclass(frozen=True)
class Frames:
    """Every ``step``-th frame from ``start`` up to, and not including, ``stop`` (None: the end)."""

    start: int = 0
    stop: int | None = None
    step: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.step < 1 or (self.stop is not None and self.stop <= self.start):
            raise InputError(
                f"source.frames = {self.start} to {self.stop} by {self.step}: start not below 0, "
                "stop after it, step at least 1."
            )


def film(
    modality: Grid, path: str, frames: Frames = Frames(), filter: Filter = "bicubic"
) -> Source:
    """One film (1, channel, frames, height, width), mapped from a file into which it is decoded.

    A video file that FFmpeg reads, or a folder of pictures in the order of their names. frames:
    which of them. It keeps its own size, and suggests it and its rate, where the modality says
    none; otherwise its frames are centre-cropped and resized, and as many as the modality has are
    taken at equal steps (a copy of these is held in memory).
    """
    if len(modality.size) != 3 or modality.channels not in (1, 3):
        raise InputError("source 'film' needs a modality of three axes and 1 or 3 channels.")
    root = existing(path)
    files = [root]
    if root.is_dir():
        files = sorted(f for f in root.iterdir() if f.suffix.lower() in PICTURES)
        if not files:
            raise InputError(f"source.path = '{path}' holds no pictures: no film is there.")
    read = partial(_pictures, files) if root.is_dir() else partial(_decoded, root)
    rate, total = (None, len(files)) if root.is_dir() else _about(root)
    chosen = lambda: islice(read(), frames.start, frames.stop, frames.step)
    first = next(chosen(), None)
    if first is None:
        raise InputError(f"source.frames: '{path}' ends before frame {frames.start}.")
    size = (first.height, first.width) if modality.native else modality.size[1:]
    used = "none" if size == (first.height, first.width) else filter
    count = len(range(total)[frames.start : frames.stop : frames.step])

    def decode() -> Iterator[NDArray[np.uint8]]:
        for image in track(chosen(), "reading frames", count, "frames"):
            frame = np.asarray(fitted(plain(image, modality.channels), size, filter))
            yield frame.reshape(1, *size, modality.channels)

    told = [frames.start, frames.stop, frames.step]
    options = {"frames": told, "size": size, "channels": modality.channels, "filter": used}
    array = mapped(files, options, decode)
    rate = None if rate is None else rate / frames.step
    if not modality.native and modality.size[0] != len(array):
        rate = None if rate is None else rate * modality.size[0] / len(array)
        array = _thinned(array, modality.size[0], path)
    data = torch.from_numpy(array).permute(3, 0, 1, 2)[None]
    suggests = {"modality": {"size": list(data.shape[2:])} | ({"rate": rate} if rate else {})}
    return assemble(data, None, (1.0, 0.0), shuffle=False, filter=used, suggests=suggests)


def _thinned(array: NDArray[np.uint8], count: int, path: str) -> NDArray[np.uint8]:
    """So many frames at equal steps, each from the middle of its share."""
    if count > len(array):
        raise InputError(
            f"modality.size asks for {count} frames, and '{path}' has {len(array)} of them."
        )
    return array[((np.arange(count) + 0.5) * len(array) / count).astype(int)]


def _pictures(files: list[Path]) -> Iterator[Image.Image]:
    for file in files:
        try:
            with Image.open(file) as image:
                yield ImageOps.exif_transpose(image)
        except UNREAD as error:
            raise InputError(f"'{file}' is no picture that can be read: {error}.") from None


def _decoded(file: Path) -> Iterator[Image.Image]:
    """The frames of a video file, upright."""
    import av

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise InputError(f"'{file}' has no pictures: it is no film.")
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                turns = round(frame.rotation / 90)  # counterclockwise
                yield Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    except av.FFmpegError as error:
        raise InputError(f"'{file}' is no film that can be read: {error}.") from None


def _about(file: Path) -> tuple[float | None, int]:
    """Frames a second, None where the file does not say it, and about how many frames there are."""
    import av

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise InputError(f"'{file}' has no pictures: it is no film.")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            told = round((container.duration or 0) / av.time_base * rate)
            return rate or None, stream.frames or told
    except av.FFmpegError as error:
        raise InputError(f"'{file}' is no film that can be read: {error}.") from None
