"""What the cameras of scenes tell: depths, an orbit, and where a single scene stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fieldloom.errors import InputError, quote_path
from fieldloom.geometry.cameras import (
    Size,
    converge,
    enter_frame,
    focus,
    project_points,
    rays,
    resize_intrinsics,
)

Bounds = tuple[float, float]
"""The nearest and the farthest depth of a scene."""
Point = tuple[float, float, float]
Box = tuple[Point, Point]
"""The lowest and the highest corner of the box that a scene lies in."""
Depths = Mapping[str, Any]
"""``near``, ``far``, or both, of a recipe's renderer: they hold instead of a scene's own. Of volume
rendering also ``scale``, by which the field's coordinates are divided. Of a renderer that contracts
space also ``contract``, None where the scene decides."""
NO_DEPTHS: Depths = {}
OWN = ("near", "far")

DEPTHS = (0.5, 1.5)
"""Default depths of a scene, relative to the distance of its focus: 2 to 6 for the cameras of
NeRF's synthetic scenes, at 4."""
OFF_CENTRE = 0.05
"""The largest distance of the cameras' focus from the origin, relative to their own distance, with
which an orbit still goes around the origin."""
NEAREST = 0.01
"""The least near depth of a scene's box, relative to its farthest: cameras may stand inside it."""
TILT = 10.0
"""The largest angle in degrees between the upward direction of a scene and an axis, with which the
axis is taken: that is how exact level cameras tell it."""
CERTAIN = 0.02
"""The least mean square of the cameras' right-hand axes along any level direction, with which they
tell what is upright; else it is the mean of their upward axes."""
SPACE, NEAR_AND_FAR = "ball", {"near": 0.1, "far": 100.0}
"""The contraction of a scene with a background all around, and the ends of its rays, in units of
its frame."""
PLAIN = 8
"""How far a pixel may be from white or black, of 255, and still show nothing."""
FEW = 0.5
"""The share of samples in the field's domain below which the summary tells it."""


def suggest_settings(
    c2w: Tensor,
    intrinsics: Tensor,
    size: Size,
    bounds: Sequence[Bounds | None],
    path: str,
    fit_frame: bool,
    asked: Depths = NO_DEPTHS,
    box: Box | None = None,
) -> dict[str, dict[str, Any]]:
    """Sections of a recipe that cameras suggest: depths of the scene, a similar orbit, a frame.

    near, far: those that are asked for, or from the files, or else 0.5 and 1.5 times the depth of
    the cameras' focus point; there are none where the cameras have none.
    up: the world axis closest to the mean upward direction of the images, of a scene that gets a
    frame what ``find_up`` says.
    centre: the cameras' focus point, where it is far from the origin.
    frame: as ``_fit_frame``, where it is asked for; its centre is then that of the orbit.
    """
    eye, (point, depth) = c2w[..., :3, 3], _find_focus(c2w, intrinsics, size)
    depths = [pair for pair in bounds if pair is not None]
    if len(depths) < len(bounds):
        depths = []
        if depth is not None:
            depths = [(DEPTHS[0] * float(depth.min()), DEPTHS[1] * float(depth.max()))]
    near, far = min((x for x, _ in depths), default=0.0), max((x for _, x in depths), default=0.0)
    if depths and not 0 <= near < far < math.inf:
        raise InputError(f"{quote_path(path)} has near = {near:g}, far = {far:g}: 0 <= near < far.")
    renderer = {"near": near, "far": far} if depths else {}
    renderer |= {key: asked[key] for key in OWN if key in asked}
    keep = _round_relative if fit_frame else _round_absolute
    centre, modality = eye.new_zeros(3), {}
    if fit_frame:
        frame = _fit_frame(eye, point, depth, intrinsics, size, renderer.get("far", 0.0), box)
        centre, modality = eye.new_tensor(frame[:3]), {"frame": frame}
    elif depth is not None:
        middle = point.median(0).values
        if middle.norm() > OFF_CENTRE * (eye - middle).norm(dim=-1).median():
            centre, modality = middle, {"centre": tuple(keep(x) for x in middle.tolist())}
    radius = keep(float((eye - centre).norm(dim=-1).median()))
    orbit = {
        "radius": radius or (frame[3] if fit_frame else 1.0),
        "focal": round(float(intrinsics[..., 0].median()) / size[1], 5),
        "up": find_up(c2w[0]) if fit_frame else _nearest_axis(c2w),
    }
    kept = {key: asked.get(key, keep(value)) for key, value in renderer.items()}
    return {"renderer": kept, "modality": orbit | modality}


