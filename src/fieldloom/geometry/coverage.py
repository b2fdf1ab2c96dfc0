"""Exact area coverage of a pixel grid by outlines of Bezier curves.

Pieces are cubic Bezier curves (n, 4, 2): control points x, y. Lines and quadratic curves are cubic
ones, too. All sums are in float64.

An outline is resolved once (``resolve``): what remains is the boundary of its inside, each side
once, whatever its contours overlapped. The area that it covers of any pixel is then exact by
Green's theorem (``cover``): a polynomial curve is cut where it meets the grid's lines, and each
part is integrated by a rule that has no error at its degree. No curve is flattened.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldloom.errors import InputError

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Rule = Literal["nonzero", "positive"]

NODES, SHARES = np.polynomial.legendre.leggauss(3)
"""Gauss's rule of three points: exact to degree 5, the degree of x y' of cubic curves."""
NEWTON = 60
"""The most steps of a root; a bracket that is halved 60 times is at the precision of float64."""
PARTS, LEVELS = 4, 5
"""Where two pieces may meet, their common heights are divided into 4, five times."""
SAME = 1e-11
"""The distance, in units of the outline, below which two pieces are the same line there."""
MOST = 1 << 24
"""The most pairs of pieces that may meet, and the most parts of pieces between two heights."""
TOGETHER = 1 << 20
"""The same of outlines of several images, which are resolved together up to it."""


def coefficients(pieces: Array) -> Array:
    """The powers' coefficients of pieces, the constant first: (n, 4, 2)."""
    p0, p1, p2, p3 = (pieces[:, i] for i in range(4))
    return np.stack([p0, 3 * (p1 - p0), 3 * (p0 - 2 * p1 + p2), p3 - p0 + 3 * (p1 - p2)], 1)


def evaluate(powers: Array, t: Array) -> Array:
    """A polynomial (n, 4) of each row at t (n, ...)."""
    c = powers.reshape(*powers.shape, *(1,) * (t.ndim - 1))
    return c[:, 0] + t * (c[:, 1] + t * (c[:, 2] + t * c[:, 3]))


def cut(pieces: Array, first: Array, last: Array) -> Array:
    """The part of each piece between two parameters, as a piece again: (n, 4, 2)."""
    s, t = first[:, None], last[:, None]
    lerp = lambda a, b, u: (1 - u) * a + u * b  # exact at both ends, so that parts join

    def blossom(u: Array, v: Array, w: Array) -> Array:
        a, b, c = (lerp(pieces[:, i], pieces[:, i + 1], u) for i in range(3))
        return lerp(lerp(a, b, v), lerp(b, c, v), w)

    return np.stack([blossom(s, s, s), blossom(s, s, t), blossom(s, t, t), blossom(t, t, t)], 1)


class Cuts(NamedTuple):
    """Parts of pieces: the index of the piece, and the parameters between which each lies."""

    piece: Indices
    first: Array
    last: Array


def cut_at(count: int, piece: Indices, t: Array) -> Cuts:
    """The parts into which parameters (m,) of the pieces of these indices cut ``count`` pieces."""
    ends = np.arange(count)
    which = np.concatenate([ends, piece, ends])
    where = np.concatenate([np.zeros(count), np.clip(t, 0, 1), np.ones(count)])
    order = np.lexsort((where, which))
    which, where = which[order], where[order]
    inner = (which[1:] == which[:-1]) & (where[1:] > where[:-1])
    return Cuts(which[:-1][inner], where[:-1][inner], where[1:][inner])


