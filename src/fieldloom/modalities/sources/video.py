"""One video: a video file, an image file of several frames, or a folder of frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fieldloom.errors import InputError, quote, quote_path
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.cache import memory_map
from fieldloom.modalities.sources.clips import VIDEO, Clip, open_folder, open_image_file
from fieldloom.modalities.sources.decoding import crop_and_resize
from fieldloom.modalities.sources.files import check_size, find_file, find_path
from fieldloom.modalities.sources.formats import SUFFIXES as IMAGE_SUFFIXES
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pace import place_frames
from fieldloom.modalities.sources.source import Filter, Source, make_source
from fieldloom.modalities.sources.summary import Summary, count_things, describe_size
from fieldloom.modalities.sources.videofiles import open_video_file
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import BRIEF, track

SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".flv", ".y4m"),
}

FILLED = 10_000
"""The number of frames to which a video of a variable rate may grow, or a hundred times its own."""
FRAMES = 1 << 31
"""The largest number of a frame."""


@dataclass(frozen=True)
class Frames:
    """Some of a video's frames.

    start, stop: the first one, and the one after the last; None: to the end.
    step: every so many of them.
    """

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

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop, self.step)

    def count(self, total: int) -> int:
        """How many of ``total`` frames these are."""
        return len(range(total)[self.slice])


def read_video(
    modality: Grid,
    path: str,
    frames: Frames = Frames(),
    filter: Filter = "bicubic",
    range: Range = None,
    permit: Permit = NOTHING,
) -> Source:
    """One video (1, channel, frames, height, width), decoded into the memory-mapped cache.

    It is a video file that FFmpeg reads, an image file of one or more frames (GIF, APNG, WebP,
    TIFF), or a folder of images in the order of their names, in which numbers are compared as
    numbers. Transparent pixels are shown on white.

    Each frame has its own time, which counts from the first one's. Where these are not even (see
    ``pace.find_pace``) the video is taken at a constant rate, each of its frames being the stored
    one that is shown in the middle of its time. Frames of folders, and frames without times, are
    taken as even.

    range: of images, the numbers that become 0 and 1 (see ``numbers``).
    frames: the range of frames that are used, of the video at its constant rate. It keeps its own
    size, and suggests it and its rate, where the modality has none; otherwise its frames are
    centre-cropped and resized, and evenly spaced ones are selected (a copy of these is held in
    memory).
    """
    if len(modality.size) != 3 or modality.channels not in (1, 3):
        raise InputError("source 'video' needs a modality of three axes and 1 or 3 channels.")
    root, large = find_path(path), permit.large
    if root.is_dir():
        clip = open_folder(root, modality.channels, frames.slice, large, range)
    elif find_file(path).suffix.lower() in IMAGE_SUFFIXES:
        clip = open_image_file(root, modality.channels, large, range)
    elif range is not None:
        raise InputError("source.range is for images: a video file tells what its numbers are.")
    else:
        clip = open_video_file(root, modality.channels, large)
    pace = clip.pace
    chosen = lambda: islice(
        place_frames(clip.decode(), pace), frames.start, frames.stop, frames.step
    )
    own = _size_of_first(chosen(), frames.start, path)
    size = own if modality.native else modality.size[1:]
    used = "none" if size == own else filter
    count = frames.count(min(pace.count, FRAMES))
    if not pace.even:
        _check_growth(clip, count, count * size[0] * size[1], path, large)

    def decode() -> Iterator[NDArray[np.uint8]]:
        for number, image in enumerate(
            track(chosen(), "reading frames", count, "frames", BRIEF), 1
        ):
            pixels = number * size[0] * size[1]
            check_size(quote_path(path), pixels, "pixels in its frames", VIDEO, large)
            yield np.asarray(crop_and_resize(image, size, filter)).reshape(
                1, *size, modality.channels
            )

    window = [frames.start, frames.stop, frames.step]
    options = {"frames": window, "size": size, "channels": modality.channels, "filter": used}
    array = memory_map(clip.files, options | dict(clip.options), decode)
    selected = len(array)
    rate = None if pace.rate is None else pace.rate / frames.step
    if not modality.native and modality.size[0] != selected:
        rate = None if rate is None else rate * modality.size[0] / selected
        array = _thin_frames(array, modality.size[0], path)
    data = torch.from_numpy(array).permute(3, 0, 1, 2)[None]
    suggests = {"modality": {"size": list(data.shape[2:])} | ({"rate": rate} if rate else {})}
    taken = _describe_frames(clip, frames, selected, len(array), rate)
    if size != own:
        taken["resized"] = _describe_fit(own, size, filter)
    taken |= clip.taken
    taken = {"size": f"{count_things(len(array), 'frame')} of {describe_size(size)}"} | taken
    summary = Summary("video", taken=taken, passed_over=clip.passed_over)
    return make_source(
        data, None, (1.0, 0.0), shuffle=False, filter=used, suggests=suggests, summary=summary
    )


def _size_of_first(frames: Iterator[Image.Image], start: int, path: str) -> tuple[int, int]:
    """(height, width) of the first of some frames. Raises InputError where there is none."""
    first = next(frames, None)
    if first is None:
        raise InputError(
            f"source.frames: {quote_path(path)} ends before frame {start}."
            if start
            else f"{quote_path(path)} has no frames that can be read: it is no video."
        )
    return first.height, first.width


def _check_growth(clip: Clip, count: int, pixels: int, path: str, large: bool) -> None:
    """Raise Refused where frames at a constant rate are many more than the stored ones."""
    what = f"{quote_path(path)} at the constant rate of {clip.pace.rate:.6g} per second"
    most = max(FILLED, 100 * clip.stored)
    check_size(what, count, f"frames for its {clip.stored:,}", most, large)
    check_size(what, pixels, "pixels in its frames", VIDEO, large)


def _describe_frames(
    clip: Clip, frames: Frames, selected: int, kept: int, rate: float | None
) -> dict[str, str]:
    """What the summary says of the frames that were taken, and of their times."""
    pace, taken = clip.pace, {}
    if rate:
        taken["length"] = f"{kept / rate:.6g} s" + (
            f" at {rate:.6g} per second" if pace.even else ""
        )
    if pace.rate and not pace.even:
        lost = f" ({pace.lost:,} too short to be seen)" if pace.lost else ""
        taken["rate"] = (
            f"variable rate: {count_things(clip.stored, 'frame')} at their own times, as "
            f"{pace.count:,} at {pace.rate:.6g} per second{lost}"
        )
    if frames != Frames():
        step = f" by {frames.step}" if frames.step > 1 else ""
        stop = "the end" if frames.stop is None else f"{frames.stop}"
        taken["frames"] = f"frames from {frames.start} to {stop}{step} of {pace.count:,}"
    if kept != selected:
        taken["thinned"] = f"{kept:,} of {selected:,} frames, evenly spaced"
    return taken


def _describe_fit(own: tuple[int, int], size: tuple[int, ...], filter: Filter) -> str:
    cropped = "cropped and " if own[0] * size[1] != own[1] * size[0] else ""
    return f"{cropped}resized from {describe_size(own)} to {describe_size(size)} ({filter})"


def _thin_frames(array: NDArray[np.uint8], count: int, path: str) -> NDArray[np.uint8]:
    """``count`` evenly spaced frames, each from the middle of its interval."""
    if count > len(array):
        raise InputError(
            f"modality.size asks for {count} frames, and {quote_path(path)} has {len(array)} of "
            "them."
        )
    return array[((np.arange(count) + 0.5) * len(array) / count).astype(int)]
