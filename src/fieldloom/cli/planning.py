"""What a large job takes: hours, memory, disk and network on machines that are not here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fieldloom.cli.console import cell, console, say
from fieldloom.cli.options import Device, DeviceOption, SetOption, permit
from fieldloom.cli.outputs import check_free
from fieldloom.cli.parsing import check_recipe_word
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from fieldloom.planning import Measured, Plan, Span, StagePlan


def plan(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE[:VARIANT]]", help="A recipe, as train takes it; or give --run."
        ),
    ] = None,
    signals: Annotated[
        str, typer.Option(metavar="N", help="How many data: 1e6, 1_000_000 and 1000000 are one.")
    ] = "",
    workers: Annotated[
        str, typer.Option(metavar="N", help="Workers of bulk jobs: encode, sample, decode.")
    ] = "1",
    processes: Annotated[
        str, typer.Option(metavar="N", help="Processes that share each batch of training.")
    ] = "1",
    run: Annotated[
        str | None,
        typer.Option(help="A trained run, whose encoding, sampling and decoding are planned."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Your data, of which the first are read. Without any, data are generated.",
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(metavar="X", help="What a worker, or a process, costs an hour.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="N", help="Signals of a shard. Default: that of encode.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="How long is measured here, about.")
    ] = 60.0,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan as JSON, too.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Say what a large job takes: time, memory, disk and network, and where it does not scale.

    Pieces of each stage are measured here, for about a minute and leaving nothing behind; the rest
    is arithmetic, which assumes that every worker is as fast as this machine for one process (give
    that the threads of a worker: OMP_NUM_THREADS=4 fieldloom plan ...).

    Example: fieldloom plan mnif:faces64 --source FOLDER --signals 1e6 --workers 64 --price 0.5
    """
    import json

    if not signals:
        raise InputError("--signals is missing: how many data, as in --signals 1e6.")
    if out is not None:
        check_free(out)  # before a minute of work
    if recipe is not None:
        check_recipe_word(recipe, "plan")
    from fieldloom import atomic
    from fieldloom.planning.planner import check_request, plan_recipe, plan_run

    if (recipe is None) == (run is None):
        raise InputError(
            "a recipe, as in 'fieldloom plan mnif:faces64 --signals 1e6', or --run RUN, is needed, "
            "and not both."
        )
    asked = check_request(signals, workers, processes, price, shard)
    if recipe is None:
        if set_:
            raise InputError("--set: a run has a recipe of its own, which does not change.")
        made = plan_run(str(run), asked, source, seconds, device.value, permit())
    else:
        from fieldloom.cli.training import load_with_source

        loaded = load_with_source(recipe, set_ or [], source)
        made = plan_recipe(loaded, asked, source is not None, seconds, device.value, permit())
    show(made)
    if out is not None:
        atomic.write_text(json.dumps(made.as_dict(), indent=2) + "\n", out)
        say(f"written: {out}")


def show(made: Plan) -> None:
    """Print a plan: the stages, what was measured, what would not scale, what is assumed."""
    from rich.table import Table

    say(
        f"{made.recipe}: {made.signals:,} signals, {made.workers:,} workers, {made.processes:,} "
        f"processes of training (least to most of what was measured)"
    )
    columns = ["stage", "work", "by", "time", "memory each", "writes", "reads", "sends a step"]
    priced = made.price is not None
    table = Table(*columns, *(["cost"] if priced else []))
    for stage in made.stages:
        table.add_row(*map(cell, cells_of(stage, priced)))
    console().print(table)
    measured = Table("measured here", "with", "seconds for each", "times", "memory")
    for piece in made.measured:
        measured.add_row(*map(cell, cells_of_piece(piece)))
    console().print(measured)
    say(f"Seconds of {made.seconds}, on {made.data}. All else is arithmetic.")
    for title, lines in (("would not scale", made.limits), ("assumed", made.assumed)):
        for line in lines:
            say(f"{title}: {line}")


def cells_of(stage: StagePlan, priced: bool) -> list[str]:
    from fieldloom.memory import format_bytes

    size = lambda count: format_bytes(count) if count else "-"
    cells = [stage.name, stage.work, f"{stage.workers:,}", describe_span(stage.hours),
             size(stage.memory), size(stage.disk), size(stage.read), size(stage.sent)]  # fmt: skip
    cost = stage.cost
    return [*cells, *([f"{cost.middle:,.2f}" if cost else "-"] if priced else [])]


def cells_of_piece(piece: Measured) -> list[str]:
    from fieldloom.memory import format_bytes

    low, middle, high = (f"{x:.3g}" for x in piece.seconds)
    each = f"{middle} ({low} to {high})" if piece.times > 1 else middle
    times = str(piece.times) if piece.whole else f"{piece.times}, of a part"
    return [piece.what, f"{piece.units:,}", each, times, format_bytes(piece.memory)]


def describe_span(hours: Span) -> str:
    """``3.2 h (3.1 to 3.6)``, in the unit of the number in the middle."""
    units: list[tuple[str, Any]] = [
        ("years", 24 * 365.25), ("days", 24.0), ("h", 1.0), ("min", 1 / 60), ("s", 1 / 3600),
    ]  # fmt: skip
    unit, size = next((x for x in units if hours.middle >= 2 * x[1]), units[-1])
    low, middle, high = (f"{x / size:.3g}" for x in hours)
    return f"{middle} {unit}" if low == high else f"{middle} {unit} ({low} to {high})"
