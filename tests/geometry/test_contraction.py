"""Contraction of space against its closed form, its inverse, and finite differences."""

import pytest
import torch

from fieldloom.geometry.contraction import NORMS, contract, expand
from given import seeded


def points(dtype):
    """Inside, on the border, far and very far."""
    direction = torch.randn(64, 3, dtype=dtype, generator=seeded(3))
    direction = torch.nn.functional.normalize(direction, dim=-1)
    radius = torch.tensor([1e-3, 0.5, 1.0, 1.5, 4.0, 100.0, 1e4, 0.0], dtype=dtype).repeat(8)
    return direction * radius.unsqueeze(1)


@pytest.mark.parametrize("shape", sorted(NORMS))
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 5e-3), (torch.float64, 1e-11)])
def test_expand_is_the_inverse(shape, dtype, rel):
    x = points(dtype)
    y = contract(x, shape)
    assert y.dtype == dtype
    assert (NORMS[shape](y) < 2).all()
    torch.testing.assert_close(expand(y, shape), x, rtol=rel, atol=1e-6)


def test_closed_form():
    x = torch.tensor([[0.3, -0.4, 0.0], [3.0, 4.0, 0.0], [0.0, -2.0, 0.0]], dtype=torch.float64)
    right = torch.tensor([[0.3, -0.4, 0.0], [1.08, 1.44, 0.0], [0.0, -1.5, 0.0]]).double()
    torch.testing.assert_close(contract(x, "ball"), right)
    right = torch.tensor([[0.3, -0.4, 0.0], [1.3125, 1.75, 0.0], [0.0, -1.5, 0.0]]).double()
    torch.testing.assert_close(contract(x, "cube"), right)


@pytest.mark.parametrize("shape", sorted(NORMS))
def test_gradients(shape):
    x = (3 * torch.randn(20, 3, dtype=torch.float64, generator=seeded(1))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: contract(x, shape), x)
    y = contract(x.detach(), shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: expand(y, shape), y)
    origin = torch.zeros(1, 3, requires_grad=True)
    contract(origin, shape).sum().backward()
    assert origin.grad.tolist() == [[1.0, 1.0, 1.0]]
