"""Levels-of-Experts by the paper's equations, point by point in float64."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from fieldloom.fields import Experts, Fourier, Head, Tiling
from fieldloom.fields.arrangements import positions
from fieldloom.nn.tiles import tile_indices
from fieldloom.types import Weights


def mod(a: Tensor, b: int) -> Tensor:
    """The positive remainder, as the paper has it."""
    return a - b * (a / b).floor()


def blending(q: Tensor, n: int, blend: str) -> Tensor:
    """B_{j,N}(q) for all j: (N,); equation 4, or 5, whose brackets are a lost floor."""
    j = torch.arange(n, dtype=q.dtype)
    if n == 1:  # an ordinary layer: equation 4 is wrong there
        return torch.ones_like(j)
    if blend == "nearest":
        return (mod(q.floor(), n) == j).to(q.dtype)
    return (1 - (mod(q + 1 - j, n) - 1).abs()).clamp(min=0)


def psi(q: Tensor, weight: Tensor, tiles: tuple[int, ...], blend: str) -> Tensor:
    """Equation 3 at one place q (d,): the products of the axes' shares, of all tiles (N, in, out).

    The first axis is the slowest.
    """
    axes = [blending(at, n, blend) for at, n in zip(q, tiles, strict=True)]
    share = reduce(lambda a, b: (a[:, None] * b).flatten(), axes)
    return torch.einsum("j,jio->io", share, weight)


def hierarchy(tiles: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    """alpha_i = N_1 ... N_i, of each axis."""
    each = torch.tensor(tiles, dtype=torch.float64)
    return [each[: i + 1].prod(0) for i in range(len(tiles))]


def octaves_of(p: Tensor, count: int) -> Tensor:
    """[sin(pi p), cos(pi p), sin(2 pi p), ...], each of all coordinates."""
    angles = [2.0**k * math.pi * p for k in range(count)]
    return torch.cat([f for angle in angles for f in (angle.sin(), angle.cos())])


def own(weights: Weights, name: str, signal: int) -> Tensor:
    """The tensor of one signal; a weight always with an axis of tiles."""
    tensor = weights[name][min(signal, len(weights[name]) - 1)]
    return tensor[None] if name.endswith("weight") and tensor.ndim == 2 else tensor


def slow(
    coords: Tensor,
    weights: Weights,
    tiles: tuple[tuple[int, ...], ...],
    places: list[Any] | None = None,
    **given: Any,
) -> Tensor:
    """The field of these arguments at (batch, points, coord), one point after another.

    places: of each layer, q (d,) from p (d,) in [0, 1] over the domain; None: coarse to fine.
    What is a place is computed in the coordinates' precision, everything else in float64.
    """
    return torch.stack(
        [
            torch.stack([slow_point(p, b, weights, tiles, places, **given) for p in signal])
            for b, signal in enumerate(coords)
        ]
    )


def slow_point(
    p: Tensor,
    signal: int,
    weights: Weights,
    tiles: tuple[tuple[int, ...], ...],
    places: list[Any] | None,
    blend: str = "nearest",
    centred: bool = True,
    low: float = -1.0,
    high: float = 1.0,
    features: str = "octaves",
    count: int = 2,
    include_input: bool = False,
    skip: tuple[int, ...] = (),
    context: int = 0,
    residual: bool = False,
    head: str = "plain",
    view_count: int = 4,
    activation: str = "tanh",
    offset: float = 0.0,
    **_: Any,
) -> Tensor:
    axes = len(tiles[0])
    p, direction = p[:axes], p[axes:]
    phi = {
        "tanh": torch.tanh,
        "relu": lambda x: x.clamp(min=0),
        "leaky-relu": lambda x: torch.where(x > 0, x, 0.2 * x),
    }[activation]
    if places is None:
        places = [lambda unit, scale=scale: unit * scale.to(unit) for scale in hierarchy(tiles)]
    gamma = {
        "octaves": lambda: octaves_of(p, count),
        "none": lambda: p,
        "constant": lambda: p.new_ones(count),
    }[features]()
    gamma = (torch.cat([p, gamma]) if include_input else gamma).double()
    h = torch.cat([gamma, own(weights, "context", signal)]) if context else gamma
    unit = (p - low) / (high - low)
    layers = len(tiles)
    for i, (counts, place) in enumerate(zip(tiles, places, strict=True)):
        x = torch.cat([h, gamma]) if i in skip else h
        q = place(unit) - (0.5 if blend == "linear" and centred else 0)
        pre = x @ psi(q.double(), own(weights, f"{i}.weight", signal), counts, blend)
        pre = pre + own(weights, f"{i}.bias", signal)
        if i == layers - 1 and head == "plain":
            h = pre
        elif residual and i and x.shape == pre.shape:
            h = (x + phi(pre)) / math.sqrt(2)
        else:
            h = phi(pre)
    if head == "radiance":
        answer = lambda i, x: (
            x @ own(weights, f"{i}.weight", signal)[0] + own(weights, f"{i}.bias", signal)
        )
        views = [f(2.0**k * direction) for k in range(view_count) for f in (torch.sin, torch.cos)]
        seen = torch.cat([h, direction, *views])
        density = answer(layers, h)
        h = torch.cat([answer(layers + 2, phi(answer(layers + 1, seen))), density])
    return h + offset


def points(batch: int, count: int, axes: int, reach: float = 1.0) -> Tensor:
    """Places in and around the domain, none of them on an edge of a tile."""
    return (torch.rand(batch, count, axes, dtype=torch.float64) * 2 - 1) * reach


def drawn(field: Any, batch: int = 1, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Weights of a field, (1, ...) or each signal's own; of fixed slots one for all."""
    return {
        name: torch.stack(
            [slot.init(None) for _ in range(1 if slot.role == "fixed" else batch)]
        ).to(dtype)
        for name, slot in field.slots.items()
    }


