"""Functions and data as PNGs, where no browser draws them: a part of a plane, a sound, a camera."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fieldloom import export
from fieldloom.geometry.cameras import Size
from fieldloom.geometry.mesh import Mesh
from fieldloom.geometry.preview import preview
from fieldloom.modalities import Views, Voxels
from fieldloom.modalities.media import waveform
from fieldloom.modalities.sources import Source
from fieldloom.pages.cameras import describe_box, describe_orbit
from fieldloom.system import System
from fieldloom.types import Cameras, Code
from fieldloom.viewer.refusals import Refused
from fieldloom.viewer.worker import stop_if_unwanted

Pixels = NDArray[np.uint8]

STRIP = 1 << 16
"""Values of a strip: between two strips it is asked whether anyone still waits."""
BEHIND = 128
"""The grey beside the data, as pages have it."""
LARGEST = 1024
"""The side of a shape's picture that is drawn; larger ones are enlarged."""
SURFACES = 16
"""Surfaces of a run that are kept."""
FINE, SAMPLES = 8, 1 << 18
"""Samples of a sound for each column of its waveform, and the most samples."""


class Look(NamedTuple):
    """What of a function is drawn, and from where.

    x0, y0, x1, y1: fractions of the plane, which may lie beside it. time: of a video, from 0 to 1.
    yaw, pitch: radians around what is upwards, and above the ground; distance: from the centre, in
    the field's coordinates; None: the page's own.
    """

    x0: float = 0.0
    y0: float = 0.0
    x1: float = 1.0
    y1: float = 1.0
    time: float = 0.5
    yaw: float = 0.0
    pitch: float | None = None
    distance: float | None = None


def draw_code(system: System, code: Code, size: Size, look: Look) -> Pixels:
    """A function's picture: uint8 (height, width, 3). Raises Refused for data without one."""
    if not can_draw(system):
        raise Refused(409, "these data cannot be shown as pictures.")
    return DRAW[system.modality.kind](system, code, size, look)


def can_draw(system: System) -> bool:
    """Whether there are pictures of a run's data."""
    kind, channels = system.modality.kind, system.modality.channels
    return kind in DRAW and (kind == "audio" or channels in (1, 3))


def draw_plane(system: System, code: Code, size: Size, look: Look) -> Pixels:
    """A part of an image, of a frame of a video, or of a map, with grey beside it."""
    height, width = size
    picture = np.full((height, width, 3), BEHIND, np.uint8)
    rows, down = find_inside(look.y0, look.y1, height)
    columns, across = find_inside(look.x0, look.x1, width)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return picture
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    frame = look.time if system.modality.kind == "video" else None
    strips = system.strips(code, shape, (down, across), STRIP, frame)
    for first, strip in strips:
        stop_if_unwanted()
        top = rows.start + first
        image = export.pixels(strip.nan_to_num(0.5))
        picture[top : top + len(image), columns] = image
    return picture


def find_inside(
    low: int | float, high: int | float, count: int
) -> tuple[slice, tuple[float, float]]:
    """Those of ``count`` samples of (low, high) whose middles are in (0, 1), and their ends."""
    step = (high - low) / count
    first = max(0, math.ceil(-low / step - 0.5))
    last = min(count, math.floor((1 - low) / step - 0.5) + 1)
    return slice(first, last), (max(0.0, low + first * step), min(1.0, low + last * step))


def draw_sound(system: System, code: Code, size: Size, look: Look) -> Pixels:
    """The waveform of a part of a sound."""
    height, width = size
    low, high = max(0.0, look.x0), min(1.0, look.x1)
    if low >= high:
        return np.full((height, width, 3), BEHIND, np.uint8)
    own = math.ceil(system.modality.shape()[0] * (high - low))
    samples = min(max(own, FINE * width), SAMPLES)
    parts = []
    for _, strip in system.strips(code, (samples,), ((low, high),), STRIP):
        stop_if_unwanted()
        parts.append(strip.nan_to_num(0.5))
    return export.pixels(waveform(torch.cat(parts, 1), height, width))


