"""The arguments and options that several verbs have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fieldloom.errors import InputError


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key; repeatable."),
]
SourceOption = Annotated[
    str | None,
    typer.Option(help="Your own data instead of the run's: pictures, arrays, meshes, scenes."),
]
ResolutionOption = Annotated[
    str | None, typer.Option(help="Samples of each axis: 256, or 256x128. Default: as trained.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="What to write. Default: a name inside the run.")
]
KindOption = Annotated[
    str | None,
    typer.Option("--format", help="Of each file: glb, ply, obj, stl, npy; gif, mp4, png."),
]
ProjectOption = Annotated[
    int, typer.Option(min=0, help="Newton steps of a mesh's vertices onto the surface.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the random numbers.")]
LabelOption = Annotated[str | None, typer.Option(help="A class, by name or number.")]

# Of sampling; which of them a prior has is the prior's.
GuidanceOption = Annotated[float | None, typer.Option(help="1 is plain conditional sampling.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Of the sampler.")]
SamplerOption = Annotated[str | None, typer.Option(help="ddim, ddpm or dpm++.")]
TopKOption = Annotated[int | None, typer.Option(min=1, help="Of tokens: the likeliest few.")]
TopPOption = Annotated[float | None, typer.Option(help="Of tokens: the likeliest share.")]
TemperatureOption = Annotated[float | None, typer.Option(help="Of tokens: below 1 is safer.")]


def given(**options: Any) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def parse_resolution(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--resolution {text}: a positive number, or one an axis, as 256x128.")
    return int(parts[0]) if len(parts) == 1 else tuple(int(part) for part in parts)
