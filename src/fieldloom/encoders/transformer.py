"""A transformer encoder: from a whole grid, or a few posed views, to a code in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldloom.encoders.encoder import Encoder
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.memory import checked_range
from fieldloom.nn.transformer import Block
from fieldloom.renderers import Renderer, plucker
from fieldloom.types import Code, LossFn, Signal


class Transformer(Encoder):
    """Self-attention over patches and learned queries; the outputs at the queries are the code.

    width, depth, heads, ratio: of the blocks (hidden units of a block are ratio times its width).
    patch:   samples of a token along each axis; one number for all axes, or one for each.
    pad:     zeros on both sides of each axis; samples that do not fill a patch are left out.
    bias:    of the maps to queries, keys and values (TransINR: none).
    dropout: on the residual branches of the blocks, in training (IPC's released code: 0.1).
    positions: ``learned``, position embeddings that are added to the patches, one for each patch of
             the largest context; or ``none``: patches are a set, and the order of views does not
             matter.
    head:    the outputs pass a norm and a linear layer to the width of a code; without it blocks
             must be as wide as codes.
    rays:    the ray features joined to each pixel of a view: ``plucker`` [d, o x d] of the unit
             direction (LA-GINR), or ``origin`` [o, d] (TransINR, IPC).
    mask_channel: whether one more channel says which points are known; hidden values are 0 anyway.
    axes, value_dim, coord_dim, grid_dim: of the contexts, as the modality states them. Where
             ``grid_dim`` is not ``coord_dim``, coordinates are rays: they are joined to the values,
             and the first axis is that of the views.

    Learned vectors start as N(0, 1). Source: arXiv:2208.02801, section 3.2; arXiv:2211.13223.
    """

    reads_grid = True
    capturable = True

    def __init__(
        self,
        code_shape: tuple[int, int],
        axes: tuple[int, ...],
        value_dim: int,
        coord_dim: int,
        width: int = 768,
        depth: int = 6,
        heads: int = 12,
        ratio: float = 4.0,
        patch: int | tuple[int, ...] = 9,
        pad: int = 0,
        bias: bool = True,
        dropout: float = 0.0,
        positions: Literal["learned", "none"] = "learned",
        head: bool = True,
        rays: Literal["plucker", "origin"] = "plucker",
        mask_channel: bool = False,
        grid_dim: int | None = None,
    ) -> None:
        super().__init__()
        if not math.prod(code_shape):
            raise InputError("encoder 'transformer' needs a conditioner with a code.")
        if not axes:
            raise InputError(
                "encoder 'transformer' needs whole grids, or views with modality.support."
            )
        self.views = grid_dim not in (None, coord_dim)
        own = axes[1:] if self.views else axes
        self.patch = patch_sizes(patch, len(own), pad, depth)
        if not 0 <= dropout < 1 or ratio * width < 1:
            raise InputError(
                f"encoder: dropout = {dropout}, ratio = {ratio}: in [0, 1), and at least a unit."
            )
        self.axes, self.pad, self.rays, self.mask_channel = axes, pad, rays, mask_channel
        patches = [(n + 2 * pad) // p for n, p in zip(own, self.patch, strict=True)]
        if min(patches) < 1:
            raise InputError(f"encoder.patch = {patch} is larger than the data, {own}.")
        count = (axes[0] if self.views else 1) * math.prod(patches)
        channels = value_dim + (coord_dim if self.views else 0) + mask_channel
        tokens, code_width = code_shape
        if not head and width != code_width:
            raise InputError(
                f"encoder.width = {width}: without a head it is the code's, {code_width}."
            )
        self.tokeniser = nn.Linear(channels * math.prod(self.patch), width)
        learned = positions == "learned"
        self.positions = nn.Parameter(torch.randn(count, width)) if learned else None
        self.asked = nn.Parameter(torch.randn(tokens, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, ratio, bias, dropout) for _ in checked_range(depth)
        )
        last = [nn.LayerNorm(width), nn.Linear(width, code_width)] if head else []
        self.head = nn.Sequential(*last)

    def forward(self, signal: Signal, family: Family, render: Renderer, loss_fn: LossFn) -> Code:
        patches = self.patches(signal)
        x = self.tokeniser(patches)
        if self.positions is not None:
            x = x + self.positions[: x.shape[1]]
        x = torch.cat([x, self.asked.expand(len(x), -1, -1)], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, -len(self.asked) :])

    def patches(self, signal: Signal) -> Tensor:
        """The patches of each signal, channels first, one view after another.

        Returns (batch, tokens, channels * prod(patch)). Raises InputError where a signal is not a
        whole grid of the encoder's axes (it may have fewer views).
        """
        grid, expected = signal.grid, self.axes
        if self.views and grid and (self.positions is None or grid[0] <= self.axes[0]):
            expected = (grid[0], *self.axes[1:])  # fewer views, and of a set any number
        if grid is None or grid != expected:
            raise InputError(
                f"encoder 'transformer' reads whole grids of {self.axes}"
                f"{' or fewer views' if self.views else ''}; these are {grid or 'scattered'}."
            )
        seen = [signal.values]
        if signal.mask is not None:
            seen = [signal.values.masked_fill(~signal.mask.unsqueeze(-1), 0)]
        if self.views:
            seen.append(plucker(signal.coords) if self.rays == "plucker" else signal.coords)
        if self.mask_channel:
            ones = torch.ones_like(signal.values[..., :1])
            seen.append(ones if signal.mask is None else signal.mask.unsqueeze(-1).to(ones))
        x = torch.cat(seen, -1).mT.unflatten(2, grid)
        if not self.views:
            return unfold(x, self.patch, self.pad)
        each = unfold(x.transpose(1, 2).flatten(0, 1), self.patch, self.pad)
        return each.unflatten(0, (len(signal), grid[0])).flatten(1, 2)


def patch_sizes(patch: int | tuple[int, ...], axes: int, pad: int, depth: int) -> tuple[int, ...]:
    """The size of a patch along each axis. Raises InputError for sizes out of range."""
    sizes = patch if isinstance(patch, tuple) else (patch,) * axes
    if len(sizes) != axes or min(*sizes, pad + 1, depth) < 1:
        raise InputError(
            f"encoder: patch = {patch}, pad = {pad}, depth = {depth}: a positive patch, or "
            f"{axes}; pad 0 or more."
        )
    return sizes


def unfold(x: Tensor, patch: Sequence[int], pad: int = 0) -> Tensor:
    """Cut into patches: (batch, channel, *axes) -> (batch, patches, channel * prod(patch)).

    pad: zeros on both sides of every axis; samples that do not fill a patch are left out. Patches
    are in row-major order, each channel by channel, as ``torch.nn.Unfold`` has them for two axes.
    """
    x = F.pad(x, [pad] * 2 * len(patch))
    for axis, size in enumerate(patch, 2):
        x = x.narrow(axis, 0, x.shape[axis] // size * size)
    for i, size in enumerate(patch):
        x = x.unflatten(2 + 2 * i, (-1, size))
    n = len(patch)
    order = [0, *(2 + 2 * i for i in range(n)), 1, *(3 + 2 * i for i in range(n))]
    return x.permute(order).flatten(n + 1).flatten(1, n)
