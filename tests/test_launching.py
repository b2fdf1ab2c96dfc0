"""Several processes train one run: the same as one, stopped, resumed by fewer, and cut short."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fieldloom
from fieldloom.engine.ranks import Place, free_port
from fieldloom.errors import InputError
from fieldloom.launching import together
from processes import STEPS

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent / "src")}
NAMES = [
    "gasp:tiny",
    "gem:tiny",
    "mnif:tiny",
    "gem:shapes",
    "gem:plain",
    "gasp:points",
    "gasp:patches",
    "gem:lle",
    "functa:tiny",
    "laginr:tiny",
    "weights:tiny",
]
"""Cases of ``processes.py``, of which two processes are tried."""


def run_job(count, *words, elsewhere=False):
    """Run ``processes.py`` by so many processes; their messages, the first one's first.

    elsewhere: whether the last one has other data, so that all fail.
    """
    place = Place(0, count, 0, "127.0.0.1", free_port())
    several = [place._replace(rank=i, local=i).environment() for i in range(count)]
    if elsewhere:
        several[-1]["ELSEWHERE"] = "yes"
    jobs = [
        subprocess.Popen(
            [sys.executable, str(HERE / "processes.py"), *map(str, words)],
            env=ENVIRONMENT | (own if count > 1 else {}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for own in several
    ]  # fmt: skip
    try:
        said = [job.communicate(timeout=900)[0] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert [job.returncode for job in jobs] == [int(elsewhere)] * count, said
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    run_job(1, folder, 0, *NAMES)
    return folder


def difference(first, second):
    """How far the weights of two runs are apart, relative to their norm."""
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert a.keys() == b.keys()
    assert all(x.dtype == torch.float64 for x in a.values() if x.numel() and x.is_floating_point())
    flat = lambda weights: torch.cat([weights[name].double().flatten() for name in a])
    return ((flat(a) - flat(b)).norm() / flat(a).norm()).item()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory, alone):
    """The same runs of two processes, and codes that they find for a run of one: folder, codes."""
    folder = tmp_path_factory.mktemp("by-two")
    shutil.copytree(alone / "functa:tiny", folder / "codes")
    (folder / "codes" / "codes.safetensors").unlink()
    said = run_job(2, folder, 0, *NAMES, "gem:minutes", f"codes={folder / 'codes'}")
    assert not any(said[1:])  # one process speaks
    assert "processes work" not in said[0]
    # that of laginr mixes float32 with these runs' float64, and is left out with a warning
    # that of the budget may come after another step where the machine is busy
    assert said[0].count("preview after step 1") in (len(NAMES) - 1, len(NAMES))
    return folder


def check_equal(first, second):
    assert difference(first, second) < 1e-10, first.name
    one, other = (fieldloom.load(folder) for folder in (first, second))
    assert one.finished == other.finished


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_change_rounding_alone(alone, by_two, name):
    check_equal(alone / name, by_two / name)


def test_trial_steps_of_a_budget_leave_no_trace(alone, by_two):
    logs = [
        (folder / "log.jsonl").read_text()
        for folder in (alone / "gem:plain", by_two / "gem:minutes")
    ]
    one, two = (json.loads(log.splitlines()[0]) for log in logs)
    assert one["step"] == two["step"] == 1
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-10)


def test_codes_between_stages_are_those_of_one_process_to_the_bit(alone, by_two):
    """Two shards, of which the second process finds one."""
    names = ("functa:tiny/codes.safetensors", "codes/codes.safetensors")
    one, two = (
        load_file(folder / name) for folder, name in zip((alone, by_two), names, strict=True)
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_machine_with_other_data_ends_all(tmp_path):
    said = run_job(2, tmp_path, 0, "gasp:tiny", elsewhere=True)
    assert "another process of this training ended" in said[0]
    assert f"process 1 of 2, on {socket.gethostname()}: the data of the run have changed" in said[1]


def test_a_run_stopped_by_four_goes_on_by_two(alone, tmp_path):
    """Of a table of codes four held a quarter each, with its moments and averages. What nobody
    stops they train to its end."""
    names = ["gem:plain", "gem:tiny", "gasp:tiny", "mnif:tiny"]
    run_job(4, tmp_path, 3, *names, "mnif:whole")
    check_equal(alone / "mnif:tiny", tmp_path / "mnif:whole")
    for name in names:
        assert (tmp_path / name / "state.safetensors").is_file()
        assert not (tmp_path / name / "model.safetensors").exists()
    run_job(2, tmp_path, 0, *names)
    for name in names:
        check_equal(alone / name, tmp_path / name)
        steps = [x["step"] for x in fieldloom.engine.run.Run(tmp_path / name).read_log()]
        assert steps[:STEPS] == [*range(1, STEPS + 1)]


def test_processes_from_the_command_line(cli, tmp_path):
    """This process starts the other, which a SIGKILL ends; the checkpoint is whole."""
    words = ["train", "mnif:tiny", "--processes", "2", "--set", "train.field.steps=100000", "--run"]
    job = subprocess.Popen(
        [sys.executable, "-m", "fieldloom", *words, str(tmp_path / "run")],
        env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    state = tmp_path / "run" / "state.safetensors"
    began = time.monotonic()
    while not state.is_file():
        assert job.poll() is None
        assert time.monotonic() - began < 600
        time.sleep(0.1)
    (other,) = children(job.pid)
    os.kill(other, signal.SIGKILL)
    error = job.communicate(timeout=300)[1]
    assert job.returncode == 1
    assert error.splitlines()[-1].startswith("error: another process of this training ended")
    before = load_file(state)
    assert before
    words = ["train", "--resume", "--finish", "--run", str(tmp_path / "run"), "--stage", "field"]
    cli(*words)
    assert fieldloom.load(tmp_path / "run").finished == ["field"]


def children(process):
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == process:
            found.append(int(path.parent.name))
    return found


def test_numbers_of_processes_that_make_no_sense(monkeypatch):
    with pytest.raises(InputError, match="at least 1"), together(0):
        pass
    for name, value in Place(0, 2, 0, "127.0.0.1", 1).environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="the launcher has started 2"), together(3):
        pass
