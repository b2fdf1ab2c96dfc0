"""What a page needs to know of a system's data: their axes, coordinates, range and view."""

from __future__ import annotations

from typing import Any, NamedTuple

from fieldloom.errors import InputError
from fieldloom.metrics.losses import LINKS
from fieldloom.modalities.grid import Grid
from fieldloom.programs.shader import number
from fieldloom.renderers import Direct
from fieldloom.system import System


class Description(NamedTuple):
    """view: a key of ``VIEWS``. shape: samples of each axis. channels: of a value. seconds: of a
    video, else 0. steep: whether logits get steeper with the resolution. shader: GLSL constants
    and functions that take what is drawn to coordinates, and values to data."""

    view: str
    shape: tuple[int, ...]
    channels: int
    seconds: float
    steep: bool
    shader: str

    def about(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "view": self.view,
            "shape": self.shape,
            "channels": self.channels,
            "time": self.seconds,
            "steep": self.steep,
        }


RATE = 25.0
"""Frames a second of a video that does not say."""

VIEWS = {"flat": "flat.glsl", "globe": "globe.glsl"}
"""View -> the shader that draws it."""


def describe(system: System) -> Description:
    """What a page needs of a system. Raises InputError for data that no page shows."""
    modality = system.modality
    kind = type(modality).__name__
    if not isinstance(modality, Grid) or not isinstance(system.render, Direct):
        raise InputError(f"a page shows images, videos and maps on the sphere: these are {kind}.")
    shape = modality.shape()
    if len(shape) not in (2, 3) or modality.channels not in (1, 3):
        raise InputError(
            f"a page shows images and videos of 1 or 3 channels: these data have {len(shape)} axes "
            f"and {modality.channels} channels."
        )
    view = "globe" if modality.sphere else "flat"
    seconds = shape[0] / (modality.rate or RATE) if len(shape) == 3 else 0.0
    low, span = modality.placement.low, modality.placement.high - modality.placement.low
    at = lambda x: f"{number(low)} + {number(span)} * {x}"
    along = [at("p.y"), at("p.x")] if len(shape) == 2 else [at("time"), at("p.y"), at("p.x")]
    coordinates = f"vec4({', '.join([*along, *['0.0'] * (4 - len(along))])})"
    link = system.recipe.get("loss", "mse") in LINKS
    value = "1.0 / (vec4(1.0) + exp(-steep * y))" if link else "y"
    low, span = modality.low, modality.high - modality.low
    shader = f"""const int CHANNELS = {modality.channels};
vec4 coordinates(vec2 p, float time) {{ return {coordinates}; }}
vec4 data(vec4 y, float steep) {{ return ({value} - {number(low)}) / {number(span)}; }}
"""
    return Description(view, shape, modality.channels, seconds, modality.coverage, shader)
