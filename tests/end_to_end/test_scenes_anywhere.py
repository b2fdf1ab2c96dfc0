"""One scene in several places and units: the same training, and cameras and depths of its own."""

import json

import numpy as np
import pytest
import torch

import fieldloom
from fieldloom.engine.loop import Training
from fieldloom.engine.run import load
from fieldloom.errors import InputError
from fieldloom.inputs import source_of
from fieldloom.metrics.paired import psnr
from fieldloom.types import Cameras
from posed_images import BALL, FOCAL, HEIGHT, PLACES, POSES, RADIUS, WIDTH, blender, stand

RECIPE = {
    "modality": {"name": "views", "size": (HEIGHT, WIDTH), "held": 1},
    "renderer": {"name": "volume", "samples": 8, "density": "softplus", "last": "step"},
    "field": {"name": "fourier-mlp", "width": 8, "depth": 3},
    "train": {"field": {"steps": 6, "batch": 1, "points": 64, "log_every": 1,
                        "optimizer": {"name": "adam", "rate": 1e-2}}},
}  # fmt: skip
STANDS = ("at home", "in centimetres", "on a map")


def train(folder, place, **renderer):
    """A run of the scene where it stands. renderer: settings beside the data's own."""
    path = blender(folder / "scene", stand(place))
    changes = {"source": {"name": "transforms", "path": path}, "renderer": renderer}
    return fieldloom.train(RECIPE, folder / "run", **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Place -> the run of the scene that stands there."""
    folder = tmp_path_factory.mktemp("anywhere")
    for place in STANDS:
        train(folder / place, place)
    return {place: folder / place / "run" for place in STANDS}


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("place", STANDS)
def test_training_is_the_same(runs, place):
    home = losses(runs["at home"])
    assert len(home) == 6
    assert home[-1] < home[0]
    assert losses(runs[place]) == pytest.approx(home, abs=1e-5)


def as_a_ball(run):
    """The run's system, whose field is the ball of the pictures, in the field's coordinates."""
    system = load(run, "cpu")
    x, y, z, scale = system.modality.frame
    move, unit = place_of(run)
    centre = ((BALL.double() * unit + move - torch.tensor([x, y, z]).double()) / scale).float()

    def field(coords, weights):
        inside = (coords[..., :3] - centre).norm(dim=-1, keepdim=True) < 0.3 * unit / scale
        return torch.cat([torch.zeros_like(coords[..., :3]), inside * 1e4 - 1e3], -1)

    field.slots = system.family.field.slots
    system.family.field = field
    system.render.samples = 400
    return system


def place_of(run):
    move, unit = PLACES[run.parent.name]
    return torch.tensor(move).double(), unit


@pytest.mark.parametrize("place", STANDS)
def test_depths_and_cameras_are_the_file_s(runs, place, tmp_path):
    """A known depth at a known pixel, of held-out views, of the orbit, and of one's own cameras."""
    system, (move, unit) = as_a_ball(runs[place]), place_of(runs[place])
    assert system.recipe["renderer"]["near"] == pytest.approx(1.5 * unit)  # in the file's unit
    code = system.family.conditioner.origin(1)
    data = source_of(system).data
    ball = BALL.double() * unit + move
    below = data.cameras.c2w[0, -1].clone()
    below[:3, 3] = ball + 2 * unit * below[:3, 2]  # a camera 2 before the ball's centre
    own = Cameras(below[None], torch.tensor([[FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]]))
    seen = system.metric_depth(code, cameras=own).tensor[0, 0, 0]
    assert seen[HEIGHT // 2, WIDTH // 2] == pytest.approx(1.7 * unit, rel=6e-3)
    assert seen[0, 0] == pytest.approx(4.5 * unit)  # far, where nothing is
    assert system.depth(code, cameras=own).tensor[0, 0, 0, HEIGHT // 2, WIDTH // 2] == (
        pytest.approx(0.2 / 3, abs=5e-3)
    )
    path = fieldloom.render(system, tmp_path / "held.npy", code, data, held=True, depth=True)
    depth = np.load(path)
    assert depth.shape == (1, HEIGHT, WIDTH)
    eye, back = data.cameras.c2w[0, -1, :3, 3], data.cameras.c2w[0, -1, :3, 2]
    middle = float((eye - ball) @ back)
    assert middle - 0.31 * unit < depth.min() < middle - 0.28 * unit
    depth = np.load(fieldloom.render(system, tmp_path / "o.npy", code, frames=1, depth=True))
    assert depth.shape == (1, HEIGHT, WIDTH)
    assert (depth.min((1, 2)) < RADIUS * unit).all()
    orbit = system.modality.cameras(4)
    for eye in orbit.c2w[:, :3, 3]:
        assert float((eye - move).norm()) == pytest.approx(RADIUS * unit)
    assert system.decode(code).cameras.c2w.dtype == torch.float64
    fieldloom.render(system, tmp_path / "depth.gif", code, frames=1, depth=True)


def test_a_run_keeps_its_frame(runs, cli, tmp_path):
    """Other views of the scene are read into it, and its own recipe is complete."""
    run = runs["on a map"]
    system = load(run, "cpu")
    frame = system.modality.frame
    assert frame[:3] == pytest.approx((500_000, 4_000_000, 120))
    path = blender(tmp_path / "other", stand("on a map")[:2], count=2)
    done = cli("evaluate", run, "--source", path)
    assert "centred at (500000, 4000000, 120)" in done.stderr
    assert "guessed" not in done.stderr
    cli("evaluate", run)
    fieldloom.train(None, run, resume=True)
    assert load(run, "cpu").modality.frame == frame
    status, said = cli.answer("render", run, "--out", tmp_path / "x.npy")
    assert status == 2
    assert ".png, .gif, .mp4" in said


def test_depths_of_a_recipe_are_in_the_unit_of_the_file(tmp_path):
    system = train(tmp_path, "in centimetres", near=100.0, far=500.0)
    assert system.recipe["renderer"]["near"] == 100
    assert system.render.near == pytest.approx(100 / 120)  # the frame's unit is 120 cm
    with pytest.raises(InputError, match="argument of renderer 'volume'"):
        fieldloom.build(RECIPE, renderer={"near": 1.0, "far": 2.0, "unit_length": 2.0})


class Stop(Exception):
    pass


def test_a_run_that_holds_out_views_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """The file's own test part wins over a recipe's ``hold_out``, also where the run goes on."""
    for part, count in (("train", 4), ("test", 2)):
        path = blender(tmp_path / "scene", POSES, part=part, count=count)
    recipe = RECIPE | {"modality": {"name": "views", "size": (HEIGHT, WIDTH)}}
    source = {"name": "transforms", "path": path, "hold_out": 8}
    straight = fieldloom.train(recipe, tmp_path / "straight", source=source).state_dict()
    advance, calls = Training.advance, []

    def dying(self, *rest):
        calls.append(1)
        if len(calls) == 4:
            raise Stop
        return advance(self, *rest)

    monkeypatch.setattr(Training, "advance", dying)
    with pytest.raises(Stop):
        fieldloom.train(recipe, tmp_path / "killed", source=source)
    monkeypatch.setattr(Training, "advance", advance)
    system = fieldloom.train(None, tmp_path / "killed", resume=True)
    assert system.modality.held == 2
    for name, tensor in system.state_dict().items():
        assert torch.equal(tensor, straight[name]), name
    found = {metric.name: metric for metric in fieldloom.evaluate(system).metrics}
    seen, novel = found["psnr"], found["novel.psnr"]
    assert ", 4 views each" in seen.of
    assert ", 2 held-out views each" in novel.of
    data = source_of(system).data.as_float()
    code = system.family.conditioner.origin(1)
    values = psnr(system.predict(code, cameras=data.cameras).tensor[0], data.tensor[0])
    assert seen.value == pytest.approx(float(values[:4].mean()), abs=1e-4)
    assert novel.value == pytest.approx(float(values[4:].mean()), abs=1e-4)
