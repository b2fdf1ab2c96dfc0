"""Images of meshes."""

import math
import time

import numpy as np
import pytest

from fieldloom.errors import InputError
from fieldloom.geometry.mesh import Mesh
from fieldloom.geometry.preview import preview, turntable
from solids import ball


def test_pictures_of_a_ball():
    """Parallel projection: the disc has the ball's radius, and the centre is its nearest point."""
    mesh = ball(96, radius=1.0)
    picture = preview(mesh, size=64, span=2.0).astype(float)
    assert picture.shape == (64, 64, 3)
    row, column = (np.mgrid[:64, :64] + 0.5) / 16 - 2
    radius = np.hypot(row, column)
    dark = picture.mean(-1) < 250
    assert dark[radius < 0.95].all()
    assert not dark[radius > 1.05].any()
    level = picture.mean(-1)
    # Lights stand above, to the left: smooth shades, brighter there.
    assert level[dark & (row < -0.5)].mean() > level[dark & (row > 0.5)].mean() + 20
    turned = Mesh(mesh.vertices, np.ascontiguousarray(mesh.faces[:, ::-1]))
    assert (preview(turned, size=64, span=2.0) == picture).all()  # both sides of a face are lit


def test_a_picture_equals_a_slow_one():
    """Each pixel's centre against each triangle, by barycentric coordinates."""
    generator = np.random.default_rng(0)
    mesh = Mesh(generator.normal(size=(24, 3)), np.arange(24).reshape(8, 3).astype(np.int64))
    from fieldloom.geometry.preview import _visible

    side = 20
    corners = generator.uniform(-3, 23, (8, 3, 3))
    seen = _visible(corners, side)
    for pixel, face in enumerate(seen.tolist()):
        x, y = pixel % side + 0.5, pixel // side + 0.5
        best, found = -math.inf, -1
        for i, (a, b, c) in enumerate(corners):
            weights = np.linalg.solve(
                np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]]), [x, y, 1]
            )
            depth = weights @ [a[2], b[2], c[2]]
            if weights.min() > 0 and depth > best:
                best, found = depth, i
        assert face == found
    assert len(set(seen.tolist())) > 5
    assert preview(mesh, 16).shape == (16, 16, 3)


@pytest.mark.parametrize("up", [0, 1, 2])
def test_up_is_up_and_a_turn_is_a_turn(up):
    axis = np.roll(np.eye(3), up + 1, axis=1)  # rows: first, second, up
    tall = np.array([[-0.1, -0.1, 0], [0.1, 0.1, 0], [0, 0, 1.0]]) @ axis
    spike = Mesh(tall, np.array([[0, 1, 2]]))
    seen = preview(spike, 64, azimuth=-45.0, elevation=10.0, up=up, span=1.2)
    assert (seen[:32] < 250).any()  # it stands on the middle of the picture
    assert not (seen[36:] < 250).any()
    pointer = Mesh(np.array([[0, 0, -0.1], [0, 0, 0.1], [1.0, 0, 0]]) @ axis, np.array([[0, 1, 2]]))
    to_the_left = preview(pointer, 64, azimuth=90.0, elevation=0.0, up=up, span=1.2)
    assert (to_the_left[:, :32] < 250).any()  # from the second axis, the first points left
    assert not (to_the_left[:, 34:] < 250).any()
    pictures = turntable(spike, 4, 32, up)
    assert len(pictures) == 4
    assert not np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[1], preview(spike, 32, azimuth=90.0, up=up))


def test_nothing_to_see_is_a_cross():
    cross = preview(None, 64)
    assert cross.shape == (64, 64, 3)
    assert (cross[32, 32] == (200, 40, 40)).all()
    assert (cross[2, 32] == cross[2, 2]).all()
    none = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    lost = Mesh(np.full((3, 3), math.nan), np.array([[0, 1, 2]]))
    for mesh in (none, lost):
        assert np.array_equal(preview(mesh, 64), cross)
    with pytest.raises(InputError, match="up = 3"):
        preview(None, up=3)


def test_a_picture_is_quick(bunny):
    preview(bunny, 256)
    begun = time.process_time()  # whatever else the machine does
    preview(bunny, 256, up=1)
    assert time.process_time() - begun < 5.0  # 0.03 s
