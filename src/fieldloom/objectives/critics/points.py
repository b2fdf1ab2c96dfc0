"""A critic of scattered points: convolutions over neighbourhoods."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fieldloom.errors import InputError
from fieldloom.nn.norms import batch_norm
from fieldloom.portion import current_portion
from fieldloom.types import Coords, Values


@dataclass(frozen=True)
class Layer:
    """One layer of a point critic.

    points:     number of output centres, by farthest-point sampling among the input points.
    neighbours: number of input points that each centre sees.
    channels:   of the output; None: the mean over the neighbours (a pooling layer).
    """

    points: int
    neighbours: int
    channels: int | None = None


class Known(NamedTuple):
    """Coordinates that were met before.

    numbers: themselves, on a CPU. memory: of which tensor they are a view, and which.
    """

    numbers: Tensor
    memory: tuple[Any, ...] | None

    @classmethod
    def of(cls, coords: Coords) -> Known:
        return cls(coords.clone() if coords.is_cpu else coords, memory_of(coords))

    def equals(self, coords: Coords) -> bool:
        if (self.numbers.device, self.numbers.dtype) != (coords.device, coords.dtype):
            return False
        if coords.is_cpu:
            return torch.equal(self.numbers, coords)
        return self.memory is not None and self.memory == memory_of(coords)


def memory_of(x: Tensor) -> tuple[Any, ...] | None:
    """What a tensor is a view of, and how; None: nobody knows whether it has been changed."""
    base = x if x._base is None else x._base
    if base.is_inference():
        return None
    return id(base), base._version, x.shape, x.stride(), x.storage_offset()


class PointCritic(nn.Module):
    """Convolutions over neighbourhoods of scattered points (PointConv, arXiv:1811.07246).

    The output of a convolution at a centre x is Linear(sum_k f_k (outer) w(x_k - x)) over its
    nearest points; w is a perceptron of four layers of ``mid`` units. As in GASP (arXiv:2102.04776,
    appendix A): no density, batch norm after every layer but the last, leaky ReLU of 0.2.

    layers: (centres, neighbours, channels) of a convolution, (centres, neighbours) of a pooling
            layer; the last one must have one centre and one channel. The numbers of centres and
            neighbours are limited to the number of points.
    mid:    units of each layer of w.
    """

    divisible = True

    def __init__(
        self,
        coord_dim: int,
        value_dim: int,
        layers: tuple[tuple[int, ...], ...],
        mid: int = 16,
    ) -> None:
        super().__init__()
        if not layers or any(len(x) not in (2, 3) or min(x) < 1 for x in layers):
            raise InputError(
                "critic.layers: each is [centres, neighbours, channels] or [centres, neighbours]."
            )
        if len(layers[-1]) != 3 or layers[-1][0] != 1 or layers[-1][2] != 1:
            raise InputError("critic.layers: the last is [1, neighbours, 1], one logit a signal.")
        if mid < 1 or any(len(x) == 3 and x[1] < 2 for x in layers):
            raise InputError(
                "critic: mid is at least 1, and a convolution sees at least 2 neighbours."
            )
        self.layers = [Layer(*x) for x in layers]
        self.convolutions = nn.ModuleList()
        channels = value_dim
        for i, layer in enumerate(self.layers):
            if layer.channels is not None:
                last = i == len(self.layers) - 1
                self.convolutions.append(
                    PointConv(coord_dim, channels, layer.channels, mid, norm=not last)
                )
                channels = layer.channels
        self._plan: tuple[Known, list[tuple[Tensor, Tensor]]] | None = None

    def forward(
        self, coords: Coords, values: Values, grid: tuple[int, ...] | None = None
    ) -> Float[Tensor, "batch logits"]:
        """One logit per signal, (batch, 1), of values at coords; the grid is ignored."""
        h, convolutions = values, iter(self.convolutions)
        for layer, (near, offset) in zip(self.layers, self.plan(coords), strict=True):
            seen = gather_neighbours(h, near)
            h = seen.mean(2) if layer.channels is None else next(convolutions)(seen, offset)
        return h.flatten(1)

    @torch.no_grad()
    def plan(self, coords: Coords) -> list[tuple[Tensor, Tensor]]:
        """For each layer, indices of the neighbours (1 | batch, centres, k), and their offsets.

        They are cached until the coordinates change, and shared by signals of equal coordinates. On
        an accelerator, where comparing numbers would wait for them, equal means the same in memory.
        """
        # equal numbers in a part of a batch do not tell that all of the batch shares them
        alike = coords.is_cpu and current_portion() is None
        if coords.stride(0) == 0 or (alike and bool((coords == coords[:1]).all())):
            coords = coords[:1]
        if self._plan is not None:
            known, found = self._plan
            if known.equals(coords):
                return found
        found, points = [], coords
        for layer in self.layers:
            centres = points
            if layer.points < points.shape[1]:
                centres = gather_neighbours(
                    points, sample_farthest_points(points, layer.points).unsqueeze(-1)
                ).squeeze(2)
            k = min(layer.neighbours, points.shape[1])
            # not by a matrix product, whose rounding separates equal points: a centre is its own
            # nearest neighbour
            far = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
            near = far.topk(k, largest=False).indices
            found.append((near, gather_neighbours(points, near) - centres.unsqueeze(2)))
            points = centres
        self._plan = (Known.of(coords), found)
        return found


class PointConv(nn.Module):
    """A convolution of features (batch, centres, k, in) at offsets (1 | batch, centres, k, coord).

    Returns (batch, centres, out).
    """

    def __init__(self, coord_dim: int, inputs: int, outputs: int, mid: int, norm: bool) -> None:
        super().__init__()
        sizes = [coord_dim, mid, mid, mid, mid]
        self.kernel = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in sizes[1:])
        self.linear = nn.Linear(mid * inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs) if norm else None

    def forward(self, features: Tensor, offsets: Tensor) -> Tensor:
        w = offsets
        for layer, norm in zip(self.kernel, self.norms, strict=True):
            w = F.leaky_relu(batch_norm(norm, layer(w)), 0.2)
        summed = features.mT @ w  # (batch, centres, in, mid)
        h = self.linear(summed.flatten(2))
        if self.norm is None:
            return h
        return F.leaky_relu(batch_norm(self.norm, h), 0.2)


def gather_neighbours(x: Tensor, indices: Tensor) -> Tensor:
    """x (batch, points, c) at indices (1 | batch, centres, k) -> (batch, centres, k, c)."""
    batch, points, channels = x.shape
    if len(indices) == 1:
        return x.index_select(1, indices.flatten()).view(batch, *indices.shape[1:], channels)
    first = points * torch.arange(batch, device=x.device).view(-1, 1, 1)
    rows = (indices + first).flatten()
    return x.flatten(0, 1).index_select(0, rows).view(*indices.shape, channels)


def sample_farthest_points(points: Tensor, count: int) -> Tensor:
    """Farthest-point sampling from the first point on: (batch, points, coord) -> (batch, count)."""
    batch, total, _ = points.shape
    chosen = torch.zeros(batch, count, dtype=torch.long, device=points.device)
    squared = points.new_full((batch, total), torch.inf)
    row = torch.arange(batch, device=points.device)
    for i in range(1, count):
        latest = points[row, chosen[:, i - 1]].unsqueeze(1)
        squared = torch.minimum(squared, (points - latest).square().sum(-1))
        chosen[:, i] = squared.argmax(1)
    return chosen
