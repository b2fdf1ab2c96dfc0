"""Dispatch of points to the matrices of tiled layers: segments, a permutation, gather and scatter.

A tiled layer is a mixture of experts whose gate is the tile that a point lies in. Each layer needs
the rows of one tile to be contiguous; rows are permuted only where they are not yet in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MIN_ROWS = 128
"""Rows that a segment should have on average: enough for an efficient matrix product."""

Bounds = tuple[int, int, int]
"""First row, last row (exclusive) and index of the matrix of a segment."""


class Segments(NamedTuple):
    """How a layer reads its rows: permuted, then segment by segment.

    permutation: (n,), the input row of each output row; None: the identity.
    bounds: of the segments, in the order of their rows; none is empty, and all rows of a segment
            are multiplied by one matrix.
    """

    permutation: Tensor | None
    bounds: tuple[Bounds, ...]


class Blocks(NamedTuple):
    """Blocks of rows of one group each; the last ones may be empty.

    group, first, last: (blocks,) of each its group, first row, and last row (exclusive) of its
                        group. begin: (groups,) the first block of each group.
    """

    group: Tensor
    first: Tensor
    last: Tensor
    begin: Tensor


class Groups:
    """How a layer reads its rows on an accelerator, where reading a number would wait.

    permutation: (n,), the input row of each output row; None: the identity.
    ends:        (groups,) the last row (exclusive) of each; groups may be empty.
    """

    def __init__(self, permutation: Tensor | None, ends: Tensor, n: int) -> None:
        self.permutation, self.ends, self.n, self.count = permutation, ends, n, len(ends)
        self._blocks: dict[int, Blocks] = {}
        self._inverse: Tensor | None = None

    def read(self, x: Tensor) -> Tensor:
        """Rows (n, ...) before sorting -> sorted."""
        return x if self.permutation is None else x.index_select(0, self.permutation)

    def write(self, y: Tensor) -> Tensor:
        """Rows (n, ...) sorted -> as before sorting."""
        if self.permutation is None:
            return y
        if self._inverse is None:
            self._inverse = invert(self.permutation)
        return y.index_select(0, self._inverse)

    @property
    def starts(self) -> Tensor:
        """The first row of each group: (groups,)."""
        return torch.cat([self.ends.new_zeros(1), self.ends[:-1]])

    def blocks(self, size: int) -> Blocks:
        """Blocks of this many rows: at most n / size + groups, whatever the data are."""
        if size not in self._blocks:
            starts = self.starts
            many = (self.ends - starts + (size - 1)) // size
            stop = many.cumsum(0)
            begin = stop - many
            index = torch.arange(self.n // size + self.count, device=self.ends.device)
            group = torch.searchsorted(stop, index, right=True).clamp(max=self.count - 1)
            first = starts[group] + (index - begin[group]) * size
            self._blocks[size] = Blocks(group, first, self.ends[group], begin)
        return self._blocks[size]


class Dispatch(NamedTuple):
    """The order of the points of a batch at a layer.

    segments:   how the layer reads the rows of the layer before; None for a layer that is not
                tiled, which leaves them as they are.
    source:     (n,) the original index of each row; None: the identity.
    contiguous: whether the rows of each signal are contiguous, in the order of the signals.
    """

    segments: Segments | Groups | None
    source: Tensor | None
    contiguous: bool

    def gather(self, x: Tensor) -> Tensor:
        """Rows (n, ...) in their original order -> in this layer's."""
        return x if self.source is None else x.index_select(0, self.source)

    def permute(self, x: Tensor) -> Tensor:
        """Rows (n, ...) in the order of the layer before -> in this layer's."""
        if self.segments is None or self.segments.permutation is None:
            return x
        return x.index_select(0, self.segments.permutation)

    def scatter(self, x: Tensor) -> Tensor:
        """Rows (n, ...) in this layer's order -> in their original one."""
        return x if self.source is None else x.index_select(0, invert(self.source))


class Assignment(NamedTuple):
    """The tile (n,) of every point in a layer of ``tiles`` tiles.

    own: whether each signal has its own matrices, with index signal * tiles + tile; otherwise all
         signals share one matrix per tile.
    """

    tile: Tensor
    tiles: int
    own: bool


