"""The formulas of a SIREN layer's gradients, of torch operations, against autograd."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fieldloom.nn.kernels import sine_layer
from fieldloom.nn.kernels.siren import COMPOSED, SineLayer

SHARED = {"own": (3, 3), "own biases": (1, 3), "shared": (1, 1)}


def parts(weights, biases, dtype=torch.float64):
    sizes = ((3, 7, 5), (weights, 5, 4), (biases, 4))
    return [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]


def layer(x, weight, bias):
    return SineLayer.apply(x, weight, bias, COMPOSED, x.dtype, True)


@pytest.mark.parametrize("shared", SHARED)
def test_gradients_of_both_orders(shared):
    given = parts(*SHARED[shared])
    assert torch.equal(layer(*given), sine_layer(*given))
    assert gradcheck(layer, given)
    assert gradgradcheck(layer, given)


@pytest.mark.parametrize("shared", SHARED)
def test_third_derivatives(shared):
    given = parts(*SHARED[shared])
    found = []
    for function in (layer, sine_layer):
        value = function(*given).pow(3).sum()
        for _ in range(3):
            grads = torch.autograd.grad(value, given, create_graph=True)
            value = sum(grad.square().sum() for grad in grads)
        found.append(grads)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-7)


def test_coordinates_need_no_gradient():
    x, weight, bias = parts(3, 3)
    x = x.detach()
    first = torch.autograd.grad(layer(x, weight, bias).sum(), weight, create_graph=True)[0]
    ours = torch.autograd.grad(first.square().sum(), [weight, bias])
    first = torch.autograd.grad(sine_layer(x, weight, bias).sum(), weight, create_graph=True)[0]
    for a, b in zip(ours, torch.autograd.grad(first.square().sum(), [weight, bias]), strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_leaves_the_passes_alone():
    """They are asked for in a dtype, in the gradients too: a phase of bfloat16 is no phase."""
    given = parts(3, 3, torch.float32)
    plain = torch.autograd.grad(layer(*given).square().sum(), given)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(layer(*given).square().sum(), given)
    for a, b in zip(found, plain, strict=True):
        assert torch.equal(a, b)
