"""Two players: losses by formula, R1 by differentiation, and whose step moves what."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fieldloom.conditioners.conditioner import Shared
from fieldloom.conditioners.hyper import Hyper
from fieldloom.engine.loop import Training
from fieldloom.engine.stage import Stage
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp, GridMlp
from fieldloom.fields.grids import DenseGrid
from fieldloom.objectives.adversarial import GAMES, Adversarial
from fieldloom.objectives.critics import PointCritic
from fieldloom.priors import Gaussian
from fieldloom.renderers import Direct as Render
from fieldloom.renderers import Volume
from fieldloom.types import Batch, Signal
from portions import compute_in_portions

BATCH, POINTS, WIDTH = 4, 5, 3
CPU = torch.device("cpu")


class Tiny(nn.Module):
    """A critic of each signal alone, smooth in its values."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(POINTS, 4), nn.Linear(4, 1)

    def forward(self, coords, values, grid=None):
        return self.last(torch.tanh(self.first(values.flatten(1))))


def family():
    field = FourierMlp(
        1, 1, width=4, depth=3, activation="leaky-relu-0.1", encoding=Fourier("none")
    )
    return Family(field, Hyper(field.slots, width=WIDTH, hidden=(5,))).double()


def given(standard=True):
    return Gaussian((1, WIDTH), standard=standard).double()


def batch(values=None):
    coords = torch.linspace(-1, 1, POINTS).double()[:, None].expand(BATCH, -1, -1)
    values = torch.randn(BATCH, POINTS, 1).double() if values is None else values
    signal = Signal(coords, values, torch.arange(BATCH), grid=(POINTS,))
    return Batch(signal, signal)


def duel(**arguments):
    return Adversarial(family(), Render(), given(), Tiny().double(), **arguments)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.detach().numpy()))


# -- losses


ROOTS = torch.tensor([2.0, 0.5, -1.0]).double(), torch.tensor([-2.0, 0.0, 3.0]).double()
"""Logits of data and of samples: on both sides of the hinges, and between them."""


def slopes_of(loss, *logits):
    leaves = [x.clone().requires_grad_() for x in logits]
    value = loss(*leaves)
    return value.item(), [x.tolist() for x in torch.autograd.grad(value, leaves)]


def test_the_hinge_game_by_hand():
    """max(0, 1 - D): 0, 1/2, 2; max(0, 1 + D): 0, 1, 4; flat beyond the margins."""
    value, (true, fake) = slopes_of(GAMES["hinge"].critic, *ROOTS)
    assert value == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 4) / 3)
    assert true == pytest.approx([0, -1 / 3, -1 / 3])
    assert fake == pytest.approx([0, 1 / 3, 1 / 3])
    value, (fake,) = slopes_of(GAMES["hinge"].generator, ROOTS[1])
    assert value == pytest.approx(-1 / 3)
    assert fake == pytest.approx([-1 / 3] * 3)


def test_the_logistic_game_by_hand():
    """-log s(D) has the slope s(D) - 1, -log(1 - s(D)) the slope s(D)."""
    s = [1 / (1 + np.exp(-x.numpy())) for x in ROOTS]
    value, (true, fake) = slopes_of(GAMES["logistic"].critic, *ROOTS)
    assert value == pytest.approx(-np.log(s[0]).mean() - np.log(1 - s[1]).mean())
    assert true == pytest.approx(list((s[0] - 1) / 3))
    assert fake == pytest.approx(list(s[1] / 3))
    value, (fake,) = slopes_of(GAMES["logistic"].generator, ROOTS[1])
    assert value == pytest.approx(-np.log(s[1]).mean())
    assert fake == pytest.approx(list((s[1] - 1) / 3))


