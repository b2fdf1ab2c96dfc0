"""Workers on this machine, each a process of its own with its share of the cores."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from threading import Thread

from fieldloom import stopping
from fieldloom.errors import Interrupted, printable
from fieldloom.executors.work import Shown, Work, check_finished, count_done
from fieldloom.executors.worker import POLL, serve
from fieldloom.process import count_cores
from fieldloom.progress import Progress

PROGRAM = "from fieldloom.executors.processes import main; main()"
"""Of a worker: a new interpreter, since threads of torch do not survive a fork."""


def run(work: Work, workers: int | None = None) -> None:
    """Do all shards in so many processes; None: one a core. Each has its share of the threads.

    A worker that dies leaves its shard to the others. Raises Interrupted where the user asks to
    stop, which each worker does within its shard, and FieldloomError where shards are left.
    """
    asked = workers or count_cores()
    count = max(1, min(asked, work.count - count_done(work)))
    children: list[subprocess.Popen[bytes]] = []
    begun, pickled = count_done(work), pickle.dumps(work)
    if begun == work.count:
        return
    with Progress(work.title, work.count, begun, "shards") as progress, stopping.stoppable():
        show = Shown(work, progress)
        try:
            for _ in range(count):
                children.append(_start(pickled, asked))
            stopped = False
            while any(child.poll() is None for child in children):
                if stopping.stop_requested() and not stopped:
                    stopped = True
                    for child in children:
                        child.terminate()
                time.sleep(POLL / 5)
                show()
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()
    if stopped and count_done(work) < work.count:
        raise Interrupted(f"stopped with {count_done(work)} of {work.count} shards done")
    check_finished(work, [_end(child) for child in children])


def _start(pickled: bytes, workers: int) -> subprocess.Popen[bytes]:
    threads = str(max(1, count_cores() // workers))
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path),
    }
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert child.stdin is not None
    try:
        child.stdin.write(pickled)
        child.stdin.close()
    except BrokenPipeError:  # it has died already
        pass
    return child


def _end(child: subprocess.Popen[bytes]) -> str:
    """Why a worker ended early, or ""."""
    assert child.stdout is not None
    with child.stdout as file:
        said = file.read()
    if child.returncode < 0:
        return f"a worker was ended by {signal.Signals(-child.returncode).name}"
    try:
        return str(json.loads(said))
    except ValueError:
        return f"a worker ended with status {child.returncode}"


def main() -> None:
    """Be a worker: the work comes through the standard input, how it ended is said at the end."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the first process passes a request to stop on
        signal.signal(number, signal.SIG_IGN)
    answer = os.dup(1)
    os.dup2(2, 1)
    warnings.showwarning = lambda message, *rest, **named: print(
        f"warning: {printable(str(message))}", file=sys.stderr
    )
    Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    work = pickle.load(sys.stdin.buffer)
    os.write(answer, json.dumps(serve(work)).encode())


def _follow(parent: int) -> None:
    """Stop where the first process has ended: no one would know of its workers."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)
