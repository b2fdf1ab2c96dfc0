"""Signals stop a long step, which keeps what it has."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import fieldloom
from fieldloom import recipe, stopping
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors
from fieldloom.errors import Interrupted
from fieldloom.training import train


def asks_after(count, monkeypatch):
    """Let the user ask to stop at the so-manieth look of a long step."""
    looks = []
    plain = stopping.should_pause

    def should_pause():
        looks.append(1)
        if len(looks) == count:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return plain()

    monkeypatch.setattr(stopping, "should_pause", should_pause)


SHORT = [
    "encoder.steps=40",
    "encoder.points=16",
    "encoder.draw=anew",
    "source.split=[40, 10]",
    "encoder.plateau={patience=1, stop=4, factor=0.5}",
    "train.prior.steps=2",
]
MICRO = [
    "train.field.batch=3",
    "train.field.micro=1",
    "encoder.steps=25",
    "encoder.plateau={}",
    "source.split=[3, 1]",
]
NESTED = ["encoder.start={name='fit', steps=5, points=16, draw='anew'}", "encoder.steps=6"]
CASES = {  # the recipe's settings, the stage, and how many signals a stack has
    "long": (SHORT, "all", None),
    "micro": ([*SHORT, *MICRO], "field", None),
    "nested": ([*SHORT, *NESTED], "all", 16),
    "shards": (SHORT, "all", 7),
}  # fmt: skip


def in_stacks(case, patch):
    """Let a fit take so many signals at a time."""
    if (size := CASES[case][2]) is not None:
        patch.setattr("fieldloom.encoders.stacks.CPU_LAYER", 16 * 8 * 4 * size)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The folder of a case's run that nothing stopped, each trained once."""
    root = tmp_path_factory.mktemp("straight")

    def find(case):
        if not (root / case).exists():
            settings, stage, _ = CASES[case]
            with pytest.MonkeyPatch.context() as patch:
                in_stacks(case, patch)
                train(recipe.load("hyperdiffusion:tiny", settings), str(root / case), stage)
        return root / case

    return find


def stop_at(count, case, folder, monkeypatch, sentence):
    """A case's run that is asked to stop at the so-manieth look."""
    settings, stage, _ = CASES[case]
    in_stacks(case, monkeypatch)
    with monkeypatch.context() as patch:
        asks_after(count, patch)
        with pytest.raises(Interrupted, match=sentence):
            train(recipe.load("hyperdiffusion:tiny", settings), str(folder), stage)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 33])
def test_a_long_step_keeps_what_it_has(tmp_path, monkeypatch, straight, count):
    """HyperDiffusion's stage of one step, stopped within it: it ends with the very same weights."""
    run = tmp_path / "run"
    stop_at(count, "long", run, monkeypatch, "stopped within step 1 of 1; --resume goes on")
    state = read_tensors(run / "state.safetensors")
    assert int(state.tensors["paused/loss/step"]) == count - 1
    train(None, str(run), resume=True)
    ours, theirs = (fieldloom.load(x).state_dict() for x in (run, straight("long")))
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 30, 70])
def test_a_step_of_several_micro_batches_keeps_those_that_are_done(
    tmp_path, monkeypatch, straight, count
):
    run = tmp_path / "run"
    stop_at(count, "micro", run, monkeypatch, "stopped within step 1 of 1")
    kept = read_tensors(run / "state.safetensors").tensors
    assert int(kept["paused/micro"]) == (count - 1) // 25
    assert ("paused/grad/0" in kept) == (count > 25)
    train(None, str(run), "field", resume=True)
    ours, theirs = (fieldloom.load(x).state_dict() for x in (run, straight("micro")))
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 8, 14, 20, 31])
def test_a_fit_that_starts_from_a_fit_keeps_what_it_has(tmp_path, monkeypatch, straight, count):
    """The inner one's five steps, the outer one's, stack by stack."""
    run = tmp_path / "run"
    stop_at(count, "nested", run, monkeypatch, "stopped within")
    train(None, str(run), resume=True)
    ours, theirs = (Run(x).read_codes()[0] for x in (run, straight("nested")))
    assert torch.equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("count", [41, 60, 95])
def test_a_long_shard_keeps_what_it_has(tmp_path, monkeypatch, straight, count):
    run = tmp_path / "run"
    sentence = r"stopped within shard \d of \d; --resume goes on"
    stop_at(count, "shards", run, monkeypatch, sentence)
    (paused,) = (run / "codes").glob("*.paused")
    if count == 95:  # torn: the shard is done from its start
        paused.write_bytes(paused.read_bytes()[:99])
    train(None, str(run), resume=True)
    ours, theirs = (Run(x).read_codes()[0] for x in (run, straight("shards")))
    assert torch.equal(ours, theirs)
    assert not (run / "codes").exists()


def test_a_second_signal_ends_at_once():
    with stopping.stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stopping.stop_requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT), time.sleep(5)
    assert not stopping.stop_requested()


def test_what_nobody_would_keep_does_not_pause():
    with stopping.stoppable():
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)
        assert stopping.stop_requested()
        assert not stopping.should_pause()
        with stopping.pausable():
            assert stopping.should_pause()


SLOW = """
import sys, time
import fieldloom.system as systems
plain = systems.System.{method}
def slow(self, *rest, **named):
    print("now", flush=True)
    time.sleep(600)
systems.System.{method} = slow
from fieldloom.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "method", "number"),
    [("sample", "decode", signal.SIGTERM), ("reconstruct", "encode_signal", signal.SIGHUP)],
)
def test_verbs_end_by_any_signal_as_by_ctrl_c(own_run, verb, method, number):
    program = [sys.executable, "-c", SLOW.format(method=method), verb, own_run]
    going = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert going.stdout.readline() == "now\n"
    going.send_signal(number)
    _, said = going.communicate(timeout=300)
    assert going.returncode == 130
    assert said.splitlines()[-1] == "error: stopped; what was finished is kept."
    assert "Traceback" not in said
