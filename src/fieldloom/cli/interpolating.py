"""From one datum or sample to another."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.console import say
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    OutOption,
    ResolutionOption,
    RunArgument,
    SourceOption,
    parse_resolution,
)
from fieldloom.cli.outputs import output, output_of_state
from fieldloom.cli.runs import load_system
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from fieldloom.system import System
    from fieldloom.types import Code


class Seen(StrEnum):
    fixed = "fixed"
    orbit = "orbit"


def interpolate(
    run: RunArgument,
    source: SourceOption = None,
    first: Annotated[
        int, typer.Option("--from", metavar="I", help="The first datum, by its index, or its seed.")
    ] = 0,
    last: Annotated[
        int, typer.Option("--to", metavar="I", help="The last datum, by its index, or its seed.")
    ] = 1,
    sampled: Annotated[
        bool, typer.Option("--sample", help="Go between samples; --from and --to are their seeds.")
    ] = False,
    steps: Annotated[
        int, typer.Option(min=2, metavar="N", help="Pictures in all, both ends included.")
    ] = 24,
    cameras: Annotated[
        Seen, typer.Option(help="Of scenes: cameras that stay, or that go around once meanwhile.")
    ] = Seen.fixed,
    views: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Of scenes: cameras, side by side.")
    ] = 1,
    resolution: ResolutionOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Go from one datum to another along the line between their codes, as a GIF.

    With --sample, and in a run that cannot encode (a GAN), it goes from one sample to another,
    along the great circle between them where the prior is a standard normal distribution. Scenes
    are seen from cameras of the run's orbit.

    Example: fieldloom interpolate runs/mine --from 3 --to 8 --resolution 256
    """
    from fieldloom import memory
    from fieldloom.drawing import write_animation

    system = load_system(run, device)
    sizes = parse_resolution(resolution)
    check_scenes(system, views, cameras is Seen.orbit)
    sampled = sampled or not system.encodes
    seeds = "seeds-" if sampled else ""
    path = output(run, out, f"interpolation-{seeds}{first}-{last}.gif")
    path = output_of_state(system, path, out)
    numbers = steps * math.prod(system.family.code_shape)
    memory.check(f"--steps {steps}", memory.FLOAT * numbers, system.permit)
    find_codes = interpolate_samples if sampled else interpolate_data
    codes = find_codes(system, source, first, last, steps)
    write_animation(system, codes, path, sizes, views, cameras is Seen.orbit)
    say(f"{steps} pictures: {path}")


def check_scenes(system: System, views: int, turning: bool) -> None:
    """Raise InputError for cameras where there are none, and for a scene that has no codes."""
    scenes = system.modality.cameras() is not None
    if not scenes and (views > 1 or turning):
        raise InputError("--cameras and --views are of scenes: this run has none.")
    if scenes and not system.family.has_code:
        raise InputError(
            "interpolate goes from one code to another, and this run is of one scene: fieldloom "
            "render goes around it."
        )


def interpolate_data(system: System, source: str | None, first: int, last: int, steps: int) -> Code:
    """Codes (steps, tokens, width) from one datum of the test part, or of a path, to another."""
    from fieldloom.inputs import held_out_part

    data, indices = held_out_part(system, source)
    if len(indices) < 2:
        raise InputError("there is one datum alone, and interpolate goes from one to another.")
    for index in (first, last):
        if not 0 <= index < len(indices):
            part = "the test part" if source is None else "the source"
            end = len(indices) - 1
            raise InputError(
                f"--from, --to: {index} is not one of 0 to {end}, the indices of {part}."
            )
    return system.encode_between(data.read(indices[[first, last]]), steps)


def interpolate_samples(
    system: System, source: str | None, first: int, last: int, steps: int
) -> Code:
    """Codes (steps, tokens, width) from the sample of one seed to that of another."""
    if source is not None:
        raise InputError(
            "--source cannot be used with samples: they come from the prior, not from data."
        )
    if min(first, last) < 0:
        raise InputError(f"--from {first}, --to {last} are seeds of samples: they are at least 0.")
    return system.sample_between(first, last, steps)
