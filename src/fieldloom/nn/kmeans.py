"""k-means: Lloyd's algorithm from k-means++, and an exact, faster one for single numbers.

Points are (n, width). ``mask``, of the same shape, is 1 where a point has a component and 0 where
it is padded (the point is zero there); padded components do not count in distances.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Generator, Tensor

Vectors = Float[Tensor, "n width"]
Centroids = Float[Tensor, "k width"]
Numbers = NDArray[np.float64]

DISTANCES = 1 << 24
"""Distances that are in memory at a time: 64 MiB of float32."""


def nearest_centroids(
    points: Vectors, mask: Vectors | None, centroids: Centroids
) -> Int[Tensor, " n"]:
    """The index of each point's nearest centroid, by squared distance.

    mask: None where no component is padded.
    """
    if centroids.shape[1] == 1:
        order = centroids[:, 0].argsort(stable=True)
        ascending = centroids[order, 0]
        middles = (ascending[1:] + ascending[:-1]) / 2
        return order[torch.bucketize(points[:, 0].contiguous(), middles)]
    each, squares = max(1, DISTANCES // len(centroids)), centroids.square()
    found = []
    masks = [None] * -(-len(points) // each) if mask is None else mask.split(each)
    for some, own in zip(points.split(each), masks, strict=True):
        length = squares.sum(1) if own is None else own @ squares.T
        # by a matrix product: its rounding confuses two centroids only at equal distances
        found.append(torch.addmm(length, some, centroids.T, alpha=-2).argmin(1))
    return torch.cat(found) if found else points.new_empty(0, dtype=torch.long)


def kmeans(points: Vectors, mask: Vectors, k: int, iterations: int = 25) -> Centroids:
    """k centroids by Lloyd's iterations from k-means++; deterministic.

    Centroids without points move to the points that are farthest from their centroids.
    """
    centroids = seed_centroids(points, mask, k, Generator().manual_seed(0))
    padded = None if bool(mask.all()) else mask
    for step in range(iterations):
        index = nearest_centroids(points, padded, centroids)
        count = torch.zeros_like(centroids).index_add_(0, index, mask)
        total = torch.zeros_like(centroids).index_add_(0, index, points)
        means = torch.where(count > 0, total / count.clamp_min(1), torch.zeros_like(centroids))
        empty = torch.bincount(index, minlength=k) == 0
        means[empty] = centroids[empty]
        if empty.any() and step < iterations - 1:
            distance = (points - mask * centroids[index]).square().sum(1)
            farthest = distance.topk(min(int(empty.sum()), len(distance)))
            moved = farthest.indices[farthest.values > 0]
            means[empty.nonzero()[: len(moved), 0]] = points[moved]
        if torch.equal(means, centroids):
            break
        centroids = means
    return centroids


def seed_centroids(points: Vectors, mask: Vectors, k: int, generator: Generator) -> Centroids:
    """k of the points, by k-means++ (Arthur and Vassilvitskii, 2007, section 2.2).

    Each point is drawn in proportion to its squared distance to the nearest point drawn before.
    """
    first = int(torch.randint(len(points), (1,), generator=generator))
    chosen = [points[first]]
    distance = torch.full((len(points),), torch.inf, dtype=points.dtype)
    for _ in range(k - 1):
        distance = torch.minimum(distance, (points - mask * chosen[-1]).square().sum(1))
        cumulative = distance.double().cumsum(0)
        draw = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative[-1]
        index = torch.searchsorted(cumulative, draw, right=True).clamp_max(len(distance) - 1)
        chosen.append(points[int(index)])
    return torch.stack(chosen)


def lloyd_max(values: Float[Tensor, "n 1"], k: int) -> Float[Tensor, "k 1"]:
    """Ascending centroids of scalars: a fixed point of Lloyd's algorithm; deterministic.

    Cells of sorted numbers are ranges, and their means are differences of cumulative sums, so that
    an iteration needs no pass over the numbers. There are two starts: quantiles, and the optimum
    for smooth densities (centroids as dense as density^(1/3)); the result of the smaller squared
    error is returned.
    """
    data = np.sort(values[:, 0].double().cpu().numpy())
    sums = np.concatenate([[0.0], np.cumsum(data)])
    squares = np.concatenate([[0.0], np.cumsum(data * data)])
    fractions = (np.arange(k) + 0.5) / k
    steps = data[np.linspace(0, len(data) - 1, 1 << 12).round().astype(np.int64)]
    # density^(1/3) along a step between quantiles: step * (1 / step)^(1/3)
    dense = np.concatenate([[0.0], np.cumsum(np.diff(steps) ** (2 / 3))])
    starts = np.quantile(data, fractions), np.interp(fractions * dense[-1], dense, steps)
    ends = [_iterate_lloyd(data, sums, squares, start) for start in starts]
    best = min(ends, key=lambda centroids: _split_cells(data, sums, squares, centroids)[2].sum())
    return torch.from_numpy(best).to(values)[:, None]


def _split_cells(
    data: Numbers, sums: Numbers, squares: Numbers, centroids: Numbers
) -> tuple[NDArray[np.int64], Numbers, Numbers]:
    """Edges of the cells of ascending centroids, the cells' means, and their squared errors.

    The mean of an empty cell is its centroid. sums, squares: cumulative sums of the data and of
    their squares, both starting with 0.
    """
    inner = np.searchsorted(data, (centroids[1:] + centroids[:-1]) / 2)
    edges = np.concatenate([[0], inner, [len(data)]])
    count, total = np.diff(edges), np.diff(sums[edges])
    means = np.where(count > 0, total / np.maximum(count, 1), centroids)
    errors = np.maximum(np.diff(squares[edges]) - total * total / np.maximum(count, 1), 0)
    return edges, means, errors


def _iterate_lloyd(
    data: Numbers, sums: Numbers, squares: Numbers, centroids: Numbers, iterations: int = 10_000
) -> Numbers:
    """Iterate ascending centroids until they no longer change, at most ``iterations`` times.

    Centroids of empty cells move to the upper halves of the cells with the largest errors.
    """
    for _ in range(iterations):
        edges, means, errors = _split_cells(data, sums, squares, centroids)
        empty = np.flatnonzero(np.diff(edges) == 0)
        worst = np.argsort(-errors, kind="stable")[: len(empty)]
        ends = [np.clip(i, 0, len(data) - 1) for i in (edges[worst], edges[worst + 1] - 1)]
        worst = worst[data[ends[0]] < data[ends[1]]]  # equal numbers cannot be split
        for index, cell in zip(empty, worst, strict=False):
            middle = (edges[cell] + edges[cell + 1]) // 2
            means[index] = data[middle : edges[cell + 1]].mean()
        means = np.sort(means)
        if np.array_equal(means, centroids):
            break
        centroids = means
    return centroids
