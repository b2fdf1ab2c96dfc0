"""What is inside a mesh, and how far it is."""

import math

import numpy as np
import pytest
import torch

from fieldloom.geometry.boundary import find_boundary
from fieldloom.geometry.inside import (
    boundary_distance,
    bounding_share,
    distance,
    inside,
    sample_boundary,
    signed_distance,
    winding_number,
)
from fieldloom.geometry.mesh import Mesh, denormalize_mesh, sample_surface
from solids import ball, box, join, lattice, move, sheet


def solid_angles(mesh: Mesh, point) -> float:
    """The winding number by the angles of spherical triangles (Girard), one face at a time."""
    total = 0.0
    for face in mesh.faces:
        a, b, c = (x / np.linalg.norm(x) for x in mesh.vertices[face] - point)
        sign = np.sign(np.dot(a, np.cross(b, c)))
        excess = -math.pi
        for x, y, z in ((a, b, c), (b, c, a), (c, a, b)):
            u, v = np.cross(x, y), np.cross(x, z)
            cosine = np.dot(u, v) / (np.linalg.norm(u) * np.linalg.norm(v))
            excess += math.acos(min(1.0, max(-1.0, cosine)))
        total += sign * excess
    return total / (4 * math.pi)


@pytest.mark.parametrize(
    "mesh", [box(), ball(12), ball(12, share=0.5)], ids=["box", "ball", "bowl"]
)
def test_winding_equals_a_slow_sum_of_spherical_triangles(mesh):
    points = torch.rand(40, 3, dtype=torch.float64) * 2 - 1
    slow = torch.tensor([solid_angles(mesh, p) for p in points.numpy()], dtype=torch.float64)
    torch.testing.assert_close(winding_number(mesh, points), slow, atol=1e-7, rtol=0)
    torch.testing.assert_close(
        winding_number(mesh, points.float()), slow.float(), atol=1e-4, rtol=0
    )


def test_winding_of_closed_open_double_and_turned_surfaces():
    points = lattice(8)
    radius = points.norm(dim=1)
    assert torch.equal(winding_number(ball(48), points).round(), (radius < 0.69).double())
    hemisphere = ball(48, share=0.5)
    middle = winding_number(hemisphere, torch.zeros(1, 3, dtype=torch.float64)).item()
    assert middle == pytest.approx(0.5, abs=1e-9)  # half of the directions are covered
    axis = torch.zeros(30, 3, dtype=torch.float64)
    axis[:, 2] = torch.linspace(-0.6, 0.6, 30)
    steps = winding_number(hemisphere, axis).diff()
    assert (steps > 0).all()
    assert steps.max() < 0.04  # smooth through the opening
    # From z on the axis the disc that closes it fills 2 pi (1 - z / sqrt(z^2 + r^2)).
    z = axis[20:, 2]
    expected = 1 - (1 - z / (z**2 + 0.49).sqrt()) / 2
    torch.testing.assert_close(winding_number(hemisphere, axis[20:]), expected, atol=3e-3, rtol=0)
    sphere = ball(12)
    twice = Mesh(sphere.vertices, np.concatenate([sphere.faces, sphere.faces]))
    inwards = Mesh(sphere.vertices, np.ascontiguousarray(sphere.faces[:, ::-1]))
    inner = points[radius < 0.6]
    assert torch.allclose(winding_number(twice, inner), torch.tensor(2.0, dtype=torch.float64))
    assert torch.allclose(winding_number(inwards, inner), torch.tensor(-1.0, dtype=torch.float64))


def test_winding_does_not_depend_on_place_and_unit():
    points = torch.rand(200, 3, dtype=torch.float64) * 2 - 1
    here = winding_number(ball(12, share=0.6), points.float())
    far = denormalize_mesh(ball(12, share=0.6), np.array([5e5, -2e5, 30.0, 1e-3]))
    moved = points * 1e-3 + torch.tensor([5e5, -2e5, 30.0], dtype=torch.float64)
    torch.testing.assert_close(winding_number(far, moved).float(), here, atol=1e-5, rtol=0)


def test_parts_turned_inside_out_are_solid_and_cavities_empty():
    outer, inner = ball(16, 0.9), ball(16, 0.5)
    points = lattice(12)
    radius = points.norm(dim=1)
    shell = np.concatenate([outer.faces, inner.faces[:, ::-1] + len(outer.vertices)])
    for faces in (shell, np.ascontiguousarray(shell[:, ::-1])):
        hollow = Mesh(np.concatenate([outer.vertices, inner.vertices]), faces)
        found = inside(hollow, points)
        assert not found[(radius < 0.45) | (radius > 0.9)].any()
        assert found[(radius > 0.5) & (radius < 0.8)].all()
        assert torch.equal(signed_distance(hollow, points) < 0, found)


@pytest.mark.slow
def test_clusters_that_act_as_dipoles_change_no_side(bunny):
    points = lattice(18).float()
    exact, fast = winding_number(bunny, points), winding_number(bunny, points, beta=2.0)
    assert torch.equal(exact > 0.5, fast > 0.5)
    assert (exact - fast).abs().max() < 0.02
    assert (exact - winding_number(bunny, points, beta=5.0)).abs().max() < 0.005
    assert (exact - fast).abs().max() > 1e-4  # dipoles were in use


