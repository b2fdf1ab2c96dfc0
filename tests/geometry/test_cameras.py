"""Pinhole cameras: where points fall, where rays go, and what is no pose."""

import itertools
import math

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import (
    check_pose,
    converge,
    enter_frame,
    focus,
    look_at,
    opencv_from_opengl,
    opengl_from_opencv,
    orbit,
    pixel_rays,
    project_points,
    rays,
    resize_intrinsics,
)

ASKEW = torch.tensor([40.0, 35.0, 15.0, 11.0])  # nothing equal, nothing centred
CUBE = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))


def poses(count: int) -> torch.Tensor:
    """Any cameras that look at points near the origin."""
    eye = torch.randn(count, 3)
    eye = 4 * eye / eye.norm(dim=1, keepdim=True)
    return look_at(eye, 0.3 * torch.randn(count, 3), torch.tensor([0.0, 0.0, 1.0]))


def test_a_cube_falls_on_known_pixels():
    """From 5 above along z, looking down it: the near face at depth 4, the far one at 6."""
    c2w = torch.eye(4)
    c2w[2, 3] = 5
    intrinsics = torch.tensor([12.0, 24.0, 8.0, 6.0])
    pixels, depth = project_points(CUBE, c2w, intrinsics)
    for (x, y, z), (u, v), d in zip(CUBE.tolist(), pixels.tolist(), depth.tolist(), strict=True):
        assert d == 5 - z
        assert u == pytest.approx(8 + 12 * x / d)  # right is right
        assert v == pytest.approx(6 - 24 * y / d)  # up is a smaller v
    behind = project_points(torch.tensor([0.0, 0.0, 9.0]), c2w, intrinsics)[1]
    assert behind < 0


def test_projection_is_opencvs():
    """K [R | t] of the same camera in OpenCV's axes, in numpy, one point at a time."""
    fx, fy, cx, cy = ASKEW.tolist()
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    for c2w in poses(4):
        w2c = np.linalg.inv(opencv_from_opengl(c2w).double().numpy())
        for point in CUBE:
            seen = matrix @ (w2c @ np.append(point.numpy(), 1))[:3]
            pixel, depth = project_points(point, c2w, ASKEW)
            assert depth == pytest.approx(seen[2], rel=1e-5)
            np.testing.assert_allclose(pixel, seen[:2] / seen[2], rtol=1e-4, atol=1e-4)


def test_rays_through_projected_points_hit_them():
    """A step of the depth along the unnormalised ray ends at the point: many views at once."""
    c2w = poses(5).unsqueeze(1)
    pixels, depth = project_points(CUBE, c2w, ASKEW)
    assert pixels.shape == (5, 8, 2)
    found = pixel_rays(c2w, ASKEW, *pixels.unbind(-1))
    hit = found[..., :3] + depth.unsqueeze(-1) * found[..., 3:]
    torch.testing.assert_close(hit, CUBE.expand(5, 8, 3), atol=1e-5, rtol=0)


def test_rays_are_the_formula():
    """All rays of a picture against a loop over its pixels, and picked ones against all."""
    c2w, height, width = poses(6).unflatten(0, (2, 3)), 4, 5
    intrinsics = ASKEW * (1 + torch.rand(2, 3, 1))
    every = rays(c2w, intrinsics, height, width)
    assert every.shape == (2, 3, 20, 6)
    for i, j, row, column in itertools.product(range(2), range(3), range(height), range(width)):
        fx, fy, cx, cy = intrinsics[i, j].tolist()
        camera = torch.tensor([(column + 0.5 - cx) / fx, -(row + 0.5 - cy) / fy, -1.0])
        expected = torch.cat([c2w[i, j, :3, 3], c2w[i, j, :3, :3] @ camera])
        torch.testing.assert_close(every[i, j, row * width + column], expected)
    view, pixel = torch.randint(3, (2, 7)), torch.randint(20, (2, 7))
    signal = torch.arange(2).unsqueeze(1)
    few = pixel_rays(
        c2w[signal, view], intrinsics[signal, view], pixel % width + 0.5, pixel // width + 0.5
    )
    torch.testing.assert_close(few, every[signal, view, pixel])


def test_axes_of_opencv_and_back():
    c2w = poses(3)
    turned = opencv_from_opengl(c2w)
    assert torch.equal(opengl_from_opencv(turned), c2w)
    assert torch.equal(turned[:, :3, 1], -c2w[:, :3, 1])
    assert torch.equal(turned[:, :3, 2], -c2w[:, :3, 2])
    assert torch.equal(turned[:, :, [0, 3]], c2w[:, :, [0, 3]])


def test_resized_intrinsics_keep_the_scene():
    """A world point keeps its place as a share of the picture, and blocks keep their mean ray."""
    c2w = poses(1)[0]
    before, _ = project_points(CUBE, c2w, ASKEW)
    after, _ = project_points(CUBE, c2w, resize_intrinsics(ASKEW, (22, 30), (44, 10)))
    torch.testing.assert_close(after / torch.tensor([10.0, 44.0]), before / torch.tensor([30, 22]))
    fine = rays(c2w, ASKEW, 22, 30).unflatten(0, (11, 2, 15, 2)).mean((1, 3)).flatten(0, 1)
    torch.testing.assert_close(
        rays(c2w, resize_intrinsics(ASKEW, (22, 30), (11, 15)), 11, 15), fine
    )


