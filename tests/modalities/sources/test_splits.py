"""Sets of scenes that a file of lists divides, as learnit's ShapeNet."""

import json

import pytest
import torch

from fieldloom.modalities.sources.transforms import read_transforms
from fieldloom.modalities.views import Views
from posed_images import HEIGHT, POSES, WIDTH, blender
from refusals import refused

FULL = Views(size=(HEIGHT, WIDTH))
LISTS = {"train": ["a", "x/c", "gone"], "val": ["d"], "test": ["b"]}


def shapenet(root, lists=LISTS, name="car_splits.json"):
    """Objects a to e of learnit's layout: names of images are of another disk, poses are 3 x 4."""
    for i, folder in enumerate("abcde"):
        path = root / "cars" / folder
        blender(path, POSES.roll(i, 0))
        for image in (path / "train").iterdir():
            image.rename(path / image.name)
        told = json.loads((path / "transforms_train.json").read_text())
        for frame in told["frames"]:
            frame["file_path"] = f"/disk/of/another/{folder}/{frame['file_path'][8:]}"
            frame["transform_matrix"] = frame["transform_matrix"][:3]
        (path / "transforms.json").write_text(json.dumps(told))
        (path / "transforms_train.json").unlink()
    (root / name).write_text(json.dumps(lists) if isinstance(lists, dict) else lists)
    return str(root / "cars")


@pytest.mark.parametrize("name", ["car_splits.json", "cars/any_splits.json"])
def test_a_file_of_lists_divides_a_set(tmp_path, name):
    (tmp_path / "cars").mkdir()
    source = read_transforms(FULL, shapenet(tmp_path, name=name))
    assert source.train.tolist() == [0, 2]
    assert source.test.tolist() == [1]
    for i, cameras in enumerate(source.data.cameras.c2w):
        torch.testing.assert_close(cameras, POSES.roll(i, 0))
    line = source.summary.describe()
    file = name.split("/")[-1]
    assert f"divided by {file}'s train, test: 2 to train on, 1 to test, 1 unused" in line
    assert line.endswith("2 files passed over: 1 in no part (e), 1 missing (gone)")


def test_numbers_and_a_limit_of_the_recipe(tmp_path):
    path = shapenet(tmp_path)
    whole = read_transforms(FULL, path, split=(1.0, 0.0), shuffle=False)
    assert whole.train.tolist() == [0, 1, 2, 3]
    few = read_transforms(FULL, path, limit=3)
    assert (len(few.train), len(few.test)) == (1, 1)
    one = read_transforms(FULL, f"{path}/a")
    assert len(one.data) == 1


def test_what_is_listed_twice_is_not_trained_on(tmp_path):
    source = read_transforms(FULL, shapenet(tmp_path, {"train": ["a", "b"], "Testing": ["b"]}))
    assert (source.train.tolist(), source.test.tolist()) == ([0], [1])


@pytest.mark.parametrize("lists", [{"train": ["z"]}, {}])
def test_lists_of_other_objects_divide_nothing(tmp_path, lists):
    assert len(read_transforms(FULL, shapenet(tmp_path, lists)).data) == 5


@pytest.mark.parametrize("lists", [
    "{", "[]", "3", "[" * 9999, {"train": "a"}, {"train": [3]}, {"none": []}, "\udcff",
])  # fmt: skip
def test_lists_that_are_wrong(tmp_path, lists):
    path = shapenet(tmp_path, {})
    text = json.dumps(lists) if isinstance(lists, dict) else lists
    (tmp_path / "car_splits.json").write_bytes(text.encode(errors="surrogateescape"))
    refused("car_splits.json' (is no JSON|must have lists of names)", read_transforms, FULL, path)
