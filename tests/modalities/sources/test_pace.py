"""Frames at their own times: even ones as they are, others at a constant rate."""

import numpy as np
import pytest

from fieldloom.modalities.sources.pace import Pace, find_pace, place_frames


def placed(times, end=None, tick=1e-3) -> list[int]:
    """The number of the stored frame in each place."""
    pace = find_pace([float(time) for time in times], end, tick)
    return list(place_frames(zip(times, range(len(times)), strict=True), pace))


@pytest.mark.parametrize("rate", [12, 23.976, 24, 29.97, 30, 50, 60, 120, 240])
def test_rounded_times_are_even(rate):
    """Matroska rounds to milliseconds."""
    for first in (0, 0.5, -0.2):
        times = np.round(first + np.arange(200) / rate, 3)
        pace = find_pace(times.tolist())
        assert pace.even, rate
        assert pace.count == 200
        assert pace.rate == pytest.approx(rate, rel=1e-3)


def test_frames_of_a_gif_that_alternate_are_even():
    """15 and 30 frames a second in hundredths of a second."""
    for delays in ([7, 6, 7] * 9, [3, 3, 4] * 9, [10] * 9):
        marks = np.cumsum([0, *delays]) / 100
        assert find_pace(marks[:-1].tolist(), float(marks[-1]), 0.01).even


def test_each_frame_is_shown_at_its_time():
    assert find_pace([0.0, 0.1, 0.2, 3.2]) == Pace(33, 10.0, even=False)
    assert placed([0, 0.1, 0.2, 3.2]) == [0, 1, *[2] * 30, 3]
    assert placed([7, 7.1, 7.2, 10.2]) == placed([-9, -8.9, -8.8, -5.8]) == [0, 1, *[2] * 30, 3]
    assert placed([0, 0.1, 3.1], 3.2) == [0, *[1] * 30, 2]
    assert placed([0, 0.1], 3.1) == [0, *[1] * 30]
    assert placed([0, 0.1, 0.2], 0.3) == [0, 1, 2]
    one_lost = np.delete(np.arange(100) / 30, 60)  # of 100
    assert placed(list(one_lost)) == [*range(60), 59, *range(60, 99)]


def test_a_frame_that_is_too_short_is_counted():
    times = [0.0, 0.1, 0.12, 0.2, 0.3, 0.9]
    assert find_pace(times) == Pace(10, 10.0, even=False, lost=1)
    assert placed(times) == [0, 2, 3, 4, 4, 4, 4, 4, 4, 5]


def test_times_that_say_nothing():
    assert find_pace([]) == Pace(0)
    assert find_pace([3.0]) == Pace(1)
    assert find_pace([3.0, 3.0]) == Pace(2)
    assert placed([1.0, 1.0, 1.0]) == [0, 1, 2]
    assert list(place_frames([], Pace(9, 10.0, even=False))) == []
    back = place_frames([(0, "a"), (0.2, "b"), (0.1, "c")], Pace(4, 10.0, even=False))
    assert list(back) == ["a", "a", "c", "c"]
