"""Pinhole cameras: rays, projections and poses.

A pose is OpenGL camera-to-world, (4, 4): x right, y up, looking along -z. Intrinsics are
fx, fy, cx, cy in pixels. Pixel centres lie at +0.5, u runs to the right and v downwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from fieldloom.errors import InputError

Poses = Float[Tensor, "*cameras 4 4"]
Size = tuple[int, int]
"""(height, width) of an image."""

ORTHONORMAL = 1e-3
"""Tolerance of each entry of R^T R - I: files keep 6 or more digits."""
PARALLEL = 1e-3
"""Below this least eigenvalue cameras are parallel (within 2 degrees), and have no focus."""


def pixel_rays(
    c2w: Float[Tensor, "... 4 4"],
    intrinsics: Float[Tensor, "... 4"],
    u: Float[Tensor, ...],
    v: Float[Tensor, ...],
) -> Float[Tensor, "... 6"]:
    """Rays (origin | direction) through the points u, v of images; all shapes broadcast.

    The direction ((u - cx) / fx, -(v - cy) / fy, -1), rotated to world coordinates, is not
    normalised: the parameter t along it is the depth.
    """
    fx, fy, cx, cy = intrinsics.unbind(-1)
    x, y = ((u - cx) / fx).unsqueeze(-1), ((cy - v) / fy).unsqueeze(-1)
    right, up, back, origin = c2w[..., :3, :].unbind(-1)
    direction = x * right + y * up - back
    return torch.cat([origin.expand_as(direction), direction], -1)


def rays(
    c2w: Float[Tensor, "... 4 4"], intrinsics: Float[Tensor, "... 4"], height: int, width: int
) -> Float[Tensor, "... pixels 6"]:
    """Rays through all pixel centres of an image, row-major."""
    u = torch.arange(width, dtype=c2w.dtype, device=c2w.device) + 0.5
    v = torch.arange(height, dtype=c2w.dtype, device=c2w.device) + 0.5
    v, u = torch.meshgrid(v, u, indexing="ij")
    return pixel_rays(c2w.unsqueeze(-3), intrinsics.unsqueeze(-2), u.flatten(), v.flatten())


def project_points(
    points: Float[Tensor, "... 3"],
    c2w: Float[Tensor, "... 4 4"],
    intrinsics: Float[Tensor, "... 4"],
) -> tuple[Float[Tensor, "... 2"], Float[Tensor, ...]]:
    """Projections (u, v) of points, and their depths along -z; all shapes broadcast.

    A point whose depth is not positive is behind the camera, and its projection is not valid.
    """
    offset = points - c2w[..., :3, 3]
    x, y, z = torch.einsum("...i,...ij->...j", offset, c2w[..., :3, :3]).unbind(-1)
    fx, fy, cx, cy = intrinsics.unbind(-1)
    return torch.stack([cx - fx * x / z, cy + fy * y / z], -1), -z


def resize_intrinsics(intrinsics: Float[Tensor, "... 4"], before: Size, after: Size) -> Tensor:
    """Intrinsics of images that were resized from one (height, width) to another.

    The corners of the image stay corners, so a pixel centre never shifts against the scene.
    """
    y, x = after[0] / before[0], after[1] / before[1]
    return intrinsics * intrinsics.new_tensor([x, y, x, y])


def opengl_from_opencv(c2w: Poses) -> Poses:
    """The same camera in OpenGL's axes, from OpenCV's (x right, y down, looking along z)."""
    return c2w * c2w.new_tensor([1, -1, -1, 1])


def opencv_from_opengl(c2w: Poses) -> Poses:
    """The same camera in OpenCV's axes; the conversion is its own inverse."""
    return opengl_from_opencv(c2w)


def look_at(
    eye: Float[Tensor, "... 3"], target: Float[Tensor, "... 3"], up: Float[Tensor, "... 3"]
) -> Float[Tensor, "... 4 4"]:
    """Poses at ``eye`` that look at ``target`` and hold ``up`` upwards in the image.

    Raises InputError where the eye is at the target or looks straight along ``up``.
    """
    back = F.normalize(eye - target, dim=-1)
    right = torch.linalg.cross(F.normalize(up, dim=-1).expand_as(back), back)
    if not (right.norm(dim=-1) > 1e-6).all():
        raise InputError("a camera at its target, or looking along 'up', has no right way up.")
    right = F.normalize(right, dim=-1)
    top = torch.stack([right, torch.linalg.cross(back, right), back, eye.expand_as(back)], -1)
    last = top.new_tensor([0, 0, 0, 1]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, last], -2)


Up = int | tuple[float, float, float]
"""What is upwards: an axis (0, 1, 2), or a direction."""


