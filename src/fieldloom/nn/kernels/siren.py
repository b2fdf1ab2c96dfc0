"""A SIREN layer with gradients of both orders by formula: fewer passes over memory than autograd's.

Source of the layer: arXiv:2006.09661, eq. 1. Shapes: x (batch, points, in), weight W (1 | batch,
in, out), bias b (1 | batch, out), y (batch, points, out). o is the product of numbers place by
place, sums run over the points (and over the batch, where it shares a weight).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, Tensor, Tensor]
"""Of x (None where it needs none), W and b."""


class SineOperations(NamedTuple):
    """The three passes of a layer. Each is a function of numbers: autograd does not look inside.

    forward(x, W, b, keep, dtype) -> y and, where ``keep`` says so, cos z, both of this dtype.
    backward(g, x, W, cos z, of_x) -> gradients of x, W and b.
    second(u_x, u_W, u_b, g, x, W, y, cos z, of_x) -> gradients of g and of x, W and b.
    """

    forward: Callable[..., tuple[Tensor, Tensor | None]]
    backward: Callable[..., Gradients]
    second: Callable[..., tuple[Tensor, *Gradients]]


# -- the passes, of torch operations


def without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in the dtypes that it is given."""

    @wraps(function)
    def run(*given: Any) -> Any:
        tensor = next(x for x in given if isinstance(x, Tensor))
        with torch.autocast(tensor.device.type, enabled=False):
            return function(*given)

    return run


@without_autocast
def forward(
    x: Tensor, weight: Tensor, bias: Tensor, keep: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    z = x.to(wide(x)) @ weight.to(wide(x)) + bias[:, None]
    return z.sin().to(dtype), z.cos().to(dtype) if keep else None


@without_autocast
def backward(g: Tensor, x: Tensor, weight: Tensor, cosine: Tensor, of_x: bool) -> Gradients:
    dtype = wide(x)
    gz = g.to(dtype) * cosine
    to_bias, gz = gz.sum(1), gz.to(weight.dtype)
    to_x = gz @ weight.mT if of_x else None
    return to_x, of_matrix(x.mT @ gz, weight), to_bias


@without_autocast
def second(
    u_x: Tensor | None,
    u_weight: Tensor,
    u_bias: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    cosine: Tensor,
    of_x: bool,
) -> tuple[Tensor, *Gradients]:
    dtype = wide(x)
    t = x.to(dtype) @ u_weight.to(dtype) + u_bias[:, None]
    if u_x is not None:
        t = t + u_x.to(dtype) @ weight.to(dtype)
    dz = -t * g * y
    to_bias, dz, gz = dz.sum(1), dz.to(weight.dtype), (g.to(dtype) * cosine).to(weight.dtype)
    to_weight = x.mT @ dz if u_x is None else x.mT @ dz + u_x.mT @ gz
    to_x = dz @ weight.mT + gz @ u_weight.mT if of_x else None
    return (t * cosine).to(g.dtype), to_x, of_matrix(to_weight, weight), to_bias


def of_matrix(each: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a matrix from that of each signal: those that share it are added up."""
    return each if len(weight) > 1 else each.sum(0, keepdim=True)


def wide(x: Tensor) -> torch.dtype:
    """The dtype of phases: at least float32 (a phase of 30 is known to 0.125 in bfloat16)."""
    return torch.promote_types(x.dtype, torch.float32)


COMPOSED = SineOperations(forward, backward, second)


# -- and their derivatives


class SineLayer(torch.autograd.Function):
    """y = sin z, z = x W + b.

    With g the gradient of y, and gz = g o cos z that of z (cos z is kept):
    gx = gz W^T, gW = x^T gz, gb = sum gz.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        operations: SineOperations,
        dtype: torch.dtype,
        keep: bool,
    ) -> Tensor:
        y, cosine = operations.forward(x, weight, bias, keep, dtype)
        ctx.operations = operations
        ctx.save_for_backward(x, weight, bias, y, cosine)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, bias, y, cosine = ctx.saved_tensors
        of_x = ctx.needs_input_grad[0]
        if torch.is_grad_enabled():  # a second derivative will be asked for
            found = SineGradient.apply(g, x, weight, bias, y.detach(), cosine, ctx.operations, of_x)
        else:
            found = ctx.operations.backward(g.contiguous(), x, weight, cosine, of_x)
        to_x, to_weight, to_bias = found
        return to_x, to_weight, fit(to_bias, bias), None, None, None


class SineGradient(torch.autograd.Function):
    """(gx, gW, gb) of ``SineLayer`` as functions of g, x, W and b, differentiated again.

    With u_x, u_W, u_b the gradients of gx, gW and gb, that of gz is t = u_x W + x u_W + u_b. Then
    dg = t o cos z,  dz = -t o g o sin z,
    dx = gz u_W^T + dz W^T,  dW = u_x^T gz + x^T dz,  db = sum dz.
    Derivatives of a higher order are composed of torch's operations: nothing here trains by them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        y: Tensor,
        cosine: Tensor,
        operations: SineOperations,
        of_x: bool,
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.operations = operations
        g = g.contiguous()
        ctx.save_for_backward(g, x, weight, bias, y, cosine)
        return operations.backward(g, x, weight, cosine, of_x)

    @staticmethod
    def backward(
        ctx: Any, u_x: Tensor | None, u_weight: Tensor | None, u_bias: Tensor | None
    ) -> Any:
        g, x, weight, bias, y, cosine = ctx.saved_tensors
        if u_weight is None:
            u_weight = torch.zeros_like(weight)
        if u_bias is None:
            u_bias = bias.new_zeros(len(g), bias.shape[-1])
        operations, of_x = ctx.operations, ctx.needs_input_grad[1]
        if torch.is_grad_enabled():
            z = x.to(wide(x)) @ weight.to(wide(x)) + bias[:, None]
            operations, y, cosine = COMPOSED, z.sin().to(y.dtype), z.cos().to(y.dtype)
        given = [u_x, u_weight, u_bias]
        given = [x if x is None else x.contiguous() for x in given]
        to_g, to_x, to_weight, to_bias = operations.second(*given, g, x, weight, y, cosine, of_x)
        return to_g, to_x, to_weight, fit(to_bias, bias), None, None, None, None


def fit(grad: Tensor, bias: Tensor) -> Tensor:
    """The gradient of a bias from that of each signal (batch, out): shared ones are added up."""
    grad = grad if len(bias) == len(grad) else grad.sum(0, keepdim=True)
    return grad.to(bias.dtype)
