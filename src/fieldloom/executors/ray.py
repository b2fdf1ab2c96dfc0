"""Shards as tasks of Ray, on a cluster that runs already, or one of this machine.

What speaks to Ray is a process of its own, which this one follows: Ray's client ends its process
where the cluster is lost, and prints words of its own. Tasks were measured against Ray Data
(docs/decisions.md).
"""

from __future__ import annotations

import os
import pickle
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fieldloom import stopping
from fieldloom.errors import InputError, Interrupted, quote
from fieldloom.executors import claims
from fieldloom.executors.children import Program, be_child, python_path, run_children
from fieldloom.executors.work import (
    Work,
    count_done,
    explain,
    is_of_machine,
    is_settled,
    name_of,
    write_failure,
)
from fieldloom.executors.worker import attempt
from fieldloom.process import count_cores
from fieldloom.progress import announce

PROGRAM = "from fieldloom.executors.ray import main; main()"

ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # of one machine: Ray listens on the loopback alone
    "OMP_NUM_THREADS": "1",
}
"""The environment of a Ray of this machine: it talks to no one else, and a worker has a core."""

STORE = 80 << 20
"""Bytes of Ray's store of objects, otherwise 30 % of the memory: shards go through files."""

LONGEST = 30
"""Characters of a temporary folder in which the names of Ray's sockets still have room."""

POLL = 2.0
"""Seconds between two looks at the tasks, and at shards that other workers hold."""

RETRIES = 3
"""How often Ray repeats a task whose process or node is lost."""

REACH = 10.0
"""Seconds in which a cluster must answer."""


def run(work: Work, workers: int | None = None) -> None:
    """Do each shard as a task of one core, so many at a time; Ray repeats tasks of lost nodes.

    The cluster is that of RAY_ADDRESS, or the one that this process is connected to; otherwise Ray
    starts on this machine, for this job, on all cores but one at most. workers: None: all cores but
    one of each machine. Where the cluster has GPUs, each task has one of them.

    Raises InputError without Ray, or where no cluster answers; Interrupted where the user asks to
    stop, which tasks do within their shards; FieldloomError where shards are left.
    """
    if find_spec("ray") is None:
        raise InputError("executor 'ray' needs Ray: pip install 'fieldloom[ray]'.")
    if count_done(work) == work.count:
        return
    address, spare = find_cluster(), max(1, count_cores() - 1)
    environment = {"PYTHONPATH": python_path()}
    if address:
        environment |= {"RAY_ADDRESS": address}
    else:
        environment |= ALONE | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        if workers is not None and workers > spare:
            announce(f"Ray has {spare} of this machine's cores, and leaves one")
    cores = None if address else min(workers or spare, spare)
    given = (work.folder, work.count, workers, cores, pack(work))
    program = Program(PROGRAM, "the process that speaks to Ray", environment, apart=True)
    run_children(work, program, [pickle.dumps(given)])


