"""Exact coverage, against areas in closed form and against a slow supersampled one."""

import math

import numpy as np
import pytest

from fieldloom.errors import InputError
from fieldloom.geometry import coverage
from fieldloom.geometry.coverage import cover, resolve
from fieldloom.geometry.outlines import area
from outlines_by_hand import area_of_circle, box, circle, curves, polygon, sample


def render(pieces, size, rule="nonzero") -> np.ndarray:
    boundary, image = resolve(pieces, np.zeros(len(pieces), int), rule)
    return cover(boundary, image, 1, size)[0]


def overlap(low, high, count) -> np.ndarray:
    """How much of each of ``count`` unit intervals lies between two numbers."""
    cells = np.arange(count)
    return np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, 1)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "corners", [(1.25, 1.5, 3.5, 4.75), (0, 0, 6, 5), (2, 1, 3, 4), (0.1, 0.7, 0.2, 0.9),
                (-3, -2, 2.3, 1.1), (4.4, 2, 90, 80), (-1e6, -1e6, 1e6, 2.5), (7, 1, 9, 3)],
)  # fmt: skip
def test_a_box_covers_products_of_lengths(corners, turned):
    left, top, right, bottom = corners
    exact = overlap(top, bottom, 5)[:, None] * overlap(left, right, 6)
    pieces = box(*corners)
    found = render(pieces[:, ::-1] if turned else pieces, (5, 6))
    np.testing.assert_allclose(found, exact, atol=1e-9 if abs(left) > 1e5 else 1e-13)


@pytest.mark.parametrize("arcs", [3, 8])
@pytest.mark.parametrize("size", [(9, 9), (1, 9), (64, 32), (300, 300)])
def test_the_sum_is_the_area_of_a_circle_of_quadratic_arcs(arcs, size):
    scale = np.array(size[::-1]) / 9
    found = render(circle(4.4, 4.6, 2.1, arcs) * scale, size)
    assert found.sum() / scale.prod() == pytest.approx(area_of_circle(2.1, arcs), abs=1e-12)


def test_an_arc_is_not_flattened():
    """Of y = x^2 below 1 each column of 4 pixels covers what its integral says."""
    pieces = curves((0, 0), (0.5, 0), (1, 1), (1, 0.5), (1, 0), (0.5, 0))
    columns = render(pieces * [4, 1], (1, 4))[0] / 4
    edges = np.arange(5) / 4
    np.testing.assert_allclose(columns, np.diff(edges**3) / 3, atol=1e-15)


def test_overlapping_boxes_are_one_inside():
    both = np.concatenate([box(1, 1, 4.5, 3), box(2.25, 2, 6, 5)])
    assert render(both, (6, 7)).sum() == pytest.approx(7 + 3.75 * 3 - 2.25 * 1, abs=1e-13)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_doubled_contour_is_the_same_contour(count):
    one = circle(4, 4, 3)
    many = np.concatenate([one] * count)
    np.testing.assert_allclose(render(many, (8, 8)), render(one, (8, 8)), atol=1e-13)


def test_opposite_windings_make_a_hole_and_equal_ones_none():
    outer, inner = circle(5, 5, 4), circle(5, 5, 2)
    areas = area_of_circle(4), area_of_circle(2)
    hole = render(np.concatenate([outer, inner[::-1, ::-1]]), (10, 10))
    assert hole.sum() == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert hole[4:6, 4:6].max() < 1e-13
    full = render(np.concatenate([outer, inner]), (10, 10))
    assert full.sum() == pytest.approx(areas[0], abs=1e-12)
    nothing = render(np.concatenate([outer, outer[::-1, ::-1]]), (10, 10))
    assert nothing.max() < 1e-12


@pytest.mark.parametrize("depth", [1e-2, 1e-6])
def test_circles_that_all_but_touch(depth):
    """Nothing is lost of their common part, which crossings found in finer pieces tell."""
    halves = lambda pieces: [
        coverage.cut(pieces, np.full(len(pieces), i / 9), np.full(len(pieces), (i + 1) / 9))
        for i in range(9)
    ]
    for angle in (0.1, 1.3):
        for reach in (0.8 - depth, 0.2 + depth):  # outside of the other, and inside
            x, y = reach * math.cos(angle), reach * math.sin(angle)
            pieces = np.concatenate([circle(0, 0, 0.5), circle(x, y, 0.3)])
            found, _ = resolve(pieces, np.zeros(len(pieces), int))
            fine = np.concatenate(halves(pieces))
            expected, _ = resolve(fine, np.zeros(len(fine), int))
            assert area(found) == pytest.approx(area(expected), abs=1e-13)


def star(radius=7.0) -> np.ndarray:
    turn = np.arange(5) * 4 * math.pi / 5
    return polygon(*np.stack([8 + radius * np.sin(turn), 8 - radius * np.cos(turn)], 1))


