"""Point critics against slow loops over points."""

import numpy as np
import pytest
import torch
from torch import nn

from fieldloom.errors import InputError
from fieldloom.objectives.critics.points import PointConv, PointCritic, sample_farthest_points


def slow_norm(norm, rows):
    """Over all rows: by their own mean and variance in training, else by the running ones."""
    if norm.training:
        mean = sum(rows) / len(rows)
        variance = sum((r - mean) ** 2 for r in rows) / len(rows)
    else:
        mean, variance = norm.running_mean, norm.running_var
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    return [(r - mean) * scale + norm.bias for r in rows]


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


def slow_conv(conv, features, offsets):
    """features[b][c][k] (in,), offsets[b][c][k] (coord,) -> [b][c] (out,)."""
    size = [
        (b, c, k)
        for b in range(len(offsets))
        for c in range(len(offsets[0]))
        for k in range(len(offsets[0][0]))
    ]
    w = [offsets[b][c][k] for b, c, k in size]
    for layer, norm in zip(conv.kernel, conv.norms, strict=True):
        w = [leaky(x) for x in slow_norm(norm, [layer.weight @ x + layer.bias for x in w])]
    kernel = dict(zip(size, w, strict=True))
    rows = []
    for b in range(len(features)):
        for c in range(len(features[0])):
            summed = 0
            for k in range(len(features[0][0])):
                own = kernel[(b if len(offsets) > 1 else 0, c, k)]
                summed = summed + torch.outer(features[b][c][k], own)
            rows.append(conv.linear.weight @ summed.flatten() + conv.linear.bias)
    if conv.norm is not None:
        rows = [leaky(x) for x in slow_norm(conv.norm, rows)]
    return torch.stack(rows).view(len(features), len(features[0]), -1)


