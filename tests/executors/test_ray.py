"""Ray: one cluster of this machine for real jobs, and what is handed out by a stand-in."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace

import pytest

import numbers_in_shards as squares
from fieldloom.errors import FieldloomError, InputError, Interrupted
from fieldloom.executors import children, claims, local
from fieldloom.executors import ray as on_ray
from fieldloom.executors.work import Work, count_done, is_settled, read_failure

real = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


class Ray(ModuleType):
    """What ``hand_out`` asks of Ray. A task runs when it is waited for, on a node after the other
    of those that it may run on; tasks of the shards ``lost`` die."""

    class exceptions(ModuleType):
        TaskCancelledError = type("TaskCancelledError", (Exception,), {})
        WorkerCrashedError = type("WorkerCrashedError", (Exception,), {})
        NodeDiedError = OutOfMemoryError = WorkerCrashedError

    def __init__(self, lost=(), nodes=({"CPU": 8.0},)):
        super().__init__("ray")
        self.lost, self.most, self.options, self.shut, self.turn = set(lost), 0, {}, "", 0
        self.own = nodes

    def remote(self, **options):
        self.options = options
        return lambda function: self._task(function, "")

    def _task(self, function, shut):
        return SimpleNamespace(
            remote=lambda *given: (function, given, shut),
            options=lambda label_selector: self._task(function, label_selector["ray.io/node-id"]),
        )

    def nodes(self):
        named = enumerate(self.own)
        return [{"Alive": True, "NodeID": f"n{i}", "Resources": own} for i, own in named]

    def cluster_resources(self):
        return {key: sum(own.get(key, 0) for own in self.own) for key in ("CPU", "GPU")}

    def wait(self, running, num_returns, timeout):
        self.most = max(self.most, len(running))
        return running[:1], running[1:]

    def get(self, one):
        function, given, shut = one
        if given[1] in self.lost:
            raise self.exceptions.WorkerCrashedError("the worker died")
        names = [node["NodeID"] for node in self.nodes() if node["NodeID"] not in shut]
        self.turn += 1
        self.node = names[self.turn % len(names)]
        return function(*given)

    def cancel(self, one):
        pass

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: self.node)


@pytest.fixture
def stand_in(monkeypatch):
    def make(**settings) -> Ray:
        found = Ray(**settings)
        monkeypatch.setitem(sys.modules, "ray", found)
        monkeypatch.setattr(on_ray, "POLL", 0.01)
        on_ray._started.cache_clear()
        return found

    return make


def hand_out(ray: Ray, work: Work, workers: int | None = None) -> list[str]:
    return on_ray.hand_out(ray, work, on_ray.pack(work), workers)


@pytest.fixture
def straight(tmp_path):
    work = squares.job(tmp_path / "straight")
    local.run(work)
    return squares.results(work.folder)


def test_each_shard_is_a_task(tmp_path, straight, stand_in):
    found = stand_in()
    work = squares.job(tmp_path / "job")
    assert hand_out(found, work, 3) == []
    assert squares.results(work.folder) == straight
    assert found.most == 3
    assert on_ray._started.cache_info().misses == 1  # loaded once
    assert (found.options["num_cpus"], found.options["num_gpus"]) == (1, 0)


def test_it_never_takes_all_cores_of_a_machine(tmp_path, stand_in):
    found = stand_in(nodes=({"CPU": 4.0}, {"CPU": 1.0}, {"CPU": 0.0}, {}))
    assert on_ray.count_places(found, 0) == 4
    hand_out(found, squares.job(tmp_path / "job"))
    assert found.most == 4


def test_a_task_has_a_gpu_where_there_are_some(tmp_path, stand_in):
    found = stand_in(nodes=({"CPU": 8.0, "GPU": 2.0}, {"CPU": 2.0, "GPU": 2.0}, {"CPU": 8.0}))
    hand_out(found, squares.job(tmp_path / "job"))
    assert found.options["num_gpus"] == 1
    assert found.options["max_calls"] == 0  # the process keeps what it loaded
    assert found.most == 3


def test_a_shard_whose_tasks_die_is_named(tmp_path, straight, stand_in):
    found = stand_in(lost=[2])
    work = squares.job(tmp_path / "job")
    assert hand_out(found, work, 2) == ["WorkerCrashedError: the worker died"]
    assert count_done(work) == 6
    assert is_settled(work, 2)  # for other commands, too
    assert "the worker died" in read_failure(work.folder, 2).why


def test_a_node_with_a_full_disk_gets_no_more_shards(tmp_path, straight, stand_in, monkeypatch):
    """Its shards are done by the other node."""
    found = stand_in(nodes=({"CPU": 2.0}, {"CPU": 2.0}))
    write, written = squares.atomic.write_text, []

    def full(content, path):
        if found.node == "n1" and path.suffix == ".squares":
            raise OSError(28, "No space left on device", str(path))
        written.append(found.node)
        return write(content, path)

    monkeypatch.setattr(squares.atomic, "write_text", full)
    work = squares.job(tmp_path / "job")
    (why,) = hand_out(found, work, 1)
    assert "the disk is full" in why
    assert squares.results(work.folder) == straight
    monkeypatch.setattr(found, "own", ({"CPU": 2.0},))
    full_all = squares.job(tmp_path / "all", full=tuple(range(7)))
    assert len(hand_out(found, full_all, 1)) == 1  # the last node is shut: no other shard is tried
    assert count_done(full_all) == 0


def test_a_node_that_cannot_load_gets_no_shard(tmp_path, stand_in, monkeypatch):
    found = stand_in()

    def cannot():
        raise InputError("'runs/x' is not there.")

    work = Work(tmp_path, 3, cannot)
    monkeypatch.setattr(on_ray, "_started", lambda pickled: (work, work.start()))
    (why,) = on_ray.hand_out(found, work, b"", 1)
    assert f"'runs/x' is not there, on {socket.gethostname()}" in why


def test_a_shard_that_another_command_does_is_waited_for(tmp_path, straight, stand_in, monkeypatch):
    found = stand_in()
    work = squares.job(tmp_path / "job")
    held = [claims.take(work.folder, "00005")]
    monkeypatch.setattr(on_ray.time, "sleep", lambda s: s and held and claims.release(held.pop()))
    hand_out(found, work, 2)
    assert squares.results(work.folder) == straight
    assert squares.done_by(work.folder)[-1][0] == 5


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'fieldloom\[ray\]'"):
        on_ray.run(squares.job(tmp_path / "job"), 2)


@real
def test_a_cluster_that_does_not_answer(tmp_path, monkeypatch):
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # no one listens there
        address = f"127.0.0.1:{place.getsockname()[1]}"
        for wrong in (address, f"ray://{address}", "nonsense", "127.0.0.1:x"):
            monkeypatch.setenv("RAY_ADDRESS", wrong)
            with pytest.raises(InputError, match=f"RAY_ADDRESS = '{wrong}': no cluster"):
                on_ray.run(squares.job(tmp_path / "job"), 2)


# -- the real one

CLUSTER = """
import sys, ray
own, store = sys.argv[1:]
found = ray.init(num_cpus=2, object_store_memory=int(store), include_dashboard=False,
                 log_to_driver=False, logging_level="error", _temp_dir=own)
