"""Looking at data without training."""

import numpy as np
import pytest
from PIL import Image

import fieldloom
from data_on_disk import KEPT
from fieldloom.errors import InputError
from fieldloom.inspection import modality_of


@pytest.mark.parametrize("name", sorted(set(KEPT) - {"huggingface"}))
def test_data_of_every_kind(name, tmp_path):
    (tmp_path / "data").mkdir()
    path = KEPT[name].write(tmp_path / "data")
    found = fieldloom.inspect(path, tmp_path / "sheet.png")
    assert found.summary.count == len(found.data)
    assert found.summary.thing != "datum"
    assert np.asarray(Image.open(tmp_path / "sheet.png")).std() > 1


def test_images_in_their_own_size(tmp_path):
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 30), (0, 0, 255)).save(tmp_path / "b.png")
    found = fieldloom.inspect(tmp_path)
    assert found.data.shape == (2, 3, 30, 40)
    assert found.data.tensor[0, :, 3, 3].tolist() == [255, 0, 0]


def test_as_a_recipe_reads_them(tmp_path):
    Image.new("RGB", (40, 30), (255, 255, 255)).save(tmp_path / "a.png")
    found = fieldloom.inspect(tmp_path, recipe="mnif", variant="faces64")
    assert found.data.shape == (1, 3, 64, 64)
    found = fieldloom.inspect(tmp_path, modality={"channels": 1, "size": 10})
    assert found.data.shape == (1, 1, 10, 10)


def test_as_a_named_source_reads_them(cli, tmp_path):
    frames = [Image.new("L", (8, 8), 40 * i) for i in range(4)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert fieldloom.inspect(path).data.shape == (1, 3, 8, 8)
    assert fieldloom.inspect(path, source={"name": "video"}).data.shape == (1, 3, 4, 8, 8)
    done = cli("inspect", str(path), "--set", "source.name=video", cwd=tmp_path)
    assert "4 frames of 8 x 8" in done.stdout
    with pytest.raises(InputError, match="unknown source 'vidoe'; did you mean 'video'"):
        fieldloom.inspect(path, source="vidoe")
    with pytest.raises(InputError, match="unknown section of the recipe 'source.name'"):
        fieldloom.inspect(path, **{"source.name": "video"})


def test_the_data_of_a_recipe():
    found = fieldloom.inspect("mnif:digits")
    assert len(found.data) == 1797
    assert found.summary.count == 1797


def test_a_sheet_that_is_there_is_kept(tmp_path):
    Image.new("RGB", (4, 3), (255, 0, 0)).save(tmp_path / "a.png")
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match="mine.png' is there already: overwrite=True replaces it"):
        fieldloom.inspect(tmp_path / "a.png", mine)
    assert mine.read_bytes() == b"mine"
    fieldloom.inspect(tmp_path / "a.png", mine, overwrite=True)
    assert np.asarray(Image.open(mine)).ndim == 3


def test_what_is_neither(tmp_path):
    with pytest.raises(InputError, match="does not exist, or cannot be seen, and is no bundled"):
        fieldloom.inspect(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("shape", "modality"),
    [
        ((6, 28, 28), {"name": "image", "channels": 1}),
        ((6, 28, 28, 3), {"name": "image", "channels": 3}),
        ((6, 3, 28, 28), {"name": "image", "channels": 3}),
        ((28, 28, 3), {"name": "image", "channels": 3}),
        ((6, 28, 28, 1), {"name": "image", "channels": 1}),
        ((6, 28, 28, 28), {"name": "voxel", "size": None}),
    ],
)
def test_the_modality_of_an_array(shape, modality, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert modality_of({"name": "array", "path": str(tmp_path / "a.npy")}) == modality


def test_the_command(cli, tmp_path):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    done = cli("inspect", str(tmp_path), cwd=tmp_path)
    assert "1 image" in done.stdout
    assert "notes.txt" in done.stdout
    sheet = tmp_path / "outputs" / "inspect" / f"{tmp_path.name}.png"
    assert str(sheet.relative_to(tmp_path)) in done.stdout
    assert Image.open(sheet).size > (100, 100)
    wrong = cli("inspect", "mnif:digit", cwd=tmp_path, status=2)
    assert "did you mean 'digits'" in wrong.stderr


def test_data_are_divided_and_limited_as_in_training(tmp_path):
    for i in range(6):
        (tmp_path / "data" / ("val" if i < 2 else "train")).mkdir(parents=True, exist_ok=True)
        place = tmp_path / "data" / ("val" if i < 2 else "train") / f"{i}.png"
        Image.new("RGB", (8, 8), (i, 9, 9)).save(place)
    for named in ({}, {"recipe": "mnif", "variant": "faces64"}):
        found = fieldloom.inspect(tmp_path / "data", **named)
        assert found.summary.taken["split"].startswith("divided by the folders train, val: 4 to")
    few = fieldloom.inspect(tmp_path / "data", source={"limit": 3})
    assert few.data.tensor[:, 0, 0, 0].tolist() == [2, 3, 0]
    with pytest.raises(InputError, match="unknown section of the recipe 'limit'"):
        fieldloom.inspect(tmp_path / "data", limit=3)


def test_a_sheet_replaces_nothing_unless_it_may(tmp_path):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is there already: overwrite=True replaces it"):
        fieldloom.inspect(tmp_path / "a.png", tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (8, 8)
    fieldloom.inspect(tmp_path / "a.png", tmp_path / "a.png", overwrite=True)
    assert Image.open(tmp_path / "a.png").size != (8, 8)


def test_one_colour_image_with_its_channels_first(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([np.full((20, 30), n, np.uint8) for n in (255, 0, 51)]))
    found = fieldloom.inspect(tmp_path / "a.npy")
    assert found.data.tensor[0, :, 4, 7].tolist() == [255, 0, 51]
    np.save(tmp_path / "b.npy", np.array(3.0))
    with pytest.raises(InputError, match="its axes must be at least 1"):
        fieldloom.inspect(tmp_path / "b.npy")