def orbit(count: int, radius: float, elevation: float, up: Up = 2) -> Float[Tensor, "count 4 4"]:
    """Poses on a circle that look at the origin, at even steps, right-handed around ``up``.

    elevation: degrees above the plane through the origin, between -90 and 90.
    """
    if count < 1 or radius <= 0 or not -90 < elevation < 90 or not is_up(up):
        raise InputError(
            f"orbit: count = {count}, radius = {radius}, elevation = {elevation}, up = {up}: "
            "the first two are positive, elevation is between -90 and 90, up is 0, 1 or 2, or a "
            "direction."
        )
    if not isinstance(up, int):
        return _turn_upright(orbit(count, radius, elevation), up)
    angle = 2 * torch.pi * torch.arange(count, dtype=torch.float64) / count
    tilt = torch.deg2rad(torch.tensor(elevation, dtype=torch.float64))
    eye = torch.zeros(count, 3, dtype=torch.float64)
    eye[:, (up + 1) % 3] = radius * tilt.cos() * angle.cos()
    eye[:, (up + 2) % 3] = radius * tilt.cos() * angle.sin()
    eye[:, up] = radius * tilt.sin()
    return look_at(eye, torch.zeros_like(eye), torch.eye(3, dtype=torch.float64)[up]).float()


def is_up(up: Up) -> bool:
    """Whether it is an axis, or a direction that has a length."""
    return up in (0, 1, 2) if isinstance(up, int) else 0 < sum(x * x for x in up) < float("inf")


def _turn_upright(c2w: Poses, up: tuple[float, float, float]) -> Poses:
    """Poses turned around the origin such that what was along z is along ``up``."""
    top = F.normalize(torch.tensor(up, dtype=torch.float64), dim=0)
    aside = torch.eye(3, dtype=torch.float64)[int(top.abs().argmin())]
    first = F.normalize(torch.linalg.cross(aside, top), dim=0)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = torch.stack([first, torch.linalg.cross(top, first), top], 1)
    return (turn @ c2w.double()).to(c2w)


def enter_frame(c2w: Poses, frame: Sequence[float]) -> Poses:
    """Poses of the original in a frame: original = coordinates * scale + centre.

    frame: centre x, y, z and scale. Directions and intrinsics stay the same. Coordinates far from
    the origin need float64: what is returned lies near it.
    """
    centre = c2w.new_tensor(frame[:3])
    eye = (c2w[..., :3, 3] - centre) / frame[3]
    return torch.cat([torch.cat([c2w[..., :3, :3], eye.unsqueeze(-1)], -1), c2w[..., 3:, :]], -2)


def focus(c2w: Float[Tensor, "... views 4 4"]) -> Float[Tensor, "... 3"]:
    """The point nearest to the lines along which cameras look, by least squares.

    The origin where the cameras look along nearly parallel lines (``converge``).
    """
    origin = c2w[..., :3, 3]
    middle = origin.mean(-2)  # cameras far from the origin lose no digits
    across = _across(c2w)
    matrix = across.mean(-3)
    vector = (across @ (origin - middle.unsqueeze(-2)).unsqueeze(-1)).mean(-3)
    meets = converge(c2w).unsqueeze(-1)
    matrix = torch.where(meets.unsqueeze(-1), matrix, torch.eye(3).to(c2w))
    return (middle + torch.linalg.solve(matrix, vector).squeeze(-1)) * meets


def converge(c2w: Float[Tensor, "... views 4 4"]) -> Bool[Tensor, ...]:
    """Whether cameras look along lines that are not nearly parallel, and so have a focus."""
    return torch.linalg.eigvalsh(_across(c2w).mean(-3))[..., 0] > PARALLEL


def _across(c2w: Poses) -> Float[Tensor, "*cameras 3 3"]:
    """Projectors orthogonal to the lines along which cameras look."""
    back = c2w[..., :3, 2]
    return torch.eye(3).to(c2w) - back.unsqueeze(-1) * back.unsqueeze(-2)


def check_pose(c2w: Poses, name: str | Sequence[str]) -> None:
    """Raise InputError for a pose that is not a rotation and a translation.

    name: the name of the pose, or of each pose of (n, 4, 4).
    """
    c2w = c2w.double().reshape(-1, 4, 4)
    rotation = c2w[:, :3, :3]
    finite = c2w.isfinite().all((1, 2))
    last = (c2w[:, 3] - c2w.new_tensor([0, 0, 0, 1])).abs().amax(1) < ORTHONORMAL
    gram = rotation.mT @ rotation - torch.eye(3).to(c2w)
    orthonormal = gram.abs().amax((1, 2)) < ORTHONORMAL
    proper = torch.linalg.det(rotation.nan_to_num(0, 0, 0)) > 0
    for holds, wrong in (
        (finite, "holds NaN or infinite numbers, where all must be finite"),
        (last, "has another last row than 0 0 0 1: a pose is 4 x 4, camera to world"),
        (orthonormal, f"has a rotation that is not orthonormal within {ORTHONORMAL}: take scale "
                      "and shear out"),
        (proper, "mirrors: the determinant of its rotation must be +1, not -1"),
    ):  # fmt: skip
        if not holds.all():
            first = int((~holds).nonzero()[0])
            raise InputError(
                f"the pose of {name if isinstance(name, str) else name[first]} {wrong}."
            )
