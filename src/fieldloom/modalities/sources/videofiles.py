"""Video files, whose frames FFmpeg decodes, each with its own time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fieldloom.errors import InputError, quote_path
from fieldloom.modalities.sources.clips import Clip, Timed, check_frame
from fieldloom.modalities.sources.decoding import to_grey_or_rgb
from fieldloom.modalities.sources.ffmpeg import open_media
from fieldloom.modalities.sources.files import PIXELS
from fieldloom.modalities.sources.pace import Pace, find_pace

ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codecs whose own decoder in FFmpeg reads no transparency -> the decoder that does."""
HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions of high dynamic range, by their number in ITU-T H.273."""
UNTAGGED, HD = 2, 720
"""The number of an unspecified matrix there, and the height from which BT.709 is likely, too.
FFmpeg takes BT.601, as it does where it writes video from RGB."""


def open_video_file(file: Path, channels: int, large: bool) -> Clip:
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
        if pace.even and told and (pace.rate is None or abs(pace.rate / told - 1) < 0.05):
            pace = Pace(pace.count, told)  # exact, where times are rounded
    options |= {} if pace.even else {"rate": pace.rate}
    decode = partial(_iterate_frames, file, channels, decoder, large)
    return Clip([file], decode, len(packets), pace, options, taken)


def _describe_stream(container: Any, stream: Any) -> dict[str, str]:
    """What the summary says of a video file: what is not shown as a player would show it."""
    taken, codec = {}, stream.codec_context
    streams, ratio = _find_streams(container), stream.sample_aspect_ratio
    if len(streams) > 1:
        taken["stream"] = f"video stream {streams.index(stream) + 1} of {len(streams)}"
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
    """The video streams of a container, without the covers of albums."""
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


def _iterate_frames(file: Path, channels: int, decoder: str | None, large: bool) -> Iterator[Timed]:
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
                check_frame(file, frame.height, frame.width, large)
                time = time if frame.time is None else frame.time
                turns = round(frame.rotation / 90)  # counterclockwise
                upright = Image.fromarray(np.rot90(_to_array(frame), turns))
                yield time, to_grey_or_rgb(upright, channels)
    if damaged:
        raise InputError(
            f"{quote_path(file)} is cut off or damaged: source.frames.stop reads what comes before."
        )


def _decode(packet: Any, codec: Any) -> list[Any]:
    """The frames of a packet, by another codec than the stream's; an empty one ends the video."""
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
        check_frame(file, stream.height, stream.width, large)
        yield container, stream
