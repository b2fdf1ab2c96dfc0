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
