"""Meshes: sizes, samples of the surface, frames."""

import math

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.geometry.inside import winding_number
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
from shared import shared
from solids import ball, box


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
