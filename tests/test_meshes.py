"""Meshes: what is inside, distances, surfaces of volumes and back, pictures."""

import itertools
import math
import time

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.geometry.inside import distance, inside, signed_distance, winding_number
from fieldloom.geometry.isosurface import isosurface, project_to_level
from fieldloom.geometry.mesh import (
    Mesh,
    area,
    areas,
    as_mesh,
    denormalize_mesh,
    is_watertight,
    normalize_mesh,
    points_on_faces,
    sample_surface,
    volume,
)
from fieldloom.geometry.preview import preview, turntable
from shared import shared


def centres(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / count * 2 - 1


def lattice(count: int) -> torch.Tensor:
    axis = torch.from_numpy(centres(count))
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def box(half=0.5, at=(0.0, 0.0, 0.0)) -> Mesh:
    corners = np.array(list(itertools.product((-half, half), repeat=3))) + at
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


@pytest.fixture(scope="module")
def bunny() -> Mesh:
    file = np.load(shared("data", "mesh_bunny.npz"))
    return normalize_mesh(as_mesh(file["verts"], file["faces"], "bunny"), 0.9)[0]


def chamfer(one: Mesh, other: Mesh) -> float:
    """The mean distance of points of each to the surface of the other, the larger of the two."""
    ways = [(one, other), (other, one)]
    generator = torch.Generator().manual_seed(0)
    return max(float(distance(b, sample_surface(a, 2000, generator)[0]).mean()) for a, b in ways)


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


def test_sizes_against_closed_forms_and_trimesh(bunny):
    assert volume(box(0.5, at=(7.0, -3.0, 2.0))) == pytest.approx(1)
    assert area(box()) == pytest.approx(6)
    assert volume(ball(96)) == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=3e-3)
    assert area(ball(96)) == pytest.approx(4 * math.pi * 0.7**2, rel=3e-3)
    assert is_watertight(box())
    assert not is_watertight(ball(12, share=0.5))
    assert not is_watertight(bunny)  # its base has holes
    soup = Mesh(box().vertices[box().faces].reshape(-1, 3), np.arange(36).reshape(-1, 3))
    assert is_watertight(soup)
    trimesh = pytest.importorskip("trimesh")
    other = trimesh.Trimesh(bunny.vertices, bunny.faces, process=False)
    assert area(bunny) == pytest.approx(other.area, rel=1e-12)
    file = np.load(shared("data", "meshes_cc0.npz"))
    v, f, ends_v, ends_f = (file[k] for k in ("verts", "faces", "vert_offsets", "face_offsets"))
    answers = set()
    for i in range(0, 200, 10):
        part = v[ends_v[i] : ends_v[i + 1]], f[ends_f[i] : ends_f[i + 1]]
        mesh = as_mesh(*part, str(i))
        other = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        merged = np.unique(mesh.vertices, axis=0, return_inverse=True)[1].reshape(-1)[mesh.faces]
        closed = trimesh.Trimesh(mesh.vertices, merged, process=False).is_watertight
        assert is_watertight(mesh) == closed
        if closed and other.is_winding_consistent:
            assert volume(mesh) == pytest.approx(other.volume, rel=1e-9)
        answers.add(closed)
    assert answers == {True, False}


def test_samples_of_the_surface():
    generator = torch.Generator().manual_seed(0)
    mesh = as_mesh([[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 1.0]], [[0, 1, 2], [0, 2, 3]], "two")
    points, normals = sample_surface(mesh, 20_000, generator)
    assert points.shape == normals.shape == (20_000, 3)
    assert points.dtype == torch.float64
    flat = normals[:, 2] == 1  # the first face has three times the area of the second
    assert flat.double().mean().item() == pytest.approx(0.75, abs=0.01)
    assert (points[flat, 2] == 0).all()
    centre = torch.tensor([1, 1 / 3, 0], dtype=torch.float64)
    torch.testing.assert_close(points[flat].mean(0), centre, atol=0.02, rtol=0)
    again, _ = sample_surface(mesh, 20_000, torch.Generator().manual_seed(0))
    assert torch.equal(points, again)
    assert sample_surface(mesh, 0)[0].shape == (0, 3)


