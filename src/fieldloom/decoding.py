"""From codes to values: one signal at a time, in pieces that fit into the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from fieldloom.family import Family
from fieldloom.renderers import Renderer
from fieldloom.types import Code, Values, layer_of

CACHED = 1 << 18
"""Values of one hidden layer that are evaluated at a time: 1 MiB of float32."""

PER_TILE = 64
"""The fewest points for each tile, so that reading a tile's matrix pays off."""


def evaluate_codes(
    family: Family,
    render: Renderer,
    link: Callable[[Tensor], Tensor],
    code: Code,
    coords: Tensor,
    dtype: torch.dtype | None = None,
) -> Iterator[Values]:
    """Values of each code in turn, (1, points, value), at coords (1 | batch, points, coord).

    One instance at a time, in pieces whose hidden layers stay in the cache: faster on a CPU than
    any larger batch. dtype: of all weights but the first layer's, where coordinates and phases of
    many periods meet (bfloat16 would cost 10 dB there); None: their own.
    """
    with torch.inference_mode():  # here and below, since a generator may be wrapped
        weights, slots = family.conditioner(code), family.field.slots
    if dtype is not None:
        first = layer_of(next(name for name, slot in slots.items() if slot.role == "weight"))
        weights = {
            n: w if layer_of(n) == first or slots[n].role == "fixed" else w.to(dtype)
            for n, w in weights.items()
        }
    piece = piece_size(family, render, code.is_cpu)
    for i in range(len(code)):
        own = {n: w if len(w) == 1 else w[i : i + 1] for n, w in weights.items()}
        points = coords if len(coords) == 1 else coords[i : i + 1]
        with torch.inference_mode():
            function = partial(family.field, weights=own)
            pieces = [render(function, part) for part in points.split(piece, 1)]
            values = link(torch.cat(pieces, 1).float())
        yield values


def piece_size(family: Family, render: Renderer, cpu: bool) -> int:
    """The number of coordinates that are evaluated at a time."""
    slots = family.field.slots
    widest = max(slot.shape[-1] for slot in slots.values())
    tiled = (math.prod(s.shape[:-2]) for s in slots.values() if s.role == "weight")
    piece = max(CACHED // widest, PER_TILE * max(tiled, default=1)) if cpu else 1 << 20
    return max(1, piece // render.evaluations)
