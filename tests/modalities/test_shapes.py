"""Shapes as points, grids and meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.geometry.mesh import area, is_watertight, volume
from fieldloom.modalities import Modality, Points, Voxels
from fieldloom.modalities.grid import Placement
from fieldloom.types import Data
from given import data_of, seeded

BATCH, VIEWS = 3, 4


def ball(count: int, radius: float = 0.6, place: str = "centre") -> Tensor:
    """A ball's clipped distance (1, n, n, n), 0.5 at its surface, in the grid of ``Voxels``."""
    axis = Placement(place).axis(count)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return (0.5 + 2 * (radius - points.norm(dim=-1))).clamp(0, 1).float()[None]


@pytest.mark.parametrize("place", ["centre", "corner"])
def test_a_ball_becomes_a_mesh(place: str) -> None:
    """Of the ball's volume, area and place, in the modality's coordinates or the frame's."""
    voxels = Voxels(24, coords=Placement(place))
    mesh = voxels.mesh(ball(24, place=place))
    assert mesh is not None
    assert is_watertight(mesh)
    exact = 4 / 3 * np.pi * 0.6**3
    assert volume(mesh) == pytest.approx(exact, rel=0.02)
    assert area(mesh) == pytest.approx(4 * np.pi * 0.6**2, rel=0.02)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.6, atol=0.005)
    frame = torch.tensor([3.0, -2.0, 1.0, 5.0], dtype=torch.float64)
    moved = voxels.mesh(ball(24, place=place), frame)
    assert moved is not None
    assert volume(moved) == pytest.approx(volume(mesh) * 125, rel=1e-6)
    np.testing.assert_allclose((moved.vertices - [3, -2, 1]) / 5, mesh.vertices, atol=1e-9)


def test_axes_of_a_mesh() -> None:
    """Axis 0 of the data is x: a bar along it is long in x."""
    data = torch.zeros(1, 16, 12, 8)
    data[:, 1:15, 4:8, 2:4] = 1
    mesh = Voxels((16, 12, 8)).mesh(data)
    assert mesh is not None
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    # the surface lies half-way between the last full and the first empty sample: cell borders
    np.testing.assert_allclose(low, [-1 + 2 / 16, -1 + 8 / 12, -1 + 4 / 8], atol=1e-6)
    np.testing.assert_allclose(high, [-1 + 30 / 16, -1 + 16 / 12, -1 + 8 / 8], atol=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj", ".stl", "", ".png"])
def test_meshes_as_files(tmp_path: Path, suffix: str) -> None:
    """Read back by another library: the same volume, in the frame."""
    frame = torch.tensor([0.0, 4.0, 0.0, 2.0], dtype=torch.float64)
    path = Voxels(16).save(Data(ball(16)[None], frame=frame[None]), tmp_path / f"ball{suffix}")
    assert path is not None
    assert path.suffix == (suffix if suffix not in ("", ".png") else ".glb")
    read = trimesh.load(path, force="mesh")
    assert abs(read.volume) == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.03)
    np.testing.assert_allclose(read.bounds.mean(0), [0, 4, 0], atol=0.02)


def test_no_surface(tmp_path: Path) -> None:
    """Nothing is written; its picture says so; numbers are kept all the same."""
    voxels, empty = Voxels(8), torch.zeros(1, 8, 8, 8)
    assert voxels.mesh(empty) is None
    assert voxels.save(Data(empty[None]), tmp_path / "empty.glb") is None
    assert list(tmp_path.iterdir()) == []
    assert voxels.to_image(empty).shape == (3, 128, 128)
    assert len(voxels.turn(empty, frames=2, size=16)) == 2
    kept = voxels.save(Data(ball(8)[None]), tmp_path / "ball.npy")
    assert kept == tmp_path / "ball.npy"
    np.testing.assert_array_equal(np.load(kept), ball(8).numpy())


def test_pictures_of_shapes() -> None:
    """In [0, 1], with the shape in the middle; a turn shows another side each frame."""
    voxels = Voxels(16)
    picture = voxels.to_image(ball(16), size=32)
    assert picture.shape == (3, 32, 32)
    assert 0 <= picture.min() < picture.max() <= 1
    assert not torch.allclose(picture[:, 16, 16], picture[:, 0, 0], atol=0.05)
    data = torch.zeros(1, 16, 16, 16)
    data[:, 3:14, 6:8, 2:9] = 1
    data[:, 3:6, 6:11, 2:9] = 1  # no two sides are alike
    frames = voxels.turn(data, frames=4, size=32)
    assert [f.shape for f in frames] == [(3, 32, 32)] * 4
    assert len({tuple(f.flatten().tolist()) for f in frames}) == 4
    # what is longest along axis 0 stands where that is up
    upright = [Voxels(16, up=up).to_image(data, size=48) for up in (0, 1, 2)]
    tall = []
    for seen in upright:
        shape = ((seen - seen[:, :1, :1]).abs().amax(0) > 0.05).nonzero()
        extent = shape.amax(0) - shape.amin(0)
        tall.append((extent[0] / extent[1]).item())
    assert tall[0] > tall[1]
    with pytest.raises(InputError, match="up"):
        Voxels(16, up=3)


