"""Which points a step draws, by hashing: the same for a signal in any company."""

import pytest
import torch

from fieldloom.encoders.draws import point_sampler
from fieldloom.errors import InputError
from fits import POINTS, signals


def test_draws():
    """Of known points alone, alike for a place and a step, unlike otherwise, all equally often."""
    signal = signals(3)
    mask = torch.rand(3, POINTS, generator=torch.Generator().manual_seed(0)) < 0.5
    signal = signal.hide(mask)
    seen = point_sampler(signal, 8, seed=0)
    first, second = seen(0), seen(1)
    assert first.coords.shape == (3, 8, 2)
    assert first.mask is None
    same = lambda a, b: bool((a.coords == b.coords).all())
    assert same(first, seen(0))
    assert not same(first, second)
    assert not same(first, point_sampler(signal, 8, seed=1)(0))
    assert same(first.part(slice(1, 2)), point_sampler(signal.part(slice(1, 2)), 8, seed=0)(0))
    found = (first.coords[:, :, None] == signal.coords[:, None]).all(-1)  # (3, 8, POINTS)
    assert found.any(-1).all()
    assert (found & mask[:, None]).sum() == found.sum()
    values = (found[..., None] * signal.values[:, None]).sum(2)
    torch.testing.assert_close(values, first.values)

    few, many = signals(2), 4000
    counted = torch.zeros(2, POINTS)
    for step in range(many // 20):
        drawn = point_sampler(few, 20, seed=5)(step)
        counted += (drawn.coords[:, :, None] == few.coords[:, None]).all(-1).sum(1)
    expected = many / POINTS
    chi = ((counted - expected).square() / expected).sum(1)
    assert (chi < 70).all()  # 29 degrees of freedom: beyond it once in 30,000
    with pytest.raises(InputError, match="known"):
        point_sampler(signal.hide(torch.zeros_like(mask)), 8, seed=0)
