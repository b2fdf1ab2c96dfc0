"""The command line as tests call it: within this process, or as a program of its own."""

import contextlib
import io
import logging
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import jaxtyping
import torch

from fieldloom import cli

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class CommandLine:
    """``fieldloom`` as tests call it; the fixture ``cli`` is one."""

    def __call__(
        self, *arguments: object, status: int | None = 0, cwd: Path | None = None
    ) -> CompletedProcess:
        """Within this process: torch is imported already, and annotations are checked.

        status: with which it must end; None: with any.
        """
        done = _within(["fieldloom", *map(str, arguments)], cwd, cli.main, checked=True)
        assert status in (None, done.returncode), done.stderr
        return done

    def answer(self, *arguments: object) -> tuple[int, str]:
        """The status, whichever it is, and what was said on stderr."""
        done = self(*arguments, status=None)
        return done.returncode, done.stderr

    def program(
        self, *arguments: object, status: int | None = 0, cwd: Path | None = None
    ) -> CompletedProcess:
        """The same as a process of its own."""
        words = [sys.executable, "-m", "fieldloom", *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, timeout=600)
        assert status in (None, done.returncode), done.stderr
        return done

    def script(self, path: Path, *arguments: object) -> CompletedProcess:
        """A Python file that calls the package, within this process; it must end well."""
        main = lambda: runpy.run_path(str(path), run_name="__main__")
        done = _within([str(path), *map(str, arguments)], None, main, checked=False)
        assert done.returncode == 0, done.stderr
        return done


def _within(
    argv: list[str], cwd: Path | None, main: Callable[[], object], checked: bool
) -> CompletedProcess:
    out, err = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with surroundings(argv, cwd or Path.cwd(), checked), streams[0], streams[1]:
        status = _status(main)
    print(out.getvalue(), end="")  # for capsys, and for the report of a test that fails
    print(err.getvalue(), end="", file=sys.stderr)
    return CompletedProcess(argv, status, out.getvalue(), err.getvalue())


def _status(main: Callable[[], object]) -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextlib.contextmanager
def surroundings(argv: list[str], folder: Path, checked: bool = False) -> Iterator[None]:
    """What a process of its own would have; all as it was afterwards.

    checked: whether annotations are, as in tests; users have no such checks.
    """
    before = sys.argv, sys.path[:], Path.cwd(), os.environ.copy()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    root = logging.getLogger()
    logged, root.handlers = root.handlers, []  # pytest's: without any, logging writes to stderr
    unchecked = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", not checked)
    sys.argv = argv
    os.chdir(folder)
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", unchecked)
        os.chdir(before[2])
        sys.argv, sys.path[:], root.handlers = before[0], before[1], logged
        os.environ.clear()
        os.environ.update(before[3])
        for number, handler in handlers.items():
            signal.signal(number, handler)
