"""SLURM by a stand-in of submitit whose tasks are processes of this machine."""

import pickle
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

import numbers_in_shards as squares
from fieldloom.errors import FieldloomError, InputError, Interrupted
from fieldloom.executors import local, slurm
from fieldloom.executors.work import Work, count_done

TASK = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    sys.path = pickle.load(file)
    function, work = pickle.load(file)
function(work)
"""


class Job:
    """A task of an array, as submitit has it."""

    def __init__(self, job_id, path):
        self.job_id = job_id
        self.process = subprocess.Popen([sys.executable, "-c", TASK, str(path)])

    def done(self):
        return self.process.poll() is not None

    def cancel(self, check=True):
        self.process.terminate()
        self.process.wait()


class AutoExecutor:
    made: list["AutoExecutor"] = []

    def __init__(self, folder, cluster=None):
        self.folder, self.cluster, self.parameters = folder, cluster, {}
        self.jobs: list[Job] = []
        AutoExecutor.made.append(self)

    def update_parameters(self, **parameters):
        self.parameters |= parameters

    def map_array(self, function, *arguments):
        self.folder.mkdir()
        for number, work in enumerate(*arguments):
            path = self.folder / f"7_{number}.pkl"
            path.write_bytes(pickle.dumps(sys.path) + pickle.dumps((function, work)))
            self.jobs.append(Job(f"7_{number}", path))
        return self.jobs


@pytest.fixture
def cluster(monkeypatch):
    """A machine with sbatch and submitit."""
    package = ModuleType("submitit")
    package.AutoExecutor = AutoExecutor
    package.helpers = SimpleNamespace(DelayedSubmission=lambda *call: call)
    monkeypatch.setitem(sys.modules, "submitit", package)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(slurm, "POLL", 0.05)
    AutoExecutor.made.clear()
    yield AutoExecutor.made
    for executor in AutoExecutor.made:
        for job in executor.jobs:
            job.cancel()


@pytest.fixture
def straight(tmp_path):
    work = squares.job(tmp_path / "straight")
    local.run(work)
    return squares.results(work.folder)


def test_an_array_does_each_shard_once(tmp_path, straight, cluster):
    work = squares.job(tmp_path / "job", seconds=0.1)
    slurm.run(work, 2)
    assert squares.results(work.folder) == straight  # the logs are gone
    numbers, workers = zip(*squares.done_by(work.folder), strict=True)
    assert sorted(numbers) == list(range(7))
    assert len(set(workers)) == 2
    (executor,) = cluster
    assert executor.cluster == "slurm"
    assert executor.parameters["slurm_array_parallelism"] == 2
    slurm.run(work, 2)  # nothing is left to submit
    assert len(cluster) == 1


def test_what_remains_is_said_where_tasks_end(tmp_path, straight, cluster):
    folder = tmp_path / "job"
    with pytest.raises(FieldloomError, match=r"00004, on .*, because the disk is full"):
        slurm.run(squares.job(folder, full=(4,)), 1)
    assert count_done(squares.job(folder)) == 4
    (logs,) = folder.glob("slurm-*")
    assert (logs / "7_0.pkl").is_file()
    slurm.shutil.rmtree(logs)
    slurm.run(squares.job(folder), 3)
    assert squares.results(folder) == straight


def test_a_request_to_stop_cancels_the_array(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(slurm.stopping, "stop_requested", lambda: True)
    with pytest.raises(Interrupted, match="stopped with . of 7 shards done"):
        slurm.run(squares.job(tmp_path / "job", seconds=0.5), 2)
    assert all(job.done() for job in cluster[0].jobs)


def test_a_task_whose_time_is_over_is_started_again(tmp_path, straight, cluster):
    """Submitit asks for a checkpoint, and ends the process in the midst of a shard."""
    work = squares.job(tmp_path / "job")
    task = slurm.Task()
    ends = Work(work.folder, 7, lambda: lambda number: sys.exit(-1))
    with pytest.raises(SystemExit):
        task(ends)
    assert list(work.folder.iterdir()) == []  # no claim is held, and nothing has failed
    again, *rest = task.checkpoint(work)
    again(*rest)
    assert squares.results(work.folder) == straight


def test_what_slurm_needs(tmp_path, monkeypatch, cluster):
    work = squares.job(tmp_path / "job")
    with pytest.raises(InputError, match="needs a number of tasks"):
        slurm.run(work)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="there is no sbatch on this machine"):
        slurm.run(work, 2)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'fieldloom\[slurm\]'"):
        slurm.run(work, 2)


@pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed")
def test_submitit_on_this_machine(tmp_path, straight, monkeypatch):
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    work = squares.job(tmp_path / "job", seconds=0.1)
    slurm.run(work, 2)
    assert squares.results(work.folder) == straight
