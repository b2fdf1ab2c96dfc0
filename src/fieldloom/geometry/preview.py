"""Shaded images of meshes: a small rasteriser in NumPy, which needs no display."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, UInt8
from numpy.typing import NDArray

from fieldloom.errors import InputError
from fieldloom.geometry.mesh import Mesh

Image = UInt8[np.ndarray, "size size 3"]

SUPERSAMPLING = 2
PIXELS = 2**21  # covered pixels of one block, hidden ones included
COLOUR = np.array([0.66, 0.74, 0.85])
AMBIENT = 0.3
# Directions in the camera's frame (right, up, to the camera) and strengths.
LIGHTS = [((-0.45, 0.65, 0.62), 0.68), ((0.75, -0.1, 0.65), 0.22)]


def preview(
    mesh: Mesh | None,
    size: int = 128,
    azimuth: float = 35.0,
    elevation: float = 25.0,
    up: int = 2,
    span: float | None = None,
) -> Image:
    """A shaded image on white, uint8 (size, size, 3), parallel projection.

    The lights are at the camera, and both sides of a face are lit. Where there is no surface (None,
    no faces, vertices that are not finite) the image is a grey tile with a red cross.

    azimuth:   degrees around the upward axis, from the first of the other two (in cyclic order).
    elevation: degrees above the horizon.
    up:        the axis that points upwards: 0, 1 or 2.
    span:      half the width of the image in the mesh's unit, around the origin; None fits the
               mesh, by a sphere around its bounding box: the same from all sides.
    """
    if up not in (0, 1, 2) or size < 1:
        raise InputError(f"preview: up = {up}, size = {size}: an axis (0, 1, 2), and at least 1.")
    if mesh is None or not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
        return _cross(size)
    points = mesh.vertices[:, [(up + 1) % 3, (up + 2) % 3, up]]
    if span is None:
        points = points - (points.min(0) + points.max(0)) / 2
        span = 1.04 * max(float(np.linalg.norm(points, axis=1).max()), 1e-300)
    seen = points @ _camera(math.radians(azimuth), math.radians(elevation)).T / span
    side = size * SUPERSAMPLING
    screen = (seen * [1, -1, 1] + [1, 1, 0]) * [side / 2, side / 2, 1]
    face = _visible(screen[mesh.faces], side)
    shades = np.concatenate([_shades(seen[mesh.faces]), np.ones((1, 3))])  # the last: background
    tiles = shades[face].reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3)
    return np.rint(tiles.mean((1, 3)) * 255).astype(np.uint8)


def turntable(mesh: Mesh | None, frames: int, size: int = 128, up: int = 2) -> list[Image]:
    """Images of one turn around the upward axis, at the default elevation."""
    return [preview(mesh, size, azimuth=360.0 * i / frames, up=up) for i in range(frames)]


def _camera(azimuth: float, elevation: float) -> Float64[np.ndarray, "3 3"]:
    """Rows: right, up, and from the object to the camera, for a world whose axis 2 is up."""
    toward = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    return np.stack([right, np.cross(toward, right), toward])


def _shades(corners: Float64[np.ndarray, "faces 3 3"]) -> Float64[np.ndarray, "faces 3"]:
    """The colour of each face, in [0, 1]; corners in the camera's frame."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    # Faces seen from behind have inverted normals.
    normals *= np.where(normals[:, 2:] < 0, -1, 1) / np.maximum(lengths, 1e-300)
    light = np.full(len(corners), AMBIENT)
    for direction, strength in LIGHTS:
        unit = np.array(direction) / np.linalg.norm(direction)
        light += strength * np.maximum(normals @ unit, 0)
    return np.clip(light[:, None] * COLOUR, 0, 1)


def _visible(corners: Float64[np.ndarray, "faces 3 3"], side: int) -> NDArray[np.int64]:
    """The visible face of each pixel (side * side,), row by row; -1 for none.

    corners: x (right) and y (down) in pixels, and a depth that increases towards the viewer. A face
    is rasterised into spans of the pixel rows whose centres it crosses, and a span into the pixels
    whose centres it covers; bounds are half-open, so that faces with a common edge share no pixel.
    """
    face, row = _expand(corners[:, :, 1].min(1), corners[:, :, 1].max(1), side)
    height = row + 0.5
    left, right = np.full(len(face), np.inf), np.full(len(face), -np.inf)
    near_left, near_right = np.zeros(len(face)), np.zeros(len(face))
    for i in range(3):
        tail, head = corners[face, i], corners[face, (i + 1) % 3]
        crossed = (tail[:, 1] <= height) != (head[:, 1] <= height)
        gradient = (height - tail[:, 1]) / np.where(crossed, head[:, 1] - tail[:, 1], 1)
        x = tail[:, 0] + gradient * (head[:, 0] - tail[:, 0])
        depth = tail[:, 2] + gradient * (head[:, 2] - tail[:, 2])
        first, last = crossed & (x < left), crossed & (x > right)
        left, near_left = np.where(first, x, left), np.where(first, depth, near_left)
        right, near_right = np.where(last, x, right), np.where(last, depth, near_right)
    gradient = (near_right - near_left) / np.maximum(right - left, 1e-300)

    nearest = np.full(side * side, -np.inf)
    seen = np.full(side * side, -1)
    cumulative = np.cumsum(np.clip(np.ceil(right - left) + 1, 0, side + 1))
    blocks = np.searchsorted(
        cumulative, np.arange(PIXELS, cumulative[-1] if len(cumulative) else 0, PIXELS)
    )
    for part in np.split(np.arange(len(face)), blocks):
        span, column = _expand(left[part], right[part], side)
        span = part[span]
        depth = near_left[span] + gradient[span] * (column + 0.5 - left[span])
        pixel = row[span] * side + column
        np.maximum.at(nearest, pixel, depth)
        front = depth == nearest[pixel]
        seen[pixel[front]] = face[span[front]]
    return seen


def _expand(
    low: Float64[np.ndarray, " n"], high: Float64[np.ndarray, " n"], side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells of 0 .. side - 1 whose centres lie in [low, high): (interval, cell) of each."""
    first = np.clip(np.ceil(low - 0.5), 0, side).astype(np.int64)
    end = np.clip(np.ceil(high - 0.5), 0, side).astype(np.int64)
    count = np.maximum(end - first, 0)
    interval = np.repeat(np.arange(len(low)), count)
    before = np.cumsum(count) - count
    return interval, first[interval] + np.arange(len(interval)) - before[interval]


def _cross(size: int) -> Image:
    row, column = np.mgrid[:size, :size]
    width = max(1, size / 24)
    bars = np.minimum(abs(row - column), abs(row + column - size + 1)) < width
    inside = (np.minimum(row, column) > size / 6) & (np.maximum(row, column) < size * 5 / 6)
    tile = np.full((size, size, 3), 235, np.uint8)
    tile[bars & inside] = (200, 40, 40)
    return tile