def parts_of(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of Experts with its parts, from the reference's, which are flat."""
    names = {
        "tiling": {"tiles", "blend", "centred", "arrangement", "low", "high"},
        "encoding": {"features", "count", "include_input", "grid"},
    }
    of = {part: {k: x for k, x in given.items() if k in own} for part, own in names.items()}
    others = {k: x for k, x in given.items() if k not in set.union(*names.values())}
    head = Head(others.pop("head", "plain"), others.pop("view_count", 4), width=5)
    encoding = Fourier(**dict(count=2) | of["encoding"])
    return others | dict(tiling=Tiling(**of["tiling"]), encoding=encoding, head=head)


def field_of(axes: int, **given: Any) -> Experts:
    radiance = given.get("head") == "radiance"
    own = dict(width=4, depth=len(given["tiles"]) + 3 * radiance, activation="tanh")
    return Experts(axes, 4 if radiance else 2, 3 if radiance else 0, **own | parts_of(given))


def derivatives(value: Tensor, about: list[Tensor], twice: bool) -> list[Tensor]:
    """First derivatives of a weighted sum of values, and those of a weighted sum of these."""
    torch.manual_seed(7)
    noise = lambda like: torch.randn(like.shape, dtype=like.dtype)  # whatever its memory's order
    total = (value * noise(value)).sum()
    first = torch.autograd.grad(total, about, create_graph=twice, materialize_grads=True)
    if not twice:
        return list(first)
    again = sum((g * noise(g)).sum() for g in first)
    return [*first, *torch.autograd.grad(again, about, materialize_grads=True)]


def chosen(arrangement: Any, tiles: list[tuple[int, ...]], unit: Tensor) -> Tensor:
    """The tile of each layer at places (n, d): (layers, n)."""
    tilings = arrangement(tiles)
    return torch.stack(
        [tile_indices(positions(unit, t), n) for t, n in zip(tilings, tiles, strict=True)]
    )
