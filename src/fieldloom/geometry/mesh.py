"""Triangle meshes as arrays: checks, areas, samples of the surface, and unit frames."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from numpy.typing import ArrayLike, NDArray
from torch import Generator, Tensor

from fieldloom.errors import InputError

Samples = tuple[Float64[Tensor, "n 3"], Float64[Tensor, "n 3"]]


FARTHEST = 1e60
"""The largest coordinate: its fourth power, which areas need, is still finite."""


class Mesh(NamedTuple):
    """Triangles; the corners of a face are counter-clockwise, seen from outside."""

    vertices: Float64[np.ndarray, "vertices 3"]
    faces: Int64[np.ndarray, "faces 3"]


def as_mesh(vertices: ArrayLike, faces: ArrayLike, name: str) -> Mesh:
    """A valid Mesh of vertices (V, 3) and faces (F, 3): at least one face, all of positive area.

    Faces without area are removed, and so are unused vertices, which would enlarge the bounding
    box. Open and non-manifold surfaces are allowed. Raises InputError, which names ``name``, for
    arrays of another shape, no faces, numbers that are not finite or above ``FARTHEST``, indices
    out of range, and a surface without area.
    """
    try:
        points, corners = np.asarray(vertices), np.asarray(faces)
    except ValueError:  # rows of different lengths
        raise InputError(f"{name} has rows of different lengths: all have three columns.") from None
    if corners.ndim and not len(corners):
        raise InputError(f"{name} has no faces: a surface needs at least one triangle.")
    if points.ndim != 2 or corners.ndim != 2 or points.shape[1] != 3 or corners.shape[1] != 3:
        raise InputError(
            f"{name} has vertices {points.shape} and faces {corners.shape}: "
            "both have three columns, triangles only."
        )
    if points.dtype.kind not in "fiu" or corners.dtype.kind not in "iu":
        raise InputError(
            f"{name} has vertices of {points.dtype} and faces of {corners.dtype}: "
            "vertices are numbers, faces are integers."
        )
    points, corners = points.astype(np.float64), corners.astype(np.int64)
    if not np.isfinite(points).all():
        raise InputError(f"{name} has NaN or infinite vertices: all must be finite.")
    if np.abs(points).max(initial=0) > FARTHEST:
        raise InputError(f"{name} has vertices beyond {FARTHEST:g}: products of them overflow.")
    if corners.min() < 0 or corners.max() >= len(points):
        raise InputError(
            f"{name} has faces with corners {corners.min()} to {corners.max()}: "
            f"they must lie in 0 to {len(points) - 1}, the indices of its vertices."
        )
    # Rounding of coordinates gives degenerate faces up to this area; they have no normal.
    used = points[corners].reshape(-1, 3)
    rounding = 4 * np.finfo(np.float64).eps * np.ptp(used, axis=0).max() * np.abs(used).max()
    keep = areas(Mesh(points, corners)) > rounding
    if not keep.any():
        raise InputError(f"{name} has no area: all its faces are points or lines.")
    used, indices = np.unique(corners[keep], return_inverse=True)
    return Mesh(points[used], indices.reshape(-1, 3).astype(np.int64))


def triangles(mesh: Mesh) -> Float64[np.ndarray, "faces 3 3"]:
    """The corners of each face: (face, corner, coordinate)."""
    return mesh.vertices[mesh.faces]


def face_normals(mesh: Mesh) -> Float64[np.ndarray, "faces 3"]:
    """The outward normal of each face, twice the face's area long."""
    corners = triangles(mesh)
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def areas(mesh: Mesh) -> Float64[np.ndarray, " faces"]:
    """The area of each face."""
    return np.linalg.norm(face_normals(mesh), axis=1) / 2


def area(mesh: Mesh) -> float:
    """The area of the surface."""
    return float(areas(mesh).sum())


def volume(mesh: Mesh) -> float:
    """The enclosed volume, negative where the faces point inwards; for a closed surface only.

    It is the sum over the tetrahedra of each face and a fixed point (the mean vertex, so that
    meshes far from the origin lose no digits).
    """
    corners = triangles(mesh) - mesh.vertices.mean(0)
    return float(np.einsum("fi,fi->", corners[:, 0], face_normals(mesh)) / 6)


def is_watertight(mesh: Mesh) -> bool:
    """Whether each edge belongs to exactly two faces; vertices at equal positions are one."""
    _, indices = np.unique(mesh.vertices, axis=0, return_inverse=True)
    corners = indices.reshape(-1)[mesh.faces]
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    _, counts = np.unique(np.sort(edges, 1), axis=0, return_counts=True)
    return bool(len(counts) and (counts == 2).all())


def sample_surface(mesh: Mesh, count: int, generator: Generator | None = None) -> Samples:
    """Uniform samples of the surface, and their unit normals: (count, 3) each, float64."""
    draws = torch.rand(3, count, generator=generator, dtype=torch.float64)
    cumulative = torch.from_numpy(np.cumsum(areas(mesh)))
    face = torch.searchsorted(cumulative, draws[0] * cumulative[-1], right=True)
    return points_on_faces(mesh, face.clamp_(max=len(cumulative) - 1), draws[1], draws[2])


def points_on_faces(
    mesh: Mesh, face: Int[Tensor, " n"], u: Float[Tensor, " n"], v: Float[Tensor, " n"]
) -> Samples:
    """Points of the given faces, and their unit normals, from numbers u and v in [0, 1).

    corner 0 + u (corner 1 - corner 0) + v (corner 2 - corner 0), with (1 - u, 1 - v) in place of
    (u, v) where u + v >= 1: uniform on the face if u and v are uniform.
    """
    corners = torch.from_numpy(triangles(mesh))[face]
    normals = torch.from_numpy(face_normals(mesh))[face]
    fold: Bool[Tensor, " n"] = u + v >= 1
    along = torch.stack([torch.where(fold, 1 - u, u), torch.where(fold, 1 - v, v)], 1).double()
    points = corners[:, 0] + torch.einsum("nk,nki->ni", along, corners[:, 1:] - corners[:, :1])
    return points, torch.nn.functional.normalize(normals, dim=1, eps=0.0)


Centre = Literal["box", "vertices"]


def normalize_mesh(
    mesh: Mesh, extent: float = 1.0, centre: Centre = "box"
) -> tuple[Mesh, Float64[Tensor, " 4"]]:
    """The mesh scaled to [-extent, extent] without distortion, and its frame.

    centre: the point that becomes the origin: the centre of the bounding ``box``, or the mean of
        the ``vertices``. The largest distance of a coordinate from it becomes extent.
    frame: the centre x, y, z and a scale, (4,), with original = unit * scale + centre.
    """
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    middle = (low + high) / 2 if centre == "box" else mesh.vertices.mean(0)
    scale = float(np.maximum(high - middle, middle - low).max()) / extent
    frame = torch.tensor([*middle.tolist(), scale], dtype=torch.float64)
    return Mesh((mesh.vertices - middle) / scale, mesh.faces), frame


def denormalize_mesh(mesh: Mesh, frame: Float64[Tensor, " 4"] | NDArray[Any]) -> Mesh:
    """The mesh in its original coordinates: the inverse of ``normalize_mesh``."""
    back = np.asarray(frame, np.float64)
    return Mesh(mesh.vertices * back[3] + back[:3], mesh.faces)