def suggest_contraction(
    suggests: Mapping[str, dict[str, Any]],
    frame: Sequence[float] | None,
    asked: Depths,
    around: str,
    images: Tensor,
) -> str:
    """Let a scene with a background all around have contracted space, and say so; "" for others.

    Of renderers that can contract it, whose recipe leaves it open: where ``around`` says why the
    file tells of a background, where cameras have no common focus, since they look outward, and
    where most of the images' borders (n, 3, height, width), uint8, are neither white nor black.
    Rays then go from near to far in the unit of the frame, as ``NEAR_AND_FAR`` has it.
    """
    if "contract" not in asked:
        return ""
    shape = asked["contract"]
    if shape is None:
        if not around and "near" not in suggests["renderer"]:
            around = "the cameras look outward"
        if not around and share_around(images) > FEW:
            around = "a background lies all around"
        shape = SPACE if around else "none"
    suggests["renderer"]["contract"] = shape
    if shape == "none":
        return ""
    own = suggests["modality"].get("frame", frame)
    unit = (1.0 if own is None else own[3]) * asked.get("scale", 1.0)
    found = {key: asked.get(key, _round_relative(x * unit)) for key, x in NEAR_AND_FAR.items()}
    suggests["renderer"] |= found
    why = f" ({around})" if around else ""
    return f"space beyond {unit:.4g} of the centre contracted{why}"


def share_around(images: Tensor) -> float:
    """The share of pixels on the borders of images (n, 3, height, width) that show something."""
    border = torch.cat([images[..., [0, -1], :].flatten(2), images[..., [0, -1]].flatten(2)], 2)
    plain = (border <= PLAIN).all(1) | (border >= 255 - PLAIN).all(1)
    return float(1 - plain.double().mean())


def _find_focus(c2w: Tensor, intrinsics: Tensor, size: Size) -> tuple[Tensor, Tensor | None]:
    """The point (scenes, 3) that the cameras of each scene look at, and its depths (scenes, views).

    The depths are None where in some scene the point is not in front of every camera. The origin
    stands in for the focus of parallel cameras, or of a single one, if they have it in view.
    """
    eye, point = c2w[..., :3, 3], focus(c2w)
    pixel, depth = project_points(point.unsqueeze(-2), c2w, intrinsics)
    in_view = ((pixel > 0) & (pixel < pixel.new_tensor(size[::-1]))).all(-1).all(-1)
    spread = float((eye - eye.mean(-2, keepdim=True)).norm(dim=-1).max())
    rounding = 1e-9 * float(eye.abs().max())
    in_front = float(depth.min()) > 1e-3 * spread + rounding
    return point, depth if in_front and (converge(c2w) | in_view).all() else None


def find_up(c2w: Tensor) -> int | Point:
    """The upward direction of a scene (views, 4, 4): an axis, or another direction of length 1.

    Cameras that are held level have their right-hand axes at right angles to it, wherever they
    look; where these are all alike, it is the mean of their upward axes.
    """
    right, upward = c2w[:, :3, 0], c2w[:, :3, 1].mean(0)
    spread, directions = torch.linalg.eigh(right.mT @ right / len(right))
    level = float(spread[1]) > CERTAIN
    up = directions[:, 0] if level else upward
    up = up * torch.sign(up @ upward) / up.norm()
    axis = int(up.abs().argmax())
    if float(up[axis]) >= math.cos(math.radians(TILT)) or not up.isfinite().all() or not up.any():
        return axis
    x, y, z = (round(x, 5) + 0.0 for x in up.tolist())
    return x, y, z


def _nearest_axis(c2w: Tensor) -> int:
    """The axis closest to the mean upward direction of the images."""
    return int(c2w[..., :3, 1].flatten(0, -2).mean(0).abs().argmax())


def depths_of_points(c2w: Tensor, points: Tensor) -> Tensor:
    """Depths of points (n, 3) along the axes of cameras (views, 4, 4): (views, n)."""
    return -((points - c2w[:, None, :3, 3]) * c2w[:, None, :3, 2]).sum(-1)


def bounds_of_box(c2w: Tensor, box: Box) -> Bounds:
    """The least and the largest depth of a box that cameras (views, 4, 4) look at."""
    corners = torch.cartesian_prod(*torch.tensor(box, dtype=c2w.dtype).mT)
    depth = depths_of_points(c2w, corners)
    far = float(depth.max())
    return max(float(depth.min()), NEAREST * far), far


