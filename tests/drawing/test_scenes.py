"""Scenes drawn from all around and from the input's own cameras, in its order and coordinates."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom.drawing import Options, drawer_of
from fieldloom.errors import InputError
from fieldloom.inputs import source_of
from fieldloom.modalities.sources.scenes import order_of_file
from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.views import Views
from fieldloom.types import Cameras
from posed_images import HEIGHT, WIDTH, blender, stand

RECIPE = {
    "modality": {"name": "views", "size": (HEIGHT, WIDTH)},
    "renderer": {"name": "volume", "samples": 4, "density": "softplus", "last": "step"},
    "field": {"name": "fourier-mlp", "width": 8, "depth": 3},
    "train": {"field": {"steps": 1, "batch": 1, "points": 8}},
}
STOOD = stand("on a map")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four views, the first and the third of which are held out."""
    folder = tmp_path_factory.mktemp("drawn")
    path = blender(folder / "scene", STOOD)
    source = {"name": "transforms", "path": path, "hold_out": 2}
    fieldloom.train(RECIPE, folder / "run", source=source)
    return folder / "run"


@pytest.mark.parametrize(
    ("along", "which"), [("input", [0, 1, 2, 3]), ("train", [1, 3]), ("held", [0, 2])]
)
def test_the_input_s_own_cameras_in_its_order_and_coordinates(run, tmp_path, along, which):
    path = tmp_path / "cameras.json"
    fieldloom.render(run, path, cameras=along)
    told = json.loads(path.read_text())
    found = torch.tensor([x["transform_matrix"] for x in told["frames"]], dtype=torch.float64)
    assert torch.equal(found, STOOD[which])
    assert (told["h"], told["w"]) == (HEIGHT, WIDTH)
    fieldloom.render(run, tmp_path / "sheet.png", cameras=along)
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (len(which) * (WIDTH + 2) + 2, HEIGHT + 4)
    depth = fieldloom.render(run, tmp_path / "depth.npy", cameras=along, depth=True)
    assert np.load(depth).shape == (len(which), HEIGHT, WIDTH)


def test_each_view_is_what_the_system_decodes_there(run, tmp_path):
    system = fieldloom.load(run, "cpu")
    data = source_of(system).data
    fieldloom.render(system, tmp_path / "a.png", cameras="input")
    sheet = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    code = system.family.conditioner.origin(1)
    order = [2, 0, 3, 1]  # where the file's views are: those held out come last
    views = system.decode(code, cameras=data.cameras).tensor[0, order]
    for i, view in enumerate(views):
        left = 2 + i * (WIDTH + 2)
        drawn = sheet[2 : 2 + HEIGHT, left : left + WIDTH]
        assert np.abs(drawn - 255 * view.permute(1, 2, 0).numpy()).max() <= 1
    given = Cameras(STOOD[1:2], data.cameras.intrinsics[0, :1])
    fieldloom.render(system, tmp_path / "b.png", cameras=given)
    one = np.asarray(Image.open(tmp_path / "b.png")).astype(int)[2:-2, 2:-2]
    assert np.abs(one - 255 * views[1].permute(1, 2, 0).numpy()).max() <= 1


def test_exported_cameras_are_read_again(run, tmp_path):
    """Of an orbit, and at another size: the longer side, in square pixels."""
    path = tmp_path / "orbit" / "transforms.json"
    path.parent.mkdir()
    fieldloom.render(run, path, frames=3, resolution=64)
    for i in range(3):
        Image.new("RGB", (64, 48)).save(path.parent / f"{i:04d}.png")
    source = read_transforms(Views(size=(48, 64)), str(path))
    orbit = fieldloom.load(run, "cpu").modality.cameras(3)
    assert torch.equal(source.data.cameras.c2w[0], orbit.c2w)
    torch.testing.assert_close(source.data.cameras.intrinsics[0], 2 * orbit.intrinsics)


def test_pixels_are_square_where_one_number_is_given(tmp_path):
    """Training at 24 x 24 squeezes pictures of 24 x 32; the drawing has their proportions."""
    path = blender(tmp_path / "scene")
    recipe = RECIPE | {"modality": {"name": "views", "size": 24}}
    system = fieldloom.train(recipe, tmp_path / "run", source={"name": "transforms", "path": path})
    fieldloom.render(system, tmp_path / "a.gif", cameras="input", resolution=40)
    assert Image.open(tmp_path / "a.gif").size == (40, 30)
    fieldloom.render(system, tmp_path / "b.gif", cameras="input", resolution=(10, 40))
    assert Image.open(tmp_path / "b.gif").size == (40, 10)
    fieldloom.render(system, tmp_path / "c.gif", cameras="input")
    assert Image.open(tmp_path / "c.gif").size == (24, 24)


def test_by_the_command_line(run, cli, tmp_path, capsys):
    cli("render", run, "--cameras", "input")
    assert (run / "input.mp4").stat().st_size > 300
    cli("render", run, "--cameras", "train", "--out", tmp_path / "a.png")
    cli("render", run, "--held", "--out", tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").size == (2 * (2 * WIDTH + 2) + 2, HEIGHT + 4)
    capsys.readouterr()
    for words, said in (
        (["--cameras", "input", "--sample", 1], "a sample has no views of its own"),
        (["--cameras", "train", "--held"], "--held draws the views held out"),
        (["--cameras", "input", "--frames", 5], "which draws each of its views"),
        (["--depth", "--out", tmp_path / "c.json"], ".png, .gif, .mp4"),
    ):
        cli("render", run, *words, status=2)
        assert said in capsys.readouterr().err


def test_options_that_are_wrong(run, tiny_run, tmp_path):
    system = fieldloom.load(run, "cpu")
    with pytest.raises(InputError, match="unknown cameras 'inputs'; .*input"):
        fieldloom.render(system, tmp_path / "a.png", cameras="inputs")
    with pytest.raises(InputError, match="cameras are for scenes: this run is of none"):
        drawer_of(fieldloom.load(tiny_run, "cpu"), Options(cameras="input"))
    system.modality.held = 0
    with pytest.raises(InputError, match="this run held no views out"):
        fieldloom.render(system, tmp_path / "a.png", cameras="held")


@pytest.mark.parametrize("every", [2, 3, 4, 8, 11])
@pytest.mark.parametrize("views", [2, 9, 10, 24])
def test_the_order_of_a_file_is_found_again(views, every):
    last = list(range(views))[::every]
    moved = [*(i for i in range(views) if i not in last), *last]
    order = order_of_file(views, len(last), every)
    assert [moved[i] for i in order] == list(range(views))
    if len(last) != 1:
        assert list(order_of_file(views, 1, every)) == list(range(views))
    assert list(order_of_file(views, len(last), None)) == list(range(views))
