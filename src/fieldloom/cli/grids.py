"""A still, a film or a sound that a code holds, as a file: any part of it, at any resolution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fieldloom.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fieldloom.modalities import Grid
    from fieldloom.system import System

STILLS, FILMS = (".png", ".tif", ".tiff"), (".mp4", ".gif")


class Window(NamedTuple):
    """A part of a picture, as fractions of its width and height: x to the right, y down."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0


WHOLE = Window()


def parse_window(text: str) -> Window:
    """``x0,y0,x1,y1``. Raises InputError where these are not four numbers in order."""
    try:
        window = Window(*map(float, text.split(",")))
    except (TypeError, ValueError):
        window = Window(math.nan)
    ordered = window.left < window.right and window.top < window.bottom
    if text.count(",") != 3 or not ordered or not all(map(math.isfinite, window)):
        raise InputError(
            f"--window {text}: x0,y0,x1,y1, fractions of width and height with x0 < x1 and y0 < y1."
        )
    return window


def part_of(window: Window, axes: int) -> tuple[tuple[float, float], ...]:
    """A window as grids take it: (first, last) an axis; all of time, where there is time."""
    still = ((window.top, window.bottom), (window.left, window.right))
    return still if axes == 2 else ((0.0, 1.0), *still)


def shape_of(
    modality: Grid, asked: int | tuple[int, ...] | None, window: Window, still: bool
) -> tuple[int, ...]:
    """Samples of each axis of what is drawn.

    One number (None: as trained) is the longer side of a window whose pixels are as square as those
    trained on; a film keeps its frames. Two are rows and columns. still: a film's picture.
    """
    own = modality.shape()
    if len(own) == 1:
        return modality.shape(asked)
    if isinstance(asked, tuple):
        if len(own) == len(asked) == 3 and not still:
            return asked
        if len(asked) != 2:
            given = "x".join(map(str, asked))
            raise InputError(f"--resolution {given}: one number, or rows and columns, as 256x128.")
        sides = asked[0], asked[1]
    else:
        height = own[-2] * (window.bottom - window.top)
        width = own[-1] * (window.right - window.left)
        scale = (asked or max(own[-2:])) / max(height, width)
        sides = max(1, round(height * scale)), max(1, round(width * scale))
    return sides if still or len(own) == 2 else (own[0], *sides)


def suffixes(modality: Grid, still: bool) -> tuple[str, ...]:
    """Of the files that data, or a film's picture, are drawn into; the usual one first."""
    axes = len(modality.shape())
    if axes == 1:
        return modality.formats
    if axes > 3 or modality.channels not in (1, 3):
        raise InputError(
            f"render draws sounds, and pictures and films of 1 or 3 channels: this run's data have "
            f"{axes} axes and {modality.channels} channels."
        )
    return STILLS if still or axes == 2 else FILMS


def draw(
    system: System,
    code: Tensor,
    path: Path,
    shape: tuple[int, ...],
    window: Window = WHOLE,
    frame: float | None = None,
) -> Path:
    """The datum of a code (1, tokens, width), or a part of it, as the path's suffix says.

    shape: samples of each axis. frame: of a film, the picture at this fraction of its time. Of
    stills and films a few rows are held at a time.
    """
    from fieldloom import export
    from fieldloom.modalities.media import VIDEO_RATE

    modality = grid_of(system)
    axes = 1 if len(shape) == 1 else 2 if path.suffix in STILLS else 3
    part = None if axes == 1 else part_of(window, axes)
    strips = tracked(system.strips(code, shape, part, frame=frame), shape[0])
    if axes == 1:
        import torch

        from fieldloom.types import Data

        whole = torch.cat([strip for _, strip in strips], 1).clamp(0, 1)
        saved = modality.save(Data(whole[None]), path)
        assert saved is not None
        return saved
    if axes == 2:
        write = export.png_from_strips if path.suffix == ".png" else export.tiff
        painted = ((first, paint(strip)) for first, strip in strips)
        return write(painted, (shape[0], shape[1], modality.channels), path)
    frames = (export.pixels(one) for _, strip in strips for one in strip.unbind(1))
    rate = VIDEO_RATE if modality.rate is None else modality.rate * shape[0] / modality.size[0]
    if path.suffix == ".mp4":
        return export.mp4(frames, path, rate)
    return export.gif(frames, path, 1 / rate)


def grid_of(system: System) -> Grid:
    from fieldloom.modalities import Grid

    assert isinstance(system.modality, Grid)
    return system.modality


def tracked(strips: Iterator[tuple[int, Tensor]], rows: int) -> Iterator[tuple[int, Tensor]]:
    """The strips, with their progress shown."""
    from fieldloom.progress import Progress

    with Progress("drawing", rows, unit="rows") as progress:
        for first, strip in strips:
            yield first, strip
            progress.update(first + strip.shape[1])


def paint(strip: Tensor) -> NDArray[np.uint8]:
    """(channel, rows, columns) -> uint8 (rows, columns, channel): clamped to [0, 1], rounded."""
    return (strip.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
