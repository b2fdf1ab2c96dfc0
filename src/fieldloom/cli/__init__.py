"""The command line. Verbs are short; torch is imported by the verb that needs it."""

from __future__ import annotations

import errno
import io
import logging
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from fieldloom import __version__, progress, stopping
from fieldloom.cli.analysing import analyse, curves, influence, support, time
from fieldloom.cli.ceilings import ceiling
from fieldloom.cli.codes import codes
from fieldloom.cli.coding import decode, encode, reconstruct, sample
from fieldloom.cli.console import say
from fieldloom.cli.demo import demo
from fieldloom.cli.exporting import export
from fieldloom.cli.fitting import fit
from fieldloom.cli.inspecting import inspect
from fieldloom.cli.interpolating import interpolate
from fieldloom.cli.jobs import jobs
from fieldloom.cli.judging import judge
from fieldloom.cli.listing import info, list_
from fieldloom.cli.measuring import cost, evaluate
from fieldloom.cli.options import with_allowances
from fieldloom.cli.parsing import explain
from fieldloom.cli.planning import plan
from fieldloom.cli.rendering import render
from fieldloom.cli.training import train
from fieldloom.cli.viewing import view
from fieldloom.errors import (
    FieldloomError,
    InputError,
    Interrupted,
    in_words_of,
    printable,
    shorten,
)
from fieldloom.process import tune_process

app = typer.Typer(
    help="Fit, encode, generate and evaluate neural fields.\n\n"
    "A first line: 'fieldloom fit photo.jpg'. With many data: 'fieldloom train mnif:faces64 "
    "--source FOLDER', then 'fieldloom sample runs/mnif-faces64'. 'fieldloom list recipes' shows "
    "what can be trained and how long it takes, 'fieldloom VERB --help' explains a verb.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def describe_version() -> str:
    """The versions of fieldloom, Python and torch, in one line; torch is not imported."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        torch = f", torch {version('torch')}"
    except PackageNotFoundError:
        torch = ""
    return f"fieldloom {__version__} (Python {platform.python_version()}{torch})"


def print_version(asked: bool) -> bool:
    if asked:
        say(describe_version())
        raise typer.Exit
    return asked


@app.callback()
def answer_at_once(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=print_version,
            help="Print the versions of fieldloom, Python and torch.",
        ),
    ] = False,
) -> None:
    """Options that need no verb."""


VERBS: dict[str, Callable[..., None]] = {
    "inspect": inspect,
    "fit": fit,
    "train": train,
    "encode": encode,
    "jobs": jobs,
    "codes": codes,
    "decode": decode,
    "reconstruct": reconstruct,
    "sample": sample,
    "render": render,
    "interpolate": interpolate,
    "export": export,
    "view": view,
    "evaluate": evaluate,
    "info": info,
    "cost": cost,
    "plan": plan,
    "ceiling": ceiling,
    "list": list_,
    "demo": demo,
}
for name, verb in VERBS.items():
    app.command(name=name)(with_allowances(verb))
for verb in (influence, curves, support, time, judge):
    analyse.command()(with_allowances(verb))
app.add_typer(analyse, name="analyse")


OF_THE_INPUT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""Errors of a path that the user gave, which are wrong input."""

STOPPED = "stopped; what was finished is kept."


def main() -> None:
    """Run the command line: exit with 2 for wrong input, 1 for a failed run, 130 if stopped."""
    tune_process()
    progress.start_clock()
    stopping.end_by_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    logging.basicConfig(handlers=[logging.NullHandler()])  # broken files get our own message
    warnings.showwarning = lambda message, *rest, **named: print(
        f"warning: {printable(str(message))}", file=sys.stderr
    )
    try:
        status = app(standalone_mode=False) or 0
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        stop(*answer(error))
    if status == 130:  # the parser may have caught the interrupt
        stop(STOPPED, status)
    sys.exit(status)


def answer(error: Exception) -> tuple[str, int]:
    """The message for an error, one sentence, and the exit status."""
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, Interrupted):
        return str(error), 130
    if isinstance(error, FieldloomError):
        return str(error), 1
    if hasattr(error, "format_message"):  # an argument that the parser refuses
        with in_words_of({}):
            return explain(error), 2
    if type(error).__name__ == "Abort":  # what the parser makes of Ctrl-C
        return STOPPED, 130
    message = shorten(str(error).partition("\n")[0], 300)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in message):
        count = re.search(r"allocate (\d+) bytes", str(error))
        what = f"{int(count[1]) / 1e9:.3g} GB at once" if count else "more memory than there is"
        return f"out of memory: '{shorten(' '.join(sys.argv[1:]))}' needs {what}.", 1
    if isinstance(error, OSError):
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or message
        where = f" ('{shorten(str(error.filename))}')" if error.filename else ""
        status = 2 if error.errno in OF_THE_INPUT else 1
        return f"{reason}{where}; what was there before is unchanged.", status
    if os.environ.get("FIELDLOOM_TRACEBACK"):
        raise error
    kind = type(error).__name__
    return (
        f"this is a fault of fieldloom, not of the input: {kind}: {message}. "
        "FIELDLOOM_TRACEBACK=1 shows where; please report it."
    ), 1


def stop(message: str, status: int) -> None:
    """Print an error and exit."""
    if message:  # none where the parser has printed its help
        print(f"error: {shorten(message, 600)}", file=sys.stderr)
    raise SystemExit(status)
