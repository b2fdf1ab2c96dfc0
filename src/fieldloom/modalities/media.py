"""Data on grids as standard files, and as images."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from fieldloom import export

AUDIO_RATE = 44_100.0
VIDEO_RATE = 12.0
"""Default samples and frames per second."""


def formats(axes: int, channels: int) -> tuple[str, ...]:
    """Suffixes of the files of data with ``axes`` axes, the default first."""
    if axes == 1:
        return (".wav", ".npy")
    visual = {2: (".png", ".npy"), 3: (".mp4", ".gif", ".npy")}
    return visual.get(axes, (".npy",)) if channels in (1, 3) else (".npy",)


def save(datum: Tensor, path: Path, rate: float | None = None) -> Path:
    """Write a datum (channel, *axes) in [0, 1] in the format of the path's suffix.

    rate: samples or frames per second; None: 44,100 of audio, 12 of video. Returns the path.
    """
    if path.suffix == ".png":
        return export.png(datum, path)
    if path.suffix == ".wav":
        return export.wav(datum, max(1, round(rate or AUDIO_RATE)), path)
    frames = (export.pixels(frame) for frame in datum.unbind(1))
    if path.suffix == ".mp4":
        return export.mp4(frames, path, rate or VIDEO_RATE)
    if path.suffix == ".gif":
        return export.gif(frames, path, 1 / (rate or VIDEO_RATE))
    return export.npy(datum, path)


def to_image(datum: Tensor) -> Tensor | None:
    """An image (3, height, width) of a datum (channel, *axes), or None where there is none.

    It is an image itself, the middle frame of a video, or the waveform of audio.
    """
    if datum.ndim == 2:
        return waveform(datum)
    if datum.ndim not in (3, 4) or len(datum) not in (1, 3):
        return None
    image = datum if datum.ndim == 3 else datum[:, datum.shape[1] // 2]
    return image.expand(3, -1, -1)


def waveform(audio: Tensor, height: int = 128, width: int = 512) -> Tensor:
    """The waveform of audio (channel, samples) in [0, 1], dark on white: (3, height, width).

    Each column is filled from the lowest to the highest of its samples, of all channels; these
    include the first sample of the next column, so that the line has no gaps.
    """
    audio = audio.detach().float().cpu().clamp(0, 1)
    count = audio.shape[1]
    firsts = [i * count // width for i in range(width + 1)]
    columns = [audio[:, a : b + 1] for a, b in pairwise(firsts)]
    high = torch.stack([column.amax() for column in columns])
    low = torch.stack([column.amin() for column in columns])
    top, bottom = (((1 - x) * (height - 1)).round() for x in (high, low))
    row = torch.arange(height).unsqueeze(1)
    filled = (row >= top) & (row <= bottom)
    return torch.where(filled, 0.15, 1.0).expand(3, -1, -1)
