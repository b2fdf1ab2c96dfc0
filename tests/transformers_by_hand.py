"""Slow, spelled-out attention, and small fields and encoders of tokens."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from fieldloom.conditioners import Substitute
from fieldloom.encoders import Transformer
from fieldloom.family import Family
from fieldloom.fields import Experts, Field, Fourier, Local, Siren, Tiling
from fieldloom.metrics.losses import mse
from fieldloom.modalities import MODALITIES
from fieldloom.renderers import Direct as Seen
from fieldloom.types import Signal

close = torch.testing.assert_close
draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)


def gradients(value: Tensor, *given: Tensor) -> list[Tensor]:
    """Of a sum whose terms all count differently."""
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)
    return list(torch.autograd.grad((value * weights).sum(), given))


def agree(fast: Tensor, slow: Tensor, *given: Tensor) -> None:
    """Values, and gradients to all that is given."""
    close(fast, slow)
    close(gradients(fast, *given), gradients(slow, *given))


def slow_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """One signal, one head and one query at a time."""
    size = q.shape[-1] // heads
    rows = []
    for b, i in product(range(len(q)), range(q.shape[1])):
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = torch.stack([(q[b, i, own] * key[own]).sum() for key in k[b]])
            share = torch.exp(scores / math.sqrt(size))
            parts.append((share / share.sum()) @ v[b, :, own])
        rows.append(torch.cat(parts))
    return torch.stack(rows).view_as(q)


def slow_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    middle = x.mean(-1, keepdim=True)
    spread = (x - middle).square().mean(-1, keepdim=True)
    return (x - middle) / (spread + eps).sqrt()


def stirred(module: nn.Module) -> nn.Module:
    """In float64, with no parameter left at 0 or 1."""
    for parameter in module.double().parameters():
        parameter.data += 0.3 * draw(*parameter.shape)
    return module


BANDS = (8.0, 4.0, 3.0, 2.0)
OWN = dict(width=6, features=9, tokens=4, heads=2, query=2.0)


def local(coord_dim: int = 2, levels: int = 2, **changed: Any) -> tuple[Local, dict[str, Any]]:
    """A decoder, and how it was made."""
    own = OWN | dict(aggregate="attention", modulate="bands", bands=BANDS[:levels]) | changed
    return Local(coord_dim, 3, **own), own


def fields() -> dict[str, Field]:
    return {
        "siren": Siren(2, 3, width=5, depth=3),
        "experts": Experts(
            2, 3, width=5, depth=3, tiling=Tiling(tiles=((2, 1), 3, 1)), encoding=Fourier(count=2)
        ),
    }


CODE = (3, 5)
SMALL = dict(width=8, depth=2, heads=2)


def family() -> Family:
    field = Local(2, 3, **OWN | dict(width=5, heads=1, tokens=3))
    return Family(field, Substitute(field.slots, "tokens"))


def encode(encoder: Transformer, signal: Signal) -> Tensor:
    return encoder(signal, family(), Seen(), mse)


def picture(size: tuple[int, ...] = (6, 7), batch: int = 2) -> Signal:
    return MODALITIES["image"](size=size).observe(torch.rand(batch, 3, *size)).context


def painter(axes: tuple[int, ...] = (6, 7), **own: Any) -> Transformer:
    return Transformer(CODE, axes, 3, 2, **dict(patch=3) | SMALL | own).eval()
