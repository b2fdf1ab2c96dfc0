"""Pictures of what a code holds: around a shape or a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldloom.cli.console import say
from fieldloom.cli.data import data_of, opened
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    OutOption,
    ResolutionOption,
    RunArgument,
    SourceOption,
    parse_resolution,
)
from fieldloom.errors import InputError


def render(
    run: RunArgument,
    source: SourceOption = None,
    index: Annotated[int, typer.Option(min=0, help="Which of the data to encode.")] = 0,
    sampled: Annotated[
        int | None, typer.Option("--sample", min=0, help="Instead a sample, of this seed.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Pictures, all around it.")] = 36,
    held: Annotated[bool, typer.Option("--held", help="Instead the views held out.")] = False,
    depth: Annotated[bool, typer.Option("--depth", help="Distances instead of colours.")] = False,
    resolution: ResolutionOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Go around a shape or a scene: a GIF, an MP4, or a sheet of pictures (PNG)."""
    from fieldloom import export
    from fieldloom.modalities import Views, Voxels

    system = opened(run, device)
    sizes = parse_resolution(resolution)
    if not isinstance(system.modality, Views | Voxels):
        raise InputError("render goes around shapes and scenes: this run has neither.")
    if (held or depth) and not isinstance(system.modality, Views):
        raise InputError("--held and --depth are of views: this run has shapes.")
    path = out or Path(run) / ("held.png" if held else "orbit.gif")
    export.check_frames(path)
    if held and sampled is not None:
        raise InputError("--held: a sample has no views that were held out.")
    data, about = (None, {}) if sampled is not None else data_of(system, source)
    if data is None:
        code = system.sample_codes(1, seed=sampled or 0)
    else:
        if index >= len(data):
            raise InputError(f"--index {index} is not one of 0 .. {len(data) - 1}.")
        one = slice(index, index + 1)
        data, about = data[one], {key: value[one] for key, value in about.items()}
        code = system.encode(data, **about)
    if isinstance(system.modality, Voxels):
        if frames < 2:
            raise InputError("--frames 1: a turn has at least 2.")
        turned = system.modality.turn(system.predict(code, sizes)[0], frames)
    else:
        cameras = system.modality.cameras(count=frames)
        if held:
            if not system.modality.held:
                raise InputError("--held: this run held no views out (modality.held is 0).")
            kept = about["c2w"].shape[1] - system.modality.held
            cameras = {key: about[key][0, kept:] for key in ("c2w", "intrinsics")}
        draw = system.depth if depth else system.decode
        turned = list(draw(code, sizes, cameras)[0])
        if held and data is not None and not depth and sizes is None:
            import torch

            turned = [torch.cat(pair, 2) for pair in zip(data[0, kept:], turned, strict=True)]
    export.frames([export.pixels(picture) for picture in turned], path)
    say(f"{len(turned)} pictures: {path}")
