"""The values that flow between the parts, with their shapes.

Every code is (batch, tokens, width), every signal a set of (coords, values), and every weight
carries a leading axis of 1 (shared by the batch) or batch (each signal its own).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

Coords = Float[Tensor, "batch points coord"]
Values = Float[Tensor, "batch points value"]
Code = Float[Tensor, "batch tokens width"]
Weights = Mapping[str, Tensor]
Function = Callable[[Tensor], Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]

RAY = 6
"""Numbers of a ray: its origin, and its direction, which need not be a unit vector."""


class Slot(NamedTuple):
    """A named hole that weights must fill.

    shape: a weight's last two axes are (in, out); axes before them belong to the field (tiles).
    init:  draws one tensor of that shape; a mixture of M calls it M times.
    role:  ``fixed`` slots are saved buffers that nothing conditions or trains; ``input`` slots are
           read by the field and belong to no layer.
    passes: matrices of a slot that one point meets: 1, the corners of a tiled weight's blend, or 0
           (looked up, or met by other slots alone).
    """

    shape: tuple[int, ...]
    init: Callable[[Generator | None], Tensor]
    role: Literal["weight", "bias", "input", "fixed"]
    passes: int = 1


def layer_of(slot: str) -> str:
    """The layer that a slot belongs to: ``3.weight`` -> ``3``."""
    return slot.rpartition(".")[0]


class Domain(NamedTuple):
    """What a renderer asks the field to map: (coord | direction) -> value."""

    coord: int
    direction: int
    value: int


@dataclass(frozen=True)
class Signal:
    """A batch of signals, each a set of observations; any subset is a signal again.

    coords (batch, points, coord) and values (batch, points, value); ``index`` is the place of each
    signal in its data set; ``grid`` the axes that the points fill, row-major, or None when they are
    scattered; ``mask`` tells which points are known (None: all); ``label`` is the class.
    """

    coords: Coords
    values: Values
    index: Int[Tensor, " batch"]
    grid: tuple[int, ...] | None = None
    mask: Bool[Tensor, "batch points"] | None = None
    label: Int[Tensor, " batch"] | None = None

    def __len__(self) -> int:
        return len(self.coords)

    def subset(
        self, points: int, generator: Generator | None = None, together: bool = False
    ) -> Signal:
        """``points`` observations of each signal, drawn without replacement; the grid is lost.

        together: the same places in every signal, so that signals on one grid can be compared.
        """
        batch, count = self.coords.shape[:2]
        drawn = (1 if together else batch, count)
        order = torch.rand(drawn, generator=generator, device=self.coords.device)
        order = order.expand(batch, -1)
        return self._at(order.topk(points, dim=1).indices)

    def known(self, points: int, generator: Generator | None = None) -> Signal:
        """``points`` observations of each signal, its known ones before any other."""
        chance = torch.rand(self.coords.shape[:2], generator=generator, device=self.coords.device)
        if self.mask is not None:
            chance = chance + self.mask
        return self._at(chance.topk(min(points, chance.shape[1]), dim=1).indices)

    def _at(self, keep: Int[Tensor, "batch few"]) -> Signal:
        """These observations of each signal."""
        pick = lambda x: x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        mask = None if self.mask is None else self.mask.gather(1, keep)
        return replace(
            self, coords=pick(self.coords), values=pick(self.values), grid=None, mask=mask
        )

    def thinned(self, points: int) -> Signal:
        """At most ``points`` observations, the same places in every signal, whatever the batch."""
        count = self.coords.shape[1]
        if points >= count:
            return self
        keep = torch.randperm(count, generator=Generator().manual_seed(0))[:points]
        keep = keep.to(self.coords.device)
        mask = None if self.mask is None else self.mask[:, keep]
        coords, values = self.coords[:, keep], self.values[:, keep]
        return replace(self, coords=coords, values=values, grid=None, mask=mask)

    def hide(self, mask: Bool[Tensor, "batch points"]) -> Signal:
        """The same grid with only the points of ``mask`` known."""
        return replace(self, mask=mask if self.mask is None else self.mask & mask)

    def part(self, signals: slice) -> Signal:
        """Some of the signals of the batch."""
        return self._map(lambda x: x[signals])

    def to(self, device: torch.device | str) -> Signal:
        return self._map(lambda x: x.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Signal:
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class Batch:
    """Encode the context, predict the target; equal for plain reconstruction."""

    context: Signal
    target: Signal

    def __len__(self) -> int:
        return len(self.context)

    def part(self, signals: slice) -> Batch:
        context = self.context.part(signals)
        if self.target is self.context:
            return Batch(context, context)
        return Batch(context, self.target.part(signals))

    def to(self, device: torch.device | str) -> Batch:
        context = self.context.to(device)
        if self.target is self.context:
            return Batch(context, context)
        return Batch(context, self.target.to(device))
