"""Processes of this machine that compute for a job: their start, their end, and a request to stop.

Each is a new interpreter, since threads of torch do not survive a fork. It gets what it needs
through its standard input, says at its end why it ended early, and stops where its parent has
ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import IO, NamedTuple

from fieldloom import stopping
from fieldloom.errors import Interrupted, printable, shorten
from fieldloom.executors.work import Shown, Work, check_finished, count_done
from fieldloom.executors.worker import POLL
from fieldloom.progress import Progress


class Program(NamedTuple):
    """What a child runs. code: Python that calls ``be_child``. what: it is, in messages.

    environment: of its variables, those that are set. apart: whether it has processes of its own,
    which end with it, and words of its own, of which only the last is said, where it fails.
    """

    code: str
    what: str
    environment: Mapping[str, str]
    apart: bool = False


class Child(NamedTuple):
    process: subprocess.Popen[bytes]
    program: Program
    words: IO[bytes] | None


def run_children(work: Work, program: Program, given: Sequence[bytes]) -> None:
    """Do all shards by as many processes as there are ``given`` for them.

    A process that dies leaves its shard to the others. Raises Interrupted where the user asks to
    stop, which each does within its shard, and FieldloomError where shards are left.
    """
    children: list[Child] = []
    stopped = False
    with (
        Progress(work.title, work.count, count_done(work), "shards") as progress,
        stopping.stoppable(),
    ):
        show = Shown(work, progress)
        try:
            for each in given:
                children.append(_start(program, each))
            while any(child.process.poll() is None for child in children):
                if stopping.stop_requested() and not stopped:
                    stopped = True
                    for child in children:
                        child.process.terminate()
                time.sleep(POLL / 5)
                show()
        finally:
            for child in children:
                _kill(child)
    if stopped and count_done(work) < work.count:
        raise Interrupted(f"stopped with {count_done(work)} of {work.count} shards done")
    check_finished(work, [_end(child) for child in children])


def be_child(do: Callable[[bytes], str], apart: bool = False) -> None:
    """Be a process of ``run_children``. do: given what it needs, why it ended early, or "".

    apart: as of its program; a terminal's Ctrl-C does not reach it.
    """
    if not apart:  # the first process passes a request to stop on
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    answer = os.dup(1)
    os.set_inheritable(answer, False)
    os.dup2(2, 1)
    warnings.showwarning = lambda message, *rest, **named: print(
        f"warning: {printable(str(message))}", file=sys.stderr
    )
    Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    os.write(answer, json.dumps(do(sys.stdin.buffer.read())).encode())


def python_path() -> str:
    """PYTHONPATH of a process that imports from where this one does."""
    return os.pathsep.join(place or os.getcwd() for place in sys.path)


def _start(program: Program, given: bytes) -> Child:
    words = tempfile.TemporaryFile() if program.apart else None  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-c", program.code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        env=os.environ | program.environment,
        start_new_session=program.apart,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(given)
        process.stdin.close()
    except BrokenPipeError:  # it has died already
        pass
    return Child(process, program, words)


def _kill(child: Child) -> None:
    process, apart = child.process, child.program.apart
    if apart and process.poll() is None:  # its own processes end best by its hand
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
    if apart:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()


def _end(child: Child) -> str:
    """Why a process ended early, or ""."""
    process, what = child.process, child.program.what
    assert process.stdout is not None
    with process.stdout as file:
        said = file.read()
    last = ""
    if child.words is not None:
        with child.words as file:
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()
            last = f", and said '{shorten(lines[-1], 300)}'" if lines else ""
    if process.returncode < 0:
        return f"{what} was ended by {signal.Signals(-process.returncode).name}"
    try:
        return str(json.loads(said))
    except ValueError:
        return f"{what} ended with status {process.returncode}{last}"


def _follow(parent: int) -> None:
    """Stop where the first process has ended: no one would know of its workers."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)
