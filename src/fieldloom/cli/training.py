"""Training: a recipe into a run."""

from __future__ import annotations

import shlex
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.ceilings import report_upper_bound
from fieldloom.cli.console import say
from fieldloom.cli.options import Device, DeviceOption, SetOption, permit
from fieldloom.cli.parsing import check_recipe_word
from fieldloom.cli.runs import parse_overrides
from fieldloom.errors import InputError, shorten

if TYPE_CHECKING:
    from fieldloom.recipe import Continuation, Recipe
    from fieldloom.system import System


class StageOf(StrEnum):
    field = "field"
    codec = "codec"
    prior = "prior"
    all = "all"


MinutesOption = Annotated[
    float | None,
    typer.Option(
        metavar="M",
        help="Train for M minutes: the steps follow from the pace of this machine. Stages share "
        "them equally; reading, encoding between stages, and drawing come on top.",
    ),
]


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE[:VARIANT]]",
            help="A bundled recipe, or a .toml file. With --resume or --finish, --run is enough.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Your data: a folder of images, a packed .npz, an array, meshes, voxels, a video, "
            "a sound, or a scene. The reader is the recipe's, or the one that suits the data.",
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="The folder of the run. Default: runs/RECIPE-VARIANT.")
    ] = None,
    stage: Annotated[
        StageOf, typer.Option(help="Which stages to train: field, then codec, then prior.")
    ] = StageOf.all,
    set_: SetOption = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="The seed of the run.")] = None,
    device: DeviceOption = Device.auto,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was stopped, by its own recipe. --minutes, or --set "
            "train.field.steps=N, gives an unfinished stage more steps, or fewer.",
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
        typer.Option(
            metavar="RUN|FILE",
            help="Begin with the trained field and the codes of another run; or with codes that "
            "are fields by themselves: fit-a-nef's HDF5, functa's with their network as .npz.",
        ),
    ] = None,
    codes: Annotated[
        Path | None,
        typer.Option(
            metavar="CODES",
            help="With --fields RUN: what that run has encoded, instead of its training codes.",
        ),
    ] = None,
    minutes: MinutesOption = None,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes of this machine that share each batch. Processes that torchrun or srun "
            "has started need no option.",
        ),
    ] = None,
) -> None:
    """Train a recipe into the folder of a run.

    It takes minutes to hours: 'fieldloom list recipes' says how long each was measured to take, and
    --minutes M sets a budget instead. The folder gets the recipe, the weights, the codes of the
    training data and a log. Ctrl-C stops it at a checkpoint, and --resume goes on from there.

    Example: fieldloom train mnif:faces64 --source FOLDER --run runs/mine
    """
    from fieldloom.recipe import Continuation

    seeds = [] if seed is None else [f"seed={seed}"]
    goes_on = resume or finish
    if recipe is None and not goes_on:
        raise InputError(
            "the name of a recipe is needed, as in 'fieldloom train mnif:digits'; 'fieldloom list "
            "recipes' shows them, and --resume --run RUN goes on with a run."
        )
    check_source(source, set_ or [])
    loaded = None
    if recipe is not None:
        check_recipe_word(recipe)
        loaded = load_with_source(recipe, [*(set_ or []), *seeds], None if goes_on else source)
    folder = folder_of(recipe, run)
    changes = Continuation(None, {})
    if goes_on:
        changes = changes_of(folder, set_ or [], seed, fields or codes)
        changes = changes if source is None else changes._replace(path=source)

    from fieldloom.launching import together
    from fieldloom.training import check_resumed
    from fieldloom.training import train as start

    if goes_on:
        check_resumed(folder, None if loaded is None else loaded["recipe"])
    with together(processes, device.value, permit()):
        system = start(
            loaded,
            str(folder),
            stage.value,
            device.value,
            resume,
            on_codec=partial(report_upper_bound, folder),
            fields=fields,
            codes=codes,
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
    say(f"next: {next_of(system, folder)}")


def next_of(system: System, folder: Path) -> str:
    """What to type after a training: the commands that show what it has learned."""
    run = shlex.quote(str(folder))
    verbs = ["evaluate", *(["sample"] if system.generates else [])]
    return ", ".join(f"fieldloom {verb} {run}" for verb in verbs)


def check_source(source: str | None, overrides: list[str]) -> None:
    """Raise InputError where ``--source`` and ``--set source.path`` name different data."""
    from fieldloom.recipe import split_override

    for keys, value in map(split_override, overrides):
        value = value.strip("\"'")
        if source is not None and keys == ["source", "path"] and value != source:
            raise InputError(
                f"--source {shorten(source)} and --set source.path={shorten(value)} name different "
                "data: give one of them."
            )


def load_with_source(name: str, overrides: list[str], source: str | None) -> Recipe:
    """The recipe of a name, with the data of ``--source`` where they are given.

    They are read by the reader that ``--set`` names, or by one that suits them, whose settings in
    the recipe come with it.
    """
    from fieldloom.recipe import load, merge, split_override

    loaded = load(name, overrides, parse_overrides)
    if source is None:
        return loaded
    if any(keys in (["source"], ["source", "name"]) for keys, _ in map(split_override, overrides)):
        return merge(loaded, {"source": {"path": source}})
    from fieldloom.preparation import add_source

    taken = add_source(loaded, source, permit())["source"]
    change = {"source": {key: taken[key] for key in ("name", "path")}}
    return load(name, overrides, parse_overrides, change)


def folder_of(recipe: str | None, run: str | None) -> Path:
    """The folder of a run, that of its recipe's name where none is given. Raises InputError."""
    if run == "":
        raise InputError("--run '' names no folder.")
    if run is not None:
        return Path(run)
    if recipe is None:
        raise InputError(
            "--resume and --finish need a run: give --run RUN, or the recipe whose run goes on."
        )
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
            "for the place of the same data (--source) and --set train.STAGE.steps=N."
        )
    if fields is not None:
        raise InputError(
            "--resume goes on with the run's own fields: --fields and --codes are for a new run."
        )
    return found
