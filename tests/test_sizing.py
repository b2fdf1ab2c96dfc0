"""Numbers of a field that follow from the shape of the data."""

import pytest

import fieldloom
from fieldloom.assembly import make_modality
from fieldloom.errors import InputError
from fieldloom.sizing import size_by_data


def sized(modality: dict, **grid: object) -> dict:
    field = {"name": "grid-mlp", "grid": {"name": "hash", **grid}}
    return size_by_data(field, make_modality(modality))["grid"]


def test_the_finest_level_and_the_table_follow_the_data():
    image = {"name": "image", "size": [300, 400]}
    found = sized(image, finest="data", log2_hashmap_size="data")
    assert found == {"name": "hash", "finest": 400, "log2_hashmap_size": 17}
    assert sized(image, finest=64) == {"name": "hash", "finest": 64}
    tiny = {"name": "image", "size": [3, 4]}
    assert sized(tiny, finest="data")["finest"] == 16  # as the coarsest level
    huge = {"name": "image", "size": [4000, 5500]}
    assert sized(huge, log2_hashmap_size="data")["log2_hashmap_size"] == 19
    views = {"name": "views", "size": [30, 40]}
    assert sized(views, finest="data")["finest"] == 80
    globe = {"name": "sphere", "size": [314, 628]}
    assert sized(globe, finest="data")["finest"] == 200  # 2 pi / 628 of the diameter, 2


def test_a_scenes_box_is_the_domain_of_its_tiles():
    field = {"name": "experts", "tiling": {"low": "data", "high": "data"}}
    box = {"name": "views", "box": [-1, -0.5, 0, 1, 0.5, 0.25]}
    found = size_by_data(field, make_modality(box))["tiling"]
    assert found == {"low": [-1, -0.5, 0], "high": [1, 0.5, 0.25]}
    found = size_by_data(field, make_modality({"name": "views"}))["tiling"]
    assert found == {"low": -1, "high": 1}


def test_a_system_without_data_takes_its_modality():
    field = fieldloom.build("fit:image", modality={"size": [20, 30]}).family.field
    assert field.grid.finest == 30


def test_a_number_that_does_not_follow_is_refused():
    with pytest.raises(InputError, match="width"):
        fieldloom.build("fit:image", field={"width": "data"})
