"""Previews: a picture of any kind of data, and a run with them equals one without, bit for bit."""

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fieldloom import previews, recipe, thumbnail
from fieldloom.engine.run import Run
from fieldloom.previews import Previews
from fieldloom.training import train
from media import wave
from pictures import picture

SMALL = ["field.width=8", "train.field.steps=3", "train.field.points=64", "train.field.log_every=1"]


def sound(folder):
    soundfile.write(folder / "a.wav", wave(900, 1), 8000)
    return recipe.load("loe:audio", [*SMALL, f"source.path={folder / 'a.wav'}"])


def film(folder):
    frames = [Image.new("RGB", (16, 12), (40 * i, 0, 0)) for i in range(6)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    return recipe.load("loe:video", [*SMALL, f"source.path={folder / 'a.gif'}"])


def scene(folder):
    frames = []
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
        pose = np.eye(4)
        pose[2, 3] = 3 + 0.1 * i
        frames.append({"file_path": f"{i}.png", "transform_matrix": pose.tolist()})
    told = {"camera_angle_x": 0.7, "near": 1.0, "far": 5.0, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(told))
    own = ["modality.size=8", "renderer.samples=4", "field.head.width=4", "train.field.points=16"]
    return recipe.load("loe:nerf", [*SMALL, *own, f"source.path={folder}"])


def shapes(folder):
    np.save(folder / "a.npy", np.random.default_rng(0).random((4, 8, 8, 8)) > 0.5)
    own = ["source={name='voxels', split=[1.0, 0.0]}", "modality={name='voxel', size=8}",
           "loss=mse", "train.field.batch=2", "train.field.steps=3"]  # fmt: skip
    return recipe.load("mnif:tiny", [*own, f"source.path={folder / 'a.npy'}"])


DIGITS = ["source.split=[8, 4]", "train.field.batch=4", "train.field.steps=3"]
TABLE = "encoder={name='autodecode', std=0.01, unseen={name='fit', steps=5}}"
CASES = {
    "a picture": lambda folder: picture(folder, "train.field.steps=3"),
    "sound": sound,
    "video": film,
    "a scene": scene,
    "digits by descent": lambda _: recipe.load("mnif:tiny", DIGITS),
    "digits by a table": lambda _: recipe.load("mnif:tiny", [*DIGITS, TABLE]),
    "digits by a transformer": lambda _: recipe.load("ipc:tiny", DIGITS),
    "a gan": lambda _: recipe.load("gasp:tiny", ["train.field.steps=3"]),
    "shapes": shapes,
}


@pytest.fixture
def drawn(monkeypatch):
    """Previews at every step; what was drawn."""
    pictures, real = [], Previews.draw
    draw = lambda self: pictures.append(real(self)) or pictures[-1]
    for name, value in {"FIRST": -1.0, "APART": -1e9, "PART": -1e-9}.items():
        monkeypatch.setattr(previews, name, value)
    monkeypatch.setattr(Previews, "draw", draw)
    return pictures


SLOW = ("digits by a table", "digits by a transformer")


@pytest.mark.parametrize(
    "case", [pytest.param(x, marks=[pytest.mark.slow] if x in SLOW else []) for x in CASES]
)
def test_a_run_with_previews_equals_one_without(tmp_path, case, monkeypatch, request):
    own, log = CASES[case](tmp_path), lambda name: [
        {k: x for k, x in line.items() if k != "seconds_a_step"}
        for line in Run(tmp_path / name).read_log()
    ]  # fmt: skip
    without = train(own, str(tmp_path / "without"), "field").state_dict()
    pictures = request.getfixturevalue("drawn")
    state = train(own, str(tmp_path / "with"), "field").state_dict()
    assert len(pictures) == 2  # not after the last step
    assert all(x.dtype == np.uint8 and x.shape[2] == 3 for x in pictures)
    assert case == "shapes" or not (pictures[0] == pictures[-1]).all()  # no surface yet
    assert all(torch.equal(x, state[name]) for name, x in without.items())
    assert log("with") == log("without")
    assert not (tmp_path / "with" / "preview.png").exists()  # of a finished stage


def test_a_preview_is_a_file_that_is_said_once(tmp_path, drawn, capsys, monkeypatch):
    sizes = []
    real = Previews.look
    look = lambda self: (real(self), sizes.append(Image.open(self.path).size))
    monkeypatch.setattr(Previews, "look", look)
    train(picture(tmp_path, "train.field.steps=3"), str(tmp_path / "run"))
    assert sizes == [(24, 24)] * 2
    said = capsys.readouterr().err
    assert said.count("preview after step 1: ") == said.count("preview after step") == 1


def test_where_drawing_fails_training_goes_on_with_one_warning(tmp_path, drawn, monkeypatch):
    fail = lambda self: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    monkeypatch.setattr(Previews, "draw", fail)
    with pytest.warns(UserWarning, match="no preview, and training goes on without: OSE") as said:
        system = train(picture(tmp_path), str(tmp_path / "run"))
    assert system.finished == ["field"]
    assert len([x for x in said if "no preview" in str(x.message)]) == 1


def test_a_large_picture_is_drawn_small(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(previews, "WORK", 8 * 100)
    monkeypatch.setattr(thumbnail, "LEAST", 1)
    train(picture(tmp_path, "train.field.steps=2"), str(tmp_path / "run"))
    assert drawn[0].shape == (10, 10, 3)
