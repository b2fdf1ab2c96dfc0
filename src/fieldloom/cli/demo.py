"""The demonstration: letters at any resolution, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldloom.cli.console import say
from fieldloom.cli.measuring import print_answers
from fieldloom.cli.options import Device, DeviceOption


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run and its report.")] = Path(
        "outputs/demo"
    ),
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", help="Of training, 1.25 unless given; measuring and drawing take a minute."
        ),
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Train a model of letters, draw them at any resolution, and measure them: in minutes."""
    from fieldloom.demo import run_demo

    print_answers(run_demo(out, device.value, minutes))
    say(f"report: {out / 'report.html'}")