def split_monotone(pieces: Array) -> tuple[Array, Indices]:
    """Pieces along each of which x and y only grow or only fall, and of which piece each is."""
    c = coefficients(pieces)[:, 1:] * np.array([1.0, 2.0, 3.0])[:, None]
    constant, linear, square = c.transpose(1, 0, 2)  # of the derivatives of x and y
    with np.errstate(divide="ignore", invalid="ignore"):
        # The stable form of both roots; one is infinite or NaN where the other is the only one.
        root = np.sqrt(linear * linear - 4 * square * constant)
        half = -(linear + np.where(linear < 0, -root, root)) / 2
        roots = np.stack([half / square, constant / half])
    _, piece, _ = found = np.nonzero((roots > 0) & (roots < 1))
    parts = cut_at(len(pieces), piece, roots[found])
    return cut(pieces[parts.piece], parts.first, parts.last), parts.piece


def solve(powers: Array, value: Array) -> Array:
    """The parameter in [0, 1] at which monotone polynomials (n, 4) have the values (n, ...).

    Newton's method, kept in a bracket by halving it.
    """
    shape = value.shape
    index = np.repeat(np.arange(len(powers)), value[0].size if len(value) else 0)
    c0, c1, c2, c3 = powers[index].T
    value = value.reshape(-1)
    rise = c1 + c2 + c3
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.clip(np.nan_to_num((value - c0) / rise, nan=0.5), 0, 1)
    at, rising = np.arange(len(value)), rise > 0
    low, high = np.zeros_like(result), np.ones_like(result)
    scale = 4e-16 * (np.abs(c0) + np.abs(c1) + np.abs(c2) + np.abs(c3))
    t = result.copy()
    for _ in range(NEWTON):
        error = c0 - value + t * (c1 + t * (c2 + t * c3))
        above = (error > 0) == rising
        high, low = np.where(above, t, high), np.where(above, low, t)
        slope = c1 + t * (2 * c2 + 3 * t * c3)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            new = t - error / slope
        new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
        result[at] = np.where(np.abs(error) <= scale, t, new)
        left = (np.abs(error) > scale) & (high > low) & (new != t)
        if not left.any():
            break
        if not left.all():
            pick = lambda x, left=left: x[left]
            c0, c1, c2, c3, value, scale, rising, low, high, new, at = map(
                pick, (c0, c1, c2, c3, value, scale, rising, low, high, new, at)
            )
        t = new
    return result.reshape(shape)


def cover(pieces: Array, image: Indices, count: int, size: tuple[int, int]) -> Array:
    """The fraction of each pixel that is to the right of pieces which rise: (count, height, width).

    pieces: of resolved outlines (``resolve``), in pixels of the grid, y downwards. image: the index
    of each one's image. What lies outside of the grid is cut off.
    """
    (height, width), pieces = size, np.asarray(pieces, np.float64)
    pieces, parent = split_monotone(pieces)
    image = image[parent]
    low, high = pieces[:, (0, 3)].min(1), pieces[:, (0, 3)].max(1)
    met = (high[:, 1] > 0) & (low[:, 1] < height) & (low[:, 0] < width)
    met &= pieces[:, 0, 1] != pieces[:, 3, 1]  # horizontal ones have nothing to their right
    pieces, image, low, high = pieces[met], image[met], low[met], high[met]
    c = coefficients(pieces)
    crossed = [_meet_lines(c[..., k], low[:, k], high[:, k], size[1 - k]) for k in (0, 1)]
    piece, t = (np.concatenate(x) for x in zip(*crossed, strict=True))
    parts = cut_at(len(pieces), piece, t)
    c, image = c[parts.piece], image[parts.piece]
    half, middle = (parts.last - parts.first) / 2, (parts.last + parts.first) / 2
    column, row = (np.floor(evaluate(c[..., k], middle)).astype(np.int64) for k in (0, 1))
    rise = evaluate(c[..., 1], parts.last) - evaluate(c[..., 1], parts.first)
    t = middle[:, None] + half[:, None] * NODES
    slope = c[:, 1, 1, None] + t * (2 * c[:, 2, 1, None] + 3 * t * c[:, 3, 1, None])
    # The integral of (x - column) dy: what of the pixel lies left of the part.
    left = ((evaluate(c[..., 0], t) - column[:, None]) * slope) @ SHARES * half
    left, column = np.where(column < 0, 0, left), np.maximum(column, 0)
    seen = (row >= 0) & (row < height) & (column < width)
    place = ((image * height + row) * (width + 1) + column)[seen]
    sums = np.zeros(count * height * (width + 1))  # of no pieces, bincount gives integers
    sums += np.bincount(place, (rise - left)[seen], len(sums))
    sums += np.bincount(place + 1, left[seen], len(sums))
    covered = sums.reshape(count, height, width + 1)[..., :-1].cumsum(-1)
    return np.clip(covered, 0, 1)


