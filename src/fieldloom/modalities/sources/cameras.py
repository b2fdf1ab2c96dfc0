"""What the cameras of scenes tell: depths, an orbit, and where a single scene stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fieldloom.errors import InputError, quote_path
from fieldloom.geometry.cameras import Size, converge, focus, project_points

Bounds = tuple[float, float]
"""The nearest and the farthest depth of a scene."""
Depths = Mapping[str, float]
"""``near``, ``far``, or both, of a recipe's renderer: they hold instead of a scene's own."""
NO_DEPTHS: Depths = {}

DEPTHS = (0.5, 1.5)
"""Default depths of a scene, relative to the distance of its focus: 2 to 6 for the cameras of
NeRF's synthetic scenes, at 4."""
OFF_CENTRE = 0.05
"""The largest distance of the cameras' focus from the origin, relative to their own distance, with
which an orbit still goes around the origin."""


def suggest_settings(
    c2w: Tensor,
    intrinsics: Tensor,
    size: Size,
    bounds: Sequence[Bounds | None],
    path: str,
    fit_frame: bool,
    asked: Depths = NO_DEPTHS,
) -> dict[str, dict[str, Any]]:
    """Sections of a recipe that cameras suggest: depths of the scene, a similar orbit, a frame.

    near, far: those that are asked for, or from the files, or else 0.5 and 1.5 times the depth of
    the cameras' focus point; there are none where the cameras have none.
    up: the world axis closest to the mean upward direction of the images.
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
    renderer = ({"near": near, "far": far} if depths else {}) | dict(asked)
    keep = _round_relative if fit_frame else _round_absolute
    centre, modality = eye.new_zeros(3), {}
    if fit_frame:
        frame = _fit_frame(eye, point, depth, intrinsics, size, renderer.get("far", 0.0))
        centre, modality = eye.new_tensor(frame[:3]), {"frame": frame}
    elif depth is not None:
        middle = point.median(0).values
        if middle.norm() > OFF_CENTRE * (eye - middle).norm(dim=-1).median():
            centre, modality = middle, {"centre": tuple(keep(x) for x in middle.tolist())}
    radius = keep(float((eye - centre).norm(dim=-1).median()))
    orbit = {
        "radius": radius or (frame[3] if fit_frame else 1.0),
        "focal": round(float(intrinsics[..., 0].median()) / size[1], 5),
        "up": int(c2w[..., :3, 1].flatten(0, -2).mean(0).abs().argmax()),
    }
    kept = {key: asked.get(key, keep(value)) for key, value in renderer.items()}
    return {"renderer": kept, "modality": orbit | modality}


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


def _fit_frame(
    eye: Tensor, point: Tensor, depth: Tensor | None, intrinsics: Tensor, size: Size, far: float
) -> tuple[float, ...]:
    """Centre and scale of a single scene: original = coordinates * scale + centre.

    The centre is the cameras' focus point, and what they see around it reaches from -1 to 1, by
    their longer side. Where they have none, the centre is the mean of their positions, and they and
    all that they see up to ``far`` (0: unknown) lie within 1 of it.
    """
    if depth is None:
        centre = eye.mean((0, 1))
        scale = float((eye - centre).norm(dim=-1).max()) + far
    else:
        centre = point[0]
        tangent = (intrinsics.new_tensor(size[::-1]) / (2 * intrinsics[..., :2])).amax(-1)
        scale = float(depth.median() * tangent.median())
    scale = _round_relative(scale) or 1.0
    digits = 8 - math.floor(math.log10(scale))  # a coordinate's, as exact as the scale
    return (*(round(x, digits) + 0.0 for x in centre.tolist()), scale)


def _round_relative(number: float) -> float:
    return float(f"{number:.8g}")


def _round_absolute(number: float) -> float:
    return round(number, 5) if abs(number) >= 0.01 else _round_relative(number)


def describe_depth(renderer: Mapping[str, float], guessed: bool, asked: Depths) -> str:
    """``near 2, far 6 (guessed from the cameras)``. renderer: what is suggested for it."""
    unknown = [key for key in ("near", "far") if key not in renderer]
    if unknown:
        return (
            f"{' and '.join(unknown)} unknown, since the cameras look at no common point (set "
            f"{' and '.join(f'renderer.{key}' for key in unknown)})"
        )
    guess = " (guessed from the cameras)" if guessed else ""
    origin = [" (of the recipe)" if key in asked else guess for key in ("near", "far")]
    if origin[0] == origin[1]:
        origin[0] = ""
    near, far = (f"{renderer[key]:.5g}" for key in ("near", "far"))
    return f"near {near}{origin[0]}, far {far}{origin[1]}"


def describe_frame(frame: Sequence[float]) -> str:
    """``centred at (10, 20, 5) and scaled by 0.04``."""
    digits = 3 - math.floor(math.log10(frame[3]))
    centre = ", ".join(f"{round(x, digits) + 0.0:.9g}" for x in frame[:3])
    return f"centred at ({centre}) and scaled by {1 / frame[3]:.4g}"
