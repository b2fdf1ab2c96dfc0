"""Shapes and views from own files to meshes, orbits and figures, through the command line."""

import io
import json
import math

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from fieldloom import export, recipe
from fieldloom.assembly import build
from fieldloom.drawing import write_data
from fieldloom.engine.run import load
from fieldloom.errors import InputError
from fieldloom.geometry.cameras import orbit
from fieldloom.inputs import held_out_part
from fieldloom.modalities.sources import SOURCES, spec_of
from fieldloom.modalities.views import Views
from fieldloom.training import train


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    """Twelve balls of different size and place, 12^3, packed as bits."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 12)] * 3, indexing="ij"), -1)
    draw = np.random.default_rng(0)
    cells = [
        np.linalg.norm(grid - draw.uniform(-0.2, 0.2, 3), axis=-1) < draw.uniform(0.4, 0.8)
        for _ in range(12)
    ]
    path = tmp_path_factory.mktemp("shapes") / "balls.npz"
    np.savez(path, bits=np.packbits(np.reshape(cells, (12, -1)), axis=1), shape=[12, 12, 12])
    return path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Six discs of different colour, five views each, 8 x 8, as the packed file of views."""
    draw, blobs = np.random.default_rng(0), []
    y, x = np.mgrid[:8, :8] - 3.5
    for _ in range(6):
        colour = draw.integers(0, 200, 3)
        for _ in range(5):
            picture = np.full((8, 8, 4), 255, np.uint8)
            picture[..., :3] = colour
            picture[..., 3] = 255 * (np.hypot(x, y) < 2.5)
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            blobs.append(np.frombuffer(buffer.getvalue(), np.uint8))
    path = tmp_path_factory.mktemp("views") / "discs.npz"
    np.savez(
        path,
        data=np.concatenate(blobs),
        offsets=np.cumsum([0, *map(len, blobs)]),
        c2w=np.repeat(orbit(5, 1.6, 20.0).numpy()[None], 6, 0),
        focal=10.0,
        height=8,
        width=8,
        camera_radius=1.6,
    )
    return path


SMALL = [
    "train.field.steps=8", "train.prior.steps=6", "train.field.batch=4", "train.prior.batch=4",
    "prior.denoiser.width=32", "prior.denoiser.depth=2", "field.width=8", "conditioner.width=4",
    "train.field.points=64", "source.split=[0.67,0.33]",
]  # fmt: skip
SHAPES = [*SMALL, "modality.size=12", "evaluate.points=64"]
VIEWS = [*SMALL, "modality.size=8", "modality.held=1", "modality.rays=32", "renderer.samples=6"]


