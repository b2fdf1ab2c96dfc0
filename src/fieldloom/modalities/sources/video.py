"""One video: a video file, an image file of several frames, or a folder of frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fieldloom.errors import InputError, quote, quote_path
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.cache import memory_map
from fieldloom.modalities.sources.decoding import (
    Facts,
    Pixels,
    crop_and_resize,
    decide_scales,
    describe_scales,
    examine,
    name_scales,
    survey_images,
    to_grey_or_rgb,
    upright_size,
)
from fieldloom.modalities.sources.ffmpeg import open_media
from fieldloom.modalities.sources.files import PIXELS, check_size, find_file, find_path
from fieldloom.modalities.sources.folders import list_folder
from fieldloom.modalities.sources.formats import SUFFIXES as IMAGE_SUFFIXES
from fieldloom.modalities.sources.formats import count_frames, open_image
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.pace import TICK, Pace, find_pace, place_frames
from fieldloom.modalities.sources.source import Filter, Source, make_source
from fieldloom.modalities.sources.summary import Summary, count_things, describe_size
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import track

SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".flv", ".y4m"),
}

VIDEO = 1 << 33
"""The largest video in pixels of all its decoded frames."""
FILLED = 10_000
"""The number of frames to which a video of a variable rate may grow, or a hundred times its own."""
FRAMES = 1 << 31
"""The largest number of a frame."""
ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codecs whose own decoder in FFmpeg reads no transparency -> the decoder that does."""
HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions of high dynamic range, by their number in ITU-T H.273."""
UNTAGGED, HD = 2, 720
"""The number of an unspecified matrix there, and the height from which BT.709 is likely, too.
FFmpeg takes BT.601, as it does where it writes films from RGB."""
DELAYS = {"GIF": (0.01, 0.1, 0.01)}
"""Format -> the longest delay in seconds that browsers show as another one, that one, and the unit
of its times."""


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

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop, self.step)

    def count(self, total: int) -> int:
        """How many of ``total`` frames these are."""
        return len(range(total)[self.slice])


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
        clip = _open_folder(root, modality.channels, frames, large, range)
    elif find_file(path).suffix.lower() in IMAGE_SUFFIXES:
        clip = _open_image_file(root, modality.channels, large, range)
    elif range is not None:
        raise InputError("source.range is for images: a video file tells what its numbers are.")
    else:
        clip = _open_film(root, modality.channels, large)
    pace = clip.pace
    chosen = lambda: islice(
        place_frames(clip.decode(), pace), frames.start, frames.stop, frames.step
    )
    first = next(chosen(), None)
    if first is None:
        raise InputError(
            f"source.frames: {quote_path(path)} ends before frame {frames.start}."
            if frames.start
            else f"{quote_path(path)} has no frames that can be read: it is no video."
        )
    own = (first.height, first.width)
    size = own if modality.native else modality.size[1:]
    used = "none" if size == own else filter
    count = frames.count(min(pace.count, FRAMES))
    if not pace.even:
        what = f"{quote_path(path)} at the constant rate of {pace.rate:.6g} per second"
        most = max(FILLED, 100 * clip.stored)
        check_size(what, count, f"frames for its {clip.stored:,}", most, large)
        check_size(what, count * size[0] * size[1], "pixels in its frames", VIDEO, large)

    def decode() -> Iterator[NDArray[np.uint8]]:
        for number, image in enumerate(track(chosen(), "reading frames", count, "frames"), 1):
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


def _open_folder(root: Path, channels: int, frames: Frames, large: bool, given: Range) -> Clip:
    """A folder: the first frame of each of its images. given: ``source.range``."""
    found = [file for file in list_folder(root) if file.is_file()]
    by_name = [f for f in found if f.suffix.lower() in IMAGE_SUFFIXES]
    if not by_name:
        raise InputError(f"source.path = {quote_path(root)} holds no images: no video is there.")
    files, taken = sorted(by_name, key=_natural_key), {}
    if files != by_name:
        taken["order"] = "in the order of the numbers in their names"
    window = files[frames.slice]
    names = [quote_path(file) for file in window]
    survey = survey_images(names, window.__getitem__, large, given)
    taken |= survey.describe()
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


def _open_image_file(file: Path, channels: int, large: bool, given: Range) -> Clip:
    """An image file of one or more frames, with the durations that it tells.

    given: ``source.range``.
    """
    name = quote_path(file)

    def iterate() -> Iterator[Image.Image]:
        with open_image(file, name, large) as image:
            count = count_frames(image)
            # a PNG may begin with an image for those who show no films, which is no frame of it
            first = 1 if image.info.get("default_image") and count > 1 else image.tell()
            for number in range(first, max(count, first + 1)):
                image.seek(number)
                _check_frame(file, image.height, image.width, large)
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


def _open_film(file: Path, channels: int, large: bool) -> Clip:
    """A video file, with the time of each of its frames."""
    with _open_video(file, large) as (container, stream):
        told, tick = float(stream.average_rate or 0), float(stream.time_base or 0)
        packets = [
            packet.pts
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        taken, decoder = _describe_stream(container, stream), _find_decoder(stream)
        options: dict[str, Any] = (
            {"alpha": True} if decoder or _has_alpha(stream.codec_context.format) else {}
        )
    if None in packets:
        pace = Pace(len(packets), told or None)
        taken = {"times": "frames without times, as even"} | taken
    else:
        pace = find_pace([pts * tick for pts in sorted(packets)], tick=tick)
        if pace.even and told and (pace.rate is None or _agree(pace, told, tick)):
            pace = Pace(pace.count, told)  # exact, where times are rounded
    options |= {} if pace.even else {"rate": pace.rate}
    decode = partial(_iterate_film, file, channels, decoder, large)
    return Clip([file], decode, len(packets), pace, options, taken)


def _agree(pace: Pace, told: float, tick: float) -> bool:
    """Whether a rate that a file tells differs from its frames' times only by their rounding.

    It also counts how long the last frame is shown, which may be another time.
    """
    assert pace.rate
    return (pace.count - 1) * abs(1 / told - 1 / pace.rate) <= max(tick, TICK)


def _describe_stream(container: Any, stream: Any) -> dict[str, str]:
    """What the summary says of a film: what is not shown as a player would show it."""
    taken, codec = {}, stream.codec_context
    films, ratio = _find_streams(container), stream.sample_aspect_ratio
    if len(films) > 1:
        taken["stream"] = f"video stream {films.index(stream) + 1} of {len(films)}"
    if stream.metadata.get("alpha_mode") == "1" and not _find_decoder(stream):
        taken["alpha"] = "transparency is not read"
    if ratio and ratio != 1:
        taken["pixels"] = (
            f"pixels of {ratio.numerator}:{ratio.denominator} (width to height) kept as stored"
        )
    if codec.field_order > 1:
        taken["interlaced"] = "interlaced frames kept as stored"
    if stream.height >= HD and codec.colorspace == UNTAGGED and not _is_rgb(codec.format):
        taken["matrix"] = "untagged colours taken as BT.601"
    if codec.color_trc in HDR:
        taken["colours"] = f"high dynamic range ({HDR[codec.color_trc]}) kept as stored"
    if container.streams.audio:
        taken["sound"] = "without its sound"
    return taken


def _find_streams(container: Any) -> list[Any]:
    """The films of a container: the covers of albums are none."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & still]