def test_distance(bunny):
    points = torch.rand(300, 3, dtype=torch.float64) * 2 - 1
    offset = points.abs() - 0.5  # closed form of a box, from outside and inside
    analytic = offset.clamp(min=0).norm(dim=1) + offset.amax(1).clamp(max=0)
    torch.testing.assert_close(signed_distance(box(), points), analytic, atol=1e-12, rtol=0)
    torch.testing.assert_close(distance(box(), points), analytic.abs(), atol=1e-12, rtol=0)
    near = distance(bunny, points)
    assert torch.equal(distance(bunny, points, most=0.1), near.clamp(max=0.1))
    # Dense samples of the surface are never nearer, and hardly further.
    dense, _ = sample_surface(bunny, 60_000)
    slow = torch.cat([torch.cdist(p, dense).amin(1) for p in points.split(50)])
    assert (slow - near).min() > -1e-12
    assert (slow - near).max() < 0.02  # their spacing


def test_distance_against_trimesh(bunny):
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("rtree")
    mixed = Mesh(  # faces of very different sizes
        np.concatenate([bunny.vertices, box(0.95).vertices]),
        np.concatenate([bunny.faces, box(0.95).faces + len(bunny.vertices)]),
    )
    points = torch.rand(500, 3, dtype=torch.float64) * 2 - 1
    other = trimesh.Trimesh(mixed.vertices, mixed.faces, process=False)
    _, expected, _ = trimesh.proximity.closest_point(other, points.numpy())
    found = distance(mixed, points).numpy()
    assert (found <= expected + 1e-12).all()  # theirs errs in a few of ten thousand points
    assert np.abs(found - expected).max() < 1e-4
    assert np.median(np.abs(found - expected)) < 1e-15


def slow_distance(mesh: Mesh, point) -> float:
    """The distance to every face, one at a time (Ericson, Real-Time Collision Detection, 5.1.5)."""
    best = math.inf
    for face in mesh.faces:
        a, b, c = mesh.vertices[face]
        normal = np.cross(b - a, c - a)
        height = np.dot(point - a, normal) / np.linalg.norm(normal)
        foot = point - height * normal / np.linalg.norm(normal)
        sides = [np.dot(np.cross(q - p, foot - p), normal) for p, q in ((a, b), (b, c), (c, a))]
        best = min(best, abs(height)) if min(sides) >= 0 else best
        for p, q in ((a, b), (b, c), (c, a)):
            t = np.clip(np.dot(point - p, q - p) / np.dot(q - p, q - p), 0, 1)
            best = min(best, float(np.linalg.norm(point - p - t * (q - p))))
    return best


def test_distance_equals_a_slow_loop_over_needles_and_specks():
    needle = Mesh(np.array([[-1, -1, 0], [1, 1, 0.2], [1, 1, 0.21]]), np.array([[0, 1, 2]]))
    specks = move(Mesh(ball(8).vertices * 0.01, ball(8).faces), [0.4, -0.3, 0.2])
    mesh = join(box(0.9), needle, specks, ball(8))
    points = torch.rand(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    points = torch.cat([2 * points[:40] - 1, points[40:] * 0.05 + torch.tensor([0.4, -0.3, 0.2])])
    slow = torch.tensor([slow_distance(mesh, p) for p in points.numpy()], dtype=torch.float64)
    torch.testing.assert_close(distance(mesh, points), slow, atol=1e-14, rtol=0)


def test_the_share_of_a_surface_that_bounds_an_inside():
    overlapping = join(box(0.4), move(box(0.4), [0.3, 0.3, 0.3]))
    for mesh, low, high in [
        (ball(16), 1, 1),
        (overlapping, 1, 1),
        (ball(32, share=0.9), 1, 1),  # a cap of 18 degrees is missing
        (ball(32, share=0.7), 0.2, 0.9),
        (ball(32, share=0.5), 0, 0),
        (sheet(), 0, 0),
    ]:
        assert low <= bounding_share(mesh, find_boundary(mesh)) <= high


def test_walls_within_a_solid_are_no_surface():
    """Of two cubes that overlap, only what bounds their union is at the distance 0."""
    two = join(box(0.4), move(box(0.4), [0.3, 0.3, 0.3]))
    boundary = find_boundary(two)
    samples, _ = sample_boundary(two, 5000, boundary)
    depth = lambda x, at: 0.4 - (x - at).abs().amax(1)
    assert 3500 < len(samples) < 4999
    assert torch.maximum(depth(samples, 0.0), depth(samples, 0.3)).abs().max() < 1e-9
    # outside it is the smaller of the closed forms, as without walls
    points = torch.rand(400, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = points * 1.8 - 0.8
    found = boundary_distance(two, points, boundary)
    forms = []
    for at in (0.0, 0.3):
        offset = (points - at).abs() - 0.4
        forms.append(offset.clamp(min=0).norm(dim=1) + offset.amax(1).clamp(max=0))
    outer = torch.minimum(*forms)
    torch.testing.assert_close(found[outer > 0], outer[outer > 0], atol=1e-12, rtol=0)
    # the middle of a wall of one within the other is as far from the surface as it is deep
    wall = torch.tensor([[0.4, 0.1, 0.1], [0.1, 0.1, -0.1]], dtype=torch.float64)
    found = boundary_distance(two, wall, boundary)
    expected = -torch.cdist(wall, sample_boundary(two, 50_000, boundary)[0]).amin(1)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)
    assert (found < -0.1).all()
