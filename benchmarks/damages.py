"""Known damages of clouds of points, of a severity."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def neighbour_means(cloud: Tensor, neighbours: int) -> Tensor:
    """Every point moved to the mean of its nearest points: (points, 3)."""
    from scipy.spatial import KDTree

    points = cloud.numpy()
    return torch.from_numpy(points[KDTree(points).query(points, neighbours)[1]].mean(1)).float()


def along(clouds: Tensor, ways: Tensor) -> Tensor:
    """Clouds with their points in the order of where they lie along a direction (n, 3)."""
    order = torch.einsum("npc,nc->np", clouds, ways).argsort(1)
    return clouds.gather(1, order[..., None].expand_as(clouds))


def cut(clouds: Tensor, ways: Tensor, share: Tensor, random: Generator) -> Tensor:
    """Clouds without the share (n,) of points that lies furthest; others are drawn twice."""
    points = clouds.shape[1]
    kept = (points * (1 - share)).ceil()[:, None]
    place = torch.arange(points).expand(len(clouds), -1)
    again = (torch.rand(len(clouds), points, generator=random) * kept).long()
    index = torch.where(place < kept, place, again)
    return along(clouds, ways).gather(1, index[..., None].expand_as(clouds))


def mix(clouds: Tensor, others: Tensor, ways: Tensor, share: Tensor) -> Tensor:
    """Clouds whose share (n,) of points that lies furthest comes from other clouds."""
    points = clouds.shape[1]
    own = torch.arange(points) < (points * (1 - share)).ceil()[:, None]
    return torch.where(own[..., None], along(clouds, ways), along(others, ways))
