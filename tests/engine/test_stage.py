"""A stage: the order of signals, the learning rate."""

import numpy as np
import pytest
import torch

from fieldloom.engine.stage import Stage, adam, order, permute, rate_at
from fieldloom.errors import InputError


def test_an_epoch_visits_every_signal_once():
    seen = torch.cat([order(0, step, 10, 4) for step in range(5)])  # two epochs
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert torch.equal(order(0, 3, 10, 4), order(0, 3, 10, 4))
    assert not torch.equal(order(0, 3, 10, 4), order(1, 3, 10, 4))
    assert len(order(0, 0, 3, 8)) == 8  # a batch may be longer than the data


def test_released_code_keeps_the_remainder_of_an_epoch():
    sizes = [len(order(0, step, 10, 4, partial=True)) for step in range(6)]
    assert sizes == [4, 4, 2, 4, 4, 2]
    epoch = torch.cat([order(0, step, 10, 4, partial=True) for step in (3, 4, 5)])
    assert sorted(epoch.tolist()) == list(range(10))


def test_an_epoch_is_permuted_once_and_as_ever():
    permute.cache_clear()
    for partial in (False, True):
        for step in range(6):
            found = order(5, step, 10, 4, partial)
            whole = [np.random.default_rng((5, epoch)).permutation(10) for epoch in range(3)]
            straight = np.concatenate(whole)[4 * step : 4 * step + 4]
            parts = whole[step // 3][4 * (step % 3) : 4 * (step % 3) + 4]
            assert found.tolist() == (parts if partial else straight).tolist()
            found.zero_()  # the caller's own
    assert permute.cache_info().misses <= 5  # epochs 0 to 2, and 0 to 1 again


def test_rates():
    stage = Stage(steps=10, warmup=4)
    assert [rate_at(s, stage, "constant") for s in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]
    assert rate_at(5, stage, "cosine") == pytest.approx(0.5)
    assert rate_at(0, Stage(steps=10), "cosine") == 1
    stepped = Stage(steps=10, every=3, factor=0.5)
    assert [rate_at(s, stepped, "step") for s in (0, 2, 3, 6)] == [1, 1, 0.5, 0.25]
    share = Stage(steps=10, every=0.8, factor=0.1, schedule="step")
    assert [rate_at(s, share, "step") for s in (0, 7, 8, 9)] == [1, 1, 0.1, 0.1]
    falling, cosine = Stage(steps=1000, every=40), Stage(steps=1000)
    for step in (0, 39, 40):
        assert rate_at(step, falling, "inverse-sqrt") == rate_at(step, cosine, "cosine")
    assert rate_at(160, falling, "inverse-sqrt") == rate_at(160, cosine, "cosine") / 2
    assert rate_at(640, falling, "inverse-sqrt") == rate_at(640, cosine, "cosine") / 4
    with pytest.raises(InputError, match="factor"):
        Stage(factor=0.0)


def test_one_pass_over_the_weights_is_adam_within_rounding():
    start = torch.linspace(-1, 1, 1000)
    ways = {}
    for fused in (False, True):
        weight = torch.nn.Parameter(start.clone())
        steps = adam([weight], rate=1e-2, fused=fused)
        for step in range(5):
            weight.grad = (weight.detach() * (step + 1)).cos()
            steps.step()
        ways[fused] = weight.detach()
    torch.testing.assert_close(ways[True], ways[False], rtol=1e-5, atol=1e-6)
    assert not torch.equal(ways[True], start)