def test_hinge_losses_and_what_the_log_tells():
    objective, data = duel(game="hinge", r1=0.0), batch()
    with torch.no_grad():
        objective.critic.last.weight.mul_(5)  # past the margins, for some
    true = objective.critic(data.target.coords, data.target.values).detach().numpy()
    torch.manual_seed(7)
    code = objective.prior.sample(BATCH).double()
    made = objective.family(data.target.coords, code)
    fake = objective.critic(data.target.coords, made).detach().numpy()
    torch.manual_seed(7)
    loss, logs = objective.loss("critic", data)
    hinges = np.maximum(0, 1 - true).mean() + np.maximum(0, 1 + fake).mean()
    assert loss.item() == logs["loss"].item() == pytest.approx(hinges)
    assert logs["data"].item() == pytest.approx(true.mean())
    assert logs["samples"].item() == pytest.approx(fake.mean())
    torch.manual_seed(7)
    assert objective.loss("generator", data)[0].item() == pytest.approx(-fake.mean())


def test_critics_get_the_grid_that_the_points_fill():
    objective, data, seen = duel(r1=0.0), batch(), []
    objective.critic.forward = lambda coords, values, grid: seen.append(grid) or values.sum(2)
    for player in ("critic", "generator"):
        objective.loss(player, data)
    assert seen == [(POINTS,)] * 3


def test_both_losses_by_formula():
    objective, data = duel(r1=0.0), batch()
    true = sigmoid(objective.critic(data.target.coords, data.target.values))
    torch.manual_seed(7)
    code = objective.prior.sample(BATCH).double()
    fake = sigmoid(objective.critic(data.target.coords, objective.family(data.target.coords, code)))
    torch.manual_seed(7)
    loss, logs = objective.loss("critic", data)
    assert loss.item() == pytest.approx(-np.log(true).mean() - np.log(1 - fake).mean())
    assert logs["data"].item() == pytest.approx(true.mean())
    assert logs["samples"].item() == pytest.approx(fake.mean())
    assert logs["loss"].item() == pytest.approx(loss.item())
    torch.manual_seed(7)
    loss, _ = objective.loss("generator", data)
    assert loss.item() == pytest.approx(-np.log(fake).mean())


@pytest.mark.parametrize("of", ["probability", "logit"])
def test_r1_is_the_squared_slope_of_each_signal(of):
    objective, data = duel(r1=3.0, r1_of=of), batch()

    def judged(values):
        logit = objective.critic(data.target.coords[:1], values)
        return (logit.sigmoid() if of == "probability" else logit).squeeze()

    slopes = [
        torch.autograd.functional.jacobian(judged, data.target.values[i : i + 1])
        for i in range(BATCH)
    ]
    steep = np.mean([(s**2).sum().item() for s in slopes])
    torch.manual_seed(7)
    loss, logs = objective.loss("critic", data)
    objective.r1 = 0.0
    torch.manual_seed(7)
    bare, _ = objective.loss("critic", data)
    assert logs["gradient"].item() == pytest.approx(steep)
    assert loss.item() - bare.item() == pytest.approx(3.0 / 2 * steep)


@pytest.mark.parametrize("of", ["probability", "logit"])
def test_the_critics_gradient_sees_the_slope(of):
    """Finite differences of the whole loss over the critic's weights."""
    objective, data = duel(r1=3.0, r1_of=of), batch()

    def value():
        torch.manual_seed(7)
        return objective.loss("critic", data)[0]

    parameter = objective.critic.first.weight
    (slope,) = torch.autograd.grad(value(), parameter)
    for i, j in [(0, 0), (1, 3), (3, 4)]:
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter[i, j] += step
            ends.append(value().item())
            with torch.no_grad():
                parameter[i, j] -= step
        assert slope[i, j].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_some_of_the_points_are_judged():
    objective, data, seen = duel(points=3, r1=0.0), batch(), []
    objective.critic.forward = lambda coords, values, grid: (
        seen.append((coords, values, grid)) or values.sum(2)
    )
    objective.loss("critic", data)
    (where, true, grid), (same, _, again) = seen
    assert grid is None  # though the batch has one
    assert again is None
    assert where.shape == (BATCH, 3, 1)
    assert torch.equal(where, same)
    assert torch.equal(where, where[:1].expand_as(where))
    places = [data.target.coords[0, :, 0].tolist().index(x) for x in where[0, :, 0].tolist()]
    assert len(set(places)) == 3
    assert torch.equal(true, data.target.values[:, places])


# -- steps


def stage(rate=0.1, name="sgd", steps=50, **more):
    optimizer = {"name": name, "rate": rate}
    return Stage(steps=steps, batch=BATCH, optimizer=optimizer, schedule="constant", **more)


