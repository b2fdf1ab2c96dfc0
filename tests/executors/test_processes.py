"""Workers that are processes: killed, stopped, on a full disk, and two jobs on one folder."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

import numbers_in_shards as squares
from fieldloom.errors import FieldloomError, Interrupted
from fieldloom.executors import claims, local, processes, worker
from fieldloom.executors.work import Work, count_done, is_done, read_failures


@pytest.fixture
def straight(tmp_path):
    """What an undisturbed job of this process writes."""
    work = squares.job(tmp_path / "straight")
    local.run(work)
    return squares.results(work.folder)


def test_two_workers_do_each_shard_once(tmp_path, straight):
    work = squares.job(tmp_path / "job", seconds=0.05)
    processes.run(work, 2)
    assert squares.results(work.folder) == straight
    numbers, workers = zip(*squares.done_by(work.folder), strict=True)
    assert sorted(numbers) == list(range(7))
    assert os.getpid() not in workers
    processes.run(work, 2)  # nothing is left
    assert len(squares.done_by(work.folder)) == 7


def test_a_shard_that_fails_is_named_and_the_others_are_done(tmp_path):
    (tmp_path / "job").mkdir()
    work = Work(tmp_path / "job", 5, partial(squares.start_wrong, tmp_path / "job"))
    said = "1 of 5 shards are not done; 1 failed, the first, 00003, on .*ValueError: three is wrong"
    with pytest.raises(FieldloomError, match=said):
        processes.run(work, 2)
    assert count_done(work) == 4
    assert list(read_failures(work.folder, 5)) == [3]
    assert not claims.read_holders(work.folder)


def test_a_full_disk_ends_a_worker_and_loses_nothing(tmp_path, straight):
    folder = tmp_path / "job"
    with pytest.raises(FieldloomError, match=r"00002, on .*because the disk is full \('.*00002"):
        processes.run(squares.job(folder, full=(2,)), 1)
    assert sorted(n for n, _ in squares.done_by(folder)) == [0, 1]
    processes.run(squares.job(folder), 1)  # the same command, once there is room
    assert squares.results(folder) == straight  # the note of the failure is gone, too


def workers_of(folder: Path) -> list[int]:
    return [claim.process for claim, lives in claims.read_holders(folder).values() if lives]


def in_a_thread(work: Work, workers: int) -> tuple[Thread, list[Exception]]:
    errors: list[Exception] = []

    def call() -> None:
        try:
            processes.run(work, workers)
        except FieldloomError as error:
            errors.append(error)

    thread = Thread(target=call)
    thread.start()
    return thread, errors


def wait_for_workers(folder: Path, count: int) -> list[int]:
    end = time.monotonic() + 300
    while len(found := workers_of(folder)) < count and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_the_shard_of_a_killed_worker_is_done_by_another(tmp_path, straight):
    work = squares.job(tmp_path / "job", held=0)
    thread, errors = in_a_thread(work, 2)
    victim = wait_for_workers(work.folder, 2)[0]
    os.kill(victim, signal.SIGKILL)
    squares.let_go(work.folder)
    thread.join()
    assert errors == []
    assert squares.results(work.folder) == straight
    assert {worker for _, worker in squares.done_by(work.folder)} != {victim}


def test_a_shard_that_kills_its_workers_is_left_to_the_last(tmp_path):
    """As one that needs more memory than there is: the others are done."""
    folder = tmp_path / "job"
    folder.mkdir()
    work = Work(folder, 7, partial(squares.start_deadly, folder))
    with pytest.raises(FieldloomError, match="1 of 7 shards are not done: .* ended by SIGKILL"):
        processes.run(work, 2)
    assert [n for n in range(7) if not is_done(work, n)] == [0]


def test_the_shard_of_a_node_that_vanished(tmp_path, straight, monkeypatch):
    """Nothing is known of another host but that it is silent; meanwhile its shard is waited for."""
    work = squares.job(tmp_path / "job")
    claim = claims.take(work.folder, "00002")
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"host": "a node"}))
    waits = []

    def vanish(seconds: float) -> None:
        if seconds:  # not that of a shard
            waits.append(count_done(work))
            os.utime(claim, (0, 0))

    monkeypatch.setattr(worker.time, "sleep", vanish)
    local.run(work)
    assert waits == [6]
    assert squares.results(work.folder) == straight
    assert squares.done_by(work.folder)[-1][0] == 2


@pytest.mark.parametrize("most", [4, pytest.param(40, marks=pytest.mark.soak)])
def test_workers_killed_at_random_moments(tmp_path, straight, most):
    """Kills of one worker or of both; the same command goes on until all is done."""
    folder, draw, kills, calls = tmp_path / "job", random.Random(0), 0, 0
    while kills < most:
        work = squares.job(folder, seconds=0.1)
        thread, errors = in_a_thread(work, 2)
        calls += 1
        while thread.is_alive() and kills < most:
            time.sleep(draw.uniform(0.0, 0.25))
            for victim in workers_of(folder)[: draw.choice((1, 1, 2))]:
                os.kill(victim, signal.SIGKILL)
                kills += 1
        thread.join()
        claims.sweep(folder)
        assert errors or squares.results(folder) == straight
        assert all("SIGKILL" in str(error) for error in errors)
        if not errors and kills < most:  # once more from the start
            for path in folder.iterdir():
                path.unlink()
    processes.run(squares.job(folder), 2)
    assert squares.results(folder) == straight
    assert calls > 1


PROGRAM = """
import sys
import numbers_in_shards as squares
from pathlib import Path
from fieldloom.errors import Interrupted
from fieldloom.executors import processes
try:
    processes.run(squares.job(Path(sys.argv[1]), held=2), 2)
except Interrupted as stop:
    sys.exit(str(stop))
"""


def program(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", PROGRAM, str(folder)]
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("run", [partial(processes.run, workers=1), local.run])
def test_two_jobs_on_one_folder_share_its_shards(tmp_path, straight, run):
    folder = tmp_path / "job"
    folder.mkdir()
    other = program(folder)
    wait_for_workers(folder, 1)
    squares.let_go(folder)
    run(squares.job(folder, seconds=0.05))
    assert other.wait(300) == 0, other.stderr.read()
    assert squares.results(folder) == straight
    assert sorted(number for number, _ in squares.done_by(folder)) == list(range(7))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_stop_with_the_first_process(tmp_path, straight, how):
    folder = tmp_path / "job"
    folder.mkdir()
    first = program(folder)
    workers = wait_for_workers(folder, 2)
    first.send_signal(how)
    first.wait(300)
    said = first.stderr.read()
    if how == signal.SIGTERM:
        assert "stopped with" in said
    end = time.monotonic() + 300
    while any(claims.birth(worker) for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(claims.birth(worker) for worker in workers)
    assert count_done(squares.job(folder)) == 2
    assert not workers_of(folder)
    local.run(squares.job(folder))
    assert squares.results(folder) == straight


def test_a_request_to_stop_within_a_shard(tmp_path):
    """What a shard raises as Interrupted ends the worker, and is no failure."""

    def stops(number):
        raise Interrupted("stopped within")

    (tmp_path / "job").mkdir()
    work = Work(tmp_path / "job", 2, lambda: stops)
    with pytest.raises(Interrupted, match="within"):
        local.run(work)
    assert list(work.folder.iterdir()) == []