def test_the_sampler_of_mnif():
    """Its draws, replayed: faces in a shuffled order, each by its expected count, then u and v."""
    file = np.load(shared("vectors", "mnif_metrics.npz"))
    mesh = as_mesh(file["mesh_V"], file["mesh_T"], "mesh_V")
    expected = torch.from_numpy(file["mesh_points_seed0"]).double()
    state = np.random.RandomState(0)
    counts, order = len(expected) * areas(mesh) / area(mesh), np.arange(len(mesh.faces))
    drawn: list[tuple[int, float, float]] = []
    while len(drawn) < len(expected):
        state.shuffle(order)
        for face in order:
            whole, part = int(counts[face]), counts[face] % 1
            for _ in range(whole + (state.random_sample() < part)):
                drawn.append((int(face), state.random_sample(), state.random_sample()))
                if len(drawn) == len(expected):
                    break
            if len(drawn) == len(expected):
                break
    face, u, v = zip(*drawn, strict=True)
    points, normals = points_on_faces(
        mesh, torch.tensor(face), *(torch.tensor(x, dtype=torch.float64) for x in (u, v))
    )
    torch.testing.assert_close(torch.cat([points, normals], 1), expected, atol=1e-6, rtol=0)


def test_frames_lead_back(bunny):
    original = denormalize_mesh(bunny, np.array([30.0, -4.0, 1e3, 250.0]))
    for extent in (1.0, 0.45):
        unit, frame = normalize_mesh(original, extent)
        low, high = unit.vertices.min(0), unit.vertices.max(0)
        np.testing.assert_allclose(low + high, 0, atol=1e-12)
        assert (high - low).max() == pytest.approx(2 * extent)
        np.testing.assert_allclose(
            denormalize_mesh(unit, frame).vertices, original.vertices, rtol=1e-12
        )


def test_checks_name_what_is_wrong():
    points = np.eye(3)
    for faces, fault in [
        (np.zeros((0, 3), int), "has no faces"),
        ([[0, 1, 3]], "must lie in 0 to 2"),
        ([[0, -1, 2]], "must lie in 0 to 2"),
        ([[0, 1, 1]], "has no area"),
        ([[0, 1, 2, 2]], "three columns"),
        ([[0.0, 1.0, 2.0]], "faces are integers"),
    ]:
        with pytest.raises(InputError, match=f"^'a.obj' .*{fault}"):
            as_mesh(points, faces, "'a.obj'")
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match="NaN or infinite vertices"):
            as_mesh(np.where(np.eye(3) > 0, bad, 0), [[0, 1, 2]], "it")
    with pytest.raises(InputError, match="has no area"):  # on a line, at a distance
        as_mesh(np.arange(9).reshape(3, 3) / 7 + 100, [[0, 1, 2]], "it")
    # A face of no area and a vertex of no face go; three faces at one edge stay.
    many = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, 0], [50, 50, 50]]
    mesh = as_mesh(many, [[0, 1, 2], [0, 1, 3], [0, 1, 4], [2, 2, 4]], "fan")
    assert (mesh.vertices.shape, mesh.faces.shape) == ((5, 3), (3, 3))
    assert winding_number(mesh, torch.rand(4, 3)).isfinite().all()


@pytest.mark.slow
def test_occupancy_of_the_bunny_becomes_the_bunny(bunny):
    solid = inside(bunny, lattice(48).float(), beta=2.0).reshape(48, 48, 48)
    mesh = isosurface(solid, (centres(48),) * 3)
    assert is_watertight(mesh)
    assert volume(mesh) == pytest.approx(volume(bunny), rel=0.03)  # by their outer faces: positive
    assert chamfer(mesh, bunny) < 0.25 * 2 / 48  # a quarter of a cell
    trimesh = pytest.importorskip("trimesh")
    other = trimesh.Trimesh(bunny.vertices, bunny.faces, process=True)
    other.fill_holes()
    assert volume(mesh) == pytest.approx(other.volume, rel=0.03)


@pytest.mark.parametrize(("count", "bound"), [(16, 0.01), (32, 0.003), (64, 0.0008)])
def test_a_sphere_by_its_distance(count, bound):
    field = 0.7 - lattice(count).norm(dim=1).reshape(count, count, count)
    mesh = isosurface(field, (centres(count),) * 3, level=0.0)
    assert is_watertight(mesh)
    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=2 * bound)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.7).max() < bound


def test_occupancy_of_a_sphere():
    for count in (16, 32):
        field = (lattice(count).norm(dim=1) < 0.7).reshape(count, count, count)
        mesh = isosurface(field, (centres(count),) * 3)
        assert volume(mesh) == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=1 / count)
        # Vertices stand between a sample within and one without.
        assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.7).max() < 2 / count


def test_noise_is_closed_and_turned_outwards():
    generator = torch.Generator().manual_seed(3)
    for smooth in (False, True):
        noise = torch.rand(9, 10, 11, generator=generator)
        noise = noise if smooth else (noise > 0.8).float()
        axes = tuple(np.sort(np.random.default_rng(0).random(n)) * 3 for n in noise.shape)
        mesh = isosurface(noise, axes, level=0.5)
        edges = np.concatenate(
            [mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]
        )
        there, back = (sorted(map(tuple, e)) for e in (edges, edges[:, ::-1]))
        assert there == back  # each edge runs both ways: closed, and turned one way
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        around = winding_number(mesh, torch.from_numpy(points))
        assert torch.equal(around > 0.5, noise.flatten() > 0.5)
        torch.testing.assert_close(around, around.round(), atol=1e-6, rtol=0)