def _fit_frame(
    eye: Tensor,
    point: Tensor,
    depth: Tensor | None,
    intrinsics: Tensor,
    size: Size,
    far: float,
    box: Box | None = None,
) -> tuple[float, ...]:
    """Centre and scale of a single scene: original = coordinates * scale + centre.

    Where the scene has a box, it fills the frame by its longest side. Else the centre is the
    cameras' focus point, and what they see around it reaches from -1 to 1, by their longer side.
    Where they have none, the centre is the mean of their positions, and they and all that they see
    up to ``far`` (0: unknown) lie within 1 of it.
    """
    if box is not None:
        low, high = eye.new_tensor(box)
        centre, scale = (low + high) / 2, float((high - low).amax()) / 2
    elif depth is None:
        centre = eye.mean((0, 1))
        scale = float((eye - centre).norm(dim=-1).max()) + far
    else:
        centre = point[0]
        tangent = (intrinsics.new_tensor(size[::-1]) / (2 * intrinsics[..., :2])).amax(-1)
        scale = float(depth.median() * tangent.median())
    scale = _round_relative(scale) or 1.0
    digits = 8 - math.floor(math.log10(scale))  # a coordinate's, as exact as the scale
    return (*(round(x, digits) + 0.0 for x in centre.tolist()), scale)


def place_box(box: Box, frame: Sequence[float] | None) -> tuple[float, ...]:
    """A box in the field's coordinates: its lowest corner, and then its highest."""
    *centre, scale = frame or (0.0, 0.0, 0.0, 1.0)
    return tuple(
        _round_relative((x - c) / scale)
        for corner in box
        for x, c in zip(corner, centre, strict=True)
    )


def _round_relative(number: float) -> float:
    return float(f"{number:.8g}")


def _round_absolute(number: float) -> float:
    return round(number, 5) if abs(number) >= 0.01 else _round_relative(number)


def describe_depth(renderer: Mapping[str, Any], guessed: str, asked: Depths) -> str:
    """``near 2, far 6 (guessed from the cameras)``. renderer: what is suggested for it.

    guessed: where the depths come from; "" where the file says them.
    """
    unknown = [key for key in OWN if key not in renderer]
    if unknown:
        return (
            f"{' and '.join(unknown)} unknown, since the cameras look at no common point (set "
            f"{' and '.join(f'renderer.{key}' for key in unknown)})"
        )
    guess = f" ({guessed})" if guessed else ""
    origin = [" (of the recipe)" if key in asked else guess for key in OWN]
    if origin[0] == origin[1]:
        origin[0] = ""
    near, far = (f"{renderer[key]:.5g}" for key in OWN)
    return f"near {near}{origin[0]}, far {far}{origin[1]}"


def describe_frame(frame: Sequence[float]) -> str:
    """``centred at (10, 20, 5) and scaled by 0.04``."""
    digits = 3 - math.floor(math.log10(frame[3]))
    centre = ", ".join(f"{round(x, digits) + 0.0:.9g}" for x in frame[:3])
    return f"centred at ({centre}) and scaled by {1 / frame[3]:.4g}"


def describe_domain(
    c2w: Tensor,
    intrinsics: Tensor,
    size: Size,
    renderer: Mapping[str, Any],
    frame: Sequence[float] | None,
    asked: Depths,
) -> dict[str, str]:
    """What is said of volume rendering most of whose samples the field does not resolve.

    renderer: near and far that are suggested; asked: those of the recipe, and its ``scale``.
    """
    known = dict(renderer) | dict(asked)
    if not {*OWN, "scale"} <= known.keys() or not 0 <= known["near"] < known["far"]:
        return {}
    centre, unit = ((0.0,) * 3, 1.0) if frame is None else (frame[:3], frame[3])
    unit *= known["scale"]
    placed = enter_frame(c2w.flatten(0, 1), (*centre, unit))
    depths = known["near"] / unit, known["far"] / unit
    share = share_inside(placed, intrinsics.flatten(0, 1), size, depths)
    if share >= FEW:
        return {}
    return {
        "domain": f"only {100 * share:.2g} % of the samples between near and far lie within the "
        "field's domain (see renderer.near, renderer.far, modality.frame)"
    }


def share_inside(
    c2w: Tensor, intrinsics: Tensor, size: Size, depths: Bounds, each: int = 16, views: int = 64
) -> float:
    """The share of evenly spaced samples of the rays of cameras that lie in [-1, 1]^3.

    c2w (n, 4, 4), in the field's coordinates; each: samples along each side of an image, and a ray;
    views: cameras that are looked at, evenly spaced among all.
    """
    some = torch.arange(min(len(c2w), views)) * len(c2w) // min(len(c2w), views)
    seen = resize_intrinsics(intrinsics[some], size, (each, each))
    origin, direction = rays(c2w[some], seen, each, each).unsqueeze(-2).split(3, -1)
    t = torch.linspace(*depths, each, dtype=c2w.dtype).unsqueeze(-1)
    return float(((origin + t * direction).abs() <= 1).all(-1).double().mean())