def scattered(count: int = 30) -> dict[str, Any]:
    coords = torch.rand(BATCH, count, 3, generator=seeded()) * 2 - 1
    values = (coords.norm(dim=-1, keepdim=True) < 0.8).float()
    return {"data": values, "coords": coords}


@pytest.mark.parametrize("range", ["signed", "unit"])
def test_points_stay_as_they_are(range: str) -> None:
    given = scattered()
    points = Points(8, range=range)
    assert isinstance(points, Modality)
    label = torch.tensor([2, 0, 1])
    batch = points.observe(data_of(**given, index=torch.tensor([5, 6, 9]), label=label))
    signal = batch.target
    assert batch.context is signal
    assert torch.equal(signal.coords, given["coords"])
    assert torch.equal((signal.values - points.low) / (1 - points.low), given["data"])
    assert signal.grid is None
    assert signal.index.tolist() == [5, 6, 9]
    assert torch.equal(points.encoding(data_of(**given)).values, signal.values)
    whole = points.observe(data_of(given["data"].byte() * 255, coords=given["coords"])).target
    assert torch.equal(whole.values, signal.values)
    # what is decoded is a grid
    assert points.grid().shape == (1, 512, 3)


def test_some_points() -> None:
    """Without repetition, each with its own value."""
    given = scattered()
    draw = lambda count: (
        Points(8).observe(data_of(**given), points=count, generator=seeded()).target
    )
    few = draw(10)
    assert few.coords.shape == (BATCH, 10, 3)
    match = (few.coords[:, :, None] == given["coords"][:, None]).all(-1)
    assert match.any(-1).all()
    places = match.double().argmax(-1)
    assert all(len(row.unique()) == 10 for row in places)
    expected = 2 * given["data"].gather(1, places[..., None]) - 1
    assert torch.equal(few.values, expected)
    assert torch.equal(draw(30).coords, given["coords"])
    assert torch.equal(draw(31).coords, given["coords"])


def test_bad_points() -> None:
    given = scattered()
    for wrong in (
        dict(coords=None),
        dict(coords=given["coords"][:, :5]),
        dict(coords=given["coords"][..., :2]),
        dict(data=given["data"][..., 0]),
        dict(data=ball(8)[None]),
    ):
        with pytest.raises(InputError, match="coord"):
            Points(8).observe(data_of(**{**given, **wrong}))


def test_a_surface_of_distances_is_found_near_it_alone() -> None:
    """The mesh is that of all values; the modality's coordinates need not be those of the cube."""
    ask, seen = dict(size=64, coords=Placement("corner", -2.0, 2.0)), []

    def function(points: Tensor) -> Tensor:
        seen.append(points.shape[1])
        return (0.5 + (0.7 - points.norm(dim=-1, keepdim=True)) / 1.2).clamp(0, 1)

    near, full = (Voxels(truncation=x, **ask).sample(function) for x in (0.6, None))
    assert sum(seen[:-1]) < 0.4 * seen[-1] == 0.4 * 64**3
    one, other = (Voxels(**ask).mesh(x) for x in (near, full))
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-5)
    for wrong in (dict(truncation=0.0), dict(truncation=float("inf")), dict(up=3)):
        with pytest.raises(InputError, match=f"modality.{next(iter(wrong))} = "):
            Points(**wrong)


def test_a_surface_that_is_nearly_everywhere_is_found_on_a_rough_grid() -> None:
    """A field that hardly differs from the level: 64 samples of each axis, and a sentence."""
    seen, shape = [], Voxels(size=(100, 96, 48), truncation=0.4)

    def function(points: Tensor) -> Tensor:
        seen.append(points.shape[1])
        return 0.5 + 0.01 * torch.sin(9 * points).prod(-1, keepdim=True)

    with pytest.warns(UserWarning, match="from 64 x 64 x 48 samples instead of 100 x 96 x 48"):
        datum = shape.sample(function)
    assert torch.equal(datum, function(shape.grid((64, 64, 48))).reshape(1, 64, 64, 48))
    assert sum(seen[:-1]) < 1.1 * 64 * 64 * 48
    found = shape.mesh(datum)
    assert found is not None
    within = torch.from_numpy(found.vertices[(np.abs(found.vertices) < 0.95).all(1)])
    assert (function(within) - 0.5).abs().max() < 1e-3
