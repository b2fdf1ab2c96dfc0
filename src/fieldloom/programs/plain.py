"""What each kind of step computes, in plain PyTorch: slow and obvious.

``run`` calls these, all other outputs are tested against them, and ``torch_file`` copies them into
files that do without fieldloom: nothing here may import it. x are values (points, width).
"""

import math
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F


def waves(x: Tensor, matrix: Tensor, quarters: Tensor) -> Tensor:
    """sin(2 pi (x M + q / 4)), whose whole turns are taken off first."""
    turns = x @ matrix
    return torch.sin(math.tau * (turns - turns.round() + quarters / 4))


def bell(x: Tensor) -> Tensor:
    """exp(-x^2), not below exp(-40)."""
    return torch.exp(-x.square().clamp(max=40))


ACTIVATIONS = {
    "relu": lambda x, w, s: F.relu(x),
    "leaky-relu": lambda x, w, s: F.leaky_relu(x, 0.2),
    "leaky-relu-0.1": lambda x, w, s: F.leaky_relu(x, 0.1),
    "gelu": lambda x, w, s: F.gelu(x),
    "silu": lambda x, w, s: F.silu(x),
    "tanh": lambda x, w, s: torch.tanh(x),
    "sigmoid": lambda x, w, s: torch.sigmoid(x),
    "sine": lambda x, w, s: torch.sin(w * x),
    "h-sine": lambda x, w, s: torch.sin(w * x),
    "h-sine-first": lambda x, w, s: torch.sin(w * torch.sinh(2 * x)),
    "finer": lambda x, w, s: torch.sin(w * (x.abs() + 1) * x),
    "gaussian": lambda x, w, s: bell(s * x),
    "gabor": lambda x, w, s: torch.cos(w * x) * bell(s * x),
}


def lookup(
    x: Tensor,
    table: Tensor,
    grids: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]],
    smooth: bool,
    low: float,
    span: float,
) -> Tensor:
    """Features of all grids, interpolated at x (arXiv:2201.05989, section 3).

    table: (rows, features). grids: of each its axes, its cells of each axis, the stride or prime of
    each axis, its first row, and the last that a hash may give (-1: each vertex has a row).
    """
    unit, found = ((x - low) / span).clamp(0, 1), []
    for axes, cells, factors, first, last in grids:
        whole = torch.tensor((cells, factors), device=x.device)
        q = unit[:, list(axes)] * whole[0]
        lower = q.floor().long().clamp(min=0).minimum(whole[0] - 1)
        u = q - lower
        u = u * u * (3 - 2 * u) if smooth else u
        total = torch.zeros(len(x), table.shape[1]).to(x)
        for corner in product((0, 1), repeat=len(axes)):
            at = torch.tensor(corner, device=x.device)
            terms = ((lower + at) * whole[1]).unbind(1)
            row = terms[0]
            for term in terms[1:]:
                row = row + term if last < 0 else row ^ term
            row = first + (row if last < 0 else row & last)
            share = torch.where(at.bool(), u, 1 - u).prod(1, keepdim=True)
            total = total + share * table[row]
        found.append(total)
    return torch.cat(found, 1)


def planes(x: Tensor, count: int, features: int, multiplied: bool) -> Tensor:
    """Features (scales, planes, features), whose planes are added up or multiplied."""
    each = x.unflatten(1, (-1, count, features))
    return (each.prod(2) if multiplied else each.sum(2)).flatten(1)


def embed(x: Tensor, table: Tensor, low: float, span: float) -> Tensor:
    """A dense grid of features at the centres of cells, interpolated. table: (*sizes, width)."""
    sizes = torch.tensor(table.shape[:-1], device=x.device)
    q = ((x - low) / span * sizes - 0.5).clamp(min=0).minimum((sizes - 1).to(x))
    lower = q.floor().long()
    total = torch.zeros(len(x), table.shape[-1]).to(x)
    for corner in product((0, 1), repeat=x.shape[1]):
        step = torch.tensor(corner, device=x.device)
        at = (lower + step).minimum(sizes - 1)
        share = torch.where(step.bool(), q - lower, 1 - (q - lower))
        total = total + share.prod(1, keepdim=True) * table[tuple(at.T)]
    return total


def tiled(
    x: Tensor,
    where: Tensor,
    weight: Tensor,
    bias: Tensor,
    matrix: Tensor,
    offset: Tensor,
    tiles: tuple[int, ...],
    blend: bool,
    low: float,
    span: float,
) -> Tensor:
    """x W(p) + b, of the tile of each place p, or of a blend of those around it (Levels-of-Experts,
    eqs. 2 to 5)."""
    q = (where - low) / span @ matrix + offset
    lower, total = q.floor(), torch.zeros(len(x), weight.shape[-1]).to(x)
    for corner in product(*((0, 1) if blend and n > 1 else (0,) for n in tiles)):
        number = torch.zeros(len(x), dtype=torch.long, device=x.device)
        share = torch.ones(len(x), 1).to(x)
        for axis, (c, n) in enumerate(zip(corner, tiles, strict=True)):
            number = number * n + (lower[:, axis].long() + c) % n
            if blend and n > 1:
                part = (q - lower)[:, axis : axis + 1]
                share = share * (part if c else 1 - part)
        total = total + share * torch.einsum("ni,nio->no", x, weight[number])
    return total + bias


def attend(q: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """softmax(q k' / sqrt(width / heads)) v, each head its own slice (arXiv:1706.03762, eq. 1)."""
    split = lambda y: y.unflatten(-1, (heads, -1)).transpose(0, 1)
    scores = split(q) @ split(keys).mT / math.sqrt(q.shape[1] // heads)
    return (scores.softmax(-1) @ split(values)).transpose(0, 1).flatten(1)
