"""Files and folders of any name that a file system takes, from training to codes."""

import json
import os
import shutil
import tomllib

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import fieldloom
from fieldloom import export
from fieldloom.assembly import make_modality, open_source
from fieldloom.inputs import source_of
from fieldloom.modalities.sources.files import path_to_text
from fieldloom.recipe import load

LATIN = os.fsdecode(b"caf\xe9")  # is not UTF-8
ODD = [LATIN, "a\n\t\x1b[31m b ", "2024-05-01", "😀'\"$x$ne\u0301.", "n" * 200, "~", "--weird"]


def pictures(folder, name):
    """Two classes of four pictures, with the name in every place."""
    noise = np.random.default_rng(0)
    for part in ("a", name):
        (folder / part).mkdir(parents=True)
        for i in range(4):
            values = noise.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(values).save(folder / part / f"{name}{i}.png")
    return folder


SETTINGS = ["source.name=folder", "source.split=[6, 2]", "modality.size=8", "train.field.steps=1"]


@pytest.mark.parametrize("name", ODD)
def test_a_run_of_any_name_on_data_of_any_name(cli, name, tmp_path):
    data, run = pictures(tmp_path / name, name), tmp_path / f"run {name}"
    sets = [x for key in (*SETTINGS, f"source.path={data}") for x in ("--set", key)]
    cli("train", "mnif:tiny", "--run", run, "--stage", "field", "--device", "cpu", *sets)
    system = fieldloom.load(run, "cpu")
    source = source_of(system)
    shown = "caf\\xe9" if name == LATIN else name
    assert sorted(source.names) == sorted(("a", shown))
    assert len(source.train) == 6
    assert json.loads((run / "data.json").read_bytes().decode())["count"] == 8
    if name not in (LATIN, ODD[1]):
        return
    words = [x.name for x in run.iterdir()]
    assert "model.safetensors" in words
    done = cli("evaluate", run)
    psnr = {x["name"]: x["value"] for x in json.loads((run / "report.json").read_text())["figures"]}
    assert psnr["psnr"] > 5
    assert (run / "report.html").read_bytes().decode().startswith("<!doctype html>")
    assert "\x1b" not in done.stdout + done.stderr
    codes = tmp_path / f"{name}.safetensors"
    cli("encode", run, "--source", data, "--out", codes)
    assert "8 of 8 codes" in cli("decode", run, codes, "--out", tmp_path / f"{name} out").stdout
    assert len(list((tmp_path / f"{name} out").glob("*.png"))) == 8
    (tmp_path / "moved").mkdir()
    moved, place = tmp_path / "moved" / run.name, tmp_path / f"{name}2"
    shutil.move(run, moved)
    shutil.move(data, place)
    assert "do not exist" in cli("evaluate", moved, status=2).stderr
    cli("train", "mnif:tiny", "--run", moved, "--resume", "--set", f"source.path={place}",
        "--stage", "field")  # fmt: skip
    assert len(source_of(fieldloom.load(moved)).train) == 6


def test_a_path_that_is_not_utf8_is_a_uri_in_the_recipe(tmp_path):
    data = pictures(tmp_path / LATIN, LATIN)
    recipe = load("mnif:tiny", SETTINGS)
    recipe["source"] = {"name": "folder", "path": str(data), "split": [6, 2]}
    fieldloom.train(recipe, tmp_path / "run", stage="field", device="cpu")
    written = tomllib.loads((tmp_path / "run" / "recipe.toml").read_bytes().decode())
    assert written["source"]["path"] == f"{tmp_path.as_uri()}/caf%E9"
    assert written["known"]["beside"] == "file:../caf%E9"
    assert written["known"]["names"] == ["a", "caf\\xe9"]
    both = tmp_path / "both"
    both.mkdir()
    shutil.move(tmp_path / "run", both / "run")
    shutil.move(data, both / LATIN)
    found = source_of(fieldloom.load(both / "run", "cpu"))  # what moved together is found
    assert found.facts()["fingerprint"] == written["known"]["fingerprint"]


def test_recipes_of_a_name_that_is_not_utf8(cli, tmp_path):
    file = tmp_path / f"{LATIN}.toml"
    bundled = load("mnif:tiny", ["train.field.steps=1"])
    del bundled["recipe"]  # the name of the file is its title
    file.write_text(fieldloom.recipe.dump(bundled))
    cli("train", file, "--stage", "field", "--device", "cpu", cwd=tmp_path)
    run = tmp_path / "runs" / LATIN
    assert fieldloom.load(run).settings.title.endswith("caf\\xe9.toml")
    again = cli("train", file, "--stage", "field", "--resume", cwd=tmp_path)
    assert "trained" in again.stdout


IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
READERS = {
    "image": ("a.png", {}, lambda path: Image.fromarray(IMAGE).save(path)),
    "array": ("a.npy", {"channels": 1}, lambda path: np.save(path, np.eye(8)[None, None])),
    "video": ("a.gif", {"size": [2, 8, 8]}, lambda path: export.gif([IMAGE, 255 - IMAGE], path)),
    "audio": ("a.wav", {"size": 80}, lambda path: export.wav(torch.rand(1, 80), 8000, path)),
    "meshes": ("a.glb", {"size": 8}, lambda path: export.mesh(*solid(), path)),
}


def solid():
    box = trimesh.creation.icosphere(2)
    return box.vertices, box.faces


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_opens_a_file_whose_name_is_not_utf8(reader, tmp_path):
    name, size, write = READERS[reader]
    kind = {"array": "image", "meshes": "voxel"}.get(reader, reader)
    modality = make_modality({"name": kind, **({"size": 8} if kind == "image" else {}), **size})
    plain, odd = tmp_path / name, tmp_path / name.replace("a.", f"{LATIN}.")
    write(plain)
    shutil.copy(plain, odd)
    both = [
        open_source({"source": {"name": reader, "path": path_to_text(path)}}, modality)
        for path in (plain, odd)
    ]
    assert torch.equal(both[0].data.tensor, both[1].data.tensor)
    assert both[0].data.tensor.float().std() > 0
