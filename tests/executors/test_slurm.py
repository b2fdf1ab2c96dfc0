"""SLURM through submitit: its own local tasks, and a cluster whose commands are stand-ins."""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

import numbers_in_shards as squares
import slurm_by_hand
from fieldloom.errors import FieldloomError, InputError, Interrupted
from fieldloom.executors import claims, local, slurm
from fieldloom.executors.work import Work, count_done, is_settled

submitit = pytest.importorskip("submitit", reason="submitit is not installed")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(slurm, "POLL", 0.1)
    monkeypatch.setattr(slurm, "QUEUE", 0.3)


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """The folder of a cluster's state, whose commands are found."""
    folder = tmp_path / "cluster"
    bin = slurm_by_hand.install(folder)
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    yield folder
    slurm_by_hand.scancel(folder, "7")


@pytest.fixture
def straight(tmp_path):
    work = squares.job(tmp_path / "straight")
    local.run(work)
    return squares.results(work.folder)


def in_a_thread(work: Work, workers: int) -> tuple[Thread, list[Exception]]:
    errors: list[Exception] = []

    def call() -> None:
        try:
            slurm.run(work, workers)
        except FieldloomError as error:
            errors.append(error)

    thread = Thread(target=call)
    thread.start()
    return thread, errors


def wait_for(condition) -> None:
    end = time.monotonic() + 300
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def living(folder: Path) -> list[int]:
    return [claim.process for claim, lives in claims.read_holders(folder).values() if lives]


def test_an_array_does_each_shard_once(tmp_path, straight, cluster):
    work = squares.job(tmp_path / "job", seconds=0.1)
    old = work.folder / "slurm-a-1"  # of a command that ended early
    old.mkdir()
    slurm.run(work, 3)
    assert squares.results(work.folder) == straight  # the logs are gone
    numbers, workers = zip(*squares.done_by(work.folder), strict=True)
    assert sorted(numbers) == list(range(7))
    assert len(set(workers)) > 1
    options = json.loads((cluster / "options").read_text())
    assert (options["array"], options["time"], options["job-name"]) == (
        "0-2%3",
        "1440",
        "fieldloom",
    )
    (cluster / "options").unlink()
    slurm.run(work, 2)  # nothing is left to submit
    assert not (cluster / "options").exists()


def test_the_shard_of_a_killed_task_is_done_by_another(tmp_path, straight, cluster):
    work = squares.job(tmp_path / "job", held=0)
    thread, errors = in_a_thread(work, 2)
    wait_for(lambda: len(living(work.folder)) == 2)
    os.kill(living(work.folder)[0], signal.SIGKILL)
    squares.let_go(work.folder)
    thread.join()
    assert not errors
    assert squares.results(work.folder) == straight


def test_an_array_that_ends_early_is_noticed_without_accounting(tmp_path, straight, cluster):
    """There is no sacct; squeue says that no task is left."""
    work = squares.job(tmp_path / "job", held=0)
    thread, errors = in_a_thread(work, 1)
    wait_for(lambda: living(work.folder))
    os.kill(living(work.folder)[0], signal.SIGKILL)
    thread.join(300)
    assert "7 of 7 shards are not done: the tasks of SLURM have ended" in str(errors[0])
    assert list(work.folder.glob("slurm-*"))
    slurm.run(squares.job(work.folder), 1)
    assert squares.results(work.folder) == straight


def test_a_request_to_stop_cancels_the_array(tmp_path, cluster, monkeypatch):
    work = squares.job(tmp_path / "job", held=0)
    asked = lambda: bool(living(work.folder))
    monkeypatch.setattr(slurm.stopping, "stop_requested", asked)
    with pytest.raises(Interrupted, match="stopped with 0 of 7 shards done"):
        slurm.run(work, 2)
    wait_for(lambda: not living(work.folder))
    assert count_done(work) == 0
    assert not list(cluster.glob("*.waits"))


def test_a_task_whose_place_another_takes_is_started_again(tmp_path, straight, cluster):
    """SLURM sends SIGUSR2, as at the end of the time; submitit asks to be queued again."""
    work = squares.job(tmp_path / "job", held=2)
    thread, errors = in_a_thread(work, 1)
    wait_for(lambda: count_done(work) == 2 and living(work.folder))
    os.kill(living(work.folder)[0], signal.SIGUSR2)
    squares.let_go(work.folder)
    thread.join()
    assert not errors
    assert (cluster / "requeued").read_text() == "7\n"
    assert squares.results(work.folder) == straight
    assert len({process for _, process in squares.done_by(work.folder)}) == 2


def test_where_a_task_cannot_be_started_again_no_shard_has_failed(tmp_path, straight, cluster):
    work = squares.job(tmp_path / "job", held=0)
    thread, errors = in_a_thread(work, 1)
    wait_for(lambda: living(work.folder))
    (cluster / "refuse").write_text("no")
    os.kill(living(work.folder)[0], signal.SIGUSR2)
    thread.join(300)
    assert "shards are not done: the tasks of SLURM have ended" in str(errors[0])
    assert not any(is_settled(work, n) for n in range(7))
    squares.let_go(work.folder)
    local.run(work)


def test_what_remains_is_said_where_tasks_end(tmp_path, straight, cluster):
    folder = tmp_path / "job"
    with pytest.raises(FieldloomError, match=r"00004, on .*, because the disk is full"):
        slurm.run(squares.job(folder, full=(4,)), 1)
    assert count_done(squares.job(folder)) == 4
    slurm.run(squares.job(folder), 2)
    assert squares.results(folder) == straight


def test_what_sbatch_refuses_is_said(tmp_path, cluster):
    (cluster / "refuse").write_text("sbatch: error: invalid partition specified: gpu")
    work = squares.job(tmp_path / "job")
    with pytest.raises(InputError, match="no task was taken: sbatch: error: invalid partition"):
        slurm.run(work, 2)
    assert list(work.folder.iterdir()) == []


def test_what_slurm_needs(tmp_path, monkeypatch):
    work = squares.job(tmp_path / "job")
    with pytest.raises(InputError, match="needs a number of tasks"):
        slurm.run(work)
    with pytest.raises(InputError, match="there is no sbatch on this machine"):
        slurm.run(work, 2)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'fieldloom\[slurm\]'"):
        slurm.run(work, 2)


def test_submitit_on_this_machine(tmp_path, straight, monkeypatch):
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    work = squares.job(tmp_path / "job", seconds=0.1)
    slurm.run(work, 2)
    assert squares.results(work.folder) == straight
    wrong = squares.job(tmp_path / "wrong")
    failing = Work(wrong.folder, 5, partial(squares.start_wrong, wrong.folder))
    with pytest.raises(FieldloomError, match="00003, on .*ValueError: three is wrong"):
        slurm.run(failing, 1)
    assert count_done(failing) == 4