def test_uneven_axes():
    """A field that is linear along each axis is cut where it should, whatever the steps."""
    axes = (np.array([0, 1, 1.5, 4, 9.0]), np.array([-2, 0, 5.0]), np.array([3, 3.5, 10.0]))
    field = torch.from_numpy(np.broadcast_to(axes[0][:, None, None], (5, 3, 3)).copy())
    mesh = isosurface(-field, axes, level=-2.25)  # inside where x < 2.25
    inner = np.abs(mesh.vertices[:, 0] - 2.25) < 1e-5
    assert inner.sum() >= 9
    assert mesh.vertices[:, 0].max() < 2.25 + 1e-5
    np.testing.assert_allclose(mesh.vertices.min(0), [-0.5, -3, 2.75], atol=1e-5)
    np.testing.assert_allclose(mesh.vertices[:, 1:].max(0), [7.5, 13.25], atol=1e-5)


def test_empty_and_full_volumes():
    axes = (centres(8),) * 3
    assert isosurface(torch.zeros(8, 8, 8), axes) is None
    assert isosurface(torch.full((8, 8, 8), 0.5), axes) is None  # only above the level is inside
    full = isosurface(torch.ones(8, 8, 8), axes)
    assert is_watertight(full)
    np.testing.assert_allclose(full.vertices.min(0), -1, atol=1e-6)
    np.testing.assert_allclose(full.vertices.max(0), 1, atol=1e-6)
    assert volume(full) == pytest.approx(8, rel=0.05)  # the edges are bevelled by half a step
    assert volume(isosurface(np.full((64, 64, 64), True), (centres(64),) * 3)) > 7.99
    one = torch.zeros(8, 8, 8)
    one[0, 7, 3] = 1
    assert is_watertight(isosurface(one, axes))


def test_volumes_that_are_none():
    axes = (centres(4),) * 3
    for field, wrong_axes, fault in [
        (torch.zeros(4, 4, 5), axes, "three axes, of as many samples"),
        (torch.zeros(4, 4), axes, "three axes"),
        (torch.zeros(4, 4, 1), (*axes[:2], [0.0]), "at least 2"),
        (torch.full((4, 4, 4), math.nan), axes, "NaN or infinite"),
        (torch.zeros(4, 4, 4), (*axes[:2], axes[2][::-1]), "must ascend"),
    ]:
        with pytest.raises(InputError, match=fault):
            isosurface(field, wrong_axes)


def test_projection_onto_a_field():
    def field(coords):  # a sphere of 0.7, and no distance: the slope differs from 1
        return (3 * (0.49 - coords.square().sum(-1, keepdim=True))).sigmoid()

    occupancy = field(lattice(16)[None])[0, :, 0].reshape(16, 16, 16) > 0.5
    rough = isosurface(occupancy, (centres(16),) * 3)
    error = lambda mesh: np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.7)
    moved = project_to_level(rough, field, level=0.5, steps=3, max_step=0.1)
    assert error(moved).max() < error(rough).max() / 10
    assert error(moved).max() < 1e-5
    assert volume(moved) == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=0.03)
    fine = project_to_level(rough, field, level=0.5, steps=5, max_step=0.1, dtype=torch.float64)
    assert error(fine).max() < 1e-12
    short = project_to_level(rough, field, level=0.5, steps=2, max_step=0.01)
    lengths = np.linalg.norm(short.vertices - rough.vertices, axis=1)
    assert 0.015 < lengths.max() <= 0.02 + 1e-6


def test_projection_keeps_what_it_cannot_better():
    mesh = ball(12)
    flat = lambda coords: 0 * coords.sum(-1, keepdim=True)
    np.testing.assert_allclose(project_to_level(mesh, flat, 0.5).vertices, mesh.vertices, atol=1e-7)
    # Newton's step on a cube root is twice too long, to the other side: it never helps.
    root = lambda coords: (coords[..., :1]).sign() * coords[..., :1].abs() ** (1 / 3)
    np.testing.assert_allclose(project_to_level(mesh, root, 0.0).vertices, mesh.vertices, atol=1e-7)
    broken = lambda coords: (coords[..., :1] - 10).sqrt()
    np.testing.assert_allclose(
        project_to_level(mesh, broken, 0.0).vertices, mesh.vertices, atol=1e-7
    )


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
    assert time.process_time() - begun < 1.0  # 0.03 s