def _find_decoder(stream: Any) -> str | None:
    """The name of the decoder that reads a stream's transparency, where its own does not."""
    import av

    name = ALPHA.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return None
    return name


def _has_alpha(form: Any) -> bool:
    return form is not None and any(component.is_alpha for component in form.components)


def _is_rgb(form: Any) -> bool:
    return form is not None and form.is_rgb


def _iterate_film(file: Path, channels: int, decoder: str | None, large: bool) -> Iterator[Timed]:
    """The frames of a video file, upright, with their times in seconds."""
    import av

    damaged, time = False, 0.0
    with _open_video(file, large) as (container, stream):
        codec = None if decoder is None else av.CodecContext.create(decoder, "r")
        if codec is not None:
            codec.options = dict(stream.codec_context.options)
        for packet in container.demux(stream):
            damaged |= packet.is_corrupt
            for frame in _decode(packet, codec):
                _check_frame(file, frame.height, frame.width, large)
                time = time if frame.time is None else frame.time
                turns = round(frame.rotation / 90)  # counterclockwise
                upright = Image.fromarray(np.rot90(_to_array(frame), turns))
                yield time, to_grey_or_rgb(upright, channels)
    if damaged:
        raise InputError(
            f"{quote_path(file)} is cut off or damaged: source.frames.stop reads what comes before."
        )


def _decode(packet: Any, codec: Any) -> list[Any]:
    """The frames of a packet, by another codec than the stream's; an empty one ends the film."""
    if codec is None:
        return list(packet.decode())
    return list(codec.decode(packet if packet.size else None))


def _to_array(frame: Any) -> NDArray[np.uint8]:
    """A frame as RGB, or as RGB and alpha."""
    colours = frame.to_ndarray(format="rgb24")
    if not _has_alpha(frame.format):
        return colours
    return np.dstack([colours, frame.to_ndarray(format="rgba")[..., 3]])


@contextmanager
def _open_video(file: Path, large: bool) -> Iterator[tuple[Any, Any]]:
    """An open video file and its video stream: the default one, else the first."""
    from av.stream import Disposition

    with open_media(file, "video") as container:
        streams = _find_streams(container)
        if not streams:
            raise InputError(f"{quote_path(file)} has no images: it is no video.")
        stream = max(streams, key=lambda one: one.disposition & Disposition.default)
        stream.thread_type = "AUTO"
        if not large:
            stream.codec_context.options = {"max_pixels": str(PIXELS)}
        _check_frame(file, stream.height, stream.width, large)
        yield container, stream


def _check_frame(file: Path, height: int, width: int, large: bool) -> None:
    what = f"{quote_path(file)} ({file.stat().st_size:,} bytes, frames of {height} x {width})"
    check_size(what, height * width, "pixels in a frame", PIXELS, large)
