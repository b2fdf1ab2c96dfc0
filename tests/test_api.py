"""The functions of the package, called as a newcomer calls them, on tiny runs."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom.errors import InputError
from fieldloom.inputs import source_of


@pytest.fixture(scope="module")
def system(tiny_run) -> fieldloom.System:
    return fieldloom.load(tiny_run, "cpu")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A run without codes: four views of one scene, one of them held out."""
    folder = tmp_path_factory.mktemp("api")
    build = fieldloom.build(
        "loe",
        "nerf",
        modality={"size": 6, "held": 1},
        renderer={"samples": 4, "near": 0.5, "far": 3.0},
        field={"width": 8},
    )
    return fieldloom.save(build, folder / "scene")


def test_every_name_is_there_and_says_what_it_does():
    assert set(fieldloom.__all__) == set(fieldloom._HOMES)
    for name in fieldloom.__all__:
        assert getattr(fieldloom, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        fieldloom.trian  # noqa: B018


def test_the_package_imports_without_torch():
    code = "import sys, fieldloom; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.slow
def test_train_by_name_by_path_and_by_dict(tmp_path):
    """All three end in the same weights, and so does a run that is gone on with."""
    quick = {"train": {"field": {"steps": 2}, "prior": {"steps": 2}}}
    by_name = fieldloom.train("mnif", tmp_path / "name", "tiny", device="cpu", seed=3, **quick)
    assert by_name.generates
    assert by_name.settings.seed == 3
    recipe = fieldloom.build("mnif", "tiny", seed=3, **quick).recipe
    field = fieldloom.train(recipe, tmp_path / "dict", stage="field", device="cpu")
    assert not field.generates
    whole = fieldloom.train(None, tmp_path / "dict", device="cpu", resume=True)
    for name, tensor in by_name.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name
    with pytest.raises(InputError, match="holds a run already"):
        fieldloom.train("mnif", tmp_path / "name", "tiny")
    with pytest.raises(InputError, match="is a run of the recipe 'mnif:tiny', not of 'gem:tiny'"):
        fieldloom.train("gem", tmp_path / "name", "tiny", resume=True)
    with pytest.raises(InputError, match="none are changed"):
        fieldloom.train("mnif", tmp_path / "name", "tiny", resume=True, seed=4)
    with pytest.raises(InputError, match="recipe = None is not right"):
        fieldloom.train(None, tmp_path / "other")


def test_training_goes_on_where_its_data_lie_now(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).uniform(size=(6, 1, 8, 8)))
    quick = {"train": {"field": {"steps": 2}, "prior": {"steps": 2}}}
    own = {"name": "array", "path": str(tmp_path / "a.npy")}
    whole = fieldloom.train("mnif", tmp_path / "whole", "tiny", device="cpu", source=own, **quick)
    parts = tmp_path / "parts"
    fieldloom.train("mnif", parts, "tiny", stage="field", device="cpu", source=own, **quick)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "a.npy").rename(tmp_path / "elsewhere" / "b.npy")
    with pytest.raises(InputError, match="does not exist"):
        fieldloom.train(None, parts, device="cpu", resume=True)
    again = fieldloom.train(None, parts, device="cpu", resume=True, source={"path": str(moved)})
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.slow
def test_evaluate_a_run_or_a_system(system, tiny_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    named = lambda result: {x.name: x.value for x in result.metrics}
    found = named(fieldloom.evaluate(copy))
    assert not (copy / "report.json").exists()
    again = named(fieldloom.evaluate(system, folder=copy))
    assert again["psnr"] == found["psnr"]
    told = json.loads((copy / "report.json").read_text())["figures"]
    assert {x["name"]: x["value"] for x in told}["psnr"] == found["psnr"]
    np.save(tmp_path / "own.npy", np.random.default_rng(0).uniform(size=(3, 1, 8, 8)))
    other = fieldloom.evaluate(system, tmp_path / "own.npy")
    assert other.metrics[0].of == "3 given data"
    assert "frechet" not in named(other)
    with pytest.raises(InputError, match="does not exist"):
        fieldloom.evaluate(system, tmp_path / "nothing.npy")


@pytest.mark.slow
def test_encode_a_set_into_shards_and_into_a_file(system, tmp_path):
    source = source_of(system)
    codes = fieldloom.encode(system, tmp_path / "codes")
    assert torch.equal(codes.indices, source.test)
    assert (tmp_path / "codes" / "manifest.json").is_file()
    some = system.encode(source.read(source.test[:16]))
    torch.testing.assert_close(codes.codes[:16], some, atol=1e-5, rtol=0)
    again = fieldloom.encode(system, tmp_path / "codes.safetensors")
    assert torch.equal(again.codes, codes.codes)
    assert {x.name for x in tmp_path.iterdir()} == {"codes", "codes.safetensors"}
    whole = fieldloom.encode(system, tmp_path / "all", source)
    assert torch.equal(whole.indices, torch.arange(len(source.data)))
    with pytest.raises(InputError, match="holds codes of another job"):
        fieldloom.encode(system, tmp_path / "codes", source)


def test_samples_that_are_not_finite_are_said(tiny_run):
    system = fieldloom.load(tiny_run, device="cpu")
    next(system.prior.parameters()).data.fill_(math.nan)
    with pytest.warns(UserWarning, match="the codes of 2 of 2 samples hold NaN"):
        system.sample_codes(2)


def test_render_a_code_a_datum_and_a_part(system, tiny_run, tmp_path):
    code = system.sample_codes(1, seed=2)
    path = fieldloom.render(system, tmp_path / "whole.png", code, resolution=40)
    whole = np.asarray(Image.open(path))
    assert whole.shape == (40, 40)
    values = system.decode(code, 40).tensor[0, 0]
    np.testing.assert_array_equal(whole, (values * 255).round().byte().numpy())
    right = (0.5, 0.0, 1.0, 1.0)
    path = fieldloom.render(system, tmp_path / "part.png", code, resolution=40, crop=right)
    np.testing.assert_array_equal(np.asarray(Image.open(path)).shape, (40, 20))
    half = fieldloom.render(system, tmp_path / "half.png", code, resolution=(40, 20), crop=right)
    np.testing.assert_allclose(np.asarray(Image.open(half)), whole[:, 20:], atol=1)
    data = system.sample(1)
    fieldloom.render(tiny_run, tmp_path / "datum.png", data=data)
    made = system.reconstruct(data).tensor[0, 0]
    found = np.asarray(Image.open(tmp_path / "datum.png"))
    np.testing.assert_allclose(found, (made * 255).numpy(), atol=1)


WRONG = {
    "a code or a datum is needed": {},
    "2 codes where one is asked for": {"code": torch.zeros(2, 1, 8)},
    r"2 of them where one is drawn": {"data": torch.zeros(2, 1, 8, 8)},
    r"crop = \(0, 1\): four numbers": {"crop": (0, 1)},
    r"crop = 3: four numbers": {"crop": 3},
    r"crop = \(1, 0, 0, 1\): left, top, right, bottom": {"crop": (1, 0, 0, 1)},
    r"crop = \('a', 0, 1, 1\): left, top": {"crop": ("a", 0, 1, 1)},
    "are for scenes": {"depth": True},
    "no video": {"frame": 0.5},
    "drawn as one of .png": {"path": "a.gif"},
    "the name of a file": {"path": 3},
    "resolution": {"resolution": (4, 4, 4)},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_cannot_be_rendered_gets_a_sentence(system, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no such checks
    more = {"path": "a.png"} | WRONG[sentence]
    if sentence != "a code or a datum is needed":
        more = {"code": torch.zeros(1, 1, 8)} | more
    if "data" in more:
        del more["code"]
    with pytest.raises(InputError, match=sentence):
        fieldloom.render(system, **more)
    assert not list(tmp_path.iterdir())


def test_render_a_scene_and_its_held_out_views(scene, tmp_path):
    path = fieldloom.render(scene, tmp_path / "orbit.gif", frames=3, resolution=5)
    assert Image.open(path).size == (5, 5)
    system = fieldloom.load(scene, "cpu")
    views = torch.rand(1, 4, 3, 6, 6)
    orbit = system.modality.cameras(4)
    cameras = fieldloom.Cameras(orbit.c2w[None], orbit.intrinsics[None])
    data = fieldloom.Data(views, cameras)
    held = fieldloom.render(system, tmp_path / "held.png", data=data, held=True)
    sheet = np.asarray(Image.open(held))
    assert sheet.shape == (6 + 2 * 2, 2 * 6 + 2 * 2, 3)  # the original beside it, in a gap of white
    wanted = (views[0, 3] * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(sheet[2:8, 2:8], wanted)
    fieldloom.render(system, tmp_path / "depth.png", depth=True, frames=2)
    with pytest.raises(InputError, match="source '.*' needs a path"):  # its own data are read
        fieldloom.render(system, tmp_path / "none.png", held=True)
    with pytest.raises(InputError, match="for images and video"):
        fieldloom.render(system, tmp_path / "none.png", crop=(0.0, 0.0, 1.0, 1.0))


def test_export_a_page_and_source(system, tmp_path):
    codes, path = torch.zeros(2, *system.family.code_shape), tmp_path / "page.html"
    assert fieldloom.export_field(system, path, codes, ["a", "b"], title="<t>") == (path,)
    assert "<title>&lt;t&gt;</title>" in path.read_text()
    assert path.read_text().count("<option value=") == 2
    files = fieldloom.export_field(system, tmp_path / "own.glsl", codes[:1])
    assert [file.name for file in files] == ["own.glsl", "own.bin"]
    (tmp_path / "other.safetensors").write_bytes(b"mine")
    for name, given, sentence in (
        ("page.html", codes, "page.html. is there already"),
        ("other.py", codes[:1], "other.safetensors. is there already"),
        ("own.onnx", codes, "is of one function"),
        ("own.htm", codes, "did you mean '.html'"),
    ):
        with pytest.raises(InputError, match=sentence):
            fieldloom.export_field(system, tmp_path / name, given)
    assert (tmp_path / "other.safetensors").read_bytes() == b"mine"
    assert not list(tmp_path.glob("*.py")) + list(tmp_path.glob("*.onnx"))


def test_codes_between_data_and_between_samples(system):
    a, b = system.sample(2, seed=1).tensor
    codes = system.encode_between(torch.stack([a, b]), 5)
    ends = system.encode(torch.stack([a, b]))
    torch.testing.assert_close(codes[2], ends.mean(0))
    torch.testing.assert_close(system.interpolate(a, b, 5).tensor, system.decode(codes).tensor)
    way = system.sample_between(3, 4, 3)
    torch.testing.assert_close(way[0], system.sample_codes(1, seed=3)[0])
    torch.testing.assert_close(way[2], system.sample_codes(1, seed=4)[0])
    with pytest.raises(InputError, match="3 of them, where codes go from one to another"):
        system.encode_between(torch.stack([a, b, a]))
    with pytest.raises(InputError, match="steps = 0"):
        system.sample_between(0, 1, 0)
