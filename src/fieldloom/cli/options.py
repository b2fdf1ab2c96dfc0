"""Arguments and options that several verbs share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from fieldloom.errors import InputError, shorten
from fieldloom.permit import NOTHING, Permit

if TYPE_CHECKING:
    from fieldloom.drawing import Crop

ALLOWANCES: dict[str, Any] = {
    "trust": Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="Import this module where a recipe names a class of it; repeatable.",
        ),
    ],
    "network": Annotated[bool, typer.Option("--network", help="Let data and weights be fetched.")],
    "large": Annotated[
        bool, typer.Option("--large", help="Try sizes beyond the limits on files and memory.")
    ],
    "overwrite": Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there already at --out.")
    ],
}
"""Options that every verb has."""

_permit: ContextVar[Permit] = ContextVar("permit", default=NOTHING)


def permit() -> Permit:
    """What the user allows in this call of the command line."""
    return _permit.get()


def with_allowances(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the options ``ALLOWANCES``, which it reads by ``permit``."""

    @wraps(verb)
    def call(
        *arguments: Any,
        trust: list[str] | None = None,
        network: bool = False,
        large: bool = False,
        overwrite: bool = False,
        **named: Any,
    ) -> None:
        token = _permit.set(Permit(tuple(trust or ()), network, large, overwrite))
        try:
            verb(*arguments, **named)
        finally:
            _permit.reset(token)

    keyword, signature = inspect.Parameter.KEYWORD_ONLY, inspect.signature(verb)
    hints = get_type_hints(verb, include_extras=True) | ALLOWANCES
    own = [one.replace(annotation=hints[one.name]) for one in signature.parameters.values()]
    more = [
        inspect.Parameter(
            name, keyword, default=None if name == "trust" else False, annotation=annotation
        )
        for name, annotation in ALLOWANCES.items()
    ]
    made: Any = call
    made.__signature__ = signature.replace(parameters=[*own, *more])
    made.__annotations__ = hints
    del made.__wrapped__
    return made


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
    typer.Option(help="Your own data instead of the run's: images, arrays, meshes, scenes."),
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

ExecutorOption = Annotated[
    str,
    typer.Option(
        help="Who computes the shards: local (this process), processes (of this machine), slurm "
        "(an array of tasks), or ray."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="How many. Default: of processes one a core; of ray one less."),
]
ShardOption = Annotated[
    int | None,
    typer.Option(min=1, help="Signals of a shard. Default: as many as take minutes on a CPU."),
]

# Options of sampling; each prior has some of them.
GuidanceOption = Annotated[float | None, typer.Option(help="1 is plain conditional sampling.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Of the sampler.")]
SamplerOption = Annotated[str | None, typer.Option(help="ddim, ddpm or dpm++.")]
TopKOption = Annotated[int | None, typer.Option(min=1, help="Of tokens: the likeliest few.")]
TopPOption = Annotated[float | None, typer.Option(help="Of tokens: the likeliest fraction.")]
TemperatureOption = Annotated[float | None, typer.Option(help="Of tokens: below 1 is safer.")]


def select_given(**options: Any) -> dict[str, Any]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def parse_resolution(text: str | None) -> int | tuple[int, ...] | None:
    """``256``, or one number an axis as ``256x128``. Raises InputError for anything else."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isascii() and part.isdigit() and int(part[:9]) > 0 for part in parts):
        raise InputError(
            f"--resolution {shorten(text)}: a positive number, or one an axis, as 256x128."
        )
    if max(map(len, parts)) > 9:
        raise InputError(f"--resolution {shorten(text)}: that many samples fit nowhere.")
    return int(parts[0]) if len(parts) == 1 else tuple(int(part) for part in parts)


def parse_crop(text: str | None) -> Crop | None:
    """``x0,y0,x1,y1``. Raises InputError where these are not four numbers in order."""
    from fieldloom.drawing import Crop

    if text is None:
        return None
    try:
        left, top, right, bottom = map(float, text.split(","))
        return Crop(left, top, right, bottom)
    except ValueError:
        raise InputError(
            f"--window {shorten(text)}: x0,y0,x1,y1, fractions of width and height from 0 to 1 "
            "with x0 < x1 and y0 < y1."
        ) from None
