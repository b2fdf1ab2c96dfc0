"""Outlines for tests, and a slow reference of what they cover."""

import numpy as np


def polygon(*points) -> np.ndarray:
    """The pieces (n, 4, 2) of a closed polygon."""
    start = np.array(points, float)
    end = np.roll(start, -1, 0)
    return np.stack([start, (2 * start + end) / 3, (start + 2 * end) / 3, end], 1)


def box(left, top, right, bottom) -> np.ndarray:
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def curves(*points) -> np.ndarray:
    """The pieces of a closed contour of quadratic curves: point, control, point, control ..."""
    points = np.array(points, float)
    start, control, end = points[::2], points[1::2], np.roll(points[::2], -1, 0)
    return np.stack([start, (start + 2 * control) / 3, (end + 2 * control) / 3, end], 1)


def circle(x, y, radius, arcs=8) -> np.ndarray:
    """A circle of quadratic arcs, each tangent to it at both ends."""
    turn = np.arange(2 * arcs) * np.pi / arcs
    reach = np.where(np.arange(2 * arcs) % 2, radius / np.cos(np.pi / arcs), radius)
    return curves(*np.stack([x + reach * np.cos(turn), y + reach * np.sin(turn)], 1))


def area_of_circle(radius, arcs=8) -> float:
    """Its exact area: the polygon, and 2/3 of the triangle of each arc and its control point."""
    half = np.pi / arcs
    triangle = radius**2 * np.sin(half) * (1 / np.cos(half) - np.cos(half))
    return arcs * (radius**2 * np.sin(2 * half) / 2 + 2 / 3 * triangle)


def winding_numbers(pieces, x, y, steps=32) -> np.ndarray:
    """The winding number at each y (m,) and x (n,), (m, n), of pieces in ``steps`` lines each."""
    t = np.linspace(0, 1, steps + 1)[:, None, None]
    p0, p1, p2, p3 = (pieces[:, i] for i in range(4))
    s = 1 - t
    points = s**3 * p0 + 3 * s**2 * t * p1 + 3 * s * t**2 * p2 + t**3 * p3
    a, b = points[:-1].reshape(-1, 2), points[1:].reshape(-1, 2)
    found = np.zeros((len(y), len(x)), int)
    for row, at in enumerate(y):
        up, down = (a[:, 1] <= at) & (b[:, 1] > at), (b[:, 1] <= at) & (a[:, 1] > at)
        for met, sign in ((up, 1), (down, -1)):
            part = (at - a[met, 1]) / (b[met, 1] - a[met, 1])
            cross = a[met, 0] + part * (b[met, 0] - a[met, 0])
            found[row] += sign * np.searchsorted(np.sort(cross), x)
    return found


def sample(pieces, size, times=64) -> np.ndarray:
    """The winding numbers of ``times`` x ``times`` samples of each pixel: (h, times, w, times)."""
    x, y = ((np.arange(n * times) + 0.5) / times for n in size[::-1])
    return winding_numbers(pieces, x, y).reshape(size[0], times, size[1], times)
