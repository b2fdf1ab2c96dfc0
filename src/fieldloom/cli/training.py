"""Training: a recipe into a run."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.ceilings import report_upper_bound
from fieldloom.cli.console import say
from fieldloom.cli.options import Device, DeviceOption, SetOption, permit
from fieldloom.cli.runs import parse_overrides
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from fieldloom.recipe import Continuation, Recipe


class StageOf(StrEnum):
    field = "field"
    codec = "codec"
    prior = "prior"
    all = "all"


MinutesOption = Annotated[
    float | None,
    typer.Option(
        metavar="M",
        help="A budget instead of steps, which follow from the pace of this machine; stages share "
        "it equally. Reading, encoding between stages and drawing are not counted.",
    ),
]


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE[:VARIANT]]",
            help="A bundled name, or a .toml. Not needed with --resume or --finish, and --run.",
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Folder of the run. Default: runs/RECIPE-VARIANT.")
    ] = None,
    stage: Annotated[StageOf, typer.Option(help="Which stages to train.")] = StageOf.all,
    set_: SetOption = None,
    seed: Annotated[int | None, typer.Option(help="The run's seed.")] = None,
    device: DeviceOption = Device.auto,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run, with its own recipe; --minutes or --set "
            "train.field.steps=N give an unfinished stage more steps, or fewer.",
        ),
    ] = False,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish",
            help="End the run's unfinished stage at its last checkpoint; --resume trains the next.",
        ),
    ] = False,
    fields: Annotated[
        Path | None,
        typer.Option(help="Begin with the trained field and the codes of this other run."),
    ] = None,
    minutes: MinutesOption = None,
) -> None:
    """Train a recipe into a run directory."""
    from fieldloom.recipe import Continuation, load

    seeds = [] if seed is None else [f"seed={seed}"]
    goes_on = resume or finish
    if recipe is None and not goes_on:
        raise InputError("train: the name of a recipe is needed, or --resume and --run.")
    loaded = None
    if recipe is not None:
        loaded = load(recipe, [*(set_ or []), *seeds], parse_overrides)
    folder = folder_of(recipe, run)
    changes = Continuation(None, {})
    if goes_on:
        changes = changes_of(folder, set_ or [], seed, fields)

    from fieldloom.training import check_resumed
    from fieldloom.training import train as start

    if goes_on:
        check_resumed(folder, None if loaded is None else loaded["recipe"])
    system = start(
        loaded,
        str(folder),
        stage.value,
        device.value,
        resume,
        on_codec=partial(report_upper_bound, folder),
        fields=fields,
        permit=permit(),
        path=changes.path,
        minutes=minutes,
        steps=changes.steps,
        finish=finish,
    )
    say(f"trained: {folder}")
    if "field" in system.finished and not system.family.has_code:
        from fieldloom.drawing import draw_fit
        from fieldloom.inputs import source_of

        for line in draw_fit(system, source_of(system, quiet=True), folder):
            say(line)


def folder_of(recipe: str | None, run: str | None) -> Path:
    """The folder of a run, that of its recipe's name where none is given. Raises InputError."""
    if run == "":
        raise InputError("--run '' names no folder.")
    if run is not None:
        return Path(run)
    if recipe is None:
        raise InputError("--resume, --finish: give --run RUN, or the recipe, whose run is found.")
    return Path("runs") / Path(recipe).name.replace(".toml", "").replace(":", "-")


def changes_of(
    folder: Path, overrides: list[str], seed: int | None, fields: Path | None
) -> Continuation:
    """What the options change in a run that goes on: the path of its data, numbers of steps.

    Raises InputError for options that would change anything else in its recipe, or its fields.
    """
    from fieldloom.engine.run import Run
    from fieldloom.recipe import merge, parse_continuation

    run = Run(folder)
    whole: Recipe = {}
    for change in parse_overrides(run.read_recipe() if run.exists else {}, overrides):
        whole = merge(whole, change)
    found = parse_continuation(whole)
    if seed is not None or found is None:
        raise InputError(
            "--resume goes on with the run's own recipe: --set and --seed cannot change it, but "
            "for source.path, where the same data lie now, and train.STAGE.steps."
        )
    if fields is not None:
        raise InputError("--resume goes on with the run's own fields: --fields is for a new run.")
    return found
