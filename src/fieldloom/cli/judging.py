"""Samples of a run and of baselines, compared with training and held-out data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.analysing import FolderOption, analysis_folder, write_images, write_numbers
from fieldloom.cli.console import cell, console, say
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    GuidanceOption,
    LabelOption,
    RunArgument,
    SamplerOption,
    SeedOption,
    SpacingOption,
    StepsOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    select_given,
)
from fieldloom.cli.runs import load_system

if TYPE_CHECKING:
    from fieldloom.evaluation.comparison import Comparison


def judge(
    run: RunArgument,
    count: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many samples. Default: 64, or half of the held-out data."
        ),
    ] = None,
    label: LabelOption = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="How data are compared: ssim or pixels, of shapes chamfer. Default: the first."
        ),
    ] = None,
    points: Annotated[
        int, typer.Option(min=2, metavar="N", help="Of shapes: points on each surface.")
    ] = 2048,
    noise: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="F",
            help="Noise of the noisy training fields, as a fraction of their deviation.",
        ),
    ] = 0.1,
    guidance: GuidanceOption = None,
    steps: StepsOption = None,
    sampler: SamplerOption = None,
    spacing: SpacingOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = 0,
    out: FolderOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Compare samples and simple baselines with training and held-out data.

    The baselines are the start, training fields plus noise, a Gaussian of the fields' weights, the
    training fields themselves, and held-out data, as a perfect generator would give them.
    judge.json gets the figures; judge.png has a row for each sample: itself, and the nearest
    training field by its signal and by its weights.

    Example: fieldloom analyse judge runs/mine
    """
    from fieldloom.engine.run import Run
    from fieldloom.evaluation import comparison, evaluator_of
    from fieldloom.evaluation.neighbours import draw_neighbours
    from fieldloom.inputs import source_of
    from fieldloom.training import lock_and_find_codes

    folder = analysis_folder(run, out, "judge")
    system = load_system(run, device)
    source = source_of(system)
    evaluator = evaluator_of(system, source)
    measure = evaluator.choose_measure(metric)  # raises before the work
    evaluator.check_points(points)
    index = None if label is None else system.class_of(label)
    count = comparison.sample_count(source, index, count)
    options = select_given(guidance=guidance, steps=steps, sampler=sampler, spacing=spacing,
                           top_k=top_k, top_p=top_p, temperature=temperature)  # fmt: skip
    classes = comparison.draw_labels(system, source, count, seed) if index is None else index
    samples = system.sample_codes(count, classes, seed, **options).cpu()
    known, labels = lock_and_find_codes(system, source, Run(run))
    asked = comparison.ComparisonOptions(measure, points, noise, index, seed)
    found = comparison.compare_with_baselines(
        system, source, known, {"samples": samples}, labels, asked
    )
    images = draw_neighbours(system, samples, known, found.novelty["samples"])
    path = write_images(images, 3, folder / "judge.png")
    about = {"count": count, "label": label, "options": options, "seed": seed, "noise": noise}
    about |= {"points": points} if found.measure == "chamfer" else {}
    write_numbers(folder, "judge.json", [run], about | comparison.as_json(found))
    print_comparison(found)
    say(f"{count} samples: {folder / 'judge.json'}, {path}")


def print_comparison(found: Comparison) -> None:
    """Print a table for each reference and protocol, and how novel the samples are."""
    from rich.table import Table

    from fieldloom import report
    from fieldloom.evaluation.set_metrics import SET_METRICS

    for key in dict.fromkeys((x.reference, x.protocol) for x in found.sets):
        rows = [x for x in found.sets if (x.reference, x.protocol) == key]
        title = f"{rows[0].size} each against {key[0]} data, {key[1]}, by {found.measure}"
        table = Table("set", "failures", *SET_METRICS, title=title)
        for row in rows:
            values = (report.format_number(row.metrics[name]) for name in SET_METRICS)
            table.add_row(*map(cell, (row.set, row.failures, *values)))
        console().print(table)
    for space, novelty in found.novelty["samples"].items():
        far = report.format_number(novelty.samples.distances.median().item())
        line = f"{space}: samples are {far} from the nearest training field"
        if novelty.held_out is not None:
            usual = report.format_number(novelty.held_out.distances.median().item())
            line += f", held-out fields {usual} (medians), ratio {novelty.ratio:.3g}; "
            line += f"{novelty.nearer:.1%} of the samples are nearer than all of these"
        say(line)
