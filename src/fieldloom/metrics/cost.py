"""The cost of a field: numbers of weights and of multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import nn

from fieldloom.types import Slot


def count_macs(slots: Mapping[str, Slot], projections: int, points: int) -> int:
    """Multiply-accumulates of one full sample, as mNIF counts them (arXiv:2310.19464, Table 1).

    Every point is multiplied by every matrix (random Fourier features are one), and by one tile of
    a tiled matrix; biases, activations and the mixing of weights do not count.
    projections: multiply-accumulates from the code to its weights. points: of a sample.
    """
    passed = [s for s in slots.values() if s.role != "bias" and len(s.shape) > 1]
    return points * sum(s.passes * math.prod(s.shape[-2:]) for s in passed) + projections


def count_macs_of(call: Callable[[], object]) -> int:
    """Multiply-accumulates of the matrix products and attentions of a call, as torch counts them.

    On the device ``meta`` nothing is computed for it.
    """
    from torch.utils.flop_counter import FlopCounterMode  # late: it takes a second

    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return counter.get_total_flops() // 2


def count_parameters(module: nn.Module) -> int:
    """The number of parameters that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def count_field_weights(slots: Mapping[str, Slot]) -> int:
    """The number of weights and biases of one field, without inputs and fixed buffers."""
    return sum(math.prod(s.shape) for s in slots.values() if s.role in ("weight", "bias"))
