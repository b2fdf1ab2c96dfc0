"""Ray by a stand-in whose tasks run in turn, and by itself where it is installed."""

import os
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest

import numbers_in_shards as squares
from fieldloom.errors import FieldloomError, InputError
from fieldloom.executors import claims, local
from fieldloom.executors import ray as on_ray


class Ray(ModuleType):
    """What the executor asks of Ray. A task runs when it is waited for; ``lost`` ones die."""

    def __init__(self, lost=()):
        super().__init__("ray")
        self.settings, self.most, self.lost, self.down = {}, 0, set(lost), False

    def is_initialized(self):
        return False

    def init(self, **settings):
        self.settings = settings

    def shutdown(self):
        self.down = True

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_retries": 3}

        def task(function):
            task.remote = lambda *arguments: (function, arguments)
            return task

        return task

    def wait(self, running, num_returns, timeout):
        self.most = max(self.most, len(running))
        return running[:1], running[1:]

    def get(self, one):
        function, arguments = one
        if arguments[1] in self.lost:
            raise RuntimeError("WorkerCrashedError")
        return function(*arguments)


@pytest.fixture
def straight(tmp_path):
    work = squares.job(tmp_path / "straight")
    local.run(work)
    return squares.results(work.folder)


def installed(monkeypatch, lost=()) -> Ray:
    found = Ray(lost)
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.setattr(on_ray, "count_cores", lambda: 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    on_ray._started.cache_clear()
    return found


def test_each_shard_is_a_task(tmp_path, straight, monkeypatch):
    found = installed(monkeypatch)
    work = squares.job(tmp_path / "job")
    on_ray.run(work, 3)
    assert squares.results(work.folder) == straight
    assert (found.most, found.settings["num_cpus"], found.down) == (3, 3, True)
    assert on_ray._started.cache_info().misses == 1  # loaded once


def test_it_never_takes_all_cores_of_a_machine(tmp_path, monkeypatch):
    found = installed(monkeypatch)
    on_ray.run(squares.job(tmp_path / "job"), 64)
    assert found.settings["num_cpus"] == 7
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    on_ray.run(squares.job(tmp_path / "other"), 64)
    assert found.settings == {"address": "auto", "log_to_driver": False}


def test_a_lost_worker_and_a_full_disk_are_named(tmp_path, straight, monkeypatch):
    installed(monkeypatch, lost=[2])
    folder = tmp_path / "job"
    with pytest.raises(FieldloomError, match="1 of 7 shards are not done: .*WorkerCrashed"):
        on_ray.run(squares.job(folder), 2)
    installed(monkeypatch)
    with pytest.raises(FieldloomError, match="00002, on .*because the disk is full"):
        on_ray.run(squares.job(folder, full=(2,)), 2)
    on_ray.run(squares.job(folder), 2)
    assert squares.results(folder) == straight


def test_a_shard_that_another_command_does_is_waited_for(tmp_path, straight, monkeypatch):
    installed(monkeypatch)
    work = squares.job(tmp_path / "job")
    held = [claims.take(work.folder, "00005")]
    monkeypatch.setattr(on_ray.time, "sleep", lambda s: s and held and claims.release(held.pop()))
    on_ray.run(work, 2)
    assert squares.results(work.folder) == straight
    assert squares.done_by(work.folder)[-1][0] == 5


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'fieldloom\[ray\]'"):
        on_ray.run(squares.job(tmp_path / "job"), 2)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_on_this_machine(tmp_path, straight, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(on_ray, "count_cores", lambda: 3)
    work = squares.job(tmp_path / "job", seconds=0.1)
    on_ray.run(work, 2)
    assert squares.results(work.folder) == straight