def find_cluster() -> str:
    """The address of the cluster; "" where Ray shall start here. Raises InputError where none
    answers there."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address)
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local", "auto"):
        return "" if address == "local" else address
    try:
        place = urlsplit(address if "://" in address else f"ray://{address}")
        socket.create_connection((place.hostname, place.port), REACH).close()
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it has the form HOST:PORT"
        raise InputError(
            f"RAY_ADDRESS = {quote(address)}: no cluster of Ray answers there: {why}."
        ) from None
    return address


def main() -> None:
    """Be the process that speaks to Ray."""
    be_child(_drive, apart=True)


def _drive(given: bytes) -> str:
    """Do the shards by Ray. Returns why it ended early, or ""."""
    folder, count, workers, cores, pickled = pickle.loads(given)
    work = Work(folder, count, _unused)
    import ray

    try:
        with _connected(ray, cores), stopping.stoppable():
            reasons = hand_out(ray, work, pickled, workers or cores)
    except Exception as error:
        return f"Ray has ended: {explain(getattr(error, 'cause', None) or error)}"
    return next(iter(reasons), "")


def _unused() -> Callable[[int], None]:
    raise AssertionError("tasks alone begin a work")


@contextmanager
def _connected(ray: Any, cores: int | None) -> Iterator[None]:
    """A connection to the cluster of RAY_ADDRESS, or to one of so many cores of this machine."""
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if cores is None:
        ray.init(**quiet)
        try:
            yield
        finally:
            ray.shutdown()
        return
    base = tempfile.gettempdir()
    base = base if len(base) < LONGEST else "/tmp"
    with tempfile.TemporaryDirectory(prefix="fl-", dir=base, ignore_cleanup_errors=True) as own:
        ray.init(
            num_cpus=cores,
            object_store_memory=STORE,
            include_dashboard=False,
            _temp_dir=own,
            **quiet,
        )
        try:
            yield
        finally:
            ray.shutdown()


class Told(NamedTuple):
    """What a task says of its shard: ``done``; ``held`` by another worker; ``stopped`` before its
    end; ``failed`` for all; or ``left`` to another machine than this node, which cannot do it."""

    what: str
    why: str = ""
    node: str = ""


def hand_out(ray: Any, work: Work, pickled: bytes, workers: int | None) -> list[str]:
    """Do the shards as tasks, at most ``workers`` at a time; None: as ``count_places``.

    pickled: what ``pack`` makes of the work, for the tasks. A node that cannot compute, as where
    its disk is full, gets no more of them. Returns why nodes and tasks failed.
    """
    gpus = min(1, int(ray.cluster_resources().get("GPU", 0)))
    task = ray.remote(
        num_cpus=1,
        num_gpus=gpus,
        max_calls=0,  # otherwise a process does one task of a GPU, and each would load anew
        max_retries=RETRIES,
        scheduling_strategy="SPREAD",
    )(do_shard)
    most = workers or count_places(ray, gpus)
    left = [number for number in range(work.count) if not is_settled(work, number)][::-1]
    again: dict[int, float] = {}
    running: dict[Any, int] = {}
    shut: set[str] = set()
    reasons: list[str] = []
    stopped = False
    while running or left:
        if not stopped and (stopping.stop_requested() or (shut and not nodes_of(ray, shut))):
            stopped, left = True, []
            for one in running:
                ray.cancel(one)
        while left and len(running) < most and again.get(left[-1], 0.0) <= time.monotonic():
            number = left.pop()
            if not is_settled(work, number):
                running[task.remote(pickled, number)] = number
        if not running:
            time.sleep(POLL if left else 0.0)
            continue
        for one in ray.wait(list(running), num_returns=1, timeout=POLL)[0]:
            number = running.pop(one)
            told = _result(ray, one, work, number)
            if told.what == "held" and not stopped:
                again[number] = time.monotonic() + POLL
                left.insert(0, number)
            elif told.what == "left":
                shut.add(told.node)
                task = task.options(label_selector=_elsewhere(shut))
                reasons.append(told.why)
                left += [] if stopped else [number]
            elif told.what == "failed":
                reasons.append(told.why)
    return reasons


def _result(ray: Any, one: Any, work: Work, number: int) -> Told:
    """What a task says, or what Ray says of it. Raises RayError where no task can be done."""
    errors = ray.exceptions
    try:
        return Told(*ray.get(one))
    except errors.TaskCancelledError:
        return Told("stopped")
    except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
        write_failure(work, number, error)  # so often as Ray repeated it
        return Told("failed", explain(error))


def nodes_of(ray: Any, shut: Collection[str] = ()) -> list[dict[str, Any]]:
    """The nodes of the cluster that compute, without those that are shut."""
    found = (node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in shut)
    return [node for node in found if node["Resources"].get("CPU", 0) >= 1]


def count_places(ray: Any, gpus: int) -> int:
    """How many shards a cluster computes at a time: all cores but one of each node."""
    places = 0
    for node in nodes_of(ray):
        cores, own = (int(node["Resources"].get(key, 0)) for key in ("CPU", "GPU"))
        places += min(max(1, cores - 1), own) if gpus else max(1, cores - 1)
    return places


def _elsewhere(shut: set[str]) -> dict[str, str]:
    """Labels of the nodes that are not shut."""
    return {"ray.io/node-id": f"!in({','.join(sorted(shut))})"}


def pack(work: Work) -> bytes:
    """A work for tasks, which begin in another folder: with the one that its paths may be of."""
    return pickle.dumps((os.getcwd(), pickle.dumps(work)))


@cache
def _started(pickled: bytes) -> tuple[Work, Callable[[int], None]]:
    """A job, and what does its shards: a process of Ray does several, and loads once."""
    place, inner = pickle.loads(pickled)
    with suppress(OSError):  # a node that has not this folder may have those of the job
        os.chdir(place)
    work: Work = pickle.loads(inner)
    return work, work.start()


def do_shard(pickled: bytes, number: int) -> tuple[str, ...]:
    """Do a shard, as a task. pickled: the packed work. Returns what is ``Told``."""
    with stopping.stoppable():  # a task that is cancelled gets SIGINT
        try:
            work, do = _started(pickled)
        except Exception as error:  # what it loads is not there, on this node
            return _leave(error)
        try:
            with claims.claimed(work.folder, name_of(number)) as mine:
                if not mine:
                    return Told("held")
                if stopping.stop_requested():
                    return Told("stopped")
                if not is_settled(work, number):
                    attempt(work, number, do)
        except Interrupted:
            return Told("stopped")
        except Exception as error:
            return _leave(error) if is_of_machine(error) else Told("failed", explain(error))
    return Told("done")


def _leave(error: Exception) -> Told:
    import ray

    node = ray.get_runtime_context().get_node_id()
    return Told("left", f"{explain(error)}, on {socket.gethostname()}", node)
