"""Which points of a signal a step sees: a function of (seed, place, step), of no generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.types import Signal

WORD = 0xFFFFFFFF


def picked(signal: Signal, rows: Tensor) -> Signal:
    """Some signals of a batch; what is one grid of all stays one."""
    own = lambda x: None if x is None else x[rows]
    coords, count = signal.coords, int(rows.sum())
    coords = coords[:1].expand(count, -1, -1) if coords.stride(0) == 0 else coords[rows]
    return replace(
        signal,
        coords=coords,
        values=signal.values[rows],
        index=signal.index[rows],
        mask=own(signal.mask),
        label=own(signal.label),
    )


def drawing(signal: Signal, points: int, seed: int) -> Callable[[int], Signal]:
    """Step -> known observations of each signal, drawn with replacement; where all fit in, all.

    A draw is a hash of (seed, place, step, number): no generator is carried along, and no signal's
    draws depend on its company or on the device. Raises InputError where nothing is known.
    """
    batch, count = signal.coords.shape[:2]
    if points >= count:
        return lambda step: signal
    device = signal.coords.device
    stream = streams(signal.index.to(device), seed)[:, None]
    number = torch.arange(points, device=device)
    row = torch.arange(batch, device=device)[:, None] * count
    known, order = torch.full_like(row, count), None
    if signal.mask is not None:
        known = signal.mask.sum(1, keepdim=True)
        order = signal.mask.byte().argsort(dim=1, descending=True, stable=True)
        if not bool(known.all()):
            raise InputError(
                "fit: a signal of which no point is known has nothing to be fitted to."
            )
    values, coords = signal.values.flatten(0, 1), signal.coords
    together = coords.stride(0) == 0  # one grid of all: it stays in the cache
    coords = coords[0] if together else coords.flatten(0, 1)

    def at(step: int) -> Signal:
        chance = mixed(mixed(stream + mixed(number.new_tensor([step]))) + mixed(number))
        indices = chance * known >> 32
        indices = indices if order is None else order.gather(1, indices)
        own = (indices + row).view(-1)
        where = indices.view(-1) if together else own
        pick = lambda x, at: x.index_select(0, at).view(batch, points, -1)
        return replace(
            signal, coords=pick(coords, where), values=pick(values, own), grid=None, mask=None
        )

    return at


def streams(indices: Tensor, seed: int) -> Tensor:
    """A number in [0, 2^32) for each place, int64."""
    return mixed(indices + mixed(indices.new_tensor(seed)))


def mixed(x: Tensor) -> Tensor:
    """A bijective hash of the lower 32 bits of int64 numbers: lowbias32, by Chris Wellons."""
    x = x & WORD
    x = (x ^ (x >> 16)) * 0x7FEB352D & WORD
    x = (x ^ (x >> 15)) * 0x846CA68B & WORD
    return x ^ (x >> 16)
