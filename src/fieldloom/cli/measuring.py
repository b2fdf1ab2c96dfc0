"""How well a run does and what it costs: metrics, reports, tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fieldloom.cli.bulk import Job, job_of, resumable
from fieldloom.cli.console import cell, console, say
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    JobOption,
    ResolutionOption,
    RunArgument,
    SetOption,
    ShardOption,
    SourceOption,
    WorkersOption,
    parse_resolution,
    permit,
)
from fieldloom.cli.outputs import check_free, check_not_own, has_key, output
from fieldloom.cli.parsing import check_recipe_word
from fieldloom.cli.runs import load_system, parse_overrides
from fieldloom.errors import InputError, shorten

if TYPE_CHECKING:
    from fieldloom.evaluation import Metric
    from fieldloom.modalities.modality import Resolution
    from fieldloom.modalities.sources import Source
    from fieldloom.report import Answer
    from fieldloom.system import System


def evaluate(
    run: RunArgument,
    source: SourceOption = None,
    resolution: ResolutionOption = None,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="A folder. Default: RUN, or RUN/NAME.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Print every metric, and how it was measured.")
    ] = False,
    shard: ShardOption = None,
    executor: JobOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure a run; writes report.json, report.html, images and a live page into it.

    With --source only the reconstruction of those data is measured, into a folder of its own. With
    --executor reconstructions and samples are found in shards; the figures are the same.
    """
    from fieldloom.inputs import source_of
    from fieldloom.recipe import parse_new_path, resolve

    system = load_system(run, device)
    changes = parse_overrides(system.recipe, set_ or [])
    for override, change in zip(set_ or [], changes, strict=True):
        if set(change) != {"evaluate"} and parse_new_path(change) is None:
            raise InputError(
                f"--set {shorten(override)}: only keys of 'evaluate' can change after training, "
                "and source.path, where the same data lie now."
            )
    system.recipe = resolve(system.recipe, *changes)
    sizes = parse_resolution(resolution)
    system.modality.shape(sizes)  # a wrong resolution raises before the work
    folder = report_folder(Path(run), source, out)
    job = job_of(run, source, device, executor, workers, shard)
    read, foreign = source_of(system, source), source is not None
    with resumable():
        measure(folder, system, read, sizes, foreign=foreign, whole=all_, job=job)


def report_folder(run: Path, source: str | None, out: Path | None) -> Path:
    """Where a report is written: into the run, or for other data into a folder of their name."""
    if out is None and source is None:
        return run
    name = Path(os.path.expanduser(str(source))).resolve().stem or "data"
    folder = out or run / name
    if folder.resolve() == run.resolve() and source is None:
        return run
    if out is not None or not has_key(folder / "report.json", "figures"):
        return output(run, folder)
    check_not_own(folder)  # its old report is replaced
    return output(run, None, name)


def measure(
    folder: Path,
    system: System,
    source: Source,
    resolution: Resolution | None,
    seconds: float | None = None,
    foreign: bool = False,
    whole: bool = False,
    job: Job | None = None,
) -> None:
    """Measure a system, write its report into a folder, and print its answers.

    foreign: the source is not the system's own. seconds: the duration of training, if known.
    whole: print every metric, too. job: how the expensive parts are found in shards.
    """
    from fieldloom import evaluation, report
    from fieldloom.bulk import evaluating
    from fieldloom.engine.run import Run

    place = folder / evaluating.EVALUATED
    find = None if job is None else evaluating.finder(place, *job, foreign)
    result = evaluation.evaluate(system, source, foreign, find)
    answers = report.write(Run(folder), system, source, result, resolution, seconds)
    if job is not None:
        evaluating.remove(place)
    print_answers(answers)
    if whole:
        print_metrics(result.metrics)
    say(f"report: {folder / 'report.html'}")


def print_answers(answers: Sequence[Answer]) -> None:
    """What the report answers, and the few numbers of each question."""
    from rich.table import Table

    for answer in answers:
        say(f"{answer.title} {answer.sentence} {answer.caution}".rstrip())
    table = Table("metric", "value", "", "published")
    for figure in (figure for answer in answers for figure in answer.figures):
        better = f"{figure.better} is better" if figure.better else ""
        note = ", ".join(x for x in (better, figure.note) if x)
        table.add_row(*map(cell, (figure.label, figure.value, note, figure.published)))
    if not any(figure.published for answer in answers for figure in answer.figures):
        table.columns.pop()
    console().print(table)


def print_metrics(metrics: Sequence[Metric]) -> None:
    """Every metric, and how it was measured."""
    from rich.table import Table

    from fieldloom import report

    table = Table("metric", "value", "measured on", "how")
    for name, value, of, how in metrics:
        table.add_row(*map(cell, (name, report.format_number(value), of, how)))
    console().print(table)


def cost(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE[:VARIANT]]...", help="Default: mNIF's Tables 1 to 3."),
    ] = None,
    timed: Annotated[bool, typer.Option(help="Measure speed and memory, too.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON, too.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Parameters, multiply-accumulates, speed and memory of recipes, with published numbers."""
    import json

    from rich.table import Table

    from fieldloom import atomic, report
    from fieldloom.engine import device as devices
    from fieldloom.evaluation.costs import COLUMNS, PARTS, PUBLISHED, USUAL, cost_row_apart
    from fieldloom.recipe import load

    if out is not None:
        check_free(out)  # before minutes of work
    tables = {"recipes": recipes} if recipes else PUBLISHED
    for names in tables.values():
        for name in names:
            check_recipe_word(name, "evaluate")
            load(name)  # a wrong name raises before minutes of work
    found: dict[str, list[dict[str, Any]]] = {}
    for title, names in tables.items():
        rows = [cost_row_apart(name, device.value, timed, permit()) for name in names]
        shown = [
            key
            for key in COLUMNS
            if key in USUAL
            or any(row[key]["published"] is not None for row in rows)
            or (key in PARTS and any(row[key]["ours"] for row in rows))
        ]
        table = Table("ours (published)", *shown, title=title)
        found[title] = rows
        for row in rows:
            cells = []
            for key in shown:
                ours, published = row[key]["ours"], row[key]["published"]
                text = "-" if ours is None else report.format_number(ours)
                cells.append(
                    text if published is None else f"{text} ({report.format_number(published)})"
                )
            table.add_row(cell(row["recipe"]), *cells)
        console().print(table)
    say("In brackets: published numbers. Speed and memory are of the authors' machines.")
    if out is not None:
        where = devices.environment(devices.pick(device.value))
        atomic.write_text(json.dumps({"environment": where, "tables": found}, indent=2) + "\n", out)
        say(f"written: {out}")