def _meet_lines(powers: Array, low: Array, high: Array, most: int) -> tuple[Indices, Array]:
    """Where monotone polynomials meet the whole numbers 0 .. ``most``: their indices and t."""
    first = np.clip(np.floor(low) + 1, 0, most + 1).astype(np.int64)
    last = np.clip(np.ceil(high) - 1, -1, most).astype(np.int64)
    piece, step = _count_each(np.maximum(last - first + 1, 0))
    return piece, solve(powers[piece], (first[piece] + step).astype(np.float64))


def _count_each(counts: Indices) -> tuple[Indices, Indices]:
    """For counts (2, 0, 3) the indices 0 0 2 2 2, and 0 1 0 1 2."""
    piece = np.repeat(np.arange(len(counts)), counts)
    return piece, np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)


def resolve(pieces: Array, image: Indices, rule: Rule = "nonzero") -> tuple[Array, Indices]:
    """The boundary of the inside of closed outlines, each side once, with the inside to the right
    of pieces along which y grows: pieces, and the image of each.

    rule: the inside is where the winding number is not 0, or where it is above 0: contours around
    which it is positive are those with the inside to the right where y grows.

    All pieces are cut at the heights at which one ends or two cross; between two such heights
    nothing crosses, and the pieces from left to right tell where the inside begins and ends. Equal,
    doubled and opposite pieces need no care, since their order does not matter. A crossing that is
    missed, or wrong by d, moves an area of d squared. Pieces that need no cut are kept whole, and
    horizontal ones are left out: nothing is to their right.
    Raises InputError for an outline that is too large, or crosses itself too often.
    """
    images = np.unique(image)
    try:
        return _resolve_together(pieces, image, rule, TOGETHER if len(images) > 1 else MOST)
    except InputError:
        if len(images) < 2:
            raise
    later = image >= images[len(images) // 2]
    halves = [resolve(pieces[half], image[half], rule) for half in (~later, later)]
    return np.concatenate([h[0] for h in halves]), np.concatenate([h[1] for h in halves])


def _resolve_together(
    pieces: Array, image: Indices, rule: Rule, limit: int
) -> tuple[Array, Indices]:
    """As ``resolve``. Raises InputError for more than ``limit`` pairs, or parts, of pieces."""
    own, parent = split_monotone(pieces)
    y = own[:, (0, 3), 1]
    rises = y[:, 1] != y[:, 0]
    own, image = own[rises], image[parent][rises]
    if not len(own):
        return own, image
    sign = np.where(own[:, 3, 1] > own[:, 0, 1], 1, -1)
    own = np.where((sign > 0)[:, None, None], own, own[:, ::-1])
    c = coefficients(own)
    # Outlines are stacked, so that those of different images have no heights in common.
    tall = np.abs(own[..., 1]).max()
    up = c[..., 1].copy()
    up[:, 0] += image * 4 * tall
    ends = own[:, (0, 3), 1] + (image * 4 * tall)[:, None]
    crossed = _cross(own, c[..., 0], up, ends, limit)
    heights = np.unique(np.concatenate([ends.reshape(-1), crossed]))
    first, last = np.searchsorted(heights, ends).T
    _check_number(last - first, limit)
    piece, step = _count_each(last - first)
    slab = first[piece] + step
    edges = np.stack([heights[slab], heights[slab + 1]], 1)
    x = evaluate(c[piece, :, 0], solve(up[piece], edges.mean(1)))
    order = np.lexsort((x, slab))
    step = sign[piece[order]]
    total, begin = np.cumsum(step), np.searchsorted(slab[order], slab[order])
    after = total - (total - step)[begin]
    before = after - step
    inside = (lambda w: w != 0) if rule == "nonzero" else (lambda w: w > 0)
    turn = np.empty_like(after)
    turn[order] = inside(after).astype(int) - inside(before)
    most, least = np.full(len(own), -2), np.full(len(own), 2)
    np.maximum.at(most, piece, turn)
    np.minimum.at(least, piece, turn)
    whole = (most == least) & (most != 0)
    some = ~whole[piece] & (turn != 0)
    t = solve(up[piece[some]], edges[some])
    parts = cut(own[piece[some]], t[:, 0], t[:, 1])
    found = np.concatenate([own[whole], parts])
    forward = np.concatenate([most[whole], turn[some]]) > 0
    found = np.where(forward[:, None, None], found, found[:, ::-1])
    return found, np.concatenate([image[whole], image[piece[some]]])


def _cross(own: Array, along: Array, up: Array, ends: Array, limit: int) -> Array:
    """The heights at which monotone pieces cross one another.

    along, up: the coefficients of x and of the height. ends: the heights of each piece's ends.
    """
    one, two = _overlap(own, ends, limit)
    low = np.maximum(ends[one, 0], ends[two, 0])
    high = np.minimum(ends[one, 1], ends[two, 1])
    across = lambda which, y: evaluate(along[which], solve(up[which], y))
    met = [np.zeros(0)]
    for _ in range(LEVELS):
        y = low[:, None] + (high - low)[:, None] * (np.arange(PARTS + 1) / PARTS)
        a, b = across(one, y), across(two, y)
        a_low, b_low = np.minimum(a[:, 1:], a[:, :-1]), np.minimum(b[:, 1:], b[:, :-1])
        a_high, b_high = np.maximum(a[:, 1:], a[:, :-1]), np.maximum(b[:, 1:], b[:, :-1])
        apart = np.abs(a - b) > SAME
        some = apart[:, 1:] | apart[:, :-1]
        met.append(y[:, 1:-1][~apart[:, 1:-1] & (some[:, 1:] | some[:, :-1])])
        pair, part = np.nonzero((a_low < b_high) & (b_low < a_high) & some)
        one, two, low, high = one[pair], two[pair], y[pair, part], y[pair, part + 1]
        start, stop = (a - b)[pair, part], (a - b)[pair, part + 1]
    changes = start * stop < 0
    one, two, low, high = one[changes], two[changes], low[changes], high[changes]
    positive = start[changes] > 0
    for _ in range(20):  # of an interval that is a thousandth of a piece
        middle = (low + high) / 2
        same = (across(one, middle) - across(two, middle) > 0) == positive
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.concatenate([*met, (low + high) / 2])


def _overlap(own: Array, ends: Array, limit: int) -> tuple[Indices, Indices]:
    """The pairs of pieces whose boxes overlap."""
    order = np.argsort(ends[:, 0], kind="stable")
    starts = ends[order, 0]
    later = np.searchsorted(starts, ends[order, 1], "left") - np.arange(len(order)) - 1
    _check_number(np.maximum(later, 0), limit)
    one, step = _count_each(np.maximum(later, 0))
    one, two = order[one], order[one + step + 1]
    left, right = own[:, (0, 3), 0].min(1), own[:, (0, 3), 0].max(1)
    meet = (left[one] <= right[two]) & (left[two] <= right[one])
    return one[meet], two[meet]


def _check_number(counts: Indices, limit: int) -> None:
    if counts.sum() > limit:
        raise InputError(
            f"outlines of {len(counts):,} curves, which cross one another too often to be drawn."
        )
