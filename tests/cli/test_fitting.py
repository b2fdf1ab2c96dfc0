"""``fieldloom fit FILE``: end to end on tiny files."""

import numpy as np
import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom import export
from fieldloom.cli.fitting import name_run
from media import gradient

QUICK = ["--set", "train.field.steps=3", "--set", "field.width=8", "--set", "field.grid.levels=3"]


def test_an_image_in_the_default_folder_and_what_comes_next(cli, tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "my photo.png")
    said = cli("fit", "my photo.png", *QUICK, cwd=tmp_path)
    run = tmp_path / "runs" / "my photo"
    assert "an image, by the recipe fit:image" in said.stdout
    assert "PSNR over all points" in said.stdout
    assert Image.open(run / "fitted.png").size == (24, 20)
    follow = said.stdout.splitlines()[-1]
    assert follow.startswith("next: fieldloom render 'runs/my photo' --window")
    assert "holds a run already" in cli("fit", "my photo.png", status=2, cwd=tmp_path).stderr
    recipe = (run / "recipe.toml").read_text()
    assert "finest = 24" in recipe  # as the data are
    assert "row-adam" in recipe


def test_a_budget_and_going_on(cli, tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    run = tmp_path / "run"
    said = cli("fit", tmp_path / "a.png", "--run", run, "--minutes", "0.005", *QUICK[2:])
    assert "steps in 0.005 minutes" in said.stderr
    before = fieldloom.load(run).state_dict()
    cli("fit", tmp_path / "a.png", "--run", run, "--resume")
    after = fieldloom.load(run).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    Image.fromarray(gradient()[::-1]).save(tmp_path / "b.png")
    other = cli("fit", tmp_path / "b.png", "--run", run, "--resume", status=2).stderr
    assert "was fitted to" in other
    assert "another --run fits that one" in other
    changed = ("fit", tmp_path / "a.png", "--run", run, "--resume", "--seed", "3")
    assert "--set and --seed cannot change it" in cli(*changed, status=2).stderr


@pytest.mark.parametrize(
    ("name", "kind", "files"),
    [
        ("moves.gif", "fit:video", ["fitted.mp4", "fitted.png"]),
        ("noise.wav", "fit:audio", ["fitted.wav", "fitted.png"]),
        ("frames.npy", "fit:video", ["fitted.mp4"]),
        ("globe.png", "fit:sphere", ["fitted.png"]),
    ],
)
def test_other_files(cli, tmp_path, name, kind, files):
    frames = [Image.fromarray(np.roll(gradient(), i, 1)) for i in range(3)]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "globe.png")
    np.save(tmp_path / "frames.npy", np.stack([np.asarray(x) for x in frames] * 2))
    export.wav(torch.rand(2, 300), 8000, tmp_path / "noise.wav")
    run = tmp_path / "run"
    more = ["--as", "sphere"] if name == "globe.png" else []
    said = cli("fit", tmp_path / name, "--run", run, *more, *QUICK)
    assert kind in said.stdout
    assert all((run / file).is_file() for file in files)
    assert "steps" in (run / "recipe.toml").read_text()
    verb, *rest = said.stdout.splitlines()[-1].removeprefix("next: fieldloom ").split()
    drawn = cli(verb, *rest, cwd=run.parent)
    assert "written" in drawn.stdout


def test_what_is_not_recognised_is_one_sentence(cli, tmp_path):
    (tmp_path / "notes").mkdir()
    status, said = cli.answer("fit", tmp_path / "notes")
    assert status == 2
    assert "is an empty folder" in said
    assert "transforms.json" in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.glob("runs"))


def test_another_field_comes_with_its_own_rates(cli, tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    given = ["--set", "field=siren", "--set", "train.field.steps=2", "--set", "field.width=8"]
    cli("fit", tmp_path / "a.png", "--run", tmp_path / "run", *given)
    recipe = (tmp_path / "run" / "recipe.toml").read_text()
    assert 'name = "siren"' in recipe
    assert "tables" not in recipe
    assert "[fields" not in recipe


def test_the_folder_of_a_run_is_named_after_what_is_there(tmp_path, monkeypatch):
    scene = tmp_path / "my scene"
    (scene / "images").mkdir(parents=True)
    monkeypatch.chdir(scene / "images")
    assert [name_run(x) for x in ("..", ".", "../a.b.png")] == ["my scene", "images", "a.b"]
