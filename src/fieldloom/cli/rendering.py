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
    index: Annotated[
        int, typer.Option(min=0, metavar="I", help="Which datum is drawn, from 0.")
    ] = 0,
    sampled: Annotated[
        int | None,
        typer.Option("--sample", min=0, metavar="SEED", help="Draw a new sample of this seed."),
    ] = None,
    frames: Annotated[
        int,
        typer.Option(
            min=1, max=1 << 16, metavar="N", help="Of shapes and scenes: pictures of one turn."
        ),
    ] = 36,
    held: Annotated[
        bool, typer.Option("--held", help="Of scenes: the held-out views beside their originals.")
    ] = False,
    depth: Annotated[
        bool, typer.Option("--depth", help="Of scenes: depths instead of colours.")
    ] = False,
    cameras: Annotated[
        Along,
        typer.Option(
            help="Of scenes: a turn, or its own cameras: all, those trained on, or those held out."
        ),
    ] = Along.orbit,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Of images and video: the part to draw, as fractions of its width and height.",
        ),
    ] = None,
    frame: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="T", help="Of video: one picture, at this fraction of the time."
        ),
    ] = None,
    resolution: ResolutionOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Draw one datum at any size: an image, a video, a sound, or a turn around a shape or a scene.

    The suffix of --out says the format: of images PNG or TIFF, of any size, since they are written
    in strips; of videos and turns MP4 or GIF; of sounds WAV. --resolution is the longer side, or
    rows and columns.

    Of scenes, --depth draws depths from near (black) to far, and with --out FILE.npy writes them as
    numbers in the unit of the cameras; --out FILE.json writes the cameras alone.

    Example: fieldloom render runs/photo --window 0.4,0.4,0.6,0.6 --resolution 1024
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
        raise InputError("--held and --cameras need data: a sample has no views of its own.")
    if sampled is not None and (source is not None or index):
        raise InputError(
            "--sample draws new data, and --source and --index choose data to encode: give one."
        )
    if sampled is not None:
        return system.sample_codes(1, seed=sampled), None
    if not system.family.has_code and not needs_data:
        if source is not None or index:
            raise InputError("this run fits one datum: leave --source and --index out.")
        return system.family.conditioner.origin(1).detach(), None
    data, indices = held_out_part(system, source)
    if index >= len(indices):
        raise InputError(
            f"--index {index} is not one of 0 to {len(indices) - 1}, the data there are."
        )
    which = indices[index : index + 1]
    if not system.family.has_code:
        return system.family.conditioner.origin(1).detach(), data.take(which)
    datum = data.read(which)
    return system.encode(datum), datum
