"""One sound."""

from __future__ import annotations

import numpy as np
import torch

from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.source import Source, assemble, existing

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"}


def sound(modality: Grid, path: str, offset: float = 0.0, seconds: float | None = None) -> Source:
    """One sound (1, channel, samples) in [0, 1], where 0.5 is silence: WAV, FLAC, OGG, MP3.

    offset:  seconds that are left out at the beginning.
    seconds: at most so many from there on; None: all.
    It keeps its own number of samples, and suggests it and its rate, where the modality says none;
    otherwise it is resampled (by its Fourier series). A modality of one channel takes the mean of
    all; any other number must be the file's. Samples beyond [-1, 1] are clipped.
    """
    import soundfile

    if len(modality.size) != 1:
        raise InputError("source 'sound' needs a modality of one axis, as 'audio'.")
    if offset < 0 or (seconds is not None and seconds <= 0):
        raise InputError(
            f"source.offset = {offset}, source.seconds = {seconds}: not negative, and above 0."
        )
    file = existing(path)
    try:
        with soundfile.SoundFile(file) as opened:
            rate = float(opened.samplerate)
            first = round(offset * rate)
            if first >= opened.frames:
                raise InputError(
                    f"source.offset = {offset}: '{path}' lasts {opened.frames / rate:g} seconds."
                )
            opened.seek(first)
            count = -1 if seconds is None else max(1, round(seconds * rate))
            read = opened.read(count, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise InputError(f"'{path}' is no sound that can be read: {error}") from None
    if modality.channels == 1:
        read = read.mean(1, keepdims=True)
    if read.shape[1] != modality.channels:
        raise InputError(
            f"'{path}' has {read.shape[1]} channels, and the modality {modality.channels}: 1 takes "
            "their mean."
        )
    size = len(read) if modality.native else modality.size[0]
    if size != len(read):
        from scipy.signal import resample

        read, rate = resample(read, size).astype(np.float32), rate * size / len(read)
    data = torch.from_numpy(np.clip(read, -1, 1)).mT[None].contiguous()
    suggests = {"modality": {"size": [size], "rate": rate}}
    return assemble((data + 1) / 2, None, (1.0, 0.0), shuffle=False, suggests=suggests)
