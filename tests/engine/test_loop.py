"""The loop: groups, micro-batches, clipping, averages, the round trip of its state."""

import json
import pickle

import pytest
import torch
from torch import nn

from fieldloom.engine.loop import Training
from fieldloom.engine.ranks import Team
from fieldloom.engine.stage import Stage, rate_at
from fieldloom.errors import DivergedError, InputError
from fieldloom.objectives import CodeBatch, Objective


class Quadratic(Objective):
    """mean over the batch of (w - x)^2 / 2, and a table of codes of its own group."""

    per_signal = frozenset({"codes"})

    def __init__(self, count=4):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.table = nn.Parameter(torch.zeros(count))
        self.players = {"only": {"shared": [self.w], "codes": [self.table]}}

    def loss(self, player, batch):
        x, index = batch.codes, batch.labels
        loss = ((self.w - x) ** 2 / 2 + (self.table[index] - x) ** 2 / 2).mean()
        return loss, {"loss": loss.detach()}


SGD = {"name": "sgd", "rate": 0.5}


def advance(training, batch, micro=2):
    return training.advance(CodeBatch(*batch), micro, 0, torch.device("cpu"))


def test_a_codes_step_does_not_depend_on_the_batch():
    steps = []
    for index in (torch.tensor([0]), torch.arange(4)):
        objective = Quadratic()
        advance(
            Training(objective, Stage(optimizer=SGD, schedule="constant")),
            (torch.ones(len(index)), index),
        )
        steps.append(objective.table[0].item())
    assert steps == [0.5, 0.5]


def test_groups_have_their_own_optimiser_and_schedule():
    stage = Stage(
        steps=10,
        optimizer={"name": "adamw", "rate": 0.1},
        groups={"codes": {"name": "sgd", "rate": 0.25, "schedule": "constant"}},
    )
    training = Training(Quadratic(), stage)
    shared, codes = training.players["only"]
    assert isinstance(shared.optimizer, torch.optim.AdamW)
    assert isinstance(codes.optimizer, torch.optim.SGD)
    for _ in range(5):
        advance(training, (torch.ones(4), torch.arange(4)))
    assert codes.optimizer.param_groups[0]["lr"] == 0.25
    assert shared.optimizer.param_groups[0]["lr"] == pytest.approx(
        0.1 * rate_at(4, stage, "cosine")
    )
    with pytest.raises(InputError, match="no group 'code'"):
        Training(Quadratic(), Stage(groups={"code": {}}))


def test_micro_batches_make_the_same_step():
    whole, parts = Quadratic(), Quadratic()
    batch = (torch.randn(5), torch.tensor([0, 1, 2, 3, 0]))
    for objective, micro in ((whole, 5), (parts, 2)):
        advance(Training(objective, Stage(optimizer=SGD)), batch, micro)
    torch.testing.assert_close(whole.w, parts.w)
    torch.testing.assert_close(whole.table, parts.table)


def test_clipping():
    objective = Quadratic()
    training = Training(objective, Stage(optimizer={"name": "sgd", "rate": 1.0}, clip=1e-3))
    advance(training, (torch.full((4,), 100.0), torch.arange(4)))
    moved = torch.cat([objective.w, objective.table]).norm().item()
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_no_number_is_reported_with_step_and_batch():
    training = Training(Quadratic(), Stage(optimizer=SGD))
    with pytest.raises(DivergedError, match="became nan .* at step 0: its batch was") as raised:
        advance(training, (torch.tensor([1.0, float("nan")]), torch.arange(2)))
    assert "2 codes" in str(raised.value)
    assert raised.value.step == 0
    copy = pickle.loads(pickle.dumps(raised.value))  # as it comes from another process
    assert (str(copy), copy.step) == (str(raised.value), 0)
    assert training.objective.w.item() == 0  # nothing was changed


def test_averaged_weights_become_the_result():
    objective = Quadratic()
    training = Training(objective, Stage(optimizer=SGD, schedule="constant", ema=0.9))
    path, batch = [], (torch.ones(4), torch.arange(4))
    average = 0.0
    for n in range(4):
        advance(training, batch)
        decay = min(0.9, (1 + n + 1) / (10 + n + 1))
        path.append(objective.w.item())
        average = decay * average + (1 - decay) * path[-1]
    training.finish()
    assert objective.w.item() == pytest.approx(average, rel=1e-5)
    assert average < path[-1]


def test_state_round_trip_goes_on_bit_for_bit():
    stage = Stage(steps=10, optimizer={"name": "adamw", "rate": 0.1}, ema=0.9)
    batch = lambda: (torch.randn(4, generator=generator), torch.arange(4))
    generator = torch.Generator().manual_seed(0)
    straight = Training(Quadratic(), stage)
    for _ in range(6):
        advance(straight, batch())
    generator = torch.Generator().manual_seed(0)
    first = Training(Quadratic(), stage)
    for _ in range(3):
        advance(first, batch())
    tensors, numbers = first.state()
    second = Training(Quadratic(), stage)
    second.restore(({k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(numbers))))
    for _ in range(3):
        advance(second, batch())
    assert second.step == 6
    assert torch.equal(second.objective.w, straight.objective.w)
    assert torch.equal(second.averaged["w"], straight.averaged["w"])


def test_fused_optimizers_take_the_same_steps_and_resume(monkeypatch):
    """One kernel for all weights, as on CUDA, which the CPU has too."""
    batch = lambda: (torch.randn(4, generator=generator), torch.arange(4))
    stage = Stage(steps=10, optimizer={"name": "adamw", "rate": 0.1}, clip=0.5)
    results = []
    for fused in (False, True):
        monkeypatch.setattr("fieldloom.engine.stage.fuses_optimizers", lambda device: fused)  # noqa: B023
        generator = torch.Generator().manual_seed(0)
        training = Training(Quadratic(), stage)
        for step in range(4):
            if step == 2:
                state = training.state()
                training = Training(Quadratic(), stage)
                training.restore(state)
            advance(training, batch())
        assert bool(training.players["only"][0].optimizer.defaults["fused"]) == fused
        results.append(training.objective.table.detach())
    torch.testing.assert_close(*results)


class Echo(Team):
    """Two processes of which the other one has nothing to add."""

    def own(self, micro_step):
        return True

    def say(self, word, number=0):
        pass

    def share(self, value=None):
        return value

    def add_up(self, tensors):
        pass


def test_what_one_process_had_paused_is_not_added_up_by_several():
    """Each would restore the gradients of the micro-batches that were done, and add them."""
    weights = []
    for paused in ({}, {"micro": torch.tensor(1), "size": torch.tensor(2)}):
        training = Training(Quadratic(), Stage(steps=10, optimizer={"name": "sgd", "rate": 0.1}))
        grads = enumerate(p for g in training.players["only"] for p in g.parameters)
        held = {f"grad/{i}": torch.ones_like(p) for i, p in grads}
        training.paused = {**paused, **held} if paused else {}
        training.team = Echo(0, 2)
        advance(training, (torch.arange(4.0), torch.arange(4)))
        weights.append(training.objective.w.item())
    assert weights[0] == weights[1]
