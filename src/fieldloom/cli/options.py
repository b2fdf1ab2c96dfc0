"""Arguments and options that several verbs share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from fieldloom.errors import InputError, in_words_of, shorten
from fieldloom.permit import NOTHING, Permit

if TYPE_CHECKING:
    from fieldloom.drawing import Crop

ALLOWANCES: dict[str, Any] = {
    "trust": Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="Let recipes name classes of this module, whose code then runs; may be repeated.",
        ),
    ],
    "network": Annotated[
        bool, typer.Option("--network", help="Let data and weights be downloaded.")
    ],
    "large": Annotated[
        bool, typer.Option("--large", help="Try sizes beyond the limits on files and on memory.")
    ],
    "overwrite": Annotated[
        bool, typer.Option("--overwrite", help="Replace what is already there at --out.")
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
            with in_words_of(options):
                verb(*arguments, **named)
        finally:
            _permit.reset(token)

    keyword, signature = inspect.Parameter.KEYWORD_ONLY, inspect.signature(verb)
    options = options_of(verb.__name__, signature.parameters)
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


def options_of(verb: str, parameters: Iterable[str]) -> dict[str, str]:
    """Key of a recipe -> the option of a verb that sets it (``errors.in_words_of``)."""
    options: dict[str, str] = {}
    if "source" in parameters:
        options["source.path"] = "SOURCE" if verb == "inspect" else "--source"
    if "file" in parameters:
        options["source.path"] = "FILE"
    if "seed" in parameters and "set_" in parameters:
        options["seed"] = "--seed"
    if "set_" in parameters:  # of a trained run only its evaluation can change
        options["evaluate.*" if verb == "evaluate" else "*"] = "--set"
    return options


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The folder of a run, as train or fit made it.")
]
DeviceOption = Annotated[
    Device, typer.Option(help="Where to compute; auto takes a GPU where there is one.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe, as field.width=64; may be repeated.",
    ),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Your own data instead of the run's: images, arrays, meshes, scenes, ...",
    ),
]
ResolutionOption = Annotated[
    str | None,
    typer.Option(help="Pixels or samples of each axis: 256, or 256x128. Default: as trained."),
]
OutOption = Annotated[
    Path | None, typer.Option(help="The file to write. Default: one inside the run.")
]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="SUFFIX",
        help="The format of each file: of shapes glb, ply, obj, stl or npy, of video mp4, gif.",
    ),
]
ProjectOption = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Of shapes: move the vertices onto the surface by N steps of Newton's method.",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**63 - 1,
        metavar="N",
        help="Seed of the random numbers: the same seed draws the same.",
    ),
]
LabelOption = Annotated[
    str | None, typer.Option(help="Draw of this class alone, by its name or number.")
]

ExecutorOption = Annotated[
    str,
    typer.Option(
        help="Who computes the shards: local (this process), processes (of this machine), slurm "
        "(an array of tasks), or ray."
    ),
]
JobOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Work as a job of shards that can be stopped, on: local (this process), processes (of "
        "this machine), slurm (an array of tasks), or ray. Default: at once, without shards.",
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
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        metavar="G",
        help="With --label: above 1 follows the class more closely, at the cost of variety.",
    ),
]
StepsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of diffusion: steps of the sampler.")
]
SamplerOption = Annotated[str | None, typer.Option(help="Of diffusion: ddim, ddpm or dpm++.")]
SpacingOption = Annotated[
    str | None,
    typer.Option(help="Of diffusion: times of fewer steps, trailing, or leading as published."),
]
TopKOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="K", help="Of tokens: draw from the K likeliest alone."),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        metavar="P", help="Of tokens: draw from the likeliest, of probability P together."
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(metavar="T", help="Of tokens: below 1 the likely ones are drawn more often."),
]


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
            f"--resolution {shorten(text)} is not right: it is a positive number, or one for each "
            "axis, as 256x128."
        )
    if max(map(len, parts)) > 9:
        raise InputError(f"--resolution {shorten(text)} is too large for any machine.")
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
            f"--window {shorten(text)} is not right: it is x0,y0,x1,y1, fractions of the width and "
            "height from 0 to 1 with x0 < x1 and y0 < y1, as 0.4,0.4,0.6,0.6."
        ) from None
