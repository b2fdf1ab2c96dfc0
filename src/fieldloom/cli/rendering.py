"""Pictures of what a code holds: around a shape or a scene, or any part of a picture or a film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.console import say
from fieldloom.cli.data import data_of, opened
from fieldloom.cli.grids import (
    FILMS,
    WHOLE,
    Window,
    draw,
    grid_of,
    parse_window,
    shape_of,
    suffixes,
)
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    OutOption,
    ResolutionOption,
    RunArgument,
    SourceOption,
    parse_resolution,
)
from fieldloom.cli.outputs import output
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fieldloom.modalities.modality import Resolution
    from fieldloom.system import System
    from fieldloom.types import Data


def render(
    run: RunArgument,
    source: SourceOption = None,
    index: Annotated[int, typer.Option(min=0, help="Which of the data to encode.")] = 0,
    sampled: Annotated[
        int | None, typer.Option("--sample", min=0, help="Instead a sample, of this seed.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=1 << 16, help="Pictures, all around it.")] = 36,
    held: Annotated[bool, typer.Option("--held", help="Instead the views held out.")] = False,
    depth: Annotated[bool, typer.Option("--depth", help="Distances instead of colours.")] = False,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Of pictures and films: the part to draw, in fractions of width and height.",
        ),
    ] = None,
    frame: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of films: one picture, at this fraction of the time."),
    ] = None,
    resolution: ResolutionOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Go around a shape or a scene (GIF, MP4, PNG); draw a picture, a film, a sound, or a part.

    A picture becomes a PNG or a TIFF, strip by strip, so that it may be of any size; a film an MP4
    or a GIF, with --window or --frame one picture. --resolution is then the longer side, in square
    pixels, or rows and columns.
    """
    from fieldloom.modalities import Grid, Views, Voxels

    system = opened(run, device)
    sizes = parse_resolution(resolution)
    if (held or depth) and not isinstance(system.modality, Views):
        raise InputError("--held and --depth are of views: this run has none.")
    if isinstance(system.modality, Grid) and not isinstance(system.modality, Voxels):
        part = None if window is None else parse_window(window)
        path = drawing(system, Path(run), source, index, sampled, part, frame, sizes, out)
        say(f"written: {path}")
        return
    if window is not None or frame is not None:
        raise InputError("--window and --frame are of pictures and films: this run has neither.")
    path = output(run, out, "held.png" if held else "orbit.gif")
    shown = around(system, path, source, index, sampled, frames, held, depth, sizes)
    say(f"{shown} pictures: {path}")


def chosen(
    system: System, source: str | None, index: int, sampled: int | None, reads: bool = False
) -> tuple[Tensor, Data | None]:
    """The code that is asked for, and the datum that it was found from.

    reads: the datum is read even where there is no code to find.
    """
    if sampled is not None:
        return system.sample_codes(1, seed=sampled), None
    if not system.family.has_code and not reads:
        if source is not None or index:
            raise InputError("--source, --index: this run fits one datum, it has no codes to find.")
        return system.family.conditioner.origin(1).detach(), None
    data = data_of(system, source)
    if index >= len(data):
        raise InputError(f"--index {index} is not one of 0 .. {len(data) - 1}.")
    data = data.part([index])
    return system.encode(data), data


def drawing(
    system: System,
    run: Path,
    source: str | None,
    index: int,
    sampled: int | None,
    window: Window | None,
    frame: float | None,
    resolution: Resolution | None,
    out: Path | None,
) -> Path:
    """A picture, a film or a sound, or a part of one, as a file."""
    modality = grid_of(system)
    axes = len(modality.shape())
    if frame is not None and axes != 3:
        raise InputError(f"--frame {frame}: this run's data are no films, they have no frames.")
    if window is not None and axes not in (2, 3):
        raise InputError("--window is of pictures and films: this run has neither.")
    film = out is not None and out.suffix in FILMS
    if window is not None and frame is None and axes == 3 and not film:
        frame = 0.5
    still = frame is not None
    possible = suffixes(modality, still)
    path = output(run, out, f"rendered{possible[0]}")
    if path.suffix not in possible:
        raise InputError(f"'{path.name}': these data are drawn as one of {', '.join(possible)}.")
    shape = shape_of(modality, resolution, window or WHOLE, still)
    code, _ = chosen(system, source, index, sampled)
    return draw(system, code, path, shape, window or WHOLE, frame)


def around(
    system: System,
    path: Path,
    source: str | None,
    index: int,
    sampled: int | None,
    frames: int,
    held: bool,
    depth: bool,
    sizes: Resolution | None,
) -> int:
    """Pictures of a shape or a scene from all around, or those held out; how many."""
    from fieldloom import export
    from fieldloom.modalities import Views, Voxels

    export.check_frames(path)
    if held and sampled is not None:
        raise InputError("--held: a sample has no views that were held out.")
    if isinstance(system.modality, Voxels) and frames < 2:
        raise InputError("--frames 1: a turn has at least 2.")
    code, data = chosen(system, source, index, sampled, reads=held)
    if isinstance(system.modality, Voxels):
        turned = system.modality.turn(system.predict(code, sizes).tensor[0], frames)
    else:
        assert isinstance(system.modality, Views)
        cameras = system.modality.cameras(count=frames)
        if held:
            if not system.modality.held:
                raise InputError("--held: this run held no views out (modality.held is 0).")
            assert data is not None
            data = system.modality.held_out(data)
            assert data.cameras is not None
            cameras = data.cameras
        made = system.depth if depth else system.decode
        turned = list(made(code, sizes, cameras).tensor[0])
        if held and data is not None and not depth and sizes is None:
            import torch

            turned = [torch.cat(pair, 2) for pair in zip(data.tensor[0], turned, strict=True)]
    export.frames([export.pixels(picture) for picture in turned], path)
    return len(turned)
