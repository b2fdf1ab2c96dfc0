"""What samples of a run are worth: beside baselines, against training and held-out data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.analysing import FolderOption, analysis_folder, write_numbers
from fieldloom.cli.console import cell, console, say
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    GuidanceOption,
    LabelOption,
    RunArgument,
    SamplerOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    given,
)
from fieldloom.cli.runs import load_system

if TYPE_CHECKING:
    from fieldloom.evaluation.judgement import Judgement


def judge(
    run: RunArgument,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="How many. Default: 64, or half of the held-out data."),
    ] = None,
    label: LabelOption = None,
    metric: Annotated[
        str | None, typer.Option(help="ssim or pixels; of shapes chamfer. Default: the first.")
    ] = None,
    points: Annotated[int, typer.Option(min=2, help="Of each shape's surface.")] = 2048,
    noise: Annotated[
        float, typer.Option(min=0, help="Of noisy training fields: fraction of the deviation.")
    ] = 0.1,
    guidance: GuidanceOption = None,
    steps: StepsOption = None,
    sampler: SamplerOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = 0,
    out: FolderOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Samples beside baselines, against training and held-out data; judge.json and judge.png.

    The baselines: the start, training fields plus noise, a Gaussian of the fields' weights, and the
    training fields themselves; and held-out data as a perfect generator would give them. The
    picture has a row for each sample: itself, the nearest training field in signals, in weights.
    """
    from contextlib import nullcontext

    from fieldloom import export, report
    from fieldloom.engine.lock import locked
    from fieldloom.engine.run import Run
    from fieldloom.evaluation import evaluator_of, judgement
    from fieldloom.evaluation.neighbours import neighbours
    from fieldloom.inputs import source_of
    from fieldloom.training import training_codes

    folder = analysis_folder(run, out, "judge")
    system = load_system(run, device)
    source = source_of(system)
    own = evaluator_of(system, source)
    measure = own.measure(metric)  # before the work: it may be wrong
    own.check_signals(points)
    place = None if label is None else system.class_of(label)
    count = judgement.count_of(source, place, count)
    options = given(guidance=guidance, steps=steps, sampler=sampler, top_k=top_k, top_p=top_p,
                    temperature=temperature)  # fmt: skip
    asked = judgement.asked_labels(system, source, count, seed) if place is None else place
    samples = system.sample_codes(count, asked, seed, **options).cpu()
    with locked(Path(run)) if not Run(run).has_codes else nullcontext():
        known, labels = training_codes(system, source, Run(run))
    ask = judgement.Question(measure, points, noise, place, seed)
    found = judgement.judgement(system, source, known, {"samples": samples}, labels, ask)
    pictures = neighbours(system, samples, known, found.novelty["samples"])
    sheet = export.sheet(pictures, 3, report.shown_height(pictures))
    path = export.write(export.png_bytes(sheet), folder / "judge.png")
    about = {"count": count, "label": label, "options": options, "seed": seed, "noise": noise}
    about |= {"points": points} if found.measure == "chamfer" else {}
    write_numbers(folder, "judge.json", [run], about | judgement.as_json(found))
    tell(found)
    say(f"{count} samples: {folder / 'judge.json'}, {path}")


def tell(found: Judgement) -> None:
    """The verdicts as tables, and how novel the samples are."""
    from rich.table import Table

    from fieldloom import report
    from fieldloom.evaluation.verdicts import FIGURES

    for key in dict.fromkeys((x.reference, x.protocol) for x in found.verdicts):
        own = [x for x in found.verdicts if (x.reference, x.protocol) == key]
        title = f"{own[0].size} each against {key[0]} data, {key[1]}, by {found.measure}"
        table = Table("set", "failures", *FIGURES, title=title)
        for verdict in own:
            values = (report.number(verdict.figures[name]) for name in FIGURES)
            table.add_row(*map(cell, (verdict.set, verdict.failures, *values)))
        console().print(table)
    for space, novelty in found.novelty["samples"].items():
        far = report.number(novelty.samples.distances.median().item())
        line = f"{space}: samples are {far} from the nearest training field"
        if novelty.held is not None:
            held = report.number(novelty.held.distances.median().item())
            line += f", held-out fields {held} (medians), ratio {novelty.ratio:.3g}; "
            line += f"{novelty.nearer:.1%} of the samples are nearer than all of these"
        say(line)
