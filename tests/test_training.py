"""Training: resumed equals uninterrupted, bit for bit; what fails fails before it begins."""

import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from fieldloom import recipe
from fieldloom import training as trains
from fieldloom.engine import device as devices
from fieldloom.engine.loop import Training
from fieldloom.engine.run import Run
from fieldloom.errors import FieldloomError, InputError, Interrupted
from fieldloom.preparation import check_same_data
from fieldloom.training import train


def same_tensors(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Stop(Exception):
    pass


FEW = "source.split=[0.1, 0.1]"  # of 1797 digits: three batches of codes


@pytest.fixture(scope="module", params=["mnif:tiny", "functa:tiny"])
def straight(request, tmp_path_factory):
    """A recipe with averages and few points, and the run of it that nothing stopped."""
    loaded = recipe.load(request.param, ["train.field.ema=0.9", "train.field.points=20", FEW])
    folder = tmp_path_factory.mktemp("straight") / "run"
    return loaded, train(loaded, str(folder)).state_dict(), Run(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [3, 7, 27])
def test_resume_equals_uninterrupted(tmp_path, monkeypatch, straight, kill_at):
    """A run that dies before or after a checkpoint, in either stage, ends in the same weights."""
    loaded, weights, undisturbed = straight
    advance, calls = Training.advance, []

    def dying(self, *rest):
        calls.append(1)
        if len(calls) == kill_at:
            raise Stop
        return advance(self, *rest)

    monkeypatch.setattr(Training, "advance", dying)
    with pytest.raises(Stop):
        train(loaded, str(tmp_path / "killed"))
    monkeypatch.setattr(Training, "advance", advance)
    resumed = train(None, str(tmp_path / "killed"), resume=True).state_dict()
    same_tensors(weights, resumed)
    logs = [run.read_log() for run in (undisturbed, Run(tmp_path / "killed"))]
    strip = lambda log: [{k: v for k, v in x.items() if k != "seconds_a_step"} for x in log]
    assert strip(logs[0]) == strip(logs[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of mnif:tiny on few digits, trained at once."""
    loaded = recipe.load("mnif:tiny", [FEW])
    return train(loaded, str(tmp_path_factory.mktemp("whole") / "run")).state_dict()


@pytest.mark.slow
def test_same_seed_same_weights_and_another_seed_others(tmp_path, whole):
    loaded = recipe.load("mnif:tiny", [FEW])
    a = train(loaded, str(tmp_path / "a"), stage="field").state_dict()
    field = lambda weights: {n: x for n, x in weights.items() if not n.startswith("prior.")}
    assert len(field(a)) > 5
    same_tensors(field(a), field(whole))
    c = train(loaded | {"seed": 1}, str(tmp_path / "c"), stage="field").state_dict()
    assert not torch.equal(
        a["family.conditioner.basis.0.weight"], c["family.conditioner.basis.0.weight"]
    )


@pytest.mark.slow
def test_stages_one_by_one_are_the_whole(tmp_path, whole):
    loaded = recipe.load("mnif:tiny", [FEW])
    train(loaded, str(tmp_path / "parts"), stage="field")
    train(None, str(tmp_path / "parts"), stage="codec", resume=True)
    parts = train(None, str(tmp_path / "parts"), stage="prior", resume=True).state_dict()
    same_tensors(whole, parts)
    with pytest.raises(InputError, match="no trained field yet"):
        train(loaded, str(tmp_path / "early"), stage="prior")


@pytest.mark.slow
def test_the_micro_batch_is_recorded_and_reused(tmp_path, monkeypatch):
    run = Run(tmp_path / "a")
    train(recipe.load("mnif:tiny", [FEW]), str(run.folder), stage="field")
    recorded = run.read_recipe()["train"]["field"]["micro"]
    assert 1 <= recorded <= 16
    monkeypatch.setattr(devices, "micro_batch", lambda *rest: 3)
    train(None, str(run.folder), resume=True)
    assert run.read_recipe()["train"]["field"]["micro"] == recorded
    train(recipe.load("mnif:tiny", [FEW]), str(tmp_path / "b"), stage="field")
    assert Run(tmp_path / "b").read_recipe()["train"]["field"]["micro"] == 3


def test_what_would_fail_after_hours_fails_before_the_run_exists(tmp_path):
    for override, message in {
        "train.prior.optimizer.name=adam": "'weight_decay'",
        "train.field.optimizer.name=adamm": "did you mean 'adam",
        "train.prior.groups.bias={}": "no group 'bias'",
    }.items():
        with pytest.raises(InputError, match=message):
            train(recipe.load("mnif:tiny", [override]), str(tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_resuming_on_other_data_is_refused(tmp_path):
    data = (torch.rand(12, 8, 8) * 255).byte().numpy()
    np.save(tmp_path / "a.npy", data)
    overrides = ["source.name=array", f"source.path={tmp_path / 'a.npy'}"]
    train(recipe.load("mnif:tiny", overrides), str(tmp_path / "run"), stage="field")
    np.save(tmp_path / "a.npy", data[::-1].copy())
    with pytest.raises(InputError, match="the data of the run .* have changed: fingerprint"):
        train(None, str(tmp_path / "run"), resume=True)


def test_classes_of_the_same_data_may_be_renamed():
    """Runs of before knew the classes of a Hugging Face set by their numbers."""
    run = {"known": {"classes": 2, "names": ["0", "1"], "fingerprint": "ab"}}
    check_same_data(run, {"classes": 2, "names": ["cat", "dog"], "fingerprint": "ab"})
    with pytest.raises(InputError, match="have changed: names was"):
        check_same_data(run, {"classes": 2, "names": ["cat", "dog"], "fingerprint": "cd"})


def test_one_datum_trains_a_field_but_no_prior(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((1, 8, 8), np.uint8))
    overrides = [
        "source.name=array",
        f"source.path={tmp_path / 'one.npy'}",
        "source.split=[1.0, 0.0]",
    ]
    loaded = recipe.load("mnif:tiny", overrides)
    with pytest.raises(InputError, match="a prior cannot be trained on 1 datum"):
        train(loaded, str(tmp_path / "run"))
    system = train(loaded, str(tmp_path / "run"), stage="field")
    with pytest.raises(InputError, match="the prior is not trained yet"):
        system.sample(1)


def test_a_torn_line_of_the_log_is_forgotten(tmp_path):
    run = Run(tmp_path)
    run.append_log({"stage": "field", "step": 5})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": "field", "st')
    assert run.read_log() == [{"stage": "field", "step": 5}]


def test_a_finished_run_is_not_overwritten(tiny_run):
    before = {p.name: p.stat().st_mtime_ns for p in tiny_run.iterdir()}
    with pytest.raises(InputError, match="holds a run already"):
        train(recipe.load("mnif:tiny"), str(tiny_run))
    assert before == {p.name: p.stat().st_mtime_ns for p in tiny_run.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_resume_continues(tmp_path, number):
    arguments = ["--set", "train.field.steps=100000", "--set", "train.field.log_every=1"]
    command = [
        sys.executable,
        "-m",
        "fieldloom",
        "train",
        "mnif:tiny",
        "--run",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "--resume goes on from here" in errors
    assert "Traceback" not in errors
    state = Run(tmp_path / "run").read_state("field")
    assert state is not None
    assert state[1]["step"] == Run(tmp_path / "run").read_log()[-1]["step"]


def test_bfloat16_trains_close_to_float32(tmp_path):
    losses = []
    for precision in ("float32", "bfloat16"):
        run = tmp_path / precision
        train(
            recipe.load("mnif:tiny", [f"train.field.precision={precision}"]),
            str(run),
            stage="field",
        )
        losses.append(Run(run).read_log()[-1]["loss"])
    assert losses[0] != losses[1]
    assert math.isclose(losses[0], losses[1], rel_tol=0.2)


def test_autodecoding_trains_a_table(tmp_path):
    loaded = recipe.load(
        "mnif:tiny",
        [
            "encoder={ name = 'autodecode', std = 0.01, unseen = { name = 'fit', steps = 5 } }",
            "objective={ name = 'reconstruction', penalty = { name = 'l2', weight = 1e-3 } }",
            "train.field.groups.codes={ name = 'sgd', rate = 0.5, schedule = 'constant' }",
        ],
    )
    system = train(loaded, str(tmp_path / "run"))
    assert system.encoder.table.shape == (1438, 1, 8)
    codes, labels, *_ = Run(tmp_path / "run").read_codes()
    torch.testing.assert_close(codes, system.encoder.table.detach())
    assert labels.shape == (1438,)


def test_interrupted_is_not_a_failure():
    assert issubclass(Interrupted, FieldloomError)
    assert not issubclass(Interrupted, InputError)


@pytest.mark.parametrize("spec", ["'gaussian'", "{ name = 'neighbours', codec = 'whiten' }"])
def test_priors_of_closed_form_are_fitted_and_come_back(tmp_path, spec):
    folder = tmp_path / "run"
    system = train(recipe.load("mnif:tiny", [f"prior={spec}", FEW]), str(folder))
    twin = Run(folder).read_system("cpu")
    drawn = system.sample(4, label=3, seed=1)
    assert drawn.shape == (4, 1, 8, 8)
    assert torch.equal(twin.sample(4, label=3, seed=1).tensor, drawn.tensor)
    assert Run(folder).read_log()[-1]["stage"] == "field"  # nothing to minimise in stage prior


@pytest.mark.slow
def test_a_killed_run_goes_on_between_stages(tmp_path, monkeypatch, whole):
    """Killed when the codes of a finished field are not kept yet, or kept and fitted."""
    loaded = recipe.load("mnif:tiny", [FEW])
    for place in ("training_codes", "train_on_codes"):
        folder = str(tmp_path / place)

        def die(*rest):
            raise Stop

        with monkeypatch.context() as patch:
            patch.setattr(trains, place, die)
            with pytest.raises(Stop):
                train(loaded, folder)
        same_tensors(whole, train(None, folder, resume=True).state_dict())
