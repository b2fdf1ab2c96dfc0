"""The order in which tiled layers meet the points of a batch: each layer finds those of one tile
together, and moves a row only where it has to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LEAST = 128
"""Rows that a run should have on average: so many fill a matrix product."""


class Order(NamedTuple):
    """How a layer finds its points.

    indices: (n,) the row of the layer's input that stands at each row of its output; None: its own.
    runs:   (first row, last row (exclusive), matrix) of rows that meet the same matrix.
    """

    indices: Tensor | None
    runs: tuple[tuple[int, int, int], ...]


class Stop(NamedTuple):
    """Where the points of a batch stand at a layer.

    order: how they came from the layer before; None: as they were, for a layer that is not tiled.
    at:    (n,) the place that each row started from; None: its own.
    whole: whether each signal's rows stand together, in the order of signals.
    """

    order: Order | None
    at: Tensor | None
    whole: bool

    def of(self, x: Tensor) -> Tensor:
        """Rows as they started (n, ...) -> as they stand here."""
        return x if self.at is None else x.index_select(0, self.at)

    def moved(self, x: Tensor) -> Tensor:
        """Rows as they stood at the layer before -> as they stand here."""
        if self.order is None or self.order.indices is None:
            return x
        return x.index_select(0, self.order.indices)

    def back(self, x: Tensor) -> Tensor:
        """Rows as they stand here -> as they started."""
        return x if self.at is None else x.index_select(0, inverse(self.at))


class Keys(NamedTuple):
    """The tile (n,) of every point in a layer of so many ``tiles``.

    own: signals have matrices of their own, signal * tiles + tile; otherwise the tile's is shared.
    """

    tile: Tensor
    tiles: int
    own: bool


def route(layers: Sequence[Keys | None], batch: int, points: int) -> list[Stop]:
    """The order of the points (batch, points) at every layer; None: a layer that is not tiled.

    Where a layer has to sort them, it sorts by the tiles of those after it too, as long as LEAST
    points share all of these: then the layers after it find their runs without moving a row.
    """
    at: Tensor | None = None
    whole, stops = True, []
    ready: dict[int, tuple[tuple[int, int, int], ...]] = {}
    for i, keys in enumerate(layers):
        if keys is None:
            stops.append(Stop(None, at, whole))
            continue
        if i in ready:
            stops.append(Stop(Order(None, ready[i]), at, whole))
            continue
        together = _together(layers, i, batch * points, batch)
        key, total = _joined([layers[j] for j in together], batch, points)
        now = key if at is None else key.index_select(0, at)
        step = None
        if not bool((now[1:] >= now[:-1]).all()):
            step = _sorted(now, total)
            at = step if at is None else at.index_select(0, step)
        whole = keys.own or batch == 1 or (whole and step is None)
        ends = torch.bincount(key, minlength=total).cumsum(0)
        later = total // (batch if keys.own else 1)
        for j in together:
            member = layers[j]
            assert member is not None
            later //= member.tiles
            ready[j] = _runs(ends[later - 1 :: later].tolist(), member, batch)
        stops.append(Stop(Order(step, ready[i]), at, whole))
    return stops


def _together(layers: Sequence[Keys | None], first: int, n: int, batch: int) -> list[int]:
    """The layers, from the first on, whose tiles the points are sorted by at once."""
    found: list[int] = []
    own, groups = False, 1
    for j, keys in enumerate(layers[first:], first):
        if keys is None:
            continue
        if not found:
            own, groups = keys.own, batch if keys.own else 1
        elif keys.own != own or groups * keys.tiles * LEAST > n or not keys.tile.is_cpu:
            break  # an accelerator takes a matrix for every run: it should have few
        found.append(j)
        groups *= keys.tiles
    return found


def _joined(layers: Sequence[Keys | None], batch: int, points: int) -> tuple[Tensor, int]:
    """One number a point for its tiles in all of these layers, the first one's slowest."""
    key, total = None, 1
    for keys in layers:
        assert keys is not None
        if key is None:
            key = keys.tile
            if keys.own:
                signal = torch.arange(batch, device=key.device).repeat_interleave(points)
                key, total = signal * keys.tiles + key, batch
        else:
            key = key * keys.tiles + keys.tile
        total *= keys.tiles
    assert key is not None
    return key, total


def _sorted(key: Tensor, total: int) -> Tensor:
    small = torch.uint8 if total <= 256 else torch.int32  # a shorter key is sorted faster
    return key.to(small).sort(stable=True).indices


def _runs(ends: list[int], keys: Keys, batch: int) -> tuple[tuple[int, int, int], ...]:
    """Runs that are not empty, from the ends of all; a layer's matrices come round in them."""
    starts = [0, *ends[:-1]]
    each = len(ends) // batch if keys.own else len(ends)  # runs of one signal
    return tuple(
        (a, b, place // each * keys.tiles + place % keys.tiles)
        for place, (a, b) in enumerate(zip(starts, ends, strict=True))
        if a < b
    )


def inverse(order: Tensor) -> Tensor:
    """The permutation that undoes one."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return back
