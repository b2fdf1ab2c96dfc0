"""One recording."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.ffmpeg import open_media
from fieldloom.modalities.sources.files import SAMPLES, check_size, find_file
from fieldloom.modalities.sources.numbers import Range, check_range, describe_range
from fieldloom.modalities.sources.source import Source, make_source
from fieldloom.modalities.sources.summary import Summary, count_things
from fieldloom.permit import NOTHING, Permit

SUFFIXES = {
    *(".wav", ".wave", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc"),
    *(".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".m4a", ".m4b", ".aac", ".wma", ".mka"),  # by FFmpeg, as the audio of videos
}
FORMATS = {
    "aac", "aiff", "asf", "au", "avi", "caf", "flac", "flv", "matroska,webm",
    "mov,mp4,m4a,3gp,3g2,mj2", "mpeg", "mpegts", "ogg", "voc", "w64", "wav",
}  # fmt: skip
"""FFmpeg's containers that are read; others of its own it sees in files that are no sounds."""
UNNUMBERED = (b"OggS", b"caff")
"""How files begin that may tell no length, and are then malformed to libsndfile."""
UNRECOGNISED, MALFORMED = 1, 3
"""libsndfile's numbers of errors."""
UNKNOWN = (1 << 63) - 1
"""The number of samples that libsndfile tells of a stream without a length."""
SLACK = 4 * 1152
"""Samples by which an MP3 may be shorter than its header says: some of its frames."""
STREAMED = 0x7FFFF000
"""From this length on a WAV file's header was written before the length was known."""

FULL = {"PCM_S8": 1 << 7, "PCM_U8": 1 << 7, "PCM_16": 1 << 15, "PCM_24": 1 << 23, "PCM_32": 1 << 31}
"""Formats of integers -> the number that is read as 1."""
FLOATS = ("FLOAT", "DOUBLE")
LOUDEST = 2.0
"""The largest float that is taken as louder than full scale; others are of another scale."""
ROUNDING = 1e-6
"""How far beyond the range a sample may be and not count as clipped."""


@dataclass(frozen=True)
class Recording:
    """Samples (n, channel), float32, as fractions of full scale, and their rate per second.

    end:   seconds that the whole recording lasts; None: not known.
    full:  the stored number that is read as 1. floats: whether they are stored as floats.
    taken: for the summary.
    """

    samples: NDArray[np.float32]
    rate: float
    end: float | None
    full: int = 1
    floats: bool = False
    taken: dict[str, str] = field(default_factory=dict)


def read_audio(
    modality: Grid,
    path: str,
    offset: float = 0.0,
    seconds: float | None = None,
    range: Range = None,
    permit: Permit = NOTHING,
) -> Source:
    """One recording (1, channel, samples) in [0, 1], where 0.5 is silence.

    libsndfile reads WAV (RF64, W64), AIFF, AU, CAF, VOC, FLAC, OGG, Opus and MP3; FFmpeg reads M4A,
    AAC, WMA, the audio of videos, and streams whose header has no length.

    offset:  seconds that are skipped at the beginning.
    seconds: the longest duration from there on; None: all.
    range:   the stored numbers that become 0 and 1 (integers of 16 bits go from -32,768 to 32,767);
             None: those of integers by their type, and -1 and 1 of floats.

    The recording keeps its number of samples, and suggests it and its rate, where the modality has
    none; otherwise it is resampled (by its Fourier series). A modality of one channel takes the
    mean of all channels; any other number must be the file's. Samples beyond the range are clipped.
    Raises InputError for floats beyond ``LOUDEST`` without a range.
    """
    if len(modality.size) != 1:
        raise InputError("source 'audio' needs a modality of one axis, as 'audio'.")
    if not 0 <= offset < math.inf or (seconds is not None and not 0 < seconds < math.inf):
        raise InputError(
            f"source.offset = {offset}, source.seconds = {seconds}: not negative, and above 0."
        )
    check_range(range)
    found = _read_samples(find_file(path), offset, seconds, permit.large)
    read, taken = _scale_samples(found, range, path), {}
    channels, length = read.shape[1], len(read) / found.rate
    if modality.channels == 1:
        read = read.mean(1, keepdims=True)
    if read.shape[1] != modality.channels:
        raise InputError(
            f"{quote_path(path)} has {read.shape[1]} channels, and the modality "
            f"{modality.channels}: 1 takes their mean."
        )
    many = "mean of " if modality.channels < channels else ""
    taken["size"] = (
        f"{many}{count_things(channels, 'channel')}, {length:.6g} s at {found.rate:,.6g} per second"
    )
    if found.end is None or length < found.end:
        whole = "" if found.end is None else f" of {found.end:.6g} s"
        if offset or seconds is not None:
            taken["part"] = f"{offset:.6g} to {offset + length:.6g} s{whole}"
    taken |= found.taken
    if range is not None:
        taken["range"] = f"{describe_range(*range)} (source.range)"
    size, rate = len(read) if modality.native else modality.size[0], found.rate
    if size != len(read):
        from scipy.signal import resample

        taken["resampled"] = f"resampled from {len(read):,} to {size:,} samples (Fourier)"
        read, rate = resample(read, size).astype(np.float32), rate * size / len(read)
    if beyond := int((np.abs(read) > 1 + ROUNDING).sum()):
        taken["clipped"] = f"{count_things(beyond, 'sample')} beyond the range clipped"
    data = torch.from_numpy(np.clip(read, -1, 1)).mT[None].contiguous()
    return make_source(
        (data + 1) / 2,
        None,
        (1.0, 0.0),
        shuffle=False,
        suggests={"modality": {"size": [size], "rate": rate}},
        summary=Summary("recording", taken=taken),
    )


