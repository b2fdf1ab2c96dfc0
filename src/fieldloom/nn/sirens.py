"""A whole SIREN on a CPU, without gradients, in fewer passes over memory than layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def evaluate_siren(
    coords: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    frequencies: Sequence[float],
    bounded: bool,
) -> Tensor | None:
    """sin(w0 (W h + b)) layer after layer (arXiv:2006.09661, eq. 1), for a single function.

    None for several functions, on other devices, and where layers are of several types of numbers.

    coords: (1, points, in). layers: the matrix (1, in, out) and the bias (1, out) of each.
    frequencies: w0 of each. bounded: whether the last layer is a sine, too. Returns (1, points,
    out).

    Features are rows here, and points columns: so a last row of ones can stand under each hidden
    layer, and the bias is one more column of the matrix. w0 is a factor of the product itself.
    """
    numbers = [x for layer in layers for x in layer]
    if not coords.is_cpu or any(len(x) != 1 or x.dtype != coords.dtype for x in (coords, *numbers)):
        return None
    if torch.is_autocast_enabled("cpu"):
        return None
    hidden = [layers[i][1].shape[-1] for i in range(len(layers) - 1)]
    points, last = coords.shape[1], len(layers) - 1
    above, below = (rows_of(coords, max(hidden, default=1), points) for _ in range(2))
    h = rows_of(coords, coords.shape[-1], points)
    h[:-1] = coords[0].mT
    for i, ((weight, bias), w0) in enumerate(zip(layers, frequencies, strict=True)):
        sine = i < last or bounded
        matrix = torch.cat([weight[0], bias]).mT  # (out, in + 1)
        width = len(matrix)
        rows = below[-width - 1 :] if i < last else coords.new_empty(width, points)
        y = rows[:width]
        torch.addmm(y, matrix, h, beta=0, alpha=w0 if sine else 1, out=y)
        h = rows
        if sine:
            y.sin_()
        above, below = below, above
    return h.mT[None]


def rows_of(like: Tensor, count: int, points: int) -> Tensor:
    """``count`` rows without numbers yet, and a row of ones: (count + 1, points)."""
    rows = like.new_empty(count + 1, points)
    rows[-1].fill_(1)
    return rows
