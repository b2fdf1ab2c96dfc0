"""Batch norms over a batch that several processes compute: torch's own, to two derivatives."""

import copy

import torch
from torch import nn

from fieldloom.nn.norms import batch_norm
from portions import compute_in_portions

ROWS = [[0, 1, 4], [2, 3], [5]]


def penalised(norm, x):
    """Gradients of a critic's loss with R1 on x: by its weights and by x."""
    out = batch_norm(norm, x).tanh()
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    loss = out.sum() + grad.square().sum()
    return torch.autograd.grad(loss, [x, norm.weight, norm.bias])


def test_portions_are_normalised_as_the_whole_batch():
    torch.manual_seed(0)
    x = torch.randn(6, 4, 3, dtype=torch.float64) * 2 + 5
    norm = nn.BatchNorm1d(3).double()
    nn.init.normal_(norm.weight)
    norms = [copy.deepcopy(norm) for _ in ROWS]
    compute = lambda rank, portion: penalised(norms[rank], x[ROWS[rank]].requires_grad_())
    found = compute_in_portions(ROWS, compute)
    to_x, *to_weights = penalised(norm, x.clone().requires_grad_())
    for rows, (own, *_) in zip(ROWS, found, strict=True):
        torch.testing.assert_close(own, to_x[rows], rtol=1e-10, atol=1e-12)
    for expected, *parts in zip(to_weights, *(own[1:] for own in found), strict=True):
        torch.testing.assert_close(sum(parts), expected, rtol=1e-10, atol=1e-12)
    for own in norms:  # running statistics follow the whole batch
        for name, buffer in norm.named_buffers():
            torch.testing.assert_close(dict(own.named_buffers())[name], buffer)


def test_alone_and_in_evaluation_it_is_torchs():
    x, norm = torch.randn(5, 3), nn.BatchNorm1d(3)
    assert torch.equal(batch_norm(copy.deepcopy(norm), x), copy.deepcopy(norm)(x))
    norm.eval()
    rows = [[0, 1, 2], [3, 4]]
    found = compute_in_portions(rows, lambda rank, portion: batch_norm(norm, x[rows[rank]]))
    assert torch.equal(torch.cat(found), norm(x))