def dispatch(layers: Sequence[Assignment | None], batch: int, points: int) -> list[Dispatch]:
    """The order of the points (batch, points) at every layer; layers that are not tiled are None.

    A layer that has to sort its points also sorts them by the tiles of the layers after it, as long
    as at least MIN_ROWS points share all of these tiles: the later layers then find their segments
    without a permutation. On an accelerator every layer is sorted by its own tiles alone, and
    nothing is read from there.
    """
    if any(not x.tile.is_cpu for x in layers if x is not None):
        return _dispatch_without_reading(layers, batch, points)
    source: Tensor | None = None
    contiguous, found = True, []
    ready: dict[int, tuple[Bounds, ...]] = {}
    for i, assignment in enumerate(layers):
        if assignment is None:
            found.append(Dispatch(None, source, contiguous))
            continue
        if i in ready:
            found.append(Dispatch(Segments(None, ready[i]), source, contiguous))
            continue
        together = _layers_to_sort_together(layers, i, batch * points, batch)
        key, total = _joint_key([layers[j] for j in together], batch, points)
        here = key if source is None else key.index_select(0, source)
        permutation = None
        if not bool((here[1:] >= here[:-1]).all()):
            permutation = _argsort(here, total)
            source = permutation if source is None else source.index_select(0, permutation)
        contiguous = assignment.own or batch == 1 or (contiguous and permutation is None)
        ends = torch.bincount(key, minlength=total).cumsum(0)
        later = total // (batch if assignment.own else 1)
        for j in together:
            member = layers[j]
            assert member is not None
            later //= member.tiles
            ready[j] = _bounds(ends[later - 1 :: later].tolist(), member, batch)
        found.append(Dispatch(Segments(permutation, ready[i]), source, contiguous))
    return found


def _dispatch_without_reading(
    layers: Sequence[Assignment | None], batch: int, points: int
) -> list[Dispatch]:
    source: Tensor | None = None
    contiguous, found = True, []
    for assignment in layers:
        if assignment is None:
            found.append(Dispatch(None, source, contiguous))
            continue
        key, total = _joint_key([assignment], batch, points)
        n = batch * points
        if assignment.tiles == 1 and contiguous:  # a matrix for each signal, or one for all
            ends = torch.arange(1, total + 1, device=key.device) * (n // total)
            found.append(Dispatch(Groups(None, ends, n), source, contiguous))
            continue
        here = key if source is None else key.index_select(0, source)
        small = _smallest(total)
        ordered, permutation = here.to(small).sort(stable=True)
        tiles = torch.arange(total, dtype=small, device=key.device)
        ends = torch.searchsorted(ordered, tiles, right=True)
        source = permutation if source is None else source.index_select(0, permutation)
        contiguous = assignment.own or batch == 1
        found.append(Dispatch(Groups(permutation, ends, n), source, contiguous))
    return found


def _layers_to_sort_together(
    layers: Sequence[Assignment | None], first: int, n: int, batch: int
) -> list[int]:
    """Indices of the layers, from ``first`` on, by whose tiles one sort orders the points."""
    found: list[int] = []
    own, groups = False, 1
    for j, assignment in enumerate(layers[first:], first):
        if assignment is None:
            continue
        tiles = assignment.tiles
        if not found:
            own, groups = assignment.own, batch if assignment.own else 1
        elif assignment.own != own or groups * tiles * MIN_ROWS > n:
            break
        found.append(j)
        groups *= tiles
    return found


def _joint_key(layers: Sequence[Assignment | None], batch: int, points: int) -> tuple[Tensor, int]:
    """One sort key per point for its tiles in all of these layers: (n,), and the number of keys.

    The tiles of the first layer vary slowest.
    """
    key, total = None, 1
    for assignment in layers:
        assert assignment is not None
        if key is None:
            key = assignment.tile
            if assignment.own:
                signal = torch.arange(batch, device=key.device)
                signal = signal.unsqueeze(1).expand(batch, points).flatten()
                key, total = signal * assignment.tiles + key, batch
        else:
            key = key * assignment.tiles + assignment.tile
        total *= assignment.tiles
    assert key is not None
    return key, total


def _argsort(key: Tensor, total: int) -> Tensor:
    return key.to(_smallest(total)).sort(stable=True).indices


def _smallest(total: int) -> torch.dtype:
    return torch.uint8 if total <= 256 else torch.int32  # a shorter key is sorted faster


def _bounds(ends: list[int], assignment: Assignment, batch: int) -> tuple[Bounds, ...]:
    """Bounds of the segments that are not empty, from the end rows of all segments.

    Within a signal the tiles repeat: segment i belongs to tile i modulo the number of tiles.
    """
    starts = [0, *ends[:-1]]
    per_signal = len(ends) // batch if assignment.own else len(ends)
    tiles = assignment.tiles
    return tuple(
        (a, b, index // per_signal * tiles + index % tiles)
        for index, (a, b) in enumerate(zip(starts, ends, strict=True))
        if a < b
    )


def invert(permutation: Tensor) -> Tensor:
    """The inverse of a permutation: (n,)."""
    inverse = torch.empty_like(permutation)
    inverse[permutation] = torch.arange(len(permutation), device=permutation.device)
    return inverse
