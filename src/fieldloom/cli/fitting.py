"""Fitting one signal: the recipe follows from the file."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fieldloom.cli.bulk import Job, free_folder, job_of, resumable
from fieldloom.cli.console import say
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    JobOption,
    SetOption,
    ShardOption,
    WorkersOption,
    permit,
)
from fieldloom.cli.parsing import check_quotes
from fieldloom.cli.runs import parse_overrides
from fieldloom.cli.training import MinutesOption, changes_of
from fieldloom.errors import InputError, quote_path

FEW = 10
"""Failures that are named."""


class KindOf(StrEnum):
    image = "image"
    video = "video"
    audio = "audio"
    mesh = "mesh"
    scene = "scene"
    sphere = "sphere"


def fit(
    file: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="An image, a video, a sound, a mesh, an array, or the folder of a scene; several "
            "of them, or with --executor a folder of them, are fitted each by itself.",
        ),
    ],
    run: Annotated[
        str | None,
        typer.Option(
            help="The folder of the run. Default: runs/NAME. Of several files, the folder of their "
            "runs."
        ),
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
    shard: ShardOption = None,
    executor: JobOption = None,
    workers: WorkersOption = None,
) -> None:
    """Fit one image, video, sound, mesh or scene of your own; the recipe follows from the file.

    It trains for 1 minute, of videos 2, of scenes 10: --minutes M changes that, or --set
    train.field.steps=N gives a number of steps. The run's folder then holds the weights and the
    fitted files; how close they are is printed, and the next command to type.

    --set field=NAME takes another field (siren, experts, fourier-mlp, ...), with the settings that
    suit it.

    Several files, or --executor, make a job: each file becomes a run in the folder --run, and a
    list of all is results.csv there. The same command goes on with a job that was stopped, and
    tries failed files again.

    Example: fieldloom fit photo.jpg --minutes 5
    """
    if (job := job_of("", None, device, executor, workers, shard)) or len(file) > 1:
        if resume:
            raise InputError("--resume is of one file: the same command goes on with several.")
        fit_several(file, run, kind, minutes, set_ or [], seed or 0, device, job)
    else:
        fit_one(file[0], run, kind, minutes, set_, seed, device, resume)


def fit_several(
    files: list[str],
    run: str | None,
    kind: str | None,
    minutes: float | None,
    sets: list[str],
    seed: int,
    device: Device,
    job: Job | None,
) -> None:
    """Fit each file by itself, as a job in one folder, and say how close they are."""
    from fieldloom.bulk.fits import RESULTS, Fit, find_signals, fit_files
    from fieldloom.codes.shards import How

    check_quotes("fit", files)
    for file in files:
        check_no_recipe(file)
    found = [find_signals(file, kind) for file in files]
    for line in (passed for _, passed in found if passed):
        say(line)
    paths = [path for own, _ in found for path in own]
    name = name_run(files[0]) if len(files) == 1 else "fits"
    folder = free_folder(Path("runs") / name if run is None else Path(run))
    how, asked = job[0] if job else How(), Fit(kind, minutes, tuple(sets), {}, seed, device.value)
    with resumable():
        results = fit_files(paths, folder, replace(asked, permit=permit()), how)
    done = sorted((one.decibels, one.run) for one in results if one.decibels is not None)
    middle = done[len(done) // 2][0]
    say(f"fitted {len(done)} of {len(results)}: {folder}, a run of each, listed in {RESULTS}")
    say(
        f"dB: from {done[0][0]:.2f} ('{done[0][1].name}') to {done[-1][0]:.2f}, median {middle:.2f}"
    )
    for one in [one for one in results if one.why][:FEW]:
        say(f"failed: {quote_path(one.file)}, because {one.why}")


def fit_one(
    file: str,
    run: str | None,
    kind: str | None,
    minutes: float | None,
    set_: list[str] | None,
    seed: int | None,
    device: Device,
    resume: bool,
) -> None:
    """Fit one file, draw it, and say what to type next."""
    from fieldloom.bulk.fits import check_same_file
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


def name_run(file: str) -> str:
    """The name of the default run folder of a file or a folder: its own without a suffix."""
    path = Path(os.path.abspath(file))  # of "..", too
    return path.stem if path.suffix and not path.is_dir() else path.name