def _scale_samples(found: Recording, range: Range, path: str) -> NDArray[np.float32]:
    """The samples with the range's ends as -1 and 1. Raises InputError for an uncertain range."""
    read = found.samples
    if not np.isfinite(read).all():
        raise InputError(f"{quote_path(path)} has samples that are NaN or infinite.")
    if range is not None:
        low, high = range
        stored = read.astype(np.float64) * found.full
        return (2 * (stored - low) / (high - low) - 1).astype(np.float32)
    low, high = float(read.min()), float(read.max())
    if found.floats and max(-low, high) > LOUDEST:
        raise InputError(
            f"{quote_path(path)} has floats from {low:,.6g} to {high:,.6g}, where -1 to 1 are "
            "right: set source.range to the numbers that become 0 and 1, such as [-1, 1], which "
            "clips, or [-32768, 32767]."
        )
    return read


def _read_samples(file: Path, offset: float, seconds: float | None, large: bool) -> Recording:
    """Samples from ``offset`` on, by libsndfile where it can read them to their end."""
    import soundfile

    full, floats, taken = 1, False, {"end": "its header tells no length"}
    try:
        with soundfile.SoundFile(os.fsencode(file)) as opened:
            if 0 < opened.frames < UNKNOWN:
                return _read_known(opened, file, offset, seconds, large)
            full, floats = FULL.get(opened.subtype, 1), opened.subtype in FLOATS
            taken["format"] = opened.subtype_info
    except (InputError, MemoryError):
        raise
    except Exception as error:  # libsndfile fails in many ways on a broken file
        code = getattr(error, "code", None)
        if code == UNRECOGNISED:
            taken = {}
        elif code != MALFORMED or not _tells_no_length(file):
            raise InputError(
                f"{quote_path(file)} is no audio that can be read: {shorten(str(error))}."
            ) from None
    found = _decode(file, offset, seconds, large)
    return replace(found, full=full, floats=floats, taken=found.taken | taken)


def _tells_no_length(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) in UNNUMBERED


def _read_known(
    opened: Any, file: Path, offset: float, seconds: float | None, large: bool
) -> Recording:
    """Samples of an open file whose header tells how many there are."""
    rate = float(opened.samplerate)
    _check_offset(file, offset, opened.frames, rate)
    left = opened.frames - round(offset * rate)
    count = left if seconds is None else max(1, round(min(seconds * rate, left)))
    what = f"{quote_path(file)} ({file.stat().st_size:,} bytes)"
    check_size(what, count * opened.channels, "samples", SAMPLES, large)
    opened.seek(round(offset * rate))
    read = opened.read(count, dtype="float32", always_2d=True)
    header = re.search(
        r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", opened.extra_info, re.MULTILINE
    )
    short = header is not None and int(header[2]) < int(header[1]) < STREAMED
    if len(read) < count - SLACK or not len(read) or short:
        raise InputError(f"{quote_path(file)} is cut off: it is shorter than its header tells.")
    taken = {"format": opened.subtype_info}
    if "lacks an end-of-stream bit" in opened.extra_info:  # of an Ogg stream
        taken["end"] = "cut off after its last whole page"
    full, floats = FULL.get(opened.subtype, 1), opened.subtype in FLOATS
    return Recording(read, rate, opened.frames / rate, full, floats, taken)


def _decode(file: Path, offset: float, seconds: float | None, large: bool) -> Recording:
    """Samples of a file that FFmpeg reads, to their end."""
    import av

    what = f"{quote_path(file)} ({file.stat().st_size:,} bytes)"
    blocks: list[NDArray[np.float32]] = []
    done = 0
    with open_media(file, "audio") as container:
        if container.format.name not in FORMATS:
            raise InputError(f"{quote_path(file)} is no audio that can be read: unknown format.")
        if not container.streams.audio:
            raise InputError(f"{quote_path(file)} has no sound: it is no audio.")
        stream = container.streams.audio[0]
        rate, channels = float(stream.rate), stream.channels
        start = round(min(offset * rate, UNKNOWN))
        stop = UNKNOWN if seconds is None else start + max(1, round(min(seconds * rate, UNKNOWN)))
        floats = av.AudioResampler(format="flt")
        try:
            for frame in container.decode(stream):
                for part in floats.resample(frame):
                    block = np.asarray(part.to_ndarray(), np.float32).reshape(-1, channels)
                    blocks.append(block[max(0, start - done) : max(0, stop - done)])
                    done += len(block)
                wanted = max(0, min(done, stop) - start)
                check_size(what, wanted * channels, "samples", SAMPLES, large)
                if done >= stop:
                    break
        except av.FFmpegError:
            raise InputError(
                f"{quote_path(file)} is cut off or damaged after {done / rate:.6g} s: "
                "source.seconds reads what comes before."
            ) from None
        name = stream.codec_context.codec.long_name
        told = round((stream.duration or 0) * (stream.time_base or 0) * rate)
        if told < done <= told + SLACK and "mp4" in container.format.name:
            done = told  # codecs fill up their last frame
    _check_offset(file, offset, done, rate)
    end = None if done >= stop else done / rate
    read = np.concatenate(blocks)[: done - start]
    return Recording(read, rate, end, taken={"format": name})


def _check_offset(file: Path, offset: float, count: int, rate: float) -> None:
    """Raise InputError where a recording of so many samples has none after ``offset``."""
    if count < 1:
        raise InputError(f"{quote_path(file)} holds no samples: it is no audio.")
    if offset * rate >= count - 0.5:
        raise InputError(
            f"source.offset = {offset}: {quote_path(file)} lasts {count / rate:g} seconds."
        )