def shaken(module):
    """Double, with norms that do something."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            for tensor in (part.weight.data, part.running_var):
                tensor.uniform_(0.5, 2)
            for tensor in (part.bias.data, part.running_mean):
                tensor.uniform_(-1, 1)
    return module.double()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_point_convolution_is_a_loop_over_points(shared, training, norm):
    conv = shaken(PointConv(2, 3, 4, 5, norm)).train(training)
    features = torch.randn(2, 3, 4, 3).double()
    offsets = torch.randn(1 if shared else 2, 3, 4, 2).double()
    expected = slow_conv(conv, features, offsets)  # before the running means move
    torch.testing.assert_close(conv(features, offsets), expected)


def slow_farthest(points, count):
    chosen = [0]
    while len(chosen) < count:
        nearest = [min(((p - points[c]) ** 2).sum().item() for c in chosen) for p in points]
        chosen.append(int(np.argmax(nearest)))
    return chosen


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_farthest_points(count):
    points = torch.rand(3, 9, 2).double()
    found = sample_farthest_points(points, count)
    assert found.tolist() == [slow_farthest(p, count) for p in points]
    assert all(len(set(row)) == count for row in found.tolist())


def test_farthest_points_of_a_grid_are_its_corners():
    axes = [torch.linspace(-1, 1, 5)] * 2
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)
    found = grid[sample_farthest_points(grid[None], 4)[0]]
    assert sorted(found.tolist()) == [[-1, -1], [-1, 1], [1, -1], [1, 1]]


LAYERS = ((12, 4, 3), (6, 3), (6, 2, 2), (1, 5, 1))


def slow_critic(critic, coords, values):
    """One signal: farthest centres, nearest neighbours, pools as means; (points, c) each."""
    convolutions, h = iter(critic.convolutions), values
    for points, neighbours, *channels in LAYERS:
        centres = coords
        if points < len(coords):
            centres = coords[slow_farthest(coords, points)]
        near = [
            sorted(range(len(coords)), key=lambda j, c=c: ((coords[j] - c) ** 2).sum().item())
            for c in centres
        ]
        near = [n[:neighbours] for n in near]
        seen = [[h[j] for j in n] for n in near]
        offsets = [[coords[j] - c for j in n] for n, c in zip(near, centres, strict=True)]
        if channels:
            h = slow_conv(next(convolutions), [seen], [offsets])[0]
        else:
            h = torch.stack([sum(s) / len(s) for s in seen])
        coords = centres
    return h.squeeze()


@pytest.mark.parametrize("shared", [False, True])
def test_a_critic_is_that_of_a_slow_twin_of_each_signal(shared):
    critic = shaken(PointCritic(2, 3, LAYERS, mid=4)).eval()
    coords = torch.rand(1 if shared else 3, 20, 2).double().expand(3, -1, -1)
    values = torch.randn(3, 20, 3).double()
    found = critic(coords, values)
    assert found.shape == (3, 1)
    assert torch.equal(critic(coords, values, (4, 5)), found)
    for i in range(3):
        expected = slow_critic(critic, coords[i], values[i])[None]
        torch.testing.assert_close(found[i], expected)
        torch.testing.assert_close(critic(coords[i : i + 1], values[i : i + 1])[0], expected)


def test_numbers_of_points_are_cut_to_those_that_there_are():
    critic = shaken(PointCritic(2, 1, ((100, 50, 2), (1, 100, 1)), mid=4)).eval()
    plan = critic.plan(torch.rand(2, 7, 2).double())
    assert [near.shape for near, _ in plan] == [(2, 7, 7), (2, 1, 7)]


def test_a_centre_is_its_own_nearest_point():
    critic = PointCritic(3, 1, ((40, 4, 2), (1, 4, 1)))
    _, offsets = critic.plan(10 + 1e-2 * torch.rand(2, 60, 3))[0]
    assert offsets[:, :, 0].abs().max() == 0 < offsets[:, :, 1].abs().min()


def test_the_plan_is_found_once_and_again_for_other_coordinates(monkeypatch):
    critic = shaken(PointCritic(2, 3, LAYERS, mid=4)).eval()
    one, other = torch.rand(2, 20, 2).double(), torch.rand(2, 20, 2).double()
    values, calls, cdist = torch.randn(2, 20, 3).double(), [], torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda *rest, **how: calls.append(1) or cdist(*rest, **how))
    first = critic(one, values)
    assert len(calls) == len(LAYERS)
    assert torch.equal(critic(one.clone(), values), first)
    assert len(calls) == len(LAYERS)
    assert not torch.allclose(critic(other, values), first)
    assert len(calls) == 2 * len(LAYERS)
    assert torch.equal(critic(one, values), first)
    torch.testing.assert_close(critic(one[:1], values[:1]), first[:1])
    critic(one[:1].expand(2, -1, -1), values)  # shared by all: found once for both
    assert [len(near) for near, _ in critic.plan(one[:1].expand(2, -1, -1))] == [1] * len(LAYERS)


def test_the_order_of_points_does_not_matter():
    """But of the first, where the farthest centres start."""
    critic = shaken(PointCritic(2, 3, ((20, 4, 3), (20, 3), (1, 20, 1)), mid=4)).eval()
    coords, values = torch.rand(2, 20, 2).double(), torch.randn(2, 20, 3).double()
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(19)])
    torch.testing.assert_close(critic(coords[:, order], values[:, order]), critic(coords, values))
    assert not torch.allclose(critic(coords, values[:, order]), critic(coords, values))


@pytest.mark.parametrize("training", [False, True])
def test_a_critic_can_be_differentiated_twice(training):
    """The slope's own gradient, by finite differences over a weight."""
    critic = shaken(PointCritic(2, 1, ((8, 3, 3), (1, 8, 1)), mid=4)).train(training)
    coords, values = torch.rand(2, 8, 2).double(), torch.randn(2, 8, 1).double()

    def steep():
        leaf = values.clone().requires_grad_()
        (slope,) = torch.autograd.grad(
            critic(coords, leaf).sigmoid().sum(), leaf, create_graph=True
        )
        return slope.square().sum()

    for parameter in (critic.convolutions[0].linear.weight, critic.convolutions[1].linear.weight):
        (slope,) = torch.autograd.grad(steep(), parameter)
        for place in [(0, 0), (0, 3)]:
            ends = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter[place] += step
                ends.append(steep().item())
                with torch.no_grad():
                    parameter[place] -= step
            by_hand = (ends[0] - ends[1]) / 2e-6
            assert slope[place].item() == pytest.approx(by_hand, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "each is"),
        (((4,), (1, 4, 1)), "each is"),
        (((4, 2, 3, 1), (1, 4, 1)), "each is"),
        (((4, 0, 3), (1, 4, 1)), "each is"),
        (((4, 2, 3), (1, 4)), "the last is"),
        (((4, 2, 3), (2, 4, 1)), "the last is"),
        (((4, 2, 3), (1, 4, 2)), "the last is"),
    ],
)
def test_layers_that_are_refused(layers, message):
    with pytest.raises(InputError, match=f"critic.layers: {message}"):
        PointCritic(2, 1, layers)


def test_a_kernel_without_units_is_refused():
    with pytest.raises(InputError, match="mid"):
        PointCritic(2, 1, ((4, 2, 3), (1, 4, 1)), mid=0)
