"""Runs the command line in this process, and says what is wrong with its answer."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import fieldloom
from commands import surroundings
from fieldloom import cli

PATIENCE, SECONDS, STUCK = 2.0, 10.0, 600.0
"""CPU seconds after which long work is asked to stop; CPU and real ones that a case may take."""
MEMORY = 3 << 29
"""Bytes that a case may take beyond what the process has."""
LONGEST = 620
"""Characters of a line."""
PROGRESS = re.compile(
    r"(warning: |read: |starting|(?!error)[\w ,]+: [\d,]+ of [\d,]+ |[\w ,]+ \.\.\.$)"
)
"""How lines begin that may stand beside the sentence."""
OWN = str(Path(fieldloom.__file__).parent)


class TooLong(BaseException):
    """Nothing that catches errors catches it."""


@dataclass(frozen=True)
class Answer:
    """What a command did. error: what escaped, or what the command made a sentence of."""

    status: Any
    out: str
    err: str
    error: BaseException | None
    escaped: bool
    seconds: float


def judge(
    words: Sequence[str], case: Path, beside: Path, stops: bool = False
) -> tuple[str, str] | None:
    """What is wrong with the answer to a command, and a signature to tell failures apart.

    case: the current folder of the command, the only one that it may write to. beside: a folder
    whose files must stay as they are, and where nothing may be executed. stops: ask to stop, as
    Ctrl-C does, what takes long.
    """
    before, kept = contents(beside), protected(case, words)
    called: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *to: refused(called, to[-1]))
        patch.setattr(socket, "getaddrinfo", lambda *to, **rest: refused(called, to[0]))
        answer = ask(words, case, stops)
    wrong = fault(answer)
    if contents(beside) != before:
        wrong = "it changed files outside of its folder"
    elif list(case.rglob("called")) or (beside / "called").exists():
        wrong = "it EXECUTED what it was given"
    elif called:
        wrong = f"it reaches for the network: {called[0]}"
    elif (changed := protected(case, words)) != kept:
        names = sorted(key for key in kept | changed if kept.get(key) != changed.get(key))
        wrong = f"it changed files that are not its own: {', '.join(names)}"
    return None if wrong is None else (wrong, signature(answer, wrong))


def refused(called: list[str], to: Any) -> None:
    called.append(str(to))
    raise OSError(errno.ENETUNREACH, "Network is unreachable")


def fault(answer: Answer) -> str | None:
    """What is wrong with how a command ended and what it said; None where it is as promised."""
    status, lines = answer.status, answer.err.splitlines()
    said = [line for line in lines if not PROGRESS.match(line)]
    if isinstance(answer.error, TooLong) or answer.seconds > SECONDS:
        return f"it took more than {SECONDS:g} seconds"
    if answer.escaped:
        return f"{type(answer.error).__name__} escapes: {str(answer.error)[:200]}"
    if "Traceback" in answer.out + answer.err:
        return "it shows a traceback"
    if status not in (0, 1, 2, 130):
        return f"its status is {status!r}"
    if "fault of fieldloom" in answer.err:
        return f"unexpected: {said[-1][:300]}"
    if "out of memory" in answer.err:
        return f"it asks for too much memory: {said[-1][:300]}"
    if status == 0 and said:
        return f"all is well, yet it says: {said[0][:200]}"
    if status and (len(said) != 1 or not said[0].startswith("error: ")):
        return f"status {status} without one sentence: {answer.err[:300]!r}"
    if any(len(line) > LONGEST for line in lines):
        return f"a line of {max(map(len, lines))} characters: {max(lines, key=len)[:160]!r} ..."
    odd = next((c for c in answer.out + answer.err if not (c.isprintable() or c == "\n")), None)
    if odd is not None:
        place = (answer.out + answer.err).index(odd)
        return f"it prints {odd!r}: {(answer.out + answer.err)[max(0, place - 60) : place + 9]!r}"
    return None


def signature(answer: Answer, wrong: str) -> str:
    """The kind of a failure: the error and the last place of our own code on its way."""
    if answer.error is None:
        return re.sub(r"[\d'].*", "", wrong)
    frames = traceback.extract_tb(answer.error.__traceback__)
    own = [f for f in frames if f.filename.startswith(OWN) and f.name not in ("stop", "main")]
    where = f"{own[-1].filename.removeprefix(OWN)[1:]}:{own[-1].lineno}" if own else "outside"
    return f"{type(answer.error).__name__} at {where}"


def ask(words: Sequence[str], case: Path, stops: bool = False) -> Answer:
    """The answer of the command line to words after ``fieldloom``, in a current folder."""
    status: Any = 0
    error, escaped = None, False
    with surroundings(["fieldloom", *words], case), streams() as (out, err):
        began = time.process_time()
        try:
            with limits(stops):
                cli.main()
        except SystemExit as end:
            status, error = end.code or 0, end.__context__
            error = None if type(error).__name__ == "Exit" else error  # typer's way to end
        except (Exception, TooLong, KeyboardInterrupt) as found:
            status, error, escaped = 1, found, True
        seconds = time.process_time() - began
        texts = [stream.flush() or stream.seek(0) or stream.read() for stream in (out, err)]
    return Answer(status, texts[0], texts[1], error, escaped, seconds)


@contextmanager
def streams() -> Iterator[tuple[Any, Any]]:
    """stdout and stderr as files, also of libraries in C; strict as those of a terminal are."""
    kept = sys.stdout, sys.stderr, os.dup(1), os.dup(2)
    for stream in kept[:2]:
        stream.flush()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as out,
        tempfile.TemporaryFile(
            "w+", encoding="utf-8", errors="backslashreplace", newline=""
        ) as err,
    ):
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = out, err
        try:
            yield out, err
        finally:
            sys.stdout, sys.stderr = kept[:2]
            os.dup2(kept[2], 1)
            os.dup2(kept[3], 2)
            os.close(kept[2])
            os.close(kept[3])


@contextmanager
def limits(stops: bool) -> Iterator[None]:
    """Bounds on time and memory. stops: ask to stop before time is over."""
    asked = not stops

    def over(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked or number == signal.SIGALRM:
            raise TooLong
        asked = True
        signal.setitimer(signal.ITIMER_PROF, SECONDS - PATIENCE, 1)
        signal.raise_signal(signal.SIGINT)

    clocks = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}
    before = {number: signal.signal(number, over) for number in clocks.values()}
    memory = resource.getrlimit(resource.RLIMIT_DATA)
    if (held := data_held()) is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY, memory[1]))
    signal.setitimer(signal.ITIMER_PROF, PATIENCE if stops else SECONDS, 1)
    signal.setitimer(signal.ITIMER_REAL, STUCK, 1)
    try:
        yield
    finally:
        for clock in clocks:
            signal.setitimer(clock, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_DATA, memory)


def data_held() -> int | None:
    """Bytes of this process's writable memory; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmData:\s*(\d+) kB", status)
    return None if found is None else int(found[1]) << 10


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder and its content."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        if path.is_file()
        else "no file"
        for path in sorted(folder.rglob("*"))
    }


def protected(case: Path, words: Sequence[str]) -> dict[str, str]:
    """What a command must leave as it is: of a run its recipe, weights and codes, unless it trains
    it; where it is told of no other place to write to, all that lies beside the run."""
    if words[:1] == ["train"]:
        return {}
    own = [f"run/{name}" for name in ("recipe.toml", "model.safetensors", "codes.safetensors")]
    told = any(word.startswith("--out") for word in words)
    return {
        name: found
        for name, found in contents(case).items()
        if name in own or not (told or name.split("/")[0] == "run")
    }
