"""One recording."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.files import SAMPLES, check_size, find_file
from fieldloom.modalities.sources.source import Source, make_source
from fieldloom.permit import NOTHING, Permit

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"}
SLACK = 4 * 1152
"""Samples by which an MP3 may be shorter than its header says: some of its frames."""
STREAMED = 0x7FFFF000
"""From this length on a WAV file's header was written before the length was known."""


def read_audio(
    modality: Grid,
    path: str,
    offset: float = 0.0,
    seconds: float | None = None,
    permit: Permit = NOTHING,
) -> Source:
    """One recording (1, channel, samples) in [0, 1], where 0.5 is silence: WAV, FLAC, OGG, MP3.

    offset:  seconds that are skipped at the beginning.
    seconds: the longest duration from there on; None: all.

    The recording keeps its number of samples, and suggests it and its rate, where the modality has
    none; otherwise it is resampled (by its Fourier series). A modality of one channel takes the
    mean of all channels; any other number must be the file's. Samples beyond [-1, 1] are clipped.
    """
    if len(modality.size) != 1:
        raise InputError("source 'audio' needs a modality of one axis, as 'audio'.")
    if not 0 <= offset < math.inf or (seconds is not None and not 0 < seconds < math.inf):
        raise InputError(
            f"source.offset = {offset}, source.seconds = {seconds}: not negative, and above 0."
        )
    read, rate = _read_samples(find_file(path), offset, seconds, permit.large)
    if modality.channels == 1:
        read = read.mean(1, keepdims=True)
    if read.shape[1] != modality.channels:
        raise InputError(
            f"{quote_path(path)} has {read.shape[1]} channels, and the modality "
            f"{modality.channels}: 1 takes their mean."
        )
    size = len(read) if modality.native else modality.size[0]
    if size != len(read):
        from scipy.signal import resample

        read, rate = resample(read, size).astype(np.float32), rate * size / len(read)
    data = torch.from_numpy(np.clip(read, -1, 1)).mT[None].contiguous()
    suggests = {"modality": {"size": [size], "rate": rate}}
    return make_source((data + 1) / 2, None, (1.0, 0.0), shuffle=False, suggests=suggests)


def _read_samples(
    file: Path, offset: float, seconds: float | None, large: bool
) -> tuple[NDArray[np.float32], float]:
    """Samples (n, channel) from ``offset`` on, and their rate per second."""
    import soundfile

    try:
        with soundfile.SoundFile(file) as opened:
            rate = float(opened.samplerate)
            count = _count_samples(opened, file, offset, seconds)
            what = f"{quote_path(file)} ({file.stat().st_size:,} bytes)"
            check_size(what, count * opened.channels, "samples", SAMPLES, large)
            opened.seek(round(offset * rate))
            read = opened.read(count, dtype="float32", always_2d=True)
            info = opened.extra_info
    except (InputError, MemoryError):
        raise
    except Exception as error:  # libsndfile fails in many ways on a broken file
        raise InputError(
            f"{quote_path(file)} is no audio that can be read: {shorten(str(error))}."
        ) from None
    header = re.search(r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", info, re.MULTILINE)
    short = header is not None and int(header[2]) < int(header[1]) < STREAMED
    if len(read) < count - SLACK or not len(read) or short:
        raise InputError(f"{quote_path(file)} is cut off: it is shorter than its header tells.")
    if not np.isfinite(read).all():
        raise InputError(f"{quote_path(file)} has samples that are NaN or infinite.")
    return read, rate


def _count_samples(opened: Any, file: Path, offset: float, seconds: float | None) -> int:
    """The number of requested samples of a channel. Raises InputError where there are none."""
    if opened.frames < 1:
        raise InputError(f"{quote_path(file)} holds no samples: it is no audio.")
    rate = opened.samplerate
    if offset * rate >= opened.frames - 0.5:
        raise InputError(
            f"source.offset = {offset}: {quote_path(file)} lasts {opened.frames / rate:g} seconds."
        )
    left = opened.frames - round(offset * rate)
    return left if seconds is None else max(1, round(min(seconds * rate, left)))
