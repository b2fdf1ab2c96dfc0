"""Fitting one signal: the recipe follows from the file."""

from __future__ import annotations

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fieldloom.cli.console import say
from fieldloom.cli.options import Device, DeviceOption, SetOption, permit
from fieldloom.cli.runs import parse_overrides
from fieldloom.cli.training import MinutesOption, changes_of
from fieldloom.errors import InputError, quote_path


class KindOf(StrEnum):
    image = "image"
    video = "video"
    audio = "audio"
    mesh = "mesh"
    scene = "scene"
    sphere = "sphere"


def fit(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="An image, a video, a sound, a mesh, an array, or the folder of a scene.",
        ),
    ],
    run: Annotated[
        str | None, typer.Option(help="The folder of the run. Default: runs/NAME.")
    ] = None,
    kind: Annotated[
        KindOf | None,
        typer.Option(
            "--as", help="What the file is taken for, where it looks like something else."
        ),
    ] = None,
    minutes: MinutesOption = None,
    set_: SetOption = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, metavar="N", help="The seed of the run. Default: 0."),
    ] = None,
    device: DeviceOption = Device.auto,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped.")
    ] = False,
) -> None:
    """Fit one image, video, sound, mesh or scene of your own; the recipe follows from the file.

    It trains for 1 minute, of videos 2, of scenes 10: --minutes M changes that, or --set
    train.field.steps=N gives a number of steps. The run's folder then holds the weights and the
    fitted files; how close they are is printed, and the next command to type.

    --set field=NAME takes another field (siren, experts, fourier-mlp, ...), with the settings that
    suit it.

    Example: fieldloom fit photo.jpg --minutes 5
    """
    from fieldloom.drawing import draw_fit
    from fieldloom.fitting import budget, choose, next_command
    from fieldloom.inputs import source_of
    from fieldloom.recipe import load, parse_override
    from fieldloom.training import check_resumed, train

    if run == "":
        raise InputError("--run '' names no folder.")
    check_no_recipe(file)
    folder = Path("runs") / name_run(file) if run is None else Path(run)
    choice = choose(file, kind)
    other = "" if kind else " (--as KIND takes it for something else)"
    say(f"{file}: {choice.words}, by the recipe {choice.recipe}{other}")
    recipe = steps = None
    if resume:
        check_resumed(folder, choice.recipe)
        check_same_file(folder, file)
        steps = changes_of(folder, set_ or [], seed, None).steps
    else:
        change = choice.sections | {"seed": seed or 0}
        recipe = load(choice.recipe, set_ or [], parse_overrides, change)
        minutes = budget(choice.kind, minutes, *map(parse_override, set_ or []))
    system = train(
        recipe,
        str(folder),
        "field",
        device.value,
        resume,
        permit=permit(),
        path=choice.sections["source"]["path"] if resume else None,
        minutes=minutes,
        steps=steps,
    )
    say(f"trained: {folder}")
    for line in draw_fit(system, source_of(system, quiet=True), folder):
        say(line)
    say(f"next: {next_command(choice.kind, folder)}")


def check_no_recipe(file: str) -> None:
    """Raise InputError for the name of a recipe in the place of a file."""
    from fieldloom.recipe import list_recipes

    if file.partition(":")[0] in list_recipes() and not Path(file).exists():
        raise InputError(
            f"{quote_path(file)} is a recipe, not a file: fieldloom train {shlex.quote(file)}."
        )


def check_same_file(folder: Path, file: str) -> None:
    """Raise InputError where a run was fitted to another file, which is still at its place."""
    from fieldloom.engine.run import Run
    from fieldloom.modalities.sources.files import locate

    run = Run(folder)
    source = run.read_recipe().get("source", {}) if run.exists else {}
    fitted = locate(str(source.get("path", "")))
    if fitted.exists() and locate(file).exists() and not fitted.samefile(locate(file)):
        raise InputError(
            f"'{folder}' was fitted to {quote_path(fitted)}, not to {quote_path(file)}: another "
            "--run fits that one."
        )


def name_run(file: str) -> str:
    """The name of the default run folder of a file or a folder: its own without a suffix."""
    path = Path(os.path.abspath(file))  # of "..", too
    return path.stem if path.suffix and not path.is_dir() else path.name
