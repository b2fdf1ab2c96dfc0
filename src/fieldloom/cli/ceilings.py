"""The upper bound of a codec, before a prior is trained on its tokens."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.console import say
from fieldloom.cli.options import Device, DeviceOption, RunArgument
from fieldloom.cli.runs import load_system
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from fieldloom.modalities.sources import Source
    from fieldloom.system import System


def ceiling(
    run: RunArgument,
    count: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many training data at most.")
    ] = 64,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure what the codec of a run loses, before its prior is trained.

    No sample can be better than that. Training data are compared with what their codes decode to,
    as they were fitted and after the codec; ceiling.json gets the figures.

    Example: fieldloom ceiling runs/mine
    """
    from fieldloom.inputs import source_of

    system = load_system(run, device)
    if "codec" not in system.finished:
        raise InputError(
            f"'{run}' has no fitted codec yet: fieldloom train --resume --run {shlex.quote(run)} "
            "--stage codec fits it."
        )
    if not report_upper_bound(Path(run), system, source_of(system), count):
        say("nothing to compare: the data are views, or the run was given codes without their data")


def report_upper_bound(folder: Path, system: System, source: Source, count: int = 64) -> bool:
    """Measure the upper bound of a run whose codec is fitted; print it, and write ceiling.json.

    Returns whether there is one.
    """
    from fieldloom import report
    from fieldloom.engine.run import Run
    from fieldloom.evaluation.upper_bound import upper_bound_of_run

    metrics = upper_bound_of_run(folder, system, source, count)
    for name, value, of, how in metrics:
        say(f"{name}: {report.format_number(value)} ({of}; {how})")
    if metrics:
        Run(folder).write_json("ceiling.json", [metric._asdict() for metric in metrics])
    return bool(metrics)
