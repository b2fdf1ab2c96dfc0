"""What a process knows of a batch whose other signals others compute at the same time."""

import pytest
import torch

from fieldloom.portion import batch_size, computing, current_portion, own_rows
from fieldloom.types import draw_normal, draw_uniform
from portions import compute_in_portions

ROWS = [[0, 1, 4], [2, 3]]
CPU = torch.device("cpu")


def test_rows_come_in_the_order_of_the_batch():
    x = torch.randn(5, 2, 3)
    found = compute_in_portions(ROWS, lambda rank, portion: portion.gather(x[ROWS[rank]]))
    assert all(torch.equal(own, x) for own in found)
    found = compute_in_portions(ROWS, lambda rank, portion: portion.gather_processes(x[rank]))
    assert all(torch.equal(own, x[:2]) for own in found)


def test_gradients_of_two_orders_are_those_of_the_whole_batch():
    """As R1 differentiates them: the gradient's own square is differentiated."""
    x = torch.randn(5, 3, dtype=torch.float64)

    def second(whole, own):
        loss = (whole.square().sum(0).sin() * own.sum(0)).sum()
        (grad,) = torch.autograd.grad(loss, own, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), own)[0]

    def compute(rank, portion):
        own = x[ROWS[rank]].requires_grad_()
        return second(portion.gather(own), own)

    leaf = x.clone().requires_grad_()
    expected = second(leaf, leaf)
    for rows, found in zip(ROWS, compute_in_portions(ROWS, compute), strict=True):
        torch.testing.assert_close(found, expected[rows])


@pytest.mark.parametrize("draw", [draw_uniform, draw_normal])
def test_every_process_draws_for_the_whole_batch(draw):
    generator = lambda: torch.Generator().manual_seed(3)
    compute = lambda rank, portion: draw((len(ROWS[rank]), 7), generator(), CPU)
    whole = draw((5, 7), generator(), CPU)
    for rows, found in zip(ROWS, compute_in_portions(ROWS, compute), strict=True):
        assert torch.equal(found, whole[rows])


def test_a_batch_that_is_whole_stays_as_it_is():
    x = torch.randn(4, 2)
    assert current_portion() is None
    assert batch_size(4) == 4
    assert own_rows(x) is x
    sizes = compute_in_portions(ROWS, lambda rank, portion: batch_size(len(ROWS[rank])))
    assert sizes == [5, 5]
    with computing(None):
        assert current_portion() is None