@pytest.fixture(scope="module")
def shape_run(balls, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    overrides = [*SHAPES, "conditioner.experts=4", "field.output=linear"]
    train(recipe.load("mnif:chairs32", [*overrides, f"source.path={balls}"]), str(folder))
    return folder


@pytest.fixture(scope="module")
def view_run(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "views"
    overrides = [*VIEWS, "conditioner.experts=4", "encoder.unseen.steps=3"]
    train(recipe.load("mnif:multiview128", [*overrides, f"source.path={scenes}"]), str(folder))
    return folder


@pytest.mark.slow
def test_shapes_come_back_as_meshes(cli, shape_run, tmp_path, capsys):
    cli("evaluate", shape_run)
    report = json.loads((shape_run / "report.json").read_text())
    figures = {figure["name"]: figure["value"] for figure in report["figures"]}
    assert {"mse", "iou", "accuracy", "failures", "chamfer.mmd", "chamfer.coverage"} <= set(figures)
    assert (shape_run / "samples.png").is_file()
    cli("sample", shape_run, "--count", 2, "--format", "npy", "--out", tmp_path / "two.png")
    assert len(list((tmp_path / "two").glob("*.npy"))) == 2
    assert (tmp_path / "two.png").is_file()
    cli("render", shape_run, "--frames", 3, "--out", tmp_path / "turn.gif")
    assert Image.open(tmp_path / "turn.gif").n_frames in (1, 3)  # alike ones are kept once
    cli("interpolate", shape_run, "--steps", 3, "--out", tmp_path / "way.gif")
    cli("render", shape_run, "--held", status=2)
    assert "--held, --depth, --cameras are for scenes" in capsys.readouterr().err


def ball_system(shape_run):
    """The run's system with a field that is a ball of radius 0.6, or empty where its code is 1."""
    system = load(shape_run, "cpu")

    def field(coords, weights):
        return (0.6 - coords.norm(dim=-1, keepdim=True)).clamp(-1, 1)

    field.slots = system.family.field.slots
    system.family.field = field
    return system


def test_a_ball_is_found_at_any_resolution_and_projected(shape_run):
    system = ball_system(shape_run)
    code = torch.zeros(1, *system.family.code_shape)
    for resolution, project, bound in ((8, 0, 0.05), (24, 0, 0.01), (24, 3, 1e-5)):
        mesh = system.mesh(code, resolution, project)
        radius = np.linalg.norm(mesh.vertices, axis=1)
        assert abs(radius - 0.6).max() < bound
    frame = torch.tensor([5.0, 6.0, 7.0, 2.0], dtype=torch.float64)
    moved = system.mesh(code, 24, 3, frame)
    np.testing.assert_allclose(moved.vertices.mean(0), [5, 6, 7], atol=0.01)
    assert trimesh.Trimesh(moved.vertices, moved.faces).volume == pytest.approx(
        4 / 3 * math.pi * 1.2**3, rel=0.02
    )


def test_an_empty_level_set_is_named_and_not_written(shape_run, tmp_path, monkeypatch, recwarn):
    system = load(shape_run, "cpu")
    nothing = lambda coords, weights: coords.new_full((*coords.shape[:2], 1), -1.0)
    nothing.slots = system.family.field.slots
    system.family.field = nothing
    codes = torch.zeros(2, *system.family.code_shape)
    assert write_data(system, codes, tmp_path / "none") == []
    assert "2 of 2 have no surface: 0, 1" in str(recwarn.pop().message)
    assert not (tmp_path / "none").exists()


def test_own_meshes_are_reconstructed_where_they_stood(cli, shape_run, tmp_path):
    box = trimesh.creation.box((2, 3, 4))
    box.apply_translation([10, 20, 30])
    box.export(tmp_path / "box.ply")
    assert spec_of(str(tmp_path / "box.ply"))["name"] == "meshes"
    system = ball_system(shape_run)  # whatever it is given, its surface is a ball of radius 0.6
    source, indices = held_out_part(system, tmp_path / "box.ply")
    data = source.read(indices)
    code = torch.zeros(len(data), *system.family.code_shape)
    for project in (0, 2):
        folder = tmp_path / f"projected{project}"
        paths = write_data(system, code, folder, 24, "obj", project, data.frame)
        assert paths == [folder / "0000.obj"]
        low, high = trimesh.load(folder / "0000.obj").bounds
        np.testing.assert_allclose((low + high) / 2, [10, 20, 30], atol=0.05)
        extent = 0.6 * 2 / 0.9  # the box's longest half side stands at 0.9
        np.testing.assert_allclose(high - low, 2 * extent, rtol=0.03)
    cli("reconstruct", shape_run, "--source", tmp_path / "box.ply", "--resolution", 12)
    cli("encode", shape_run, "--source", tmp_path / "box.ply", "--out", tmp_path / "code.st")
    assert (tmp_path / "code.st").is_file()


@pytest.mark.slow
def test_points_are_trained_and_measured(cli, tmp_path, capsys):
    trimesh.creation.box((1, 1, 2)).export(tmp_path / "a.ply")
    trimesh.creation.icosphere(2).export(tmp_path / "b.off")
    trimesh.creation.cylinder(0.5, 2).export(tmp_path / "c.stl")
    overrides = [
        *SHAPES, "conditioner.experts=4", "modality={name=\"points\",size=12}", "loss=mse",
        f"source={{name=\"meshes\",path=\"{tmp_path}\",samples=200,target=\"distance\"}}",
        "source.split=[0.67,0.33]", "source.surface=64",
        "evaluate.metrics=[\"mse\",\"iou\",\"accuracy\",\"shapes\",\"cloud-frechet\"]",
        "evaluate.points=64", "evaluate.samples=3",
    ]  # fmt: skip
    folder = tmp_path / "run"
    system = train(recipe.load("mnif:chairs32", overrides), str(folder))
    cli("evaluate", folder)
    figures = {f["name"]: f for f in json.loads((folder / "report.json").read_text())["figures"]}
    assert {"mse", "iou", "accuracy", "chamfer.mmd", "chamfer.1nna"} <= set(figures)
    assert figures["chamfer.mmd"]["of"] == "3 samples, 1 test shapes, 64 points each"
    cli("analyse", "judge", folder, "--points", 64)
    assert json.loads((folder / "judge.json").read_text())["measure"] == "chamfer"
    cli("analyse", "judge", folder, "--points", 65, status=2)
    assert "the run's source keeps 64 of each" in capsys.readouterr().err
    assert system.modality.assemble(torch.zeros(1, 12**3, 1)).shape == (1, 1, 12, 12, 12)


@pytest.mark.slow
def test_views_come_back_as_orbits_and_held_out_views(cli, view_run, tmp_path, capsys):
    system = load(view_run, "cpu")
    assert system.recipe["renderer"]["near"] == pytest.approx(1.1)  # what the data said
    assert system.recipe["modality"]["radius"] == pytest.approx(1.6)
    cli("evaluate", view_run)
    report = json.loads((view_run / "report.json").read_text())
    figures = {figure["name"]: figure["value"] for figure in report["figures"]}
    assert {"psnr", "novel.psnr", "novel.ssim", "frechet"} <= set(figures)
    cli("render", view_run, "--frames", 3, "--out", tmp_path / "orbit.gif", "--resolution", 10)
    picture = Image.open(tmp_path / "orbit.gif")
    assert (picture.n_frames, picture.size) == (3, (10, 10))
    cli("render", view_run, "--sample", 1, "--frames", 2, "--out", tmp_path / "orbit.mp4")
    assert (tmp_path / "orbit.mp4").stat().st_size > 300
    cli("render", view_run, "--held", "--out", tmp_path / "held.png")
    cli("render", view_run, "--depth", "--frames", 2, "--out", tmp_path / "depth.png")
    cli("sample", view_run, "--count", 2, "--out", tmp_path / "two.png")
    assert len(list((tmp_path / "two").glob("*.png"))) == 2
    cli("render", view_run, "--out", tmp_path / "orbit.webm", status=2)
    assert ".png, .gif, .mp4" in capsys.readouterr().err
    cli("sample", view_run, "--format", "glb", status=2)
    assert "unknown format of this run's data 'glb'" in capsys.readouterr().err
    cli("reconstruct", view_run, "--project", 2, status=2)
    assert "this run is of no shapes" in capsys.readouterr().err


def test_scenes_between_codes(cli, view_run, tmp_path, monkeypatch):
    """From cameras that stay, side by side, and from one that goes around meanwhile."""
    system = load(view_run, "cpu")
    codes, side = system.sample_between(0, 1, 3), system.modality.size[1]
    written = []
    monkeypatch.setattr(export, "gif", lambda frames, path: written.extend(frames) or path)
    for name, options, views in (("fixed", ["--views", 2], 2), ("turn", ["--cameras", "orbit"], 1)):
        written.clear()
        path = tmp_path / f"{name}.gif"
        cli("interpolate", view_run, "--sample", "--steps", 3, *options, "--out", path)
        assert len(written) == 4  # and back
        cameras = system.modality.cameras(count=2 if views == 2 else 3)
        for i, frame in enumerate(written[:3]):
            seen = cameras if views == 2 else cameras.views(slice(i, i + 1))
            right = system.decode(codes[i : i + 1], cameras=seen).tensor[0].detach()
            for j, view in enumerate(right):
                first = 2 + j * (side + 2)  # a white gap around each
                found = torch.from_numpy(frame[2 : 2 + side, first : first + side] / 255)
                torch.testing.assert_close(
                    found.movedim(-1, 0).float(), view, atol=3e-3, rtol=0, msg=name
                )
    cli("interpolate", view_run, "--steps", 2, "--out", tmp_path / "data.gif")
    assert len(written) == 6


def test_wrong_cameras_get_a_sentence(view_run):
    system = load(view_run, "cpu")
    code, orbit = torch.zeros(1, *system.family.code_shape), system.modality.cameras(count=2)
    for work in (system.decode, system.depth):
        for cameras in ({}, {"c2w": orbit.c2w}, {"c2w": orbit.c2w, "intrinsics": orbit.c2w}):
            with pytest.raises(InputError, match="cameras"):
                work(code, cameras=cameras)
        assert work(code, cameras=orbit).shape[1] == 2


def test_the_depth_of_a_scene_lies_between_near_and_far(view_run):
    system = load(view_run, "cpu")
    depth = system.depth(torch.zeros(1, *system.family.code_shape))
    assert depth.shape == (1, 8, 1, 8, 8)
    assert (depth.tensor >= 0).all()
    assert (depth.tensor <= 1).all()


@pytest.mark.parametrize("name", ["functa", "gem"])
def test_the_other_systems_on_views(name, scenes, tmp_path):
    small = [x for x in VIEWS if ("denoiser" not in x and "train.prior" not in x) or name != "gem"]
    more = ["conditioner.hidden=[6,6]", "encoder.unseen.steps=2"] if name == "gem" else []
    loaded = recipe.load(f"{name}:multiview128", [*small, *more, f"source.path={scenes}"])
    if name == "gem":
        loaded["objective"]["penalty"] = [{"name": "lle", "neighbours": 2}, {"name": "isometry"}]
    system = train(loaded, str(tmp_path / name))
    assert system.sample(2).shape == (2, 8, 3, 8, 8)


def test_gasp_on_views(cli, scenes, tmp_path, capsys):
    layers = "[[16,4,4],[4,4],[1,4,1]]"
    overrides = [
        "train.field.steps=4", "train.field.batch=3", "modality.size=8", "modality.patch=4",
        "modality.held=1", "renderer.samples=5", "field.width=8", "field.encoding.count=4",
        "conditioner.hidden=[6,6]", f"objective.critic.layers={layers}", f"source.path={scenes}",
        "source.split=[0.67,0.33]",
    ]  # fmt: skip
    system = train(recipe.load("gasp:multiview128", overrides), str(tmp_path / "gasp"))
    assert system.sample(2).shape == (2, 8, 3, 8, 8)
    assert not (tmp_path / "gasp" / "codes.safetensors").exists()
    cli("reconstruct", tmp_path / "gasp", status=2)
    assert "this run cannot encode" in capsys.readouterr().err


def test_gasp_on_the_sphere(tmp_path):
    maps = np.random.default_rng(0).uniform(210, 310, (2, 2, 1, 7, 12)).astype(np.float32)
    np.savez(tmp_path / "climate.npz", era5_t_K=maps)
    overrides = [
        f"source={{name=\"array\",path=\"{tmp_path / 'climate.npz'}\",range=[200.0,330.0]}}",
        "modality.size=[7,12]", "train.field.steps=4", "train.field.batch=4", "field.width=8",
        "field.encoding.count=4", "conditioner.hidden=[6,6]", "objective.points=40",
        "objective.critic.layers=[[40,4,4],[8,4],[1,4,1]]", "evaluate.samples=4",
    ]  # fmt: skip
    system = train(recipe.load("gasp:climate", overrides), str(tmp_path / "run"))
    assert system.sample(3).shape == (3, 1, 7, 12)
    coords = system.modality.grid()
    torch.testing.assert_close(coords.norm(dim=-1), torch.ones(1, 84))
    assert coords[0, :12, 2].allclose(torch.ones(12))  # the first row is the pole


def test_paths_are_known_by_what_is_there(tmp_path, balls, scenes):
    assert spec_of(str(balls))["name"] == "voxels"
    assert spec_of(str(scenes))["name"] == "multiview"
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "transforms.json").write_text("{}")
    assert spec_of(str(tmp_path / "scene"))["name"] == "transforms"
    (tmp_path / "srn" / "one" / "pose").mkdir(parents=True)
    (tmp_path / "srn" / "one" / "pose" / "0.txt").write_text("")
    assert spec_of(str(tmp_path / "srn"))["name"] == "srn"
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.OBJ").write_text("")
    assert spec_of(str(tmp_path / "m"))["name"] == "meshes"
    assert {"voxels", "meshes", "multiview", "transforms", "srn"} <= set(SOURCES)


def test_resuming_a_run_of_views_ends_in_the_same_weights(scenes, tmp_path, monkeypatch):
    """Interrupted within the field's training, with jitter and random rays."""
    from fieldloom.engine import loop as loops
    from fieldloom.errors import Interrupted

    overrides = [*VIEWS, "conditioner.experts=4", "encoder.unseen.steps=2", f"source.path={scenes}"]
    loaded = recipe.load("mnif:multiview128", [*overrides, "prior=none"])
    loaded["train"].pop("prior")
    whole = train(loaded, str(tmp_path / "whole"))
    advance, count = loops.Training.advance, iter(range(100))

    def interrupted(self, *rest):
        if next(count) == 5:
            raise Interrupted("stopped here")
        return advance(self, *rest)

    monkeypatch.setattr(loops.Training, "advance", interrupted)
    loaded["train"]["field"]["save_every"] = 3
    with pytest.raises(Interrupted):
        train(loaded, str(tmp_path / "parts"))
    monkeypatch.undo()
    again = train(None, str(tmp_path / "parts"), resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_colours_of_a_renderer_are_those_of_its_pictures():
    wrong = {
        "modality": {"name": "views", "range": "unit"},
        "renderer": {"name": "volume", "near": 1.0, "far": 2.0},
        "field": "siren",
    }
    with pytest.raises(ValueError, match="set both alike"):
        build(wrong)


def test_views_ask_for_rays():
    assert Views(size=4).coord_dim == 6
    wrong = {"modality": {"name": "image"}, "field": "siren", "renderer": "plucker"}
    with pytest.raises(ValueError, match="needs rays"):
        build(wrong)
