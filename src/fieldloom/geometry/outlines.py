"""Outlines as values: closed contours of Bezier curves, and changes of them.

Lengths are in units of the em, x to the right and y upwards from the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldloom.geometry.coverage import NODES, SHARES, Array, coefficients, evaluate

MITRE = 2.0
"""The furthest that a corner is moved, as a multiple of the distance that its sides are moved."""


class Outline(NamedTuple):
    """Closed contours of cubic Bezier curves; lines and quadratic curves are cubic ones, too.

    pieces:  control points (n, 4, 2); those of a contour follow one another.
    contour: of each piece, (n,).
    """

    pieces: Array
    contour: NDArray[np.int64]


def join_contours(contours: Sequence[Array]) -> Outline:
    """The outline of contours, each of pieces (n, 4, 2)."""
    kept = [contour for contour in contours if len(contour)]
    number = np.repeat(np.arange(len(kept)), [len(contour) for contour in kept])
    return Outline(np.concatenate([np.zeros((0, 4, 2)), *kept]), number)


def area(pieces: Array) -> float:
    """The signed area that closed pieces enclose: above 0 counter-clockwise, y upwards."""
    c, t = coefficients(pieces), np.broadcast_to((NODES + 1) / 2, (len(pieces), len(NODES)))
    slope = c[:, 1, 1, None] + t * (2 * c[:, 2, 1, None] + 3 * t * c[:, 3, 1, None])
    return float((evaluate(c[..., 0], t) * slope @ SHARES).sum() / 2)  # the integral of x dy


def change_weight(outline: Outline, by: float) -> Array:
    """The pieces of an outline whose sides are moved outwards by a distance; below 0 inwards.

    The sides of the control polygon of each contour are moved along their normals, and its corners
    to where moved sides meet, but not further than ``MITRE`` times the distance (Tiller and Hanson
    1984, "Offsets of two-dimensional profiles"). Outside is the side that the orientation of the
    whole outline tells, so that holes close as the strokes around them grow. Where a part is
    thinner than twice the distance its sides pass one another, and wind around it the other way:
    by the rule ``positive`` of ``resolve`` it is gone. The result has the orientation for it. A
    contour all of whose sides passed one another is left out.
    """
    clockwise = area(outline.pieces) < 0
    found, kept = outline.pieces.copy(), np.ones(len(outline.pieces), bool)
    for number in np.unique(outline.contour):
        own = outline.contour == number
        corners = found[own, :3].reshape(-1, 2)
        moved = _offset(corners, by if clockwise else -by)
        sides, old = (np.roll(x, -1, 0) - x for x in (moved[::3], corners[::3]))
        kept[own] = ((sides * old).sum(1) > 0).any()
        moved = moved.reshape(-1, 3, 2)
        found[own, :3], found[own, 3] = moved, np.roll(moved[:, 0], -1, 0)
    return found[kept] if clockwise else found[kept, ::-1]


def _offset(points: Array, by: float) -> Array:
    """A closed polygon (n, 2) whose sides are moved to their left by a distance."""
    sides = np.roll(points, -1, 0) - points
    lengths = np.hypot(*sides.T)
    real = lengths > 1e-9
    if not real.any():
        return points
    normals = np.stack([-sides[:, 1], sides[:, 0]], 1)[real] / lengths[real, None]
    # The real side after each point, and the one before it; points between them move alike.
    count = np.cumsum(real)
    after = normals[(count - real) % len(normals)]
    before = normals[(np.roll(count, 1) - 1) % len(normals)]
    middle = after + before
    square = (middle * middle).sum(1, keepdims=True)
    length = np.sqrt(square)
    # Where both sides meet at a mitre: 2 m / |m|^2; at a sharp corner it is cut short.
    reach = np.minimum(2 / np.maximum(length, 1e-12), MITRE)
    return points + by * reach * middle / np.maximum(length, 1e-12)
