"""Outlines and their weight, against shapes whose change is known."""

import numpy as np
import pytest

from fieldloom.geometry.coverage import resolve
from fieldloom.geometry.outlines import area, change_weight, join_contours
from outlines_by_hand import area_of_circle, box, circle, polygon


def changed_area(contours, by) -> float:
    """The area of the inside of an outline after its weight is changed."""
    pieces = change_weight(join_contours(contours), by)
    boundary, _ = resolve(pieces, np.zeros(len(pieces), int), "positive")
    return -area(boundary)


def turn(pieces) -> np.ndarray:
    """The same contour the other way round."""
    return pieces[::-1, ::-1]


def test_areas():
    assert area(box(0, 0, 2, 3)) == pytest.approx(6)
    assert area(turn(box(0, 0, 2, 3))) == pytest.approx(-6)
    assert area(circle(1, 2, 3)) == pytest.approx(area_of_circle(3), abs=1e-12)
    assert area(np.zeros((0, 4, 2))) == 0


@pytest.mark.parametrize("way", [turn, lambda pieces: pieces])
@pytest.mark.parametrize("by", [-0.3, 0.0, 0.2])
def test_a_box_grows_on_all_sides_whatever_its_orientation(way, by):
    assert changed_area([way(box(0, 0, 2, 3))], by) == pytest.approx((2 + 2 * by) * (3 + 2 * by))


@pytest.mark.parametrize("way", [turn, lambda pieces: pieces])
def test_a_hole_closes_as_its_stroke_grows(way):
    contours = [way(box(0, 0, 6, 6)), way(turn(box(2, 2, 4, 4)))]
    assert changed_area(contours, 0.25) == pytest.approx(6.5**2 - 1.5**2)
    assert changed_area(contours, -0.25) == pytest.approx(5.5**2 - 2.5**2)
    assert changed_area(contours, 1.5) == pytest.approx(9**2)  # the hole is gone


@pytest.mark.parametrize("by", [-0.1, 0.1])
def test_a_circle_stays_one(by):
    assert changed_area([circle(0, 0, 1)], by) == pytest.approx(np.pi * (1 + by) ** 2, rel=0.01)


def test_what_is_thinner_than_the_change_is_gone():
    letter = polygon((0, 0), (4, 0), (4, 1), (2.1, 1), (2.1, 4), (1.9, 4), (1.9, 1), (0, 1))
    assert changed_area([letter], -0.05) == pytest.approx(3.9 * 0.9 + 0.1 * 3, abs=1e-9)
    assert changed_area([letter], -0.2) == pytest.approx(3.6 * 0.6, abs=1e-9)
    assert changed_area([box(0, 0, 1, 0.2)], -0.2) == 0
    assert changed_area([box(0, 0, 1, 1)], -2.0) == 0


def test_a_sharp_corner_does_not_run_away():
    needle = polygon((0, -0.01), (10, 0), (0, 0.01))
    moved = change_weight(join_contours([needle]), 0.1)
    assert moved[..., 0].max() == pytest.approx(10.2)


def test_points_that_coincide_move_together():
    twice = polygon((0, 0), (0, 0), (2, 0), (2, 3), (2, 3), (2, 3), (0, 3))
    assert changed_area([twice], 0.2) == pytest.approx(2.4 * 3.4)
    point = join_contours([np.ones((3, 4, 2))])
    assert not len(change_weight(point, 0.3))


def test_contours_keep_their_pieces_apart():
    found = join_contours([box(0, 0, 1, 1), np.zeros((0, 4, 2)), circle(0, 0, 1)])
    assert found.contour.tolist() == [0] * 4 + [1] * 8
    assert len(join_contours([]).pieces) == 0
