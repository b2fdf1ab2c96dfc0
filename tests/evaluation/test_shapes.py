"""Samples of shapes are judged by their surfaces."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Generator, Tensor

import fieldloom
from clouds import ellipsoids, with_failures
from fieldloom.errors import InputError
from fieldloom.evaluation import comparison, evaluator_of
from fieldloom.evaluation.comparison import ComparisonOptions, compare_with_baselines
from fieldloom.evaluation.neighbours import draw_neighbours
from fieldloom.evaluation.shapes import ShapeEvaluator, shape_set_metrics, surface_clouds
from fieldloom.metrics.cloud_distances import chamfer
from fieldloom.metrics.cloud_features import CLOUD_DETECTORS
from fieldloom.metrics.sets import frechet
from fieldloom.modalities import Voxels
from fieldloom.modalities.grid import Placement
from fieldloom.modalities.shapes import Points
from fieldloom.modalities.sources import Source
from fieldloom.modalities.sources.meshes import read_meshes
from fieldloom.settings import CLOUD_SETS, Evaluation


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """An untrained system of 8^3 voxels; twelve balls, the last training one empty."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 8)] * 3, indexing="ij"), -1)
    draw = np.random.default_rng(0)
    cells = [np.linalg.norm(grid, axis=-1) < draw.uniform(0.5, 0.9) for _ in range(12)]
    cells[5] = np.zeros_like(cells[5])
    path = tmp_path_factory.mktemp("shapes") / "balls.npz"
    np.savez(path, bits=np.packbits(np.reshape(cells, (12, -1)), axis=1), shape=[8, 8, 8])
    source = {"name": "voxels", "path": str(path), "split": [6, 6], "shuffle": False}
    field, encoder = {"width": 4, "depth": 3}, {"steps": 2}
    modality = {"size": 8}
    own = dict(source=source, field=field, encoder=encoder, modality=modality)
    system = fieldloom.build("hyperdiffusion", "chairs32", **own)
    return system, fieldloom.assembly.open_source(system.recipe, system.modality)


def test_surfaces_that_are_not_there_are_failures(shapes):
    system, source = shapes
    data = source.read(source.train[:3]).tensor.clone()
    data[1], data[2, 0, 0, 0, 0] = 0, math.nan
    found = surface_clouds(system.modality, data, 16)
    assert found.shape == (3, 16, 3)
    assert found.isnan().flatten(1).all(1).tolist() == [False, True, True]


@pytest.mark.parametrize("name", CLOUD_DETECTORS)
def test_sets_are_compared_in_the_features_of_the_detector_that_is_named(name):
    made, true = with_failures(ellipsoids(9, 64), 0), ellipsoids(8, 64, seed=1)
    settings = Evaluation(CLOUD_SETS, cloud_detector=name, points=64)
    found = {m.name: m for m in shape_set_metrics(settings, made, true)}
    balls = ("precision", "recall", "f1", "density", "coverage")
    assert found.keys() == {f"cloud.{x}" for x in ("frechet", "kid", *balls)}
    assert all(m.how.startswith(f"{name}, not FPD; 1 failures left out") for m in found.values())
    real, fake = (CLOUD_DETECTORS[name](0.5)(x) for x in (true, made[1:]))
    assert found["cloud.frechet"].value == pytest.approx(frechet(real, fake))
    assert shape_set_metrics(settings, made, true[:1]) == []  # one shape has no covariance


def test_old_runs_keep_their_detector_of_clouds():
    assert Evaluation().cloud_detector == "cloud-statistics"
    with pytest.raises(InputError, match="cloud_detector 'points-v2'; did you mean 'points-v1'"):
        Evaluation(cloud_detector="points-v2")


def test_few_shapes_are_held_at_a_time(shapes, monkeypatch):
    system, source = shapes
    origin = system.family.conditioner.origin(1).detach()
    codes = origin + torch.randn(5, *origin.shape[1:], generator=Generator().manual_seed(0))
    whole = surface_clouds(system.modality, system.decode(codes).tensor, 16)
    assert not whole[1:].isnan().all()
    monkeypatch.setattr("fieldloom.evaluation.shapes.HELD", 1)
    torch.testing.assert_close(
        ShapeEvaluator(system, source).decode_clouds(codes, 16), whole, equal_nan=True
    )


def surfaces(modality: Voxels, source: Source, indices: Tensor, points: int) -> Tensor:
    """Clouds of a source's data, which need nothing else of a system."""
    system = fieldloom.build("hyperdiffusion", "chairs32")
    system.modality = modality
    return evaluator_of(system, source).read_for_measure(indices, points)


def test_surfaces_of_scattered_samples_are_those_of_the_grid(tmp_path):
    for radius in (1.0, 2.0):
        trimesh.creation.icosphere(3, radius).export(tmp_path / f"{radius}.ply")
    trimesh.creation.box((1, 1, 2)).export(tmp_path / "box.ply")
    scattered, grid = Points(24, Placement("corner")), Voxels(24, Placement("corner"))
    how = dict(path=str(tmp_path), split=(2, 1), shuffle=False)
    some = read_meshes(scattered, samples=50, surface=900, **how)
    whole = read_meshes(grid, target="distance", **how)
    places = torch.arange(3)
    ours = surfaces(scattered, some, places, 800)
    theirs = surfaces(grid, whole, places, 800)
    assert ours.abs().max() <= 0.5
    assert (ours[0].norm(dim=1) - 0.45).abs().max() < 4e-3  # of a ball's flat faces
    near = chamfer(ours, theirs, squared=True)
    assert (near < 4e-3).all()
    assert chamfer(ours[:1], ours[2:], squared=True) > 1e-2
    with pytest.raises(InputError, match="keeps 900 of each"):
        surfaces(scattered, some, places, 901)


def test_shapes_are_judged_by_their_surfaces(shapes):
    system, source = shapes
    origin = system.family.conditioner.origin(1).detach()
    known = origin + torch.randn(6, *origin.shape[1:])
    samples = torch.cat([known[:2], torch.full_like(known[:1], math.nan)])
    found = compare_with_baselines(
        system, source, known, {"samples": samples}, options=ComparisonOptions(points=16)
    )
    assert found.measure == "chamfer"
    failures = {x.set: x.failures for x in found.sets}
    assert failures["samples"] >= 1
    assert failures["held-out"] == 0
    drawn = torch.randperm(6, generator=Generator().manual_seed(0))[:3].tolist()
    empty = int(5 in drawn)
    assert found.absent == {"training": empty, "held-out": 0}
    assert {x.size for x in found.sets if x.reference == "training"} == {3 - empty}
    assert found.novelty["samples"]["weights"].samples.indices.tolist() == [0, 1, -1]
    assert found.novelty["samples"]["signals"].samples.indices[2] == -1
    shown = draw_neighbours(system, samples, known, found.novelty["samples"])
    assert shown.shape == (9, 3, 128, 128)
    assert shown[7:].eq(1).all()  # a failure has no neighbours
    said = json.dumps(comparison.as_json(found), allow_nan=False)
    assert '"failures"' in said
    assert "means of 32 rounds of 32 samples" in said
