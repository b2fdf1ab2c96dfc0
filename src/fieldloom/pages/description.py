"""What a page needs to know of a system's data: their axes, coordinates, range and view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.metrics.losses import LINKS
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.shapes import Voxels
from fieldloom.modalities.views import Views
from fieldloom.pages.cameras import describe_box, describe_orbit
from fieldloom.pages.scenes import write_scene
from fieldloom.programs.shader import number
from fieldloom.renderers import Direct
from fieldloom.system import System


class Description(NamedTuple):
    """about: what the page's script reads: ``view``, a key of ``VIEWS``; ``shape``, samples of each
    axis; ``channels`` of a value; ``place``, where samples stand on an axis: how, from what
    coordinate, and how long it is; ``time``, seconds of a video, else 0; ``rate``, samples a second
    of a sound; ``steep``, whether logits get steeper with the resolution; ``camera`` of what is
    seen from around.

    shader: GLSL that takes what is drawn to coordinates, and values to data. numbers: (n, 4), what
    it reads beside those of the field.
    """

    about: dict[str, Any]
    shader: str
    numbers: Tensor


VIEWS = {
    "flat": "flat.glsl",
    "globe": "globe.glsl",
    "sound": "sound.glsl",
    "solid": "solid.glsl",
    "light": "light.glsl",
}
"""View -> the shader that draws it."""

FRAMES, SAMPLES = 25.0, 44100.0
"""Frames a second of a video, and samples a second of a sound, that do not say."""

STEPS = 192.0
"""Of a ray through the box of a shape."""

COLOURS = 3
ABOUT: dict[str, Any] = {"channels": COLOURS, "time": 0.0, "rate": 0.0, "steep": False,
                         "place": None, "camera": None, "steps": 0.0}  # fmt: skip

SHOWN = "images and videos of 1 or 3 channels, maps on the sphere, sounds, shapes and scenes"


def describe(system: System, first: int) -> Description:
    """What a page needs of a system. first: texels before those that the view reads.

    Raises InputError for data that no page shows.
    """
    kind = system.modality.kind
    if kind not in KINDS or (kind != "views" and not isinstance(system.render, Direct)):
        raise InputError(f"a page shows {SHOWN}: these data are {kind}.")
    return KINDS[kind](system, first)


def describe_views(system: System, first: int) -> Description:
    modality = cast(Views, system.modality)
    if modality.channels != COLOURS:
        raise InputError(f"a page shows scenes of 3 channels: these have {modality.channels}.")
    shader, numbers = write_scene(system, first)
    about = {"shape": modality.shape(), "camera": describe_orbit(modality)}
    return Description(ABOUT | about | {"view": "light"}, shader, numbers)


def describe_shape(system: System, first: int) -> Description:
    modality = cast(Voxels, system.modality)
    about = {"shape": modality.shape()[1:], "camera": describe_box(modality), "steps": STEPS}
    return Description(ABOUT | about | {"view": "solid"}, write_mapping(system), torch.zeros(0, 4))


def describe_grid(system: System, first: int) -> Description:
    modality = cast(Grid, system.modality)
    sound, video = modality.kind == "audio", modality.kind == "video"
    channels, shape, place = modality.channels, modality.shape(), modality.placement
    if channels not in (range(1, 5) if sound else (1, COLOURS)):
        raise InputError(f"a page shows {SHOWN}: these data have {channels} channels.")
    about = {
        "view": "sound" if sound else "globe" if modality.sphere else "flat",
        "shape": shape,
        "channels": channels,
        "place": {"place": place.place, "low": place.low, "span": place.high - place.low},
        "steep": modality.coverage,
        "time": shape[0] / (modality.rate or FRAMES) if video else 0.0,
        "rate": modality.rate or SAMPLES if sound else 0.0,
    }
    return Description(ABOUT | about, write_mapping(system), torch.zeros(0, 4))


KINDS: dict[str, Callable[[System, int], Description]] = {
    "audio": describe_grid,
    "images": describe_grid,
    "video": describe_grid,
    "shapes": describe_shape,
    "views": describe_views,
}
"""Kind of data -> what describes its page."""


def write_mapping(system: System) -> str:
    """GLSL from coordinates on a plane, and the fraction of a time, to all coordinates in the
    field's order, and from values to data."""
    modality = cast(Grid, system.modality)
    low, span = modality.placement.low, modality.placement.high - modality.placement.low
    moment = f"{number(low)} + {number(span)} * time"
    along = [["p.x"], ["p.y", "p.x"], [moment, "p.y", "p.x"]][len(modality.shape()) - 1]
    if modality.placement.order == "reversed":
        along = along[::-1]
    given = [*along, *["0.0"] * (4 - len(along))]
    logits = any(system.link is link for link in LINKS.values())
    value = "1.0 / (vec4(1.0) + exp(-steep * y))" if logits else "y"
    least, range = modality.low, modality.high - modality.low
    return f"""const int CHANNELS = {modality.channels};
const float LOW = {number(low)}, HIGH = {number(low + span)};
vec4 coordinates(vec2 p, float time) {{ return vec4({", ".join(given)}); }}
vec4 data(vec4 y, float steep) {{ return ({value} - {number(least)}) / {number(range)}; }}
"""
