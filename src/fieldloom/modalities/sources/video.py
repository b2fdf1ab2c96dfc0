"""One video: a video file, or a folder of its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fieldloom.errors import InputError, quote, quote_path, shorten
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.cache import memory_map
from fieldloom.modalities.sources.files import PIXELS, check_size, find_file, find_path
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.images import SUFFIXES as IMAGE_SUFFIXES
from fieldloom.modalities.sources.images import crop_and_resize, open_image, to_grey_or_rgb
from fieldloom.modalities.sources.source import Filter, Source, make_source
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import track

SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ogv"}

VIDEO = 1 << 33
"""The largest video in pixels of all its decoded frames."""
FRAMES = 1 << 31
"""The largest number of a frame."""


@dataclass(frozen=True)
class Frames:
    """Every ``step``-th frame from ``start`` up to, and not including, ``stop`` (None: the end)."""

    start: int = 0
    stop: int | None = None
    step: int = 1

    def __post_init__(self) -> None:
        stop = FRAMES if self.stop is None else self.stop
        if not 0 <= self.start < stop <= FRAMES or not 1 <= self.step <= FRAMES:
            raise InputError(
                f"source.frames = {quote(self.start)} to {quote(self.stop)} by "
                f"{quote(self.step)}: start not below 0, stop after it, step at least 1, and none "
                f"above {FRAMES:,}."
            )


def read_video(
    modality: Grid,
    path: str,
    frames: Frames = Frames(),
    filter: Filter = "bicubic",
    permit: Permit = NOTHING,
) -> Source:
    """One video (1, channel, frames, height, width), decoded into the memory-mapped cache.

    It is a video file that FFmpeg reads, or a folder of images in the order of their names.
    frames: the range of frames that are used. It keeps its own size, and suggests it and its rate,
    where the modality has none; otherwise its frames are centre-cropped and resized, and evenly
    spaced ones are selected (a copy of these is held in memory).
    """
    if len(modality.size) != 3 or modality.channels not in (1, 3):
        raise InputError("source 'video' needs a modality of three axes and 1 or 3 channels.")
    root = find_path(path)
    root = root if root.is_dir() else find_file(path)
    files = _find_frames(root) if root.is_dir() else [root]
    read = partial(
        _iterate_files if root.is_dir() else _iterate_video,
        files,
        modality.channels,
        permit.large,
    )
    rate, total = (None, len(files)) if root.is_dir() else _read_rate_and_count(root, permit.large)
    chosen = lambda: islice(read(), frames.start, frames.stop, frames.step)
    first = next(chosen(), None)
    if first is None:
        raise InputError(
            f"source.frames: {quote_path(path)} ends before frame {frames.start}."
            if frames.start
            else f"{quote_path(path)} has no frames that can be read: it is no video."
        )
    size = (first.height, first.width) if modality.native else modality.size[1:]
    used = "none" if size == (first.height, first.width) else filter
    count = len(range(total)[frames.start : frames.stop : frames.step])

    def decode() -> Iterator[NDArray[np.uint8]]:
        for number, image in enumerate(track(chosen(), "reading frames", count, "frames"), 1):
            pixels = number * size[0] * size[1]
            check_size(quote_path(path), pixels, "pixels in its frames", VIDEO, permit.large)
            yield np.asarray(crop_and_resize(image, size, filter)).reshape(
                1, *size, modality.channels
            )

    window = [frames.start, frames.stop, frames.step]
    options = {"frames": window, "size": size, "channels": modality.channels, "filter": used}
    array = memory_map(files, options, decode)
    rate = None if rate is None else rate / frames.step
    if not modality.native and modality.size[0] != len(array):
        rate = None if rate is None else rate * modality.size[0] / len(array)
        array = _thin_frames(array, modality.size[0], path)
    data = torch.from_numpy(array).permute(3, 0, 1, 2)[None]
    suggests = {"modality": {"size": list(data.shape[2:])} | ({"rate": rate} if rate else {})}
    return make_source(data, None, (1.0, 0.0), shuffle=False, filter=used, suggests=suggests)


def _thin_frames(array: NDArray[np.uint8], count: int, path: str) -> NDArray[np.uint8]:
    """``count`` evenly spaced frames, each from the middle of its interval."""
    if count > len(array):
        raise InputError(
            f"modality.size asks for {count} frames, and {quote_path(path)} has {len(array)} of "
            "them."
        )
    return array[((np.arange(count) + 0.5) * len(array) / count).astype(int)]


def _find_frames(root: Path) -> list[Path]:
    """The images in a folder, in the order of their names."""
    files = [f for f in list_folder(root) if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()]
    if not files:
        raise InputError(f"source.path = {quote_path(root)} holds no images: no video is there.")
    return files


def _iterate_files(files: list[Path], channels: int, large: bool) -> Iterator[Image.Image]:
    for file in files:
        with open_image(file, quote_path(file), large) as image:
            image = to_grey_or_rgb(image, channels)
            image.load()
        yield image


def _iterate_video(files: list[Path], channels: int, large: bool) -> Iterator[Image.Image]:
    """The frames of a video file, upright."""
    (file,), damaged = files, False
    with _open_video(file, large) as (container, stream):
        for packet in container.demux(stream):
            damaged |= packet.is_corrupt
            for frame in packet.decode():
                _check_frame(file, frame.height, frame.width, large)
                turns = round(frame.rotation / 90)  # counterclockwise
                upright = np.rot90(frame.to_ndarray(format="rgb24"), turns)
                yield to_grey_or_rgb(Image.fromarray(upright), channels)
    if damaged:
        raise InputError(
            f"{quote_path(file)} is cut off or damaged: source.frames.stop reads what comes before."
        )


def _read_rate_and_count(file: Path, large: bool) -> tuple[float | None, int]:
    """Frames per second (None where they are unknown), and the approximate number of frames."""
    import av

    with _open_video(file, large) as (container, stream):
        rate = float(stream.average_rate or 0)
        estimate = round((container.duration or 0) / av.time_base * rate)
        return rate or None, min(max(stream.frames or estimate, 0), FRAMES)


@contextmanager
def _open_video(file: Path, large: bool) -> Iterator[tuple[Any, Any]]:
    """An open video file and its video stream. Errors in the with block become InputError."""
    import av

    try:
        # Without a protocol no other file or address that this one names can be opened.
        with (
            file.open("rb") as content,
            av.open(content, options={"protocol_whitelist": "none"}) as container,
        ):
            if not container.streams.video:
                raise InputError(f"{quote_path(file)} has no images: it is no video.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if not large:
                stream.codec_context.options = {"max_pixels": str(PIXELS)}
            _check_frame(file, stream.height, stream.width, large)
            yield container, stream
    except (InputError, MemoryError):
        raise
    except Exception as error:  # FFmpeg fails in many ways on a broken file
        raise InputError(
            f"{quote_path(file)} is no video that can be read: {shorten(str(error))}."
        ) from None


def _check_frame(file: Path, height: int, width: int, large: bool) -> None:
    what = f"{quote_path(file)} ({file.stat().st_size:,} bytes, frames of {height} x {width})"
    check_size(what, height * width, "pixels in a frame", PIXELS, large)