@pytest.mark.parametrize(("mover", "still"), [("critic", "family"), ("family", "critic")])
def test_a_players_step_moves_it_alone(mover, still):
    objective = duel()
    group = {"critic": "generator", "family": "critic"}[mover]
    frozen = {"name": "sgd", "rate": 0.0}
    training = Training(objective, stage(groups={group: frozen}))
    before = {n: p.detach().clone() for n, p in objective.named_parameters()}
    training.advance(batch(), BATCH, 0, CPU)
    moved = {n for n, p in objective.named_parameters() if not torch.equal(p, before[n])}
    assert {n.partition(".")[0] for n in moved} == {mover}
    assert moved == {n for n in before if n.startswith(mover)}
    assert still not in moved


def test_a_step_is_the_critics_and_then_the_generators():
    """Two plain descents by hand, with the codes that each player drew."""
    objective, data = duel(r1=1.0), batch()
    twin = Adversarial(family(), Render(), given(), Tiny().double(), r1=1.0)
    twin.load_state_dict(objective.state_dict())
    drawn, sample = [], objective.prior.sample
    objective.prior.sample = lambda count: drawn.append(sample(count)) or drawn[-1]
    Training(objective, stage()).advance(data, BATCH, 0, CPU)
    assert len(drawn) == 2
    for player, code in zip(("critic", "generator"), drawn, strict=True):
        twin.prior.sample = lambda count, code=code: code
        mine = list(twin.players[player][player])
        slopes = torch.autograd.grad(twin.loss(player, data)[0], mine)
        with torch.no_grad():
            for parameter, slope in zip(mine, slopes, strict=True):
                parameter -= 0.1 * slope
    for a, b in zip(objective.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_codes_are_fresh_for_each_player_and_step():
    objective, drawn = duel(), []
    sample = objective.prior.sample
    objective.prior.sample = lambda count: drawn.append(sample(count)) or drawn[-1]
    training = Training(objective, stage())
    for _ in range(3):
        training.advance(batch(), BATCH, 0, CPU)
    assert len(torch.cat(drawn).flatten(1).unique(dim=0)) == 6 * BATCH


def test_the_seed_decides_the_losses():
    def losses(seed):
        torch.manual_seed(0)
        objective, data = duel(), batch()
        training = Training(objective, stage())
        return [training.advance(data, BATCH, seed, CPU) for _ in range(3)]

    one = losses(5)
    assert one == losses(5) != losses(6)
    assert {"critic.loss", "critic.gradient", "generator.loss"} <= set(one[0])


def test_refusals():
    with pytest.raises(InputError, match="a prior that is not learned"):
        Adversarial(family(), Render(), given(False), Tiny())
    with pytest.raises(InputError, match="a prior that is not learned"):
        Adversarial(family(), Render(), None, Tiny())
    field = FourierMlp(1, 1, width=4, depth=3, encoding=Fourier("none"))
    with pytest.raises(InputError, match="needs a conditioner with a code"):
        Adversarial(Family(field, Shared(field.slots)), Render(), given(), Tiny())
    for more in (dict(), dict(r1=1.0)):
        with pytest.raises(InputError, match="'hinge' has no probabilities"):
            duel(game="hinge", **more)
    assert duel(game="hinge", r1=1.0, r1_of="logit").r1 == 1
    for wrong in (dict(r1=-1.0), dict(points=0)):
        with pytest.raises(InputError, match="not negative"):
            duel(**wrong)


class Average(nn.Module):
    """A critic of a signal's mean and spread, for constants."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, coords, values, grid=None):
        mean, spread = values.mean((1, 2)), values.var((1, 2))
        return self.net(torch.stack([mean, spread], 1))


@pytest.mark.slow
@pytest.mark.parametrize("shift", [-0.7, 0.7])
def test_constants_are_learned(shift):
    """The generator's values move to the data's, from where they start."""
    objective = Adversarial(family(), Render(), given(), Average().double(), r1=1.0, r1_of="logit")
    training = Training(objective, stage(1e-2, "adam", groups={"critic": {"rate": 4e-2}}))
    coords = batch().target.coords[:1].expand(64, -1, -1)
    code = objective.prior.sample(64).double()
    made = lambda: objective.family(coords, code).detach().mean().item()
    constant = made() + shift
    data = batch(constant + 0.05 * torch.randn(BATCH, 1, 1).double().expand(-1, POINTS, -1))
    for _ in range(200):
        training.advance(data, BATCH, 0, CPU)
    assert abs(made() - constant) < 0.35 * abs(shift)


# -- the prior


def test_a_standard_gaussian_is_not_fitted():
    prior = given()
    prior.fit(5 + 3 * torch.randn(100, 1, WIDTH).double())
    assert not prior.learns
    assert not prior.trained
    drawn = prior.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    torch.testing.assert_close(drawn.mean(0), torch.zeros(WIDTH).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), torch.eye(WIDTH).double(), atol=0.04, rtol=0)
    assert Gaussian((1, WIDTH), classes=4, standard=True).classes == 0
    assert given(False).learns


def test_tables_of_a_generator_have_an_optimizer_of_their_own():
    field = GridMlp(1, 1, grid=DenseGrid(levels=2, coarsest=3), width=4, depth=2)
    hyper = Hyper(field.slots, width=WIDTH, hidden=(5,), only="*.bias")
    own = Family(field, hyper).double()
    objective = Adversarial(own, Render(), given(), Tiny().double())
    (table,) = objective.players["generator"]["tables"]
    assert all(table is not p for p in objective.players["generator"]["generator"])
    groups = {"tables": {"name": "row-adam", "rate": 0.1}, "generator": {"rate": 0.0}}
    before = [p.clone() for p in own.parameters()]
    Training(objective, stage(groups=groups)).advance(batch(), BATCH, 0, CPU)
    moved = [not torch.equal(a, b) for a, b in zip(before, own.parameters(), strict=True)]
    assert [p is table for p in own.parameters()] == moved


@pytest.mark.parametrize("shared", [True, False])
def test_portions_of_a_game_add_up_to_the_whole(shared, monkeypatch):
    """Batch norms, R1, the codes and the jitter of rays, in both players' steps."""
    torch.manual_seed(0)
    codes = torch.randn(BATCH, 1, WIDTH).double()  # threads share torch's generator
    monkeypatch.setattr(Gaussian, "sample", lambda self, count: codes[:count])
    monkeypatch.setattr(torch, "randint", lambda *shape: torch.tensor(7))
    field = FourierMlp(3, 4, width=4, depth=2, encoding=Fourier("none"))
    fields = Family(field, Hyper(field.slots, width=WIDTH, hidden=(5,))).double()
    critic = PointCritic(2, 3, layers=((9, 4, 4), (4, 3), (1, 4, 1)), mid=3).double()
    render = Volume(0.5, 2.0, samples=5, jitter=True, pieces=30)  # without gradients in pieces
    game = Adversarial(fields, render, given(), critic, grid_dim=2, r1_of="logit")
    rays = torch.randn(1 if shared else BATCH, 9, 6).double().expand(BATCH, -1, -1)
    values, index = torch.rand(BATCH, 9, 3).double(), torch.arange(BATCH)
    signal = Signal(rays, values, index, grid=(3, 3))
    whole, rows = Batch(signal, signal), [[0, 1, 2], [3]]
    assert game.divisible
    assert game.joint
    games = [copy.deepcopy(game) for _ in rows]
    for player in ("critic", "generator"):
        parameters = [p for group in game.players[player].values() for p in group]
        loss, logs = game.loss(player, whole)
        expected = torch.autograd.grad(loss, parameters)

        def compute(rank, portion, player=player):
            own = games[rank]
            part = whole.part(slice(rows[rank][0], rows[rank][-1] + 1))
            mine = [p for group in own.players[player].values() for p in group]
            loss, logs = own.loss(player, part)
            share = len(part) / BATCH
            return torch.autograd.grad(share * loss, mine), share * logs["loss"]

        found = compute_in_portions(rows, compute)
        total = [sum(each) for each in zip(*(grads for grads, _ in found), strict=True)]
        torch.testing.assert_close(total, list(expected), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(sum(loss for _, loss in found), logs["loss"])
