"""Surfaces of volumes and back."""

import math

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.geometry.inside import distance, inside, winding_number
from fieldloom.geometry.isosurface import isosurface, project_to_level, sample_near_level
from fieldloom.geometry.mesh import Mesh, is_watertight, sample_surface, volume
from solids import ball, centres, lattice


def chamfer(one: Mesh, other: Mesh) -> float:
    """The mean distance of points of each to the surface of the other, the larger of the two."""
    ways = [(one, other), (other, one)]
    generator = torch.Generator().manual_seed(0)
    return max(float(distance(b, sample_surface(a, 2000, generator)[0]).mean()) for a, b in ways)


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


@pytest.mark.parametrize("count", [40, 61, (50, 64, 43)])
def test_values_near_the_level_alone_give_the_same_surface(count):
    """At a fraction of the points; the field is a sphere's distance, constant beyond 0.3."""
    sizes = count if isinstance(count, tuple) else (count,) * 3
    axes = tuple(torch.from_numpy(centres(n)) for n in sizes)
    asked = []

    def field(points):
        asked.append(points.shape[1])
        far = (0.7 - points.norm(dim=-1, keepdim=True)).clamp(-0.3, 0.3)
        return far / 0.6

    near = sample_near_level(field, axes, slope=1 / 0.6, reach=0.3)
    seen = sum(asked)
    full = field(torch.cartesian_prod(*axes).float()[None]).reshape(sizes)
    assert seen < 0.7 * full.numel()
    assert torch.equal(near > 0, full > 0)
    one, other = (isosurface(x, axes, level=0.0) for x in (near, full))
    np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-5)
    # a grid too coarse for blocks is evaluated at every point
    assert torch.equal(sample_near_level(field, axes, 1 / 0.6, reach=1e-3), full)
