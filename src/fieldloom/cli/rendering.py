"""Rendering of a code: around a shape or a scene, or any part of an image or a video."""

from __future__ import annotations

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
    parse_crop,
    parse_resolution,
)
from fieldloom.cli.outputs import output, output_of_state
from fieldloom.cli.runs import load_system
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from fieldloom.system import System
    from fieldloom.types import Code, Data


class Along(StrEnum):
    orbit = "orbit"
    input = "input"
    train = "train"
    held = "held"


def render(
    run: RunArgument,
    source: SourceOption = None,
    index: Annotated[int, typer.Option(min=0, help="Which of the data to encode.")] = 0,
    sampled: Annotated[
        int | None, typer.Option("--sample", min=0, help="Instead a sample, of this seed.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=1 << 16, help="Images, all around it.")] = 36,
    held: Annotated[
        bool, typer.Option("--held", help="Views held out beside their originals.")
    ] = False,
    depth: Annotated[bool, typer.Option("--depth", help="Depths instead of colours.")] = False,
    cameras: Annotated[
        Along,
        typer.Option(
            help="Of scenes: around it, or from its own cameras: all, those trained on, held out."
        ),
    ] = Along.orbit,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Of images and video: the part to draw, in fractions of width and height.",
        ),
    ] = None,
    frame: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of video: one image, at this fraction of the time."),
    ] = None,
    resolution: ResolutionOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Go around a shape or a scene (GIF, MP4, PNG); draw an image, a video, audio, or a part.

    An image becomes a PNG or a TIFF, strip by strip, so that it may be of any size; a video an MP4
    or a GIF, with --window or --frame one image. --resolution is then the longer side, in square
    pixels, or rows and columns. Depths are grey from near to far, or, in a file .npy, numbers in
    the unit of the cameras; a file .json gets the cameras alone, in the input's coordinates.
    """
    from fieldloom.drawing import Options, drawer_of

    system = load_system(run, device)
    size, part = parse_resolution(resolution), parse_crop(window)
    asked = Options(size, part, frame, frames, held, depth, cameras.value)
    drawer = drawer_of(system, asked)
    path = output_of_state(system, output(run, out, drawer.name), out)
    drawer.check(path)
    code, data = find_code(system, source, index, sampled, drawer.needs_data)
    drawn = drawer.draw(code, path, data)
    around = drawn.sides is not None
    say(f"{drawn.sides} pictures: {drawn.path}" if around else f"written: {drawn.path}")


def find_code(
    system: System, source: str | None, index: int, sampled: int | None, needs_data: bool = False
) -> tuple[Code, Data | None]:
    """A code by the options of ``render``, and the datum that it was found from.

    needs_data: whether the datum is read even where there is no code to find.
    """
    from fieldloom.inputs import held_out_part

    if sampled is not None and needs_data:
        raise InputError("--held, --cameras: a sample has no views of its own.")
    if sampled is not None and (source is not None or index):
        raise InputError("--sample draws new data: --source and --index choose data to encode.")
    if sampled is not None:
        return system.sample_codes(1, seed=sampled), None
    if not system.family.has_code and not needs_data:
        if source is not None or index:
            raise InputError("--source, --index: this run fits one datum, it has no codes to find.")
        return system.family.conditioner.origin(1).detach(), None
    data, indices = held_out_part(system, source)
    if index >= len(indices):
        raise InputError(f"--index {index} is not one of 0 .. {len(indices) - 1}.")
    which = indices[index : index + 1]
    if not system.family.has_code:
        return system.family.conditioner.origin(1).detach(), data.take(which)
    datum = data.read(which)
    return system.encode(datum), datum
