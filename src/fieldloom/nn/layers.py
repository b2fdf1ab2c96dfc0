"""Linear layers with shared or own weights, activations, initial draws, Fourier features."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fieldloom.constants import place
from fieldloom.errors import unknown
from fieldloom.types import Slot

Draw = Callable[[Generator | None], Tensor]
Init = Literal["torch", "kaiming", "xavier", "outputs"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W + b for a batch of signals: THE hot path of the package.

    x (batch, points, in), weight (1 | batch, in, out), bias (1 | batch, out) or None. Returns
    (batch, points, out). A weight that the whole batch shares is one matrix product over all
    points; own weights are a batched product.
    """
    batch, points, _ = x.shape
    if weight.dtype == torch.float64 != x.dtype:  # a more exact first layer (System.evaluate)
        return linear(x.to(weight.dtype), weight, bias).to(x.dtype)
    if weight.dtype == torch.bfloat16:  # the input may be float32 (System.evaluate)
        x = x.to(weight.dtype)
    if len(weight) == 1 and (bias is None or len(bias) == 1):
        flat = x.flatten(0, 1)
        if bias is None:
            out = flat @ weight[0]
        elif x.is_cpu and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            out = (flat @ weight[0]).add_(bias[0])  # as fast, and faster with rounded factors
        else:
            out = torch.addmm(bias[0], flat, weight[0])
        return out.view(batch, points, weight.shape[-1])
    if len(weight) == 1:  # Functa: shared weights, own biases
        assert bias is not None
        return (x.flatten(0, 1) @ weight[0]).unflatten(0, (batch, points)) + bias[:, None]
    if bias is None:
        return torch.bmm(x, weight)
    return torch.baddbmm(bias[:, None], x, weight)


# Activations. Each works in place where autograd allows it (callers do not use the argument again):
# the gradient of a sine needs its argument, that of a ReLU only its result.


def sine(x: Tensor) -> Tensor:
    return x.sin() if x.requires_grad else x.sin_()


def relu(x: Tensor) -> Tensor:
    return x.relu() if x.is_leaf and x.requires_grad else x.relu_()


def leaky_relu(slope: float) -> Callable[[Tensor], Tensor]:
    return lambda x: F.leaky_relu(x, slope, inplace=not (x.is_leaf and x.requires_grad))


def identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "leaky-relu": leaky_relu(0.2),
    "leaky-relu-0.1": leaky_relu(0.1),
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sine": sine,
    "identity": identity,
}


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """The activation of this name. Raises InputError for an unknown name."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


# Initial draws.


def bound(fan_in: int, fan_out: int, init: Init) -> float:
    """The bound b of a weight's uniform draw from [-b, b]: one of PyTorch's, Kaiming's, Xavier's.

    ``outputs`` is PyTorch's with the number of outputs in place of that of inputs.
    """
    if init in ("torch", "outputs"):
        return 1 / math.sqrt(fan_in if init == "torch" else fan_out)
    return math.sqrt(6 / (fan_in if init == "kaiming" else fan_in + fan_out))


def uniform(shape: tuple[int, ...], bound: float) -> Draw:
    """A function that draws a tensor of this shape from U(-bound, bound)."""
    return lambda generator: torch.empty(shape).uniform_(-bound, bound, generator=generator)


def normal(shape: tuple[int, ...], std: float) -> Draw:
    """A function that draws a tensor of this shape from N(0, std^2)."""
    return lambda generator: torch.empty(shape).normal_(0, std, generator=generator)


def zeros(shape: tuple[int, ...]) -> Draw:
    """A function that returns zeros of this shape."""
    return lambda generator: torch.zeros(shape)


def bias_slot(fan_in: int, fan_out: int, init: str) -> Slot:
    """A bias slot: ``zero``, or ``uniform`` in +-1/sqrt(fan_in) as torch.nn.Linear draws it."""
    shape = (fan_out,)
    draw = zeros(shape) if init == "zero" else uniform(shape, 1 / math.sqrt(fan_in))
    return Slot(shape, draw, "bias")


# Fourier features. Frequencies are computed in float64 and cast to the coords' type where used.


def octaves(count: int, pi: bool = True) -> Tensor:
    """2^0, 2^1, ... 2^(count-1), times pi where asked: (count,) float64."""
    return 2.0 ** torch.arange(count, dtype=torch.float64) * (math.pi if pi else 1.0)


def log_spaced(count: int, bandwidth: float, pi: bool = True) -> Tensor:
    """bandwidth^(j / (count - 1)), j = 0 .. count-1: from 1 to the bandwidth, (count,) float64."""
    steps = torch.arange(count, dtype=torch.float64) / max(count - 1, 1)
    return bandwidth**steps * (math.pi if pi else 1.0)


def fourier(x: Tensor, frequencies: Tensor) -> Tensor:
    """[cos(f_j x_i) | sin(f_j x_i)], coordinate-major: (..., coord) -> (..., 2 coord count)."""
    angles = (x.unsqueeze(-1) * place(frequencies, x.device, x.dtype)).flatten(-2)
    return torch.cat([angles.cos(), angles.sin()], -1)


def fourier_interleaved(x: Tensor, frequencies: Tensor) -> Tensor:
    """[sin(f_0 x), cos(f_0 x), sin(f_1 x), ...], each block all coordinates: the order of NeRF."""
    own = place(frequencies, x.device, x.dtype)
    angles = own.unsqueeze(-1) * x.unsqueeze(-2)  # (..., count, coord)
    return torch.stack([angles.sin(), angles.cos()], -2).flatten(-3)