def test_the_middle_of_a_star_is_inside():
    """Around the inner pentagon of the five-pointed star the winding number is 2."""
    inner = 7 * math.sin(math.pi / 10) / math.sin(7 * math.pi / 10)
    exact = 10 * 7 * inner * math.sin(math.pi / 5) / 2
    pentagon = 5 / 2 * inner**2 * math.sin(2 * math.pi / 5)
    found = render(star(), (16, 16))
    assert found.sum() == pytest.approx(exact, abs=1e-12)
    assert found[7:9, 7:9].min() > 1 - 1e-13
    even_odd = (sample(star(), (16, 16), 16) % 2).mean((1, 3))
    assert even_odd.sum() == pytest.approx(exact - pentagon, abs=0.2)


def test_positive_windings_alone():
    right = box(1, 1, 3, 3)[::-1, ::-1]  # y grows where the inside is to the right
    wrong = box(5, 1, 7, 3)
    found = render(np.concatenate([right, wrong]), (4, 8), "positive")
    assert found.sum() == pytest.approx(4)
    assert found[:, 4:].max() < 1e-13


def tangle(seed) -> np.ndarray:
    """Contours that cross themselves and one another; many on whole numbers, some of them twice."""
    draw = np.random.default_rng(seed)
    contours = []
    for _ in range(draw.integers(1, 4)):
        points = draw.uniform(-0.5, 8.5, (draw.integers(3, 7), 3, 2))
        points = (points, points.round(), (points * 2).round() / 2)[seed % 3]
        start = points[:, :1]
        end = np.roll(start, -1, 0)
        if seed % 2:  # lines
            points[:, 1:] = np.concatenate([2 * start + end, start + 2 * end], 1) / 3
        contours.append(np.concatenate([points, end], 1))
    contours += [contours[0]] * (seed % 5 == 0) + [contours[0][::-1, ::-1]] * (seed % 7 == 0)
    return np.concatenate(contours)


@pytest.mark.parametrize("seed", [*range(6), 9, 33, 45])
def test_any_tangle_covers_what_64_times_as_many_samples_say(seed):
    pieces = tangle(seed)
    windings = sample(pieces, (8, 8))
    # A side that is parallel to an axis is up to half a sample off.
    expected = (windings != 0).mean((1, 3))
    np.testing.assert_allclose(render(pieces, (8, 8)), expected, atol=0.6 / 64)
    # Where a piece to the left rises, the inside of "positive" is to its right.
    expected = (windings > 0).mean((1, 3))
    np.testing.assert_allclose(render(pieces, (8, 8), "positive"), expected, atol=0.6 / 64)


@pytest.mark.parametrize("seed", range(8, 16))
def test_coverage_at_twice_the_size_averages_to_coverage(seed):
    pieces = tangle(seed)
    whole = render(pieces, (8, 8))
    for times in (2, 3):
        finer = render(pieces * times, (8 * times, 8 * times))
        np.testing.assert_allclose(
            finer.reshape(8, times, 8, times).mean((1, 3)), whole, atol=1e-12
        )


def test_what_does_not_change_the_inside_changes_nothing():
    pieces = np.concatenate([star(), circle(8, 8, 5), box(3, 2, 9, 14)])
    expected = render(pieces, (16, 16))
    point = np.tile(pieces[:1, :1], (1, 4, 1))
    thread = polygon((1, 1), (15, 3), (1, 1), (9, 15))[:2]  # there and back
    half = np.full(len(pieces), 0.5)
    halves = coverage.cut(pieces, half * 0, half)
    rest = coverage.cut(pieces, half, half * 2)
    for same in (
        np.concatenate([pieces, point]),
        np.concatenate([pieces, thread]),
        pieces[::-1],
        pieces[:, ::-1],
        np.concatenate([halves, rest]),
    ):
        np.testing.assert_allclose(render(same, (16, 16)), expected, atol=1e-12)


def test_images_of_a_batch_are_independent():
    tangles = [tangle(seed) for seed in range(3)]
    image = np.repeat(np.arange(3), [len(x) for x in tangles])
    boundary, own = resolve(np.concatenate(tangles), image)
    together = cover(boundary, own, 4, (8, 8))
    for i, pieces in enumerate(tangles):
        np.testing.assert_allclose(together[i], render(pieces, (8, 8)), atol=1e-11)
    assert together[3].max() == 0


def test_many_images_are_not_refused_where_each_of_them_is_not(monkeypatch):
    """As of a rough font, 256 of whose glyphs are drawn together."""
    tangles = [tangle(seed) for seed in range(3)]
    image = np.repeat(np.arange(3), [len(x) for x in tangles])
    expected = cover(*resolve(np.concatenate(tangles), image), 3, (8, 8))
    monkeypatch.setattr(coverage, "TOGETHER", 1)
    apart = cover(*resolve(np.concatenate(tangles), image), 3, (8, 8))
    np.testing.assert_allclose(apart, expected, atol=1e-11)
    monkeypatch.setattr(coverage, "MOST", 1)
    with pytest.raises(InputError, match="too often to be drawn"):
        resolve(np.concatenate(tangles), image)


def test_outlines_that_cross_too_often_are_refused(monkeypatch):
    monkeypatch.setattr(coverage, "MOST", 50)
    with pytest.raises(InputError, match="too often to be drawn"):
        render(np.concatenate([star()] * 5), (4, 4))


def test_nothing_covers_nothing():
    assert render(np.zeros((0, 4, 2)), (3, 4)).shape == (3, 4)
    assert render(np.zeros((2, 4, 2)), (3, 4)).max() == 0
