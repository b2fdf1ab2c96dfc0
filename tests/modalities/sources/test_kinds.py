"""Which reader suits data at a path, and the sentence for data of another kind."""

import json

import numpy as np
import pytest
from PIL import Image

from fieldloom import recipe
from fieldloom.errors import InputError
from fieldloom.modalities.sources import SOURCES
from fieldloom.modalities.sources.kinds import GIVES, OF, check_kind, check_path
from fieldloom.preparation import add_source
from media import gradient


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data of several kinds."""
    folder = tmp_path_factory.mktemp("kinds")
    for name in ("photos", "scene"):
        (folder / name).mkdir()
        Image.fromarray(gradient()).save(folder / name / "0.png")
    frame = {"file_path": "0.png", "transform_matrix": np.eye(4).tolist()}
    scene = {"camera_angle_x": 0.8, "frames": [frame]}
    (folder / "scene" / "transforms.json").write_text(json.dumps(scene))
    (folder / "shape.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    np.save(folder / "cells.npy", np.zeros((2, 32, 32, 32), bool))
    frames = [Image.fromarray(np.roll(gradient(), i, 1)) for i in range(2)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    return folder


READ = {
    ("mnif:faces64", "photos"): "folder",
    ("mnif:digits", "photos"): "folder",
    ("ipc:faces64", "photos"): "folder",
    ("loe:image", "photos/0.png"): "image",
    ("loe:video", "photos"): "video",
    ("loe:video", "film.gif"): "video",
    ("mnif:chairs32", "shape.obj"): "meshes",
    ("mnif:chairs32", "cells.npy"): "voxels",
    ("mnif:mnist28", "cells.npy"): "array",
    ("mnif:multiview128", "scene"): "transforms",
    ("fit:scene", "scene"): "transforms",
}
"""A recipe and data -> the reader that is taken."""

REFUSED = {
    (
        "mnif:chairs32",
        "photos",
    ): "is a folder of images, and the recipe 'mnif:chairs32' takes shapes",
    ("loe:image", "shape.obj"): "is a mesh, and the recipe 'loe:image' takes images",
    ("mnif:faces64", "scene"): 'takes images: .*source={"name": "folder"} takes its pictures',
    ("mnif:faces64", "photos/0.png"): "is one image, and the recipe 'mnif:faces64' learns a set",
    ("fit:mesh", "scene"): "is a scene, and the recipe 'fit:mesh' takes shapes",
    ("mnif:faces64", "gone"): "does not exist",
}


@pytest.mark.parametrize(("name", "data"), READ)
def test_the_reader_that_suits_the_data_is_taken(name, data, place, capsys):
    own = recipe.load(name)["source"]
    own = {"name": own} if isinstance(own, str) else own
    source = add_source(recipe.load(name), str(place / data))["source"]
    assert source["name"] == READ[name, data]
    assert source["path"] == str(place / data)
    said = capsys.readouterr().err
    if source["name"] == own["name"]:  # with its own settings, and nothing to say
        assert source == own | {"path": str(place / data)}
        assert said == ""
    else:
        assert f"read by the source '{source['name']}'" in said


@pytest.mark.parametrize(("name", "data"), REFUSED)
def test_data_of_another_kind_are_refused(name, data, place):
    with pytest.raises(InputError, match=REFUSED[name, data]):
        add_source(recipe.load(name), str(place / data))


def test_a_path_in_the_place_of_a_reader(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(InputError, match='no reader, but a path: source={"path": "photos"}'):
        check_path({"name": "photos"})


def test_a_name_of_hugging_face_is_no_path():
    own = recipe.load("mnif:faces64") | {"source": {"name": "huggingface"}}
    assert add_source(own, "someone/pictures")["source"]["path"] == "someone/pictures"


def test_a_reader_of_others_takes_what_it_is_given():
    check_kind({"name": "my_module:read", "path": "x"}, "shapes", "mine")
    check_kind({"name": "folder", "path": "x"}, "grids", "mine")
    check_path({"name": "my_module:read"})
    check_path({"name": "foldr"})  # the registry names the nearest reader
    with pytest.raises(
        InputError, match="source 'digits' reads images, and the recipe takes shapes"
    ):
        check_kind({"name": "digits"}, "shapes", "")


def test_every_reader_has_a_kind():
    assert set(SOURCES) <= set(GIVES)
    assert set.union(*map(set, GIVES.values())) == set(OF)
    with pytest.raises(
        InputError, match='source \'colmap\' needs a path: source={"path": "SCENE"}'
    ):
        check_path({"name": "colmap"})
