"""Lloyd's algorithm ends in fixed points."""

from __future__ import annotations

import torch

from fieldloom.nn.kmeans import kmeans, lloyd_max, nearest_centroids
from vectors import same


def slow_lloyd(values: list[float], centroids: list[float]) -> list[float]:
    while True:
        cells: list[list[float]] = [[] for _ in centroids]
        for value in values:
            cells[min(range(len(centroids)), key=lambda i: abs(value - centroids[i]))].append(value)
        means = [sum(c) / len(c) if c else w for c, w in zip(cells, centroids, strict=True)]
        if max(abs(a - b) for a, b in zip(means, centroids, strict=True)) < 1e-12:
            return means
        centroids = means


def test_scalar_codebooks_are_a_fixed_point_and_good() -> None:
    values = torch.randn(400, dtype=torch.float64) ** 3
    centroids = lloyd_max(values[:, None], 9)[:, 0]
    same(
        torch.tensor(slow_lloyd(values.tolist(), centroids.tolist()), dtype=centroids.dtype),
        centroids,
    )
    cost = lambda centroids: (values[:, None] - centroids).square().amin(1).mean().item()
    tries = [slow_lloyd(values.tolist(), values[torch.randperm(400)[:9]].tolist()) for _ in "abcd"]
    assert cost(centroids) < min(cost(torch.tensor(x).double()) for x in tries) * 1.1
    # the best 2 centroids of few numbers, by trying all cuts
    few = torch.randn(30, dtype=torch.float64).sort().values
    best = min(few[:i].var(correction=0) * i + few[i:].var(correction=0) * (30 - i)
               for i in range(1, 30))  # fmt: skip
    found = lloyd_max(few[:, None], 2)[:, 0]
    assert (few[:, None] - found).square().amin(1).sum() < best * 1.2


def test_vector_codebooks_are_a_fixed_point() -> None:
    """No token is nearer to another centroid, and every centroid is the mean of its own."""
    middles = torch.randn(6, 3).double() * 5
    tokens = (middles[:, None] + 0.1 * torch.randn(6, 20, 3).double()).flatten(0, 1)
    mask = torch.ones_like(tokens)
    codebook = kmeans(tokens, mask, 6)
    index = torch.tensor([min(range(6), key=lambda i: (t - codebook[i]).norm()) for t in tokens])
    assert nearest_centroids(tokens, mask, codebook).tolist() == index.tolist()
    for i in range(6):
        same(codebook[i], tokens[index == i].mean(0))
    assert len({tuple(index[i : i + 20].tolist()) for i in range(0, 120, 20)}) == 6
    same(kmeans(tokens, mask, 6), codebook, rtol=0, atol=0)


def test_no_mask_is_a_mask_of_ones() -> None:
    points, centroids = torch.randn(50, 3).double(), torch.randn(7, 3).double()
    whole = nearest_centroids(points, torch.ones_like(points), centroids)
    assert torch.equal(nearest_centroids(points, None, centroids), whole)
