"""What fields compute by: plain torch operations, or kernels of an accelerator that replace them.

A field asks ``kernels(device)`` at each call. Everything works with ``PLAIN`` alone; what a device
has better is handed in (``System.use``), and has proved itself against the plain way (``proof``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fieldloom.nn.kernels.grouped import BLOCKWISE, GroupedOperations
from fieldloom.nn.layers import linear, sine
from fieldloom.nn.sirens import evaluate_siren

Layer = tuple[Tensor, Tensor]
"""The matrix (1 | batch, in, out) and the bias (1 | batch, out) of a layer."""

Siren = Callable[[Tensor, Sequence[Layer], Sequence[float], bool], Tensor | None]


def sine_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """sin(x W + b): (batch, points, in) -> (batch, points, out)."""
    return sine(linear(x, weight, bias))


class Kernels(NamedTuple):
    """Functions that fields call.

    sine_layer: sin(x W + b), differentiable any number of times.
    siren:      all layers of a SIREN at once, without gradients: coordinates (1 | batch, points,
                in), layers, the frequency of each, and whether the last is a sine as well ->
                values (batch, points, out); None where it has no kernel for these sizes.
    grouped:    products of the rows of groups with a matrix for each group.
    """

    sine_layer: Callable[[Tensor, Tensor, Tensor], Tensor] = sine_layer
    siren: Callable[[Tensor, Sequence[Layer], Sequence[float], bool], Tensor | None] = (
        evaluate_siren
    )
    grouped: GroupedOperations = BLOCKWISE


PLAIN = Kernels()

KernelsOf = Callable[[torch.device], Kernels]


def plain(device: torch.device) -> Kernels:
    """The same kernels for all devices: torch's."""
    return PLAIN
