"""From codes to values: in pieces that fit a processor's cache, each computed by one thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.process import rounded_products
from fieldloom.renderers import Renderer
from fieldloom.threads import run_pieces
from fieldloom.types import Code, Values, Weights, layer_of

CACHED = 1 << 18
"""Values of one hidden layer that are evaluated at a time: 1 MiB of float32."""

PER_TILE = 64
"""The fewest points for each tile, so that reading a tile's matrix pays off."""

ALONE = 1 << 15
"""Values of one hidden layer from which a piece is worth a thread of its own."""

PRECISIONS = (torch.float32, torch.float64, torch.bfloat16)
"""Types of weights that every device multiplies; others but a processor have float16, too."""

AT_A_TIME = 16
"""Pieces for each thread before values are handed over: the last piece is waited for once."""


def evaluate_codes(
    family: Family,
    render: Renderer,
    link: Callable[[Tensor], Tensor],
    code: Code,
    coords: Tensor,
    dtype: torch.dtype | None = None,
) -> Iterator[Values]:
    """Values of each code in turn, (1, points, value), at coords (1 | batch, points, coord).

    dtype: bfloat16 rounds the factors of all products but the first layer's, where coordinates and
    phases of many periods meet (it would cost 10 dB there); None: the weights' own. On a CPU sums
    and what is not a product stay float32, and products of other threads are rounded meanwhile.
    Raises InputError where that would only be slower, and for a dtype that the device has no
    products of.
    """
    if dtype not in (None, *(PRECISIONS if code.is_cpu else (*PRECISIONS, torch.float16))):
        names = [str(x).removeprefix("torch.") for x in PRECISIONS]
        more = "" if code.is_cpu else " or float16"
        raise InputError(
            f"dtype = {str(dtype).removeprefix('torch.')}: on '{code.device.type}' values are "
            f"computed in {', '.join(names)}{more}."
        )
    rounded = dtype == torch.bfloat16 and code.is_cpu
    with torch.inference_mode():  # here and below, since a generator may be wrapped
        weights = family.conditioner(code)
        if dtype is not None:
            weights = cast_weights(family, weights, None if rounded else dtype)
    whole, threads = coords.shape[1], torch.get_num_threads() if code.is_cpu else 1
    most = piece_size(family, render, code.is_cpu)
    share = math.ceil(whole * len(code) / threads)  # few codes are cut so that no thread is idle
    size = max(1, min(most, share), most // 8)
    each = max(1, math.ceil(whole / size))
    alone = code.is_cpu and min(size, whole) * render.evaluations * family.widest >= ALONE
    some = max(1, AT_A_TIME * threads // each) if code.is_cpu else 1
    together = (
        1 if code.is_cpu else max(1, size // max(1, whole))
    )  # an accelerator takes many at once

    def piece(own: Weights, points: Tensor, first: int) -> Tensor:
        with torch.inference_mode():
            function = partial(family.field, weights=own)
            return link(render(function, points[:, first : first + size]).float())

    for begin in range(0, len(code), some * together):
        pieces = []
        for i in range(begin, min(begin + some * together, len(code)), together):
            codes = slice(i, min(i + together, len(code)))
            own = {n: w if len(w) == 1 else w[codes] for n, w in weights.items()}
            points = coords[codes] if len(coords) > 1 else coords.expand(codes.stop - i, -1, -1)
            pieces += [partial(piece, own, points, n * size) for n in range(each)]
        with rounded_products() if rounded else nullcontext():
            found = run_pieces(pieces, alone)
        with torch.inference_mode():
            values = [torch.cat(found[n : n + each], 1) for n in range(0, len(found), each)]
        for group in values:
            yield from group.split(1)


def cast_weights(family: Family, weights: Weights, dtype: torch.dtype | None) -> Weights:
    """The weights in this type, but the first layer's.

    None: the first layer's in float64, whose products ``rounded_products`` leaves as they are.
    """
    slots = family.field.slots
    first = layer_of(next(name for name, slot in slots.items() if slot.role == "weight"))
    cast = {}
    for name, weight in weights.items():
        if dtype is None:
            cast[name] = weight.double() if layer_of(name) == first else weight
        else:
            kept = layer_of(name) == first or slots[name].role == "fixed"
            cast[name] = weight if kept else weight.to(dtype)
    return cast


def piece_size(family: Family, render: Renderer, cpu: bool) -> int:
    """The number of coordinates that are evaluated at a time."""
    slots = family.field.slots
    tiled = (math.prod(s.shape[:-2]) for s in slots.values() if s.role == "weight")
    piece = max(CACHED // family.widest, PER_TILE * max(tiled, default=1)) if cpu else 1 << 20
    return max(1, piece // render.evaluations)
