"""What a codec costs before anything is trained on what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.console import say
from fieldloom.cli.options import Device, DeviceOption, RunArgument
from fieldloom.cli.runs import load_system
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from fieldloom.modalities.sources import Source
    from fieldloom.system import System


def ceiling(
    run: RunArgument,
    count: Annotated[int, typer.Option(min=1, help="How many training data at most.")] = 64,
    device: DeviceOption = Device.auto,
) -> None:
    """What the codec of a run loses on the signal, before its prior is trained; ceiling.json.

    Training data against what their codes decode to, as fitted and after the codec.
    """
    from fieldloom.inputs import source_of

    system = load_system(run, device)
    if "codec" not in system.finished:
        raise InputError(f"'{run}' has no fitted codec yet: --stage codec with --resume fits it.")
    announce(Path(run), system, source_of(system), count)


def announce(folder: Path, system: System, source: Source, count: int = 64) -> None:
    """Measure the ceiling of a run whose codec is fitted, say it, and keep it."""
    import torch

    from fieldloom import report
    from fieldloom.engine.run import Run
    from fieldloom.evaluation import evaluator_of
    from fieldloom.evaluation.ceiling import codec_upper_bound

    own = evaluator_of(system, source)
    if own.ceiling is None:
        return
    kept = Run(folder).read_codes(system)
    indices = kept.beside.get("places", source.train)
    if len(indices) and int(indices.max()) >= len(source.data):
        raise InputError(f"the codes of '{folder}' are of data that the source does not have.")
    few = torch.linspace(0, len(indices) - 1, min(count, len(indices))).round().long()
    chosen = indices[few]
    figures = codec_upper_bound(own, source.read(chosen), kept.codes[few])
    for figure in figures:
        say(f"{figure.name}: {report.number(figure.value)} ({figure.of}; {figure.how})")
    Run(folder).write_json("ceiling.json", [figure._asdict() for figure in figures])
