"""Folders as people have them: links, hidden files, classes, parts, and how many are used."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, folders
from fieldloom.modalities.sources.folders import find_classes, find_files, find_parts, walk
from fuzz import good
from refusals import READERS, SHAPE, draw, refused, tree, write

SMALL = Grid(size=8, channels=1)


def png(level: int) -> bytes:
    """A picture of one grey level, by which it is known again."""
    image = Image.fromarray(np.full((8, 8), level, np.uint8))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def binvox(filled: int) -> bytes:
    """Voxels of 12^3 of which the first ``filled`` planes along x are occupied."""
    runs = b"".join(bytes([value, 144]) for value in [1] * filled + [0] * (12 - filled))
    return b"#binvox 1\ndim 12 12 12\ntranslate 0 0 0\nscale 1\ndata\n" + runs


def off(width: int) -> bytes:
    """A tetrahedron; the wider it is along x, the less of the cube it fills along y."""
    corners = [(0, 0, 0), (width, 0, 0), (0, 1, 0), (0, 0, 1)]
    faces = ["3 0 2 1", "3 0 1 3", "3 0 3 2", "3 1 2 3"]
    rows = [f"{x} {y} {z}" for x, y, z in corners]
    return "\n".join(["OFF", "4 4 0", *rows, *faces, ""]).encode()


def grey(data: torch.Tensor) -> list[int]:
    return data[:, 0, 0, 0].tolist()


def planes(data: torch.Tensor) -> list[int]:
    return (data[:, 0, :, 0, 0] > 0).sum(1).tolist()


KINDS = {
    "folder": (SMALL, png, "png", grey, "images", "image"),
    "voxels": (SHAPE, binvox, "binvox", planes, "voxels", "shape"),
    "meshes": (SHAPE, off, "off", None, "meshes", "mesh"),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def make(root: Path, kind: str, names: dict[str, int]) -> str:
    """Data of one kind, each with a number that ``read_numbers`` finds again."""
    suffix, content = KINDS[kind][2], KINDS[kind][1]
    return str(tree(root, {f"{name}.{suffix}": content(number) for name, number in names.items()}))


def read(kind: str, path: str, **named):
    return SOURCES[kind](KINDS[kind][0], path, **named)


def numbers(kind: str, source) -> list[int]:
    if kind != "meshes":
        return KINDS[kind][3](source.data.tensor)
    scale = source.data.frame[:, 3] * 0.9 * 2  # of the longest side, which is the number
    return scale.round().int().tolist()


WHOLE = {"split": (1.0, 0.0), "shuffle": False}


def classes(source) -> list[str]:
    return [source.names[i] for i in source.labels.tolist()]


# -- links and hidden files


def test_links_are_followed_and_each_folder_is_read_once(kind, tmp_path):
    suffix = KINDS[kind][2]
    make(tmp_path / "elsewhere", kind, {"n": 4, "deep/m": 5})
    path = make(tmp_path / "set", kind, {"b/x": 2, "b/y": 3, "z": 6})
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "c").symlink_to(tmp_path / "elsewhere" / "deep")  # read as a/deep
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set" / "b")
    (tmp_path / "set" / "b" / "circle").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "b" / "above").symlink_to(tmp_path)
    (tmp_path / "set" / f"link.{suffix}").symlink_to(tmp_path / "elsewhere" / f"n.{suffix}")
    (tmp_path / "set" / f"nowhere.{suffix}").symlink_to(tmp_path / "nothing")
    (tmp_path / "set" / "itself").symlink_to(tmp_path / "set" / "itself")
    source = read(kind, path, **WHOLE)
    assert numbers(kind, source) == [5, 4, 2, 3, 4, 6]
    assert source.summary.passed_over == {"unreadable": ["itself", f"nowhere.{suffix}"]}


def test_hidden_files_are_no_data(kind, tmp_path):
    suffix, what = KINDS[kind][2], KINDS[kind][4]
    path = make(tmp_path, kind, {
        "cat/1": 2, "dog/2": 3, "cat/.ipynb_checkpoints/1-checkpoint": 7, "cat/._1": 8,
        "__MACOSX/cat/._1": 9, ".git/o/1": 9,
    })  # fmt: skip
    write(tmp_path / ".DS_Store", b"x")
    write(tmp_path / "notes.txt", b"x")
    source = read(kind, path, **WHOLE)
    assert numbers(kind, source) == [2, 3]
    assert classes(source) == ["cat", "dog"]
    assert source.summary.passed_over == {
        f"not {what}": ["notes.txt", ".DS_Store"],
        "hidden": [".git/", "__MACOSX/", "cat/._1." + suffix, "cat/.ipynb_checkpoints/"],
    }
    hidden = make(tmp_path / ".mine", kind, {"a/1": 4, "b/2": 5})
    assert numbers(kind, read(kind, hidden, **WHOLE)) == [4, 5]  # what the user names is data


def test_hidden_files_are_no_frames_views_or_scenes(tmp_path):
    frames = {f"{i}.png": png(20 * i) for i in (1, 2, 3)}
    hidden = {"._1.png": b"x", ".ipynb_checkpoints/1.png": png(9), ".DS_Store": b"x"}
    film = READERS["video"](str(tree(tmp_path / "film", frames | hidden)))
    assert film.data.values[0, 0, :, 0, 0].tolist() == [20, 40, 60]
    companions = {"rgb/._0.png": b"x", "pose/._0.txt": b"x", "rgb/.DS_Store": b"x"}
    car = tree(tmp_path / "cars" / "car", good.srn(draw()) | companions)
    assert READERS["srn"](str(car)).data.shape[:2] == (1, 3)
    tree(tmp_path / "cars" / ".trash", good.srn(draw()))
    assert READERS["srn"](str(tmp_path / "cars")).data.shape[:2] == (1, 3)
    tree(tmp_path / "scenes" / "a", good.scene(draw()) | {"._transforms.json": b"x"})
    tree(tmp_path / "scenes" / "__MACOSX", good.scene(draw()))
    assert READERS["transforms"](str(tmp_path / "scenes")).data.shape[:2] == (1, 3)


def test_folders_that_cannot_be_listed_are_named(kind, tmp_path, monkeypatch):
    path = make(tmp_path, kind, {"a/1": 2, "b/2": 3})
    (tmp_path / "locked").mkdir()
    list_folder = os.scandir

    def scan(folder):
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied")
        return list_folder(folder)

    monkeypatch.setattr(folders.os, "scandir", scan)
    source = read(kind, path, **WHOLE)
    assert source.summary.passed_over == {"unreadable": ["locked/"]}
    refused("holds no .*, but 1 unreadable .locked/", READERS[kind], str(tmp_path / "locked"))


def test_a_folder_of_links_to_nothing_is_said_to_be_one(kind, tmp_path):
    for i in range(7):
        (tmp_path / f"{i}.{KINDS[kind][2]}").symlink_to(tmp_path / "fetched" / f"{i}")
    refused("holds no .*, but 7 unreadable .0.* and 2 more", READERS[kind], str(tmp_path))


def test_broken_files_are_passed_over_by_name(kind, tmp_path):
    suffix = KINDS[kind][2]
    root = tmp_path / "set"  # the cache lies beside it
    path = make(root, kind, {f"{'ab'[i % 2]}/{i:02d}": i for i in range(1, 11)})
    write(root / "a" / f"x.{suffix}", b"broken")
    write(root / f"00.{suffix}", b"broken")  # outside the classes, which stay
    with pytest.raises(InputError, match="2 of 12 .* cannot be read"):
        read(kind, path, **WHOLE)
    (root / "a" / f"x.{suffix}").unlink()
    with pytest.warns(UserWarning, match="skipped 1 unreadable .*: .*00."):
        source = read(kind, path, **WHOLE)
    assert source.summary.passed_over == {"unreadable": [f"00.{suffix}"]}
    assert source.names == ("a", "b")
    assert "1 file passed over: 1 unreadable (00." in source.summary.describe()


def test_files_come_in_the_order_of_their_paths(tmp_path):
    names = ["b/1", "a-b/1", "a/2", "a.d/1", "B/1", "a/10", "z", "a/sub/3"]
    make(tmp_path, "folder", dict.fromkeys(names, 0))
    expected = sorted(tmp_path.rglob("*.png"))
    assert list(find_files(tmp_path, "x", {".png"}, "images").files) == expected
    assert {file for file, _ in walk(tmp_path)} == set(expected)


def test_the_line_of_a_folder_as_people_have_it(tmp_path):
    made = {f"{name}/{i}.png": png(i) for name in ("axolotl", "cat", "dog") for i in range(9)}
    tree(tmp_path, made | dict.fromkeys(["a.png", "b.png", "x.txt", "cat/y.txt"], b"none"))
    tree(tmp_path, dict.fromkeys([".DS_Store", "cat/.DS_Store"], b"none"))
    with pytest.warns(UserWarning, match="skipped 2 unreadable images, the first: .*a.png' is no"):
        source = SOURCES["folder"](Grid(size=64, channels=1), str(tmp_path), split=(1.0, 0.0))
    line = source.summary.describe()
    start, _, rest = line.partition("64 x 64")
    assert start == "27 images, 3 classes (axolotl, cat, dog), "
    assert rest.endswith(
        "; 6 files passed over: 4 not images (.txt, .DS_Store), 2 unreadable (a.png, b.png)"
    )


# -- classes


LAYOUTS = {
    "folders": (["cat/1", "cat/2", "dog/1"], ["cat", "cat", "dog"]),
    "nested": (["a/cat/1", "a/cat/2", "b/dog/3"], ["cat", "cat", "dog"]),
    "of any depth": (["cat/1", "cat/2", "dog/husky/3", "dog/4"], ["cat", "cat", "husky", "dog"]),
    "parts above": (["train/n1/1", "train/n2/2", "val/n1/3", "val/n2/4"], ["n1", "n2"] * 2),
    "parts below": (["air/train/1", "air/test/2", "bed/train/3"], ["air", "air", "bed"]),
    "an object a folder": (["02/1a/model", "02/2b/model", "03/3c/model"], ["02", "02", "03"]),
    "deeper": (["02/1a/models/m", "02/2b/models/m", "03/3c/models/m"], ["02", "02", "03"]),
    "objects and parts": (["02/train/1a/m", "02/test/2b/m", "03/train/3c/m"], ["02", "02", "03"]),
    "one name": (["cat/images/1", "cat/images/2", "dog/images/3"], ["cat", "cat", "dog"]),
    "one each": (["cat/1", "dog/2"], ["cat", "dog"]),
    "vehicles": (["bus/1", "car/2", "train/3", "train/4"], ["bus", "car", "train", "train"]),
    "one class": (["cat/1", "cat/2"], None),
    "objects alone": (["1a/models/m", "2b/models/m"], None),
    "parts alone": (["train/1", "Test/2", "VAL/3"], None),
    "some beside": (["1", "cat/2", "dog/3"], None),
    "none": (["1", "2"], None),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folders_of_files_are_their_classes(layout):
    names, expected = LAYOUTS[layout]
    rest = [other for _, other in find_parts([tuple(name.split("/")[:-1]) for name in names])]
    assert (find_classes(rest, None) if all(rest) else None) == expected


@pytest.mark.parametrize("layout", ["parts above", "an object a folder", "one name", "some beside"])
def test_every_reader_takes_the_same_classes(layout, kind, tmp_path):
    names, expected = LAYOUTS[layout]
    path = make(tmp_path, kind, {name: i + 1 for i, name in enumerate(sorted(names))})
    source = read(kind, path, **WHOLE)
    assert numbers(kind, source) == [i + 1 for i in range(len(names))]
    if expected is None:
        assert source.labels is None
        assert source.summary.taken["classes"] == (
            "no classes, with 1 of 3 files outside their folders"
        )
    else:
        assert classes(source) == [expected[names.index(name)] for name in sorted(names)]


def test_label_depth_decides(kind, tmp_path):
    named = {"train/a/x/1": 1, "train/a/x/2": 2, "train/a/y/3": 3, "test/b/x/4": 4}
    path = make(tmp_path, kind, named)
    at = lambda depth: read(kind, path, label_depth=depth, **WHOLE)
    assert numbers(kind, at(1)) == [4, 1, 2, 3]
    assert classes(at(1)) == ["b", "a", "a", "a"]
    assert classes(at(2)) == classes(at(None)) == ["x", "x", "x", "y"]
    assert at(0).labels is None
    refused(
        "label_depth = 3: '.*' lies in 2 folders below source.path", read, kind, path, label_depth=3
    )


# -- parts


def test_folders_of_parts_divide(kind, tmp_path):
    names = ["train/a/1", "train/a/2", "train/b/3", "val/a/4", "test/a/5", "test/b/6"]
    path = make(tmp_path, kind, {name: i + 1 for i, name in enumerate(names)})
    source = read(kind, path)
    held = numbers(kind, source)
    assert [held[i] for i in source.train] == [1, 2, 3]
    assert [held[i] for i in source.test] == [5, 6]  # not the validation part
    assert source.names == ("a", "b")
    assert source.summary.taken["split"] == (
        "divided by the folders train, test: 3 to train on, 2 to test, 1 unused"
    )
    assert len(read(kind, path, **WHOLE).train) == 6
    counted = read(kind, path, split=(4, 2), shuffle=False)
    assert [held[i] for i in counted.test] == [3, 4]
    assert "divided" not in counted.summary.taken["split"]


def test_without_a_test_part_the_validation_part_is_tested(tmp_path):
    path = make(tmp_path, "folder", {"Training/1": 1, "Training/2": 2, "valid/3": 3})
    source = read("folder", path)
    assert (source.labels, source.train.tolist(), source.test.tolist()) == (None, [0, 1], [2])
    assert source.summary.taken["split"].startswith("divided by the folders Training, valid: 2")
    alone = read("folder", str(tmp_path / "Training"), split=(0.5, 0.5))
    assert (len(alone.train), len(alone.test)) == (1, 1)


def test_files_beside_the_parts_are_said_to_hinder(tmp_path):
    path = make(tmp_path, "folder", {"train/1": 1, "val/2": 2, "3": 3, "extra/4": 4})
    source = read("folder", path, split=(0.5, 0.5))
    assert len(source.train) == len(source.test) == 2
    assert source.summary.taken["parts"] == (
        "not divided by the folders train, val, since 2 of 4 files lie in none of them"
    )


# -- limit


def test_a_limit_is_balanced_and_keeps_labels(kind, tmp_path):
    names = [f"{name}/{i:02d}" for name, n in (("a", 2), ("b", 5), ("c", 9)) for i in range(n)]
    path = make(tmp_path, kind, {name: i % 11 + 1 for i, name in enumerate(names)})
    few = read(kind, path, limit=10, **WHOLE)
    assert classes(few) == ["a"] * 2 + ["b"] * 4 + ["c"] * 4
    assert numbers(kind, few) == [i % 11 + 1 for i in [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]]
    assert classes(read(kind, path, limit=2, **WHOLE)) == ["a", "b"]
    assert len(read(kind, path, limit=99, **WHOLE).data) == 16
    flat = make(tmp_path / "flat", kind, {f"{i}": i + 1 for i in range(5)})
    assert numbers(kind, read(kind, flat, limit=3, **WHOLE)) == [1, 2, 3]


def test_a_limit_does_not_change_what_the_classes_are(kind, tmp_path):
    names = [f"{above}/{i}" for above in ("fur/cat", "fur/dog", "leaf/rose") for i in range(3)]
    path = make(tmp_path, kind, {name: i + 1 for i, name in enumerate(names)})
    few = read(kind, path, limit=3, **WHOLE)  # one of each: a single file in each folder
    assert classes(few) == ["cat", "dog", "rose"]
    assert numbers(kind, few) == [1, 4, 7]
    assert read(kind, path, limit=1).labels is None


def test_folders_of_one_name_at_unlike_depths_are_said_to_be_no_classes(tmp_path):
    names = ["train/n01/images/1", "train/n02/images/2", "val/images/3", "val/images/4"]
    source = read("folder", make(tmp_path, "folder", dict.fromkeys(names, 0)))
    assert source.labels is None
    assert source.summary.taken["classes"] == "no classes, since all their folders are named images"


def test_a_limit_decodes_no_other_files(kind, tmp_path):
    path = make(tmp_path, kind, {"a/1": 1, "b/1": 2})
    write(tmp_path / "a" / f"2.{KINDS[kind][2]}", b"broken")
    assert numbers(kind, read(kind, path, limit=2, **WHOLE)) == [1, 2]


def test_a_limit_keeps_the_fraction_of_each_part(tmp_path):
    counts = {("train", "a"): 40, ("train", "b"): 40, ("val", "a"): 10, ("test", "b"): 10}
    names = [f"{part}/{kind}/{i:02d}" for (part, kind), n in counts.items() for i in range(n)]
    path = make(tmp_path, "folder", dict.fromkeys(names, 0))
    source = read("folder", path, limit=10)
    assert (len(source.train), len(source.test), len(source.data)) == (8, 1, 10)
    assert sorted(source.labels[source.train].tolist()) == [0] * 4 + [1] * 4
    least = read("folder", path, limit=3)
    assert (len(least.train), len(least.test)) == (1, 1)


def test_single_files_and_wrong_folders(kind, tmp_path):
    path = make(tmp_path, kind, {"a": 3})
    one = read(kind, f"{path}/a.{KINDS[kind][2]}")
    assert numbers(kind, one) == [3]
    assert one.summary.thing == KINDS[kind][5]
    assert one.summary.passed_over == {}
    with pytest.raises(InputError, match="holds no"):
        read(kind, str(write(tmp_path / "empty" / "a.txt", b"").parent))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "holds no images: it is empty."),
        (("a.HEIC", "b.heic", "c.txt"), "but 2 .heic, 1 .txt; convert raw photographs and HEIC"),
        (("faces.zip",), "but 1 .zip; unpack archives first."),
        ((".a.png", "README"), "but 1 README, 1 hidden."),
    ],
)
def test_a_folder_without_images_says_what_it_holds(names, said, tmp_path):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError) as error:
        find_files(tmp_path, str(tmp_path), {".png", ".jpg"}, "images")
    assert said in str(error.value)
    assert str(error.value).endswith("Files of images end in .png, .jpg.")