def test_look_at():
    eye, target = torch.tensor([3.0, -2.0, 1.0]), torch.tensor([0.5, 0.5, 0.0])
    c2w = look_at(eye, target, torch.tensor([0.0, 0.0, 2.0]))
    check_pose(c2w, "it")
    pixel, depth = project_points(target, c2w, ASKEW)
    torch.testing.assert_close(pixel, ASKEW[2:])
    assert depth == pytest.approx(float((eye - target).norm()))
    above, _ = project_points(target + torch.tensor([0.0, 0.0, 0.1]), c2w, ASKEW)
    assert above[0] == pytest.approx(15, abs=1e-4)
    assert above[1] < 11
    for bad in (target, target + torch.tensor([0.0, 0.0, 4.0])):
        with pytest.raises(InputError, match="no right way up"):
            look_at(bad, target, torch.tensor([0.0, 0.0, 1.0]))


@pytest.mark.parametrize("up", [0, 1, 2])
def test_orbit(up):
    c2w = orbit(8, 2.5, 30.0, up)
    check_pose(c2w, "orbit")
    eye = c2w[:, :3, 3]
    torch.testing.assert_close(eye.norm(dim=1), torch.full((8,), 2.5))
    torch.testing.assert_close(eye[:, up], torch.full((8,), 1.25))
    assert (c2w[:, up, 1] > 0).all()
    assert c2w[:, up, 0].abs().max() < 1e-6
    pixel, depth = project_points(torch.zeros(3), c2w, ASKEW)
    torch.testing.assert_close(pixel, ASKEW[2:].expand(8, 2))
    torch.testing.assert_close(depth, torch.full((8,), 2.5))
    step = torch.linalg.cross(eye[:-1], eye[1:])[:, up]
    torch.testing.assert_close(step, torch.full((7,), (2.5 * math.cos(math.pi / 6)) ** 2 / 2**0.5))


@pytest.mark.parametrize("bad", [(0, 1.0, 0.0, 2), (4, 0.0, 0.0, 2), (4, 1.0, 90.0, 2),
                                 (4, 1.0, 0.0, 3)])  # fmt: skip
def test_orbits_that_are_none(bad):
    with pytest.raises(InputError, match="elevation is between -90 and 90"):
        orbit(*bad)


def test_focus():
    """Cameras that look at one point meet there; parallel ones meet nowhere."""
    target = torch.tensor([[0.2, -0.4, 0.1], [3.0, 2.0, 1.0]])
    eye = target.unsqueeze(1) + torch.randn(2, 6, 3)
    c2w = look_at(eye, target.unsqueeze(1), torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(focus(c2w), target, atol=1e-4, rtol=1e-4)
    side = torch.eye(4).repeat(5, 1, 1)
    side[:, 0, 3] = torch.arange(5.0)
    assert torch.equal(focus(side), torch.zeros(3))
    assert converge(torch.stack([c2w[0, :5], side])).tolist() == [True, False]
    far = c2w.double()  # map coordinates: no digit is lost
    far[..., :3, 3] += torch.tensor([5e5, 4e6, 100.0])
    moved = focus(c2w.double()) + torch.tensor([5e5, 4e6, 100.0])
    torch.testing.assert_close(focus(far), moved, atol=1e-7, rtol=0)


def test_frames():
    """A pixel sees the same point of the original, which is coordinates * scale + centre."""
    c2w, frame = poses(3).double(), (5e5, 4e6, 100.0, 25.0)
    original = c2w.clone()
    original[:, :3, 3] = c2w[:, :3, 3] * 25 + torch.tensor(frame[:3])
    torch.testing.assert_close(enter_frame(original, frame), c2w, atol=1e-9, rtol=0)
    inside, depth = project_points(CUBE[:3].double(), c2w, ASKEW.double())
    outside, far = project_points(
        CUBE[:3].double() * 25 + torch.tensor(frame[:3]), original, ASKEW.double()
    )
    torch.testing.assert_close(outside, inside, atol=1e-6, rtol=0)
    torch.testing.assert_close(far, depth * 25)


def test_poses_that_are_none():
    good = poses(3)
    check_pose(good, "cameras")
    check_pose(good.double(), ["a", "b", "c"])
    scaled, sheared, mirrored, projective, infinite = (good[1].clone() for _ in range(5))
    scaled[:3, :3] *= 1.01
    sheared[:3, 0] += 0.1 * sheared[:3, 1]
    mirrored[:3, 0] *= -1
    projective[3, 0] = 0.5
    infinite[0, 3] = torch.nan
    for pose, message in (
        (scaled, "not orthonormal"),
        (sheared, "not orthonormal"),
        (mirrored, r"must be \+1"),
        (projective, "last row"),
        (infinite, "NaN or infinite"),
    ):
        with pytest.raises(InputError, match=f"the pose of frame 7 .*{message}"):
            check_pose(pose, "frame 7")
        with pytest.raises(InputError, match=f"the pose of b .*{message}"):
            check_pose(torch.stack([good[0], pose, good[2]]), ["a", "b", "c"])
