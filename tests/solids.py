"""Boxes, balls and grids around them."""

import itertools
import math

import numpy as np
import torch

from fieldloom.geometry.mesh import Mesh, as_mesh
from fieldloom.modalities import Grid


def centres(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / count * 2 - 1


def lattice(count: int) -> torch.Tensor:
    axis = torch.from_numpy(centres(count))
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def box(half=0.5, at=(0.0, 0.0, 0.0)) -> Mesh:
    corners = np.array(list(itertools.product((-1, 1), repeat=3))) * half + at
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))]
    return as_mesh(corners, np.array(faces), "box")


def ball(around=24, radius=0.7, share=1.0) -> Mesh:
    """A sphere of latitudes and longitudes; ``share`` of it, from the top: 0.5 is a hemisphere."""
    theta = np.linspace(0, math.pi * share, around // 2 + 1)
    phi = np.arange(around) * 2 * math.pi / around
    t, p = np.meshgrid(theta, phi, indexing="ij")
    vertices = radius * np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], -1)
    place_of = np.arange(t.size).reshape(t.shape)
    a, b = place_of[:-1], np.roll(place_of, -1, 1)[:-1]
    c, d = place_of[1:], np.roll(place_of, -1, 1)[1:]
    faces = np.concatenate([np.stack([a, c, d], -1), np.stack([a, d, b], -1)]).reshape(-1, 3)
    return as_mesh(vertices.reshape(-1, 3), faces, "ball")


def grid(size=8, **more) -> Grid:
    return Grid(axes=3, size=size, channels=1, **more)


def join(*meshes: Mesh) -> Mesh:
    """All faces of several meshes, each with vertices of its own."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes])
    faces = [m.faces + start for m, start in zip(meshes, starts, strict=False)]
    return Mesh(np.concatenate([m.vertices for m in meshes]), np.concatenate(faces))


def flip(mesh: Mesh) -> Mesh:
    """The same faces, inside out."""
    return Mesh(mesh.vertices, np.ascontiguousarray(mesh.faces[:, ::-1]))


def move(mesh: Mesh, by) -> Mesh:
    return Mesh(mesh.vertices + by, mesh.faces)


def loosen(mesh: Mesh, size=1.0) -> Mesh:
    """Faces in any orientation, without common vertices; size: of each, about its own centre."""
    faces = mesh.faces.copy()
    turned = np.random.default_rng(0).random(len(faces)) < 0.5
    faces[turned] = faces[turned][:, ::-1]
    corners = mesh.vertices[faces]
    middle = corners.mean(1, keepdims=True)
    loose = (middle + size * (corners - middle)).reshape(-1, 3)
    return Mesh(loose, np.arange(len(loose)).reshape(-1, 3))


def sheet(half=0.5, z=0.0) -> Mesh:
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * half + [0.0, 0.0, z]
    return Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]))


def tube(radius=0.6, wall=0.2, height=1.2, around=32) -> Mesh:
    """A cup without a bottom, whose wall is open below: outer wall, upper rim, inner wall."""
    phi = np.arange(around) * 2 * math.pi / around
    low, high, inner = -height / 2, height / 2, radius - wall
    rings = [(radius, low), (radius, 0), (radius, high), (inner, high), (inner, 0), (inner, low)]
    turn = np.stack([np.cos(phi), np.sin(phi)], 1)
    vertices = [np.concatenate([r * turn, np.full((around, 1), z)], 1) for r, z in rings]
    a = np.arange(around * (len(rings) - 1))
    b = a - a % around + (a + 1) % around
    c, d = a + around, b + around
    faces = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
    return as_mesh(np.concatenate(vertices), faces, "tube")