def draw_shape(system: System, code: Code, size: Size, look: Look) -> Pixels:
    """A shape's surface, seen in parallel from a camera's side."""
    modality = cast(Voxels, system.modality)
    box = describe_box(modality)
    mesh, side = find_surface(system, code), min(LARGEST, max(size))
    if mesh is not None:
        mesh = mesh._replace(vertices=mesh.vertices - np.asarray(box["centre"]))
    pitch = box["elevation"] if look.pitch is None else look.pitch
    far = box["radius"] if look.distance is None else look.distance
    span = far / box["focal"] / 2
    turned = math.degrees(look.yaw), math.degrees(pitch)
    square = preview(mesh, side, *turned, up=modality.up, span=span)
    if side < max(size):
        square = np.asarray(Image.fromarray(square).resize((max(size), max(size))))
    top, left = (max(size) - size[0]) // 2, (max(size) - size[1]) // 2
    return square[top : top + size[0], left : left + size[1]]


_surfaces: WeakKeyDictionary[System, OrderedDict[bytes, Mesh | None]] = WeakKeyDictionary()


def find_surface(system: System, code: Code) -> Mesh | None:
    """The surface of a shape; the newest are kept, since one is looked at from many sides."""
    known = _surfaces.setdefault(system, OrderedDict())
    key = code.cpu().numpy().tobytes()
    if key not in known:
        datum = system.modality.sample(system.values_of(code))
        stop_if_unwanted()
        known[key] = system.modality.mesh(datum)
        while len(known) > SURFACES:
            known.popitem(last=False)
    return known[key]


def draw_scene(system: System, code: Code, size: Size, look: Look) -> Pixels:
    """A scene, seen from a camera that looks at its centre."""
    modality = cast(Views, system.modality)
    cameras = place_camera(modality, size, look)
    coords = modality.grid(size, cameras).to(system.device)
    rows = max(1, STRIP // (size[1] * system.render.evaluations)) * size[1]
    parts = []
    for rays in coords.split(rows, 1):
        stop_if_unwanted()
        parts.append(next(system.evaluate(code.to(system.device), rays)).cpu())
    made = modality.assemble(torch.cat(parts, 1), size, cameras).clamp()
    return export.pixels(made.tensor[0, 0].nan_to_num(0.5))


def place_camera(modality: Views, size: Size, look: Look) -> Cameras:
    """The camera of a look, in the coordinates of the data, as ``Orbit`` of a page places it."""
    orbit = describe_orbit(modality)
    x, y, up = np.asarray(orbit["axes"])
    pitch = orbit["elevation"] if look.pitch is None else look.pitch
    far = orbit["radius"] if look.distance is None else look.distance
    (ca, sa), (ct, st) = ((math.cos(a), math.sin(a)) for a in (look.yaw, pitch))
    right, top = -sa * x + ca * y, -st * ca * x - st * sa * y + ct * up
    back = ct * ca * x + ct * sa * y + st * up
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, top, back], 1)
    eye = np.asarray(orbit["centre"]) + far * back
    if modality.frame is not None:
        eye = eye * modality.frame[3] + np.asarray(modality.frame[:3])
    c2w[:3, 3] = eye
    (height, width), (rows, columns) = size, modality.size
    step = max(columns / width, rows / height) / columns / modality.focal  # of a pixel
    focal = [columns / width / step, rows / height / step]
    intrinsics = torch.tensor([[*focal, columns / 2, rows / 2]], dtype=torch.float64)
    return Cameras(torch.tensor(c2w)[None], intrinsics)


Draw = Callable[[System, Code, Size, Look], Pixels]
DRAW: dict[str, Draw] = {
    "images": draw_plane,
    "video": draw_plane,
    "audio": draw_sound,
    "shapes": draw_shape,
    "views": draw_scene,
}
"""Kind of data -> what draws it."""


CAMERAS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "shapes": describe_box,
    "views": describe_orbit,
}
"""Kind of data that is seen from around -> what describes its camera."""


def describe_camera(system: System) -> dict[str, Any] | None:
    """The camera that a page begins with, as ``Orbit`` of its script reads it; None of data that
    are not seen from around."""
    describe = CAMERAS.get(system.modality.kind)
    return None if describe is None else describe(system.modality)


def draw_datum(system: System, source: Source, index: int, size: int) -> Pixels:
    """A datum of a source as it is, its longer side at most ``size`` pixels.

    index: in the whole source. Raises Refused for data that cannot be shown as pictures.
    """
    tiles = system.modality.tiles(source.take(torch.tensor([index])), 1)
    if not tiles:
        raise Refused(409, "these data cannot be shown as pictures.")
    return fit_into(next(iter(tiles.values())), size)


def fit_into(image: Tensor, size: int) -> Pixels:
    """An image (3, height, width) in [0, 1], made smaller where its longer side is above size."""
    pixels = export.pixels(image)
    scale = size / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    small = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(Image.fromarray(pixels).resize(small, Image.Resampling.BOX))
