"""A budget of time: trial steps leave no trace, steps and their settings follow from the pace."""

import re
from types import SimpleNamespace

import pytest
import torch

from fieldloom import recipe
from fieldloom.assembly import assemble, objective_of
from fieldloom.engine import pace as paces
from fieldloom.engine.loop import Training
from fieldloom.engine.pace import Pace, describe_plan, plan_steps
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.feeding import feed_data
from fieldloom.preparation import prepare
from fieldloom.settings import Stage
from fieldloom.training import train
from pictures import picture, stopped

CPU = torch.device("cpu")
FEW = ["source.split=[8, 4]", "train.field.batch=4", "train.field.micro=4"]


@pytest.mark.parametrize(
    "own", [lambda _: recipe.load("mnif:tiny", FEW), lambda _: recipe.load("gasp:tiny"), picture]
)
def test_trial_steps_leave_no_trace(tmp_path, own):
    resolved, source = prepare(own(tmp_path), CPU)
    system = assemble(resolved)
    stage = system.settings.field_stage
    training = Training(objective_of(system), stage)
    feed = feed_data(system, source, stage, CPU)
    given = {"seed": 0, "micro": stage.micro, "device": CPU}
    batch = feed.send(feed.read(torch.arange(min(stage.batch, len(source.train))), None))
    training.advance(batch, stage.micro, 0, CPU)  # moments, too, are as they were
    before = {name: x.clone() for name, x in training.state()[0].items()}
    generator = torch.get_rng_state()
    measured = paces.measure_pace(training, feed, len(source.train), **given, seconds=0.3)
    assert 0 < measured.step <= measured.took
    assert training.step == 1
    assert torch.equal(torch.get_rng_state(), generator)
    after = training.state()[0]
    assert before.keys() == after.keys()
    assert all(torch.equal(x, after[name]) for name, x in before.items())


def test_settings_follow_from_the_steps():
    pace = Pace(0.003, 0.4)
    planned = plan_steps(Stage(steps=1000, warmup=100), 0, pace, 60.0)
    assert planned == {
        "steps": 19800, "log_every": 198, "save_every": 4950, "warmup": 1980, "minutes": None,
    }  # fmt: skip
    hours = plan_steps(Stage(steps=1000), 0, pace, 36000.0)
    assert hours["save_every"] == 100_000  # every five minutes
    assert hours["log_every"] == hours["steps"] // 100
    short = plan_steps(Stage(steps=1000, warmup=100), 0, Pace(5.0, 9.0), 1.0)
    assert (short["steps"], short["log_every"], short["save_every"], short["warmup"]) == (1,) * 4
    further = plan_steps(Stage(steps=1000, warmup=100), 500, pace, 60.0)
    assert further["steps"] == 500 + 19800
    assert "warmup" not in further
    said = describe_plan("field", 0, 19800, Pace(0.00291, 0.4), 1.0)
    assert said == "field: 2.91 ms a step on this machine: 19,800 steps in 1 minute"
    said = describe_plan("field", 200, 20000, Pace(2.0, 9.0), 660.0)
    assert said.endswith(
        "2 s a step on this machine: 19,800 further steps in 660 minutes, 20,000 in all"
    )
    assert describe_plan("field", 0, 1, Pace(2.0, 9.0), 0.01).endswith(": 1 step in 0.01 minutes")


@pytest.fixture
def slow_pace(monkeypatch):
    """A machine that takes 0.1 s for each step of these tests."""
    real = paces.measure_pace
    monkeypatch.setattr(paces, "SHORTEST", 0.01)

    def measured(*given, **named):
        real(*given, **named)
        return Pace(0.1, 0.0)

    monkeypatch.setattr("fieldloom.budget.measure_pace", measured)


