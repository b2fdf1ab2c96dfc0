"""Penalties: regularisation terms on the codes, one number for each signal.

weight: of the penalty beside the loss.
independent: whether the number of a signal depends on that signal alone (and on a table of codes).
joint: of one that is not independent, whether parts of a batch may be computed by several processes
    at the same time (``portion``).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from fieldloom.encoders import Encoder
from fieldloom.errors import InputError
from fieldloom.portion import Portion, current_portion
from fieldloom.types import Batch, Code, Signal, as_float64

SignalLoss = Callable[[Code, Signal], Tensor]
"""The reconstruction loss of codes on their signals: (batch,)."""


class L2(nn.Module):
    """weight / 2 * sum z^2 of each code: auto-decoding's prior (arXiv:1901.05103, eq. 9)."""

    independent = True
    capturable = True

    def __init__(self, weight: float = 1e-4) -> None:
        super().__init__()
        if weight < 0:
            raise InputError(f"penalty 'l2': weight = {weight:g}: not negative.")
        self.weight = weight

    def forward(
        self, code: Code, batch: Batch, encoder: Encoder, signal_loss: SignalLoss
    ) -> Tensor:
        return self.weight / 2 * code.square().flatten(1).sum(1)


class Lle(nn.Module):
    """Codes lie on the affine hull of their neighbours (GEM, arXiv:2111.06387, eqs. 3 and 4).

    Each code z_i is projected onto the hull of its ``neighbours`` nearest codes of the table, by
    the weights w = (C C^T)^-1 1 / sum, where the rows of C are the differences. Two terms are
    added: the loss of the projected code on the signal, and mean(min(max(-w, 0), 1000)), since no
    weight should be negative.

    weight:     of both terms.
    neighbours: number of neighbours.
    ridge:      fraction of the trace of C C^T that is added to its diagonal.
    """

    independent = True

    def __init__(self, weight: float = 1.0, neighbours: int = 10, ridge: float = 1e-3) -> None:
        super().__init__()
        if neighbours < 1 or ridge < 0 or weight < 0:
            raise InputError(
                f"penalty 'lle': weight = {weight:g}, neighbours = {neighbours}, ridge = {ridge}: "
                "at least one neighbour, none negative."
            )
        self.weight, self.neighbours, self.ridge = weight, neighbours, ridge

    def forward(
        self, code: Code, batch: Batch, encoder: Encoder, signal_loss: SignalLoss
    ) -> Tensor:
        index = batch.target.index.to(code.device)
        table, rows = codes_of(encoder, "lle"), encoder.rows
        count = len(table) if rows is None else rows.count
        if count <= self.neighbours:
            raise InputError(
                f"penalty 'lle': {self.neighbours} neighbours need more than {count} signals."
            )
        if rows is None:
            near = find_neighbours(table, index, self.neighbours)
        else:  # the rows that processes hold together, and where they are among those here
            table, near = rows.held.flatten(1), rows.place(rows.nearest(index))
            index = rows.place(index)
        own = table[index]  # a code is its row plus the conditioner's origin
        weights, projected = project_onto_hull(own, table[near], self.ridge)
        negative = (-weights).clamp(0, 1000).mean(1)
        moved = code + (projected - own).view_as(code)
        return self.weight * (signal_loss(moved, batch.target) + negative)


@torch.no_grad()
def find_neighbours(table: Tensor, index: Tensor, count: int) -> Tensor:
    """The ``count`` nearest other rows of a table (n, d) of each of some: indices (batch, count).

    By a fast matrix product: its rounding swaps only neighbours at equal distances.
    """
    far = torch.cdist(table[index], table)
    far.scatter_(1, index.unsqueeze(1), torch.inf)  # no code is its own neighbour
    return far.topk(count, largest=False).indices


