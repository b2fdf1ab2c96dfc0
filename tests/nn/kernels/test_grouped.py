"""Products of the rows of groups, block by block, against a layer row by row."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fieldloom.nn.dispatch import Groups
from fieldloom.nn.kernels.grouped import grouped_linear

TABLE = [[0, 1, 2, 3], [1, 2, 3, 0]]


def parts(n=13, sort=True):
    """Rows, in groups of which the third is empty, matrices, a bias, and shares of two corners."""
    key = torch.tensor([0, 3, 1, 3])[torch.arange(n) * 5 % 4]
    ordered, order = key.sort(stable=True)
    groups = Groups(order, torch.searchsorted(ordered, torch.arange(4), right=True), n)
    if not sort:
        groups, order = Groups(None, groups.ends, n), torch.arange(n)
    made = [torch.randn(size, dtype=torch.float64) for size in ((n, 5), (4, 5, 3), (3,), (n, 2))]
    return groups, ordered, order, [x.requires_grad_() for x in made]


@pytest.mark.parametrize("sort", [True, False], ids=["sorted", "in order"])
@pytest.mark.parametrize("blend", ["nearest", "linear"])
def test_a_layer_row_by_row(blend, sort):
    groups, key, order, (x, weight, bias, shares) = parts(sort=sort)
    given = [x, weight, bias] + ([shares] if blend == "linear" else [])

    def layer(x, weight, bias, shares=None):
        return grouped_linear(x, groups, weight, bias, None if shares is None else (TABLE, shares))

    rows = []
    for i, group in enumerate(key):
        products = [x[order[i]] @ weight[corner[group]] for corner in TABLE]
        blended = products[0] if blend == "nearest" else shares[i] @ torch.stack(products)
        rows.append(blended + bias)
    torch.testing.assert_close(layer(*given), torch.stack(rows))
    assert gradcheck(layer, given, fast_mode=True)
    assert gradgradcheck(layer, given, fast_mode=True)


def test_no_rows():
    groups = Groups(None, torch.zeros(4, dtype=torch.long), 0)
    assert grouped_linear(torch.zeros(0, 5), groups, torch.zeros(4, 5, 3)).shape == (0, 3)


def test_autocast_rounds_factors_and_not_sums():
    groups, _, _, made = parts()
    x, weight, bias, _ = (t.detach().float().requires_grad_() for t in made)
    exact = grouped_linear(x, groups, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        y = grouped_linear(x, groups, weight, bias)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0.02, atol=0.05)
    grads = torch.autograd.grad(y.float().sum(), [x, weight, bias])
    assert all(grad.dtype == torch.float32 for grad in grads)
    assert grads[2].tolist() == [13, 13, 13]
