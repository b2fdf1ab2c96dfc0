"""Sampling of points by a hash of (seed, index of the signal, step), without a generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.types import Signal

UINT32_MAX = 0xFFFFFFFF
Bits = TypeVar("Bits", Tensor, int)


def select_signals(signal: Signal, rows: Tensor) -> Signal:
    """Some signals of a batch, by their indices (few,); a shared grid stays shared."""
    own = lambda x: None if x is None else x[rows]
    coords = signal.coords
    coords = coords[:1].expand(len(rows), -1, -1) if coords.stride(0) == 0 else coords[rows]
    return replace(
        signal,
        coords=coords,
        values=signal.values[rows],
        index=signal.index[rows],
        mask=own(signal.mask),
        label=own(signal.label),
    )


def point_sampler(signal: Signal, points: int, seed: int) -> Callable[[int], Signal]:
    """A function from the step to ``points`` known observations of each signal.

    They are sampled with replacement; where a signal has no more points than that, every step sees
    all of them. A sample is a hash of (seed, index of the signal, step, number of the point): there
    is no generator, and the sample depends neither on the other signals of the batch nor on the
    device. Raises InputError for a signal without a known point.
    """
    batch, count = signal.coords.shape[:2]
    if points >= count:
        return lambda step: signal
    device = signal.coords.device
    stream = hash_indices(signal.index.to(device), seed)[:, None]
    number = hash32(torch.arange(points, device=device))
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
        bits = hash32(hash32(stream + hash32(step)) + number)
        indices = bits * known >> 32
        indices = indices if order is None else order.gather(1, indices)
        own = (indices + row).view(-1)
        where = indices.view(-1) if together else own
        pick = lambda x, at: x.index_select(0, at).view(batch, points, -1)
        return replace(
            signal, coords=pick(coords, where), values=pick(values, own), grid=None, mask=None
        )

    return at


def hash_indices(indices: Tensor, seed: int) -> Tensor:
    """A pseudo-random number in [0, 2^32) for each signal's index: (batch,) int64."""
    return hash32(indices + hash32(seed))


def hash32(x: Bits) -> Bits:
    """A bijective hash of the lower 32 bits of int64 numbers: lowbias32, by Chris Wellons.

    Of one number of Python, too, so that nothing is sent to a device for it.
    """
    x = x & UINT32_MAX
    x = (x ^ (x >> 16)) * 0x7FEB352D & UINT32_MAX
    x = (x ^ (x >> 15)) * 0x846CA68B & UINT32_MAX
    return x ^ (x >> 16)