def project_onto_hull(points: Tensor, neighbours: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Points (n, d) onto the affine hulls of neighbours (n, k, d): weights (n, k), points (n, d).

    The weights add up to 1 and minimise |z - sum w_j z_j|^2 + ridge Tr(C C^T) |w|^2.
    Source: locally linear embedding, Roweis and Saul, 2000.
    """
    differences = points.unsqueeze(1) - neighbours
    with torch.autocast(
        points.device.type, enabled=False
    ):  # a system of equations needs its digits
        gram = differences @ differences.mT
    scale = gram.diagonal(dim1=1, dim2=2).sum(-1) * ridge + 1e-12
    eye = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype)
    ones = gram.new_ones(*gram.shape[:2], 1)
    # unlike ``solve`` it does not ask the device whether all went well: the loss would be no number
    weights = torch.linalg.solve_ex(gram + scale.view(-1, 1, 1) * eye, ones).result.squeeze(-1)
    weights = weights / weights.sum(1, keepdim=True)
    return weights, (weights.unsqueeze(-1) * neighbours).sum(1)


class Isometry(nn.Module):
    """Codes are as far apart as their signals (GEM, arXiv:2111.06387, eq. 5).

    pairs: number of pairs of the batch, those whose signals are nearest.
    scale: where the learned s starts.

    |s * mean_d (z_i - z_j)^2 - d(i, j)| over these pairs. d is the mean squared difference of
    values where all signals have the same coordinates, and otherwise the Chamfer distance of the
    occupied points.
    """

    independent = False
    joint = True

    def __init__(self, weight: float = 1.0, pairs: int = 32, scale: float = 100.0) -> None:
        super().__init__()
        if pairs < 1 or weight < 0 or scale <= 0:
            raise InputError(
                f"penalty 'isometry': weight = {weight:g}, pairs = {pairs}, scale = {scale:g}: at "
                "least one pair, weight not negative, scale above 0."
            )
        self.weight, self.pairs = weight, pairs
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(
        self, code: Code, batch: Batch, encoder: Encoder, signal_loss: SignalLoss
    ) -> Tensor:
        here, portion, signal = len(code), current_portion(), batch.target
        if portion is not None:
            code, signal = portion.gather(code), gather_signal(signal, portion)
        count = len(code)
        if count < 2:
            return code.new_zeros(here)
        first, second = torch.triu_indices(count, count, 1, device=code.device)
        with torch.no_grad():
            distances = signal_distances(signal, first, second)
            nearest = distances.topk(min(self.pairs, len(first)), largest=False).indices
        first, second, distances = first[nearest], second[nearest], distances[nearest]
        codes = (code[first] - code[second]).square().flatten(1).mean(1)
        finite = distances.isfinite()  # an empty shape is infinitely far, and counts for nothing
        errors = torch.where(finite, (self.scale * codes - distances).abs(), 0)
        return self.weight * (errors.sum() / finite.sum().clamp_min(1)).expand(here)


@torch.no_grad()
def gather_signal(signal: Signal, portion: Portion) -> Signal:
    """All signals of the batch of which these are a portion."""
    gather = portion.gather
    return Signal(gather(signal.coords), gather(signal.values), gather(signal.index))


def signal_distances(signal: Signal, first: Tensor, second: Tensor) -> Tensor:
    """d of ``Isometry`` between the signals of each pair of indices (pairs,): (pairs,)."""
    shapes = None if signal.coords.stride(0) == 0 else inside_of(signal)
    if shapes is None:
        flat = as_float64(signal.values.flatten(1))  # rounding stays far below that of values
        squares = flat.square().sum(1)
        gram = squares[:, None] + squares - 2 * flat @ flat.T
        squared = gram[first.to(gram.device), second.to(gram.device)]
        return (squared / flat.shape[1]).clamp_min(0).to(signal.values)
    pairs, portion = list(combinations(shapes, 2)), current_portion()
    if portion is None:
        return torch.stack([_chamfer(*pair) for pair in pairs])
    found = signal.values.new_zeros(len(pairs))  # each process compares some pairs
    for i in range(portion.rank, len(pairs), portion.count):
        found[i] = _chamfer(*pairs[i])
    return portion.add(found)


def inside_of(signal: Signal) -> list[Tensor] | None:
    """The occupied points of each signal; None where all signals have the same coordinates.

    How many points these are is read from the device, once: shapes of fixed size would compare all
    points of two signals.
    """
    middle = (signal.values.amax() + signal.values.amin()) / 2
    occupied = signal.values[..., 0] > middle
    alike = (signal.coords == signal.coords[:1]).all()
    same, *counts = torch.cat([alike.view(1), occupied.sum(1)]).tolist()
    if same:
        return None
    first = occupied.byte().argsort(dim=1, descending=True, stable=True)
    rows = zip(signal.coords, first, counts, strict=True)
    return [coords.index_select(0, order[:count]) for coords, order, count in rows]


def _chamfer(a: Tensor, b: Tensor) -> Tensor:
    """The squared Chamfer distance of points (n, d) and (m, d): a scalar."""
    if not len(a) or not len(b):  # two empty shapes are equal; an empty one is infinitely far
        return a.new_zeros(()) if len(a) == len(b) else a.new_full((), torch.inf)
    # not by a matrix product, whose rounding separates equal shapes
    squared = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    return squared.amin(1).mean() + squared.amin(0).mean()


def codes_of(encoder: Encoder, penalty: str) -> Tensor:
    """The codes of all training signals, (signals, numbers). Raises InputError without a table."""
    tables = encoder.code_parameters()
    if not tables:
        raise InputError(f"penalty '{penalty}' needs encoder 'autodecode': it reads all codes.")
    return tables[0].flatten(1)


PENALTIES: dict[str, Any] = {"l2": L2, "lle": Lle, "isometry": Isometry}
