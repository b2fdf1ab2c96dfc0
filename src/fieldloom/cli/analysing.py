"""Analyses of what runs have learned: images, and the numbers in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fieldloom.cli.console import say
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    RunArgument,
    SeedOption,
    SourceOption,
)
from fieldloom.cli.outputs import output
from fieldloom.cli.runs import load_system
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fieldloom.system import System
    from fieldloom.types import Data

analyse = typer.Typer(
    help="Analyse what runs have learned, and what their samples are worth.",
    no_args_is_help=True,
)

RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="The folders of one or more runs.")
]
FolderOption = Annotated[
    Path | None,
    typer.Option("--out", help="The folder of the results. Default: the (first) run's."),
]


def influence(
    run: RunArgument,
    source: SourceOption = None,
    tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many tokens of a code, drawn at random.")
    ] = 8,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many data at most.")] = 4,
    seed: SeedOption = 0,
    out: FolderOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Show which pixels change where one token of a code is replaced by zero.

    influence.png has a row for each datum: the original, its reconstruction, and for each token a
    map of the difference, scaled to its own largest value; of scenes, of the first held-out view.
    influence.json has the numbers.

    Example: fieldloom analyse influence runs/mine
    """
    from fieldloom.evaluation.influence import analyse_influence

    folder = analysis_folder(run, out, "influence")
    system = load_system(run, device)
    found = analyse_influence(system, first_data(system, source, count), tokens, seed)
    images, columns = found.draw(), len(found.tokens) + 2
    path = write_images(images, columns, folder / "influence.png")
    numbers = found.as_json()
    write_numbers(folder, "influence.json", [run], numbers)
    if found.mean_locality is None:
        say("none of these tokens has any influence.")
    else:
        maps = len(found.influences) * len(found.tokens) - numbers["without influence"]
        mean = f"{found.mean_locality:.1%}"
        say(f"{mean} of a token's influence lies in 10 % of the pixels, mean of {maps}")
    say(f"{len(found.influences)} data, {len(found.tokens)} tokens: {path}")


def curves(
    runs: RunsArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="The picture, a .png. Default: the first run's learning-curves.png."),
    ] = None,
) -> None:
    """Draw the learning curves of several runs, PSNR over steps and over seconds.

    Of sounds it is SNR. The picture is learning-curves.png in the first run.

    Example: fieldloom analyse curves runs/a runs/b
    """
    from fieldloom import atomic
    from fieldloom.engine.run import Run
    from fieldloom.evaluation.learning_curves import learning_curve, ratio_of
    from fieldloom.evaluation.plots import Panel, plot

    path = output(runs[0], out, "learning-curves.png")
    over_steps, over_seconds, ratios = {}, {}, set()
    for run, name in name_runs(runs).items():
        log = Run(run).require().read_log()
        steps, seconds, values = learning_curve(log)
        if not steps:
            raise InputError(f"the log of '{run}' has no PSNR of the stage 'field' to draw.")
        over_steps[name], over_seconds[name] = (steps, values), (seconds, values)
        ratios.add(ratio_of(log).upper())
    if len(ratios) > 1:
        raise InputError("runs of sounds (SNR) and of other data (PSNR) cannot share one drawing.")
    panels = Panel("step", f"{ratios.pop()} (dB)", over_steps), Panel("seconds", "", over_seconds)
    atomic.write_bytes(plot(*panels), path)
    say(f"{len(over_steps)} runs: {path}")


