"""Frames at their own times: whether these are even, and a video at a constant rate if not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

import numpy as np

T = TypeVar("T")

TICK = 1e-3
"""Seconds to which times may have been rounded, whatever a file's own clock."""


@dataclass(frozen=True)
class Pace:
    """How the frames of a video follow each other.

    count: frames of the video; rate: of them per second (None where no times are known).
    even: whether they are the stored frames, one by one; otherwise each is the stored one that is
          shown in the middle of its time.
    lost: stored frames that are shown too briefly for this.
    """

    count: int
    rate: float | None = None
    even: bool = True
    lost: int = 0


def find_pace(times: Sequence[float], end: float | None = None, tick: float = TICK) -> Pace:
    """The pace of frames that are first shown at these times, which ascend, in seconds.

    end:  the time up to which the last one is shown; None: one interval after it began.
    tick: the unit of the file's clock, to which times are rounded.

    The frames are even if each is within a tenth of an interval, and the rounding of its time, of
    its place among evenly spaced ones. If not, the rate is that of the median interval.
    """
    marks = np.asarray([*times] if end is None else [*times, end], np.float64)
    steps = np.diff(marks)
    steps = steps[steps > 0]
    if not len(steps):
        return Pace(len(times))
    mean = (marks[-1] - marks[0]) / (len(marks) - 1)
    places = marks[0] + mean * np.arange(len(marks))
    if np.abs(marks - places).max() <= mean / 10 + _rounding(tick, mean):
        return Pace(len(times), _rate_of(float(mean)))
    median = float(np.sort(steps)[(len(steps) - 1) // 2])
    like = np.abs(steps - median) <= median / 10 + _rounding(tick, median)
    step = float(steps[like].mean())  # a median of rounded intervals is rounded, too
    end = float(marks[-1]) + (step if end is None else 0)
    rate = _rate_of(step)
    firsts = [_first_place(time - marks[0], rate) for time in times]
    count = max(firsts[-1] + 1, round((end - marks[0]) / step))
    return Pace(count, rate, even=False, lost=len(times) - len(set(firsts)))


def _rate_of(interval: float) -> float:
    """The rate of an interval without the noise of sums of times: 10, not 9.999999999999996."""
    return float(f"{1 / interval:.9g}")


def _rounding(tick: float, interval: float) -> float:
    """How far rounding moves a time; a clock of one tick a frame counts, and rounds nothing."""
    return min(max(tick, TICK) / 2, interval / 5)


def _first_place(time: float, rate: float) -> int:
    """The first frame of a constant rate whose middle is not before this time."""
    return max(0, math.ceil(time * rate - 0.5 - 1e-6))


def place_frames(frames: Iterable[tuple[float, T]], pace: Pace) -> Iterator[T]:
    """The frames at a constant rate. frames: the time at which each is first shown, and itself.

    Time begins with the first frame; one whose time is before that of the one before it follows it.
    """
    if pace.even or pace.rate is None:
        yield from (frame for _, frame in frames)
        return
    began, shown, done = 0.0, None, 0
    for time, frame in frames:
        if shown is None:
            began = time
        else:
            place = _first_place(time - began, pace.rate)
            yield from repeat(shown, max(0, place - done))
            done = max(done, place)
        shown = frame
    if shown is not None:
        yield from repeat(shown, max(1, pace.count - done))
