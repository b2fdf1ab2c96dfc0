"""One mesh file, fitted in seconds: its surface comes back where it stood, and is measured."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom import export
from fieldloom.geometry.inside import distance
from fieldloom.geometry.mesh import Mesh, as_mesh, sample_surface
from solids import ball, sheet

trimesh = pytest.importorskip("trimesh")

QUICK = [
    "source.samples=10000",
    "modality.size=48",
    "field.grid={levels = 4, finest = 32}",
    "train.field.steps=60",
    "train.field.points=2048",
]


def fit(cli, mesh, path, centre, scale, *more):
    """The run's folder, and what training printed, of a mesh at this place."""
    export.mesh(mesh.vertices * scale + centre, mesh.faces, path)
    run = path.parent / "run"
    sets = [word for one in (f"source.path={path}", *QUICK, *more) for word in ("--set", one)]
    done = cli("train", "fit:mesh", "--run", run, *sets)
    return run, done.stdout + done.stderr


def read_back(path):
    scene = trimesh.load_scene(path).to_mesh()
    return as_mesh(scene.vertices, scene.faces, path.name)


def test_a_sphere_in_map_coordinates(cli, tmp_path):
    """Chamfer distance below 0.3 % of its size, IoU above 0.98, in its own frame and unit."""
    centre = np.array([5e5, 4.2e6, 30.0])
    run, said = fit(cli, ball(24), tmp_path / "ball.ply", centre, 40.0)
    assert "z taken as up" in said
    found = re.search(r"Chamfer distance ([\d.]+) % .* IoU ([\d.]+), normal .* ([\d.]+)", said)
    far, iou, normals = map(float, found.groups())
    assert far < 0.3
    assert iou > 0.98
    assert normals > 0.97
    made = read_back(run / "fitted.glb")
    away = distance(
        Mesh(ball(24).vertices * 40, ball(24).faces), torch.from_numpy(made.vertices - centre)
    )
    assert float(away.quantile(0.99)) < 0.5  # of its diameter, 56
    pixels = np.asarray(Image.open(run / "fitted.png"))
    assert pixels.shape == (512, 1024, 3)
    covered = [(side < 250).any(-1).mean() for side in (pixels[:, :512], pixels[:, 512:])]
    assert 0.1 < covered[0] < 0.9
    assert covered[1] == pytest.approx(covered[0], rel=0.02)
    cli("evaluate", run)
    metrics = {
        m["name"]: m["value"] for m in json.loads((run / "report.json").read_text())["figures"]
    }
    assert metrics["mesh.chamfer"] == pytest.approx(far / 100, rel=0.01)
    assert metrics["mesh.iou"] == pytest.approx(iou, abs=1e-4)
    assert metrics["mesh.normals"] == pytest.approx(normals, abs=1e-4)


def test_an_open_square_comes_back_as_both_its_sides(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("fieldloom.progress.PATIENCE", 0.01)
    run, said = fit(cli, sheet(), tmp_path / "square.obj", np.zeros(3), 2.0, "source.dilation=0.05")
    assert "unsigned distances, since it is open at 4 of 5 edges" in said
    assert "finding the surface ...\n" in said
    assert "comparing it with the mesh ...\n" in said
    assert "IoU" not in said
    made = read_back(run / "fitted.glb")
    points, normals = sample_surface(made, 2000)
    away = 0.05 / 0.9  # of the square's half side, 1
    far = distance(as_mesh(sheet().vertices * 2, sheet().faces, "square"), points)
    assert float((far - away).abs().mean()) < 0.5 * away
    sides = normals[:, 2].sign() * points[:, 2]
    assert float((sides > 0).double().mean()) > 0.9  # above and below it, outwards
    assert torch.equal(points.isfinite(), torch.ones_like(points, dtype=torch.bool))