def support(
    runs: RunsArgument,
    source: SourceOption = None,
    views: Annotated[
        int,
        typer.Option(min=1, max=10_000, metavar="N", help="The largest number of support views."),
    ] = 5,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many data at most.")
    ] = None,
    out: FolderOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure how held-out views improve with the number of views that are seen.

    support.png draws their PSNR against the number of support views, support.json has the numbers.

    Example: fieldloom analyse support runs/a runs/b --views 5
    """
    from fieldloom import atomic
    from fieldloom.evaluation.plots import Panel, plot
    from fieldloom.evaluation.views import psnr_by_support

    folder = analysis_folder(runs[0], out, "support")
    counts = list(range(1, views + 1))
    found: dict[str, Any] = {}
    for run, name in name_runs(runs).items():
        system = load_system(run, device)
        data = first_data(system, source, count)
        if data.cameras is None:
            raise InputError(f"'{run}' has no views: support is measured of runs of scenes.")
        found[name] = psnr_by_support(system, data, counts)
        values = ", ".join(f"{value:.2f}" for value in found[name])
        say(f"{name}: {values} dB from 1 to {views} views, {len(data)} data")
    lines = {name: (counts, values) for name, values in found.items()}
    panel = Panel("support views", "PSNR of held-out views (dB)", lines)
    path = atomic.write_bytes(plot(panel), folder / "support.png")
    write_numbers(folder, "support.json", runs, {"views": counts, "psnr": found, "data": len(data)})
    say(f"support: {path}")


def time(
    run: RunArgument,
    source: SourceOption = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many data at most.")] = 10,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps of each fit, at most.")
    ] = 1000,
    seconds: Annotated[
        float, typer.Option(min=0, metavar="S", help="Seconds of each fit, at most.")
    ] = 30.0,
    points: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Points of a datum in each step, drawn at random. Default: all.",
        ),
    ] = None,
    code_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Rate on codes. Default: a tenth of their size (root mean square); where they are "
            "weights, 0.0001.",
        ),
    ] = None,
    weight_rate: Annotated[float, typer.Option(metavar="RATE", help="Rate on all weights.")] = 1e-4,
    scratch_rate: Annotated[
        float, typer.Option(metavar="RATE", help="Rate on the new network.")
    ] = 1e-3,
    width: Annotated[
        int, typer.Option(min=1, max=1 << 14, metavar="N", help="Width of the new network.")
    ] = 256,
    seed: SeedOption = 0,
    out: FolderOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure how fast single data are fitted: PSNR against seconds for each datum.

    Four ways are compared: the encoder's answer; its code, refined; all weights, refined from it;
    and a network on Gaussian Fourier features, fitted from random weights. With the defaults each
    of the three fits takes at most 30 seconds for each of 10 data: up to 15 minutes. time.png and
    time.json get the curves.

    Example: fieldloom analyse time runs/mine --count 4 --seconds 15
    """
    from fieldloom import atomic
    from fieldloom.engine import device as devices
    from fieldloom.evaluation.plots import Panel, plot
    from fieldloom.evaluation.timing import Budget, Rates, as_json, psnr_against_time

    given = [rate for rate in (code_rate, weight_rate, scratch_rate) if rate is not None]
    if not all(0 < rate < 1e9 for rate in given):
        raise InputError("--code-rate, --weight-rate and --scratch-rate are numbers above 0.")
    folder = analysis_folder(run, out, "time")
    budget = Budget(steps, seconds, points)
    rates = Rates(code_rate, weight_rate, scratch_rate)
    system = load_system(run, device)
    data = first_data(system, source, count)
    found = psnr_against_time(system, data, budget, rates, width, seed)
    for name, curve in found.items():
        say(f"{name}: {curve.psnr[-1]:.2f} dB after {curve.seconds[-1]:.3g} s")
    lines = {name: (curve.seconds, curve.psnr) for name, curve in found.items()}
    path = atomic.write_bytes(
        plot(Panel("seconds a datum", f"{system.modality.fidelity.upper()} (dB)", lines)),
        folder / "time.png",
    )
    about = {"data": len(data), "environment": devices.environment(system.device)}
    write_numbers(folder, "time.json", [run], about | as_json(found, budget, rates, width))
    say(f"time: {path}")


def analysis_folder(run: str, out: Path | None, name: str) -> Path:
    """The folder of ``name.json`` and its image. Raises InputError to keep other files."""
    files = (f"{name}.json", f"{name}.png")
    if out is None or out.resolve() == Path(run).resolve():
        for file in files:
            output(run, None, file)
        return Path(run)
    for file in files:
        output(run, out / file, file)
    return out


def first_data(system: System, path: str | None, count: int | None) -> Data:
    """The first data of the run's test part, or of those at a path."""
    from fieldloom.inputs import held_out_part

    source, indices = held_out_part(system, path)
    return source.defer(indices[:count])


def name_runs(runs: list[str]) -> dict[str, str]:
    """Run -> its label: the folder's name or, where several have the same, the whole path."""
    short = {run: Path(run).resolve().name for run in runs}
    alike = list(short.values())
    return {run: name if alike.count(name) == 1 else run for run, name in short.items()}


def write_images(images: Tensor, columns: int, path: Path) -> Path:
    """Write images (n, channel, height, width) as a sheet with this number of columns."""
    from fieldloom import export, report

    sheet = export.sheet(images, columns, report.tile_height(images))
    return export.png(sheet, path)


def write_numbers(folder: Path, name: str, runs: list[str], numbers: dict[str, Any]) -> None:
    """Write numbers as JSON, with the runs that they belong to."""
    from fieldloom.engine.run import Run

    recipes = [Run(run).read_recipe().get("recipe") for run in runs]
    Run(folder).write_json(name, {"runs": runs, "recipes": recipes} | numbers)