def test_a_budget_is_a_number_of_steps_that_the_recipe_of_the_run_states(
    tmp_path, slow_pace, capsys
):
    """Stopped within the first stage, and within the second, whose share was still to be measured,
    it ends with the weights of a run that was given these steps at once.
    """
    run, own = tmp_path / "run", recipe.load("mnif:tiny", FEW)
    said = stopped(own, run, 4, minutes=0.031)
    assert said.startswith("stopped after step 4 of 9; --resume goes on from here.")
    stages = Run(run).read_recipe()["train"]
    assert "minutes" not in stages["field"]
    assert stages["prior"]["minutes"] == 0.0155
    assert stopped(None, run, 5 + 2).startswith("stopped after step 2 of 9;")
    system = train(None, str(run), resume=True)
    said = capsys.readouterr().err
    for name in ("field", "prior"):
        assert said.count(f"{name}: 100 ms a step on this machine: 9 steps in 0.0155 minutes") == 1
    stages = Run(run).read_recipe()["train"]
    assert [stages[name]["steps"] for name in ("field", "prior")] == [9, 9]
    assert not any("minutes" in stage for stage in stages.values())
    again = [*FEW, "train.field.steps=9", "train.prior.steps=9"]
    theirs = train(recipe.load("mnif:tiny", again), str(tmp_path / "b")).state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in system.state_dict().items())


def test_further_minutes(tmp_path, slow_pace, capsys):
    """A stage that was begun goes on for its share, along the schedule of its new steps."""
    run = tmp_path / "run"
    stopped(picture(tmp_path, "train.field.schedule=constant"), run, 7)
    train(None, str(run), resume=True, minutes=0.021)
    said = "field: 100 ms a step on this machine: 12 further steps in 0.021 minutes, 19 in all"
    assert said in capsys.readouterr().err
    ours = Run(run).read_weights()[0]
    more = ["train.field.schedule=constant", "train.field.steps=19"]
    theirs = train(picture(tmp_path, *more), str(tmp_path / "straight")).state_dict()
    assert all(torch.equal(x, ours[name]) for name, x in theirs.items())


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan"), float("inf")])
def test_budgets_that_are_none(tmp_path, minutes):
    with pytest.raises(InputError, match="minutes = .*a number above 0"):
        train(recipe.load("mnif:tiny", FEW), str(tmp_path / "a"), minutes=minutes)
    assert not (tmp_path / "a").exists()


def test_stages_of_one_step_and_finished_ones_take_no_budget(tmp_path, tiny_run):
    with pytest.raises(InputError, match="no stage is left to train that takes more"):
        train(recipe.load("weights:tiny", FEW), str(tmp_path / "a"), "field", minutes=1)
    with pytest.raises(InputError, match="no stage is left to train"):
        train(None, str(tiny_run), resume=True, minutes=1)


@pytest.mark.parametrize(("each", "total"), [(0.01, "2.38"), (0.001, "0.238")])
def test_another_pace_than_planned_is_said_once(monkeypatch, capsys, each, total):
    """4 ms are planned; after 5 s of a minute it is said what the rest comes to, and what to do."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(paces.time, "monotonic", lambda: clock.now)
    watch, said = paces.Watch("field", 14250, Pace(0.004, 0.4), 60.0, "a/run"), []
    for step in range(1, 14250):
        clock.now += each
        watch(step)
        if line := capsys.readouterr().err:
            said.append(line)
            assert clock.now == pytest.approx(105 + each, abs=2 * each)
            done = step
    ms = f"{1000 * each:g}"
    (line,) = said
    assert f"field: {ms} ms a step, planned were 4 ms: its 14,250 steps come to {total}" in line
    assert "minutes instead of 1. To end in time, stop it (Ctrl-C), then" in line
    further = (60 - done * each) / each
    named = int(re.search(r"--resume --run a/run --set train.field.steps=(\d+)'", line)[1])
    assert 0.99 * further < named - done <= further


@pytest.mark.parametrize("each", [0.0028, 0.0058])
def test_a_pace_near_the_planned_one_is_not_said(monkeypatch, capsys, each):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(paces.time, "monotonic", lambda: clock.now)
    watch = paces.Watch("field", 14250, Pace(0.004, 0.4), 60.0, "a/run")
    for step in range(1, 14250):
        clock.now += each if step > 1 else 9.0  # the first step records
        watch(step)
    assert capsys.readouterr().err == ""


def test_where_the_budget_is_spent_the_run_is_ended():
    watch = paces.Watch("prior", 1000, Pace(0.1, 0.4), 60.0, "a/run")
    said = watch.describe(300, 0.3, -1.0)
    assert said.endswith("then 'fieldloom train --finish --run a/run'.")