print(found.address_info["address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two cores, on the loopback, until the module's tests are over: its address, and the
    folder of its files."""
    environment = os.environ | on_ray.ALONE | {"RAY_AUTH_MODE": "disabled"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as own:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, own, str(on_ray.STORE)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        try:
            yield process.stdout.readline().strip(), own
        finally:
            process.stdin.close()
            process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def at(cluster, monkeypatch) -> str:
    """A job meets the cluster by its address, as users' jobs do. Returns the folder."""
    address, own = cluster
    for key, value in {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # it listens on the loopback
    return own


def living(folder: Path) -> list[int]:
    return [claim.process for claim, lives in claims.read_holders(folder).values() if lives]


def wait_for(condition) -> None:
    end = time.monotonic() + 300
    while not condition():  # asked once: it may be true for a moment alone
        assert time.monotonic() < end
        time.sleep(0.02)


def in_a_thread(work: Work, workers: int) -> tuple[Thread, list[Exception]]:
    errors: list[Exception] = []

    def call() -> None:
        try:
            on_ray.run(work, workers)
        except FieldloomError as error:
            errors.append(error)

    thread = Thread(target=call)
    thread.start()
    return thread, errors


@real
def test_the_shard_of_a_killed_worker_is_done_again(tmp_path, straight, at, monkeypatch):
    """Paths may be of the folder that the command was given in."""
    monkeypatch.chdir(tmp_path)
    work = squares.job(Path("job"), held=0)
    thread, errors = in_a_thread(work, 2)
    wait_for(lambda: len(living(work.folder)) == 2)
    os.kill(living(work.folder)[0], signal.SIGKILL)
    squares.let_go(work.folder)
    thread.join()
    assert errors == []
    assert squares.results(work.folder) == straight
    assert os.getpid() not in {process for _, process in squares.done_by(work.folder)}


@real
def test_a_request_to_stop_reaches_shards_within(tmp_path, straight, at, monkeypatch):
    work = Work(tmp_path / "job", 5, squares.start_patient)
    work.folder.mkdir()
    asked = lambda: len(living(work.folder)) == 2
    monkeypatch.setattr(children.stopping, "stop_requested", asked)
    began = time.monotonic()
    with pytest.raises(Interrupted, match="stopped with 0 of 5 shards done"):
        on_ray.run(work, 2)
    assert time.monotonic() - began < squares.PATIENCE
    assert list(work.folder.iterdir()) == []  # no claim, and no failure


@real
def test_what_a_shard_raises_is_named_and_the_others_are_done(tmp_path, at):
    (tmp_path / "job").mkdir()
    work = Work(tmp_path / "job", 5, partial(squares.start_wrong, tmp_path / "job"))
    with pytest.raises(FieldloomError, match="00003, on .*ValueError: three is wrong"):
        on_ray.run(work, 2)
    assert count_done(work) == 4


@real
def test_the_head_of_the_cluster_dies(tmp_path, straight, at, monkeypatch):
    """It is the last test of this cluster. Ray's client ends its process; the command goes on."""
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "2")
    work = squares.job(tmp_path / "job", count=500, held=0)
    thread, errors = in_a_thread(work, 2)
    wait_for(lambda: len(living(work.folder)) == 2)
    (head,) = [p for p, said in processes() if "gcs_server" in said and at in said]
    os.kill(head, signal.SIGKILL)
    thread.join()
    said = "of 500 shards are not done: the process that speaks to Ray ended with status"
    assert said in str(errors[0])
    assert "the same command goes on from here" in str(errors[0])


def processes() -> list[tuple[int, str]]:
    """Number and words of each process of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.append((int(path.name), (path / "cmdline").read_bytes().decode(errors="replace")))
    return found


PROGRAM = """
import sys
from pathlib import Path
import numbers_in_shards as squares
from fieldloom.executors import ray
ray.count_cores = lambda: 3
ray.run(squares.job(Path(sys.argv[1]), held=0), 64)
"""


@real
@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_ray_on_this_machine_leaves_nothing_behind(tmp_path, straight, monkeypatch, killed):
    """Neither at the end of a job, nor where the command is killed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as own:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": own}
        environment |= {"HOME": own}
        environment.pop("RAY_ADDRESS", None)
        folder = tmp_path / "job"
        folder.mkdir()
        words = [sys.executable, "-c", PROGRAM, str(folder)]
        command = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: len(living(folder)) == 2)
        started = [number for number, said in processes() if own in said or "ray::" in said]
        assert len(started) > 4
        if killed:
            command.kill()
        squares.let_go(folder)  # what is within a shard ends it
        said = command.communicate()[1]
        if not killed:
            assert "Ray has 2 of this machine's cores, and leaves one" in said
            assert squares.results(folder) == straight
            assert os.listdir(own) == []  # nor a token of Ray in the home
        end = time.monotonic() + 300
        while any(own in words for _, words in processes()) and time.monotonic() < end:
            time.sleep(0.2)
        assert not any(own in words for _, words in processes())
        assert not living(folder)
