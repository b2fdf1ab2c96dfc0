"""Runs in a browser."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from fieldloom.cli.options import Device, DeviceOption, permit


def view(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Folders of runs, as train or fit made them, side by side."
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Default: the first free one from 8000 on; 0: any free one.",
        ),
    ] = None,
    open: Annotated[bool, typer.Option("--open", help="Open a browser, too.")] = False,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Listen at this address, 0.0.0.0 at all of the machine's, and ask for the token "
            "that is printed. Default: of this machine alone.",
        ),
    ] = None,
    token: Annotated[
        bool,
        typer.Option("--token", help="Ask for a token here, too, as where others use the machine."),
    ] = False,
    upload_limit: Annotated[
        float, typer.Option(metavar="MB", help="The largest file that may be dropped on the page.")
    ] = 64,
    upload_seconds: Annotated[
        float, typer.Option(metavar="S", help="How long a file may take to be reconstructed.")
    ] = 60,
    device: DeviceOption = Device.auto,
) -> None:
    """Explore runs in a browser: samples, codes, one's own files, and a training as it goes.

    Nothing leaves this machine, and no one else may look, unless --host says so. The Close button
    of the page, or Ctrl-C, ends it.

    Example: fieldloom view runs/letters --open
    """
    from fieldloom.viewer.serving import view_runs

    ended = view_runs(
        runs,
        host=host,
        port=port,
        open=open,
        token=token,
        device=device.value,
        upload_megabytes=upload_limit,
        upload_seconds=upload_seconds,
        permit=permit(),
        say=tell,
    )
    if not ended:  # what is still computed no one waits for
        os._exit(0)


def tell(text: str) -> None:
    """Print an address with its token, which ``console.say`` would leave out."""
    print(text, flush=True)
