"""The command line. Verbs are short; torch is imported by the verb that needs it."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable

import typer

from fieldloom.cli.analysing import analyse, curves, influence, support, time
from fieldloom.cli.ceilings import ceiling
from fieldloom.cli.coding import decode, encode, interpolate, reconstruct, sample
from fieldloom.cli.judging import judge
from fieldloom.cli.listing import info, list_
from fieldloom.cli.measuring import cost, evaluate
from fieldloom.cli.options import allowing
from fieldloom.cli.rendering import render
from fieldloom.cli.training import demo, train
from fieldloom.errors import FieldloomError, InputError, Interrupted
from fieldloom.process import quicken

app = typer.Typer(
    help="Fit, encode, generate and evaluate neural fields.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "encode": encode,
    "decode": decode,
    "reconstruct": reconstruct,
    "sample": sample,
    "render": render,
    "interpolate": interpolate,
    "evaluate": evaluate,
    "info": info,
    "cost": cost,
    "ceiling": ceiling,
    "list": list_,
    "demo": demo,
}
for name, verb in VERBS.items():
    app.command(name=name)(allowing(verb))
for verb in (influence, curves, support, time, judge):
    analyse.command()(allowing(verb))
app.add_typer(analyse, name="analyse")


def main() -> None:
    """Run the command line: exit with 2 for wrong input, 1 for a failed run, 130 if stopped."""
    quicken()
    warnings.showwarning = lambda message, *rest, **named: print(
        f"warning: {message}", file=sys.stderr
    )
    try:
        app()
    except InputError as error:
        stop(str(error), 2)
    except Interrupted as error:
        stop(f"{error}; --resume goes on from here.", 130)
    except FieldloomError as error:
        stop(str(error), 1)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        stop(f"out of memory: {str(error).partition(chr(10))[0]}", 1)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        where = f" ('{error.filename}')" if error.filename else ""
        stop(f"{reason}{where}; what was there before is unchanged.", 1)
    except KeyboardInterrupt:
        stop("stopped.", 130)


def stop(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)
