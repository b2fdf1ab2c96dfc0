"""Which source reads what a path holds; one table of situations that all readers are held to."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

from data_on_disk import COUNT, KEPT, WITHOUT_A_PATH, Kept
from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, Source, spec_of
from media import pack
from shared import shared


def test_what_a_path_holds(tmp_path):
    pack(tmp_path / "p.npz")
    np.save(tmp_path / "a.npy", np.zeros((2, 16, 16), np.uint8))
    assert spec_of(str(tmp_path))["name"] == "folder"
    assert spec_of(str(tmp_path / "p.npz"))["name"] == "packed"
    assert spec_of(str(tmp_path / "a.npy"))["name"] == "array"


@pytest.mark.parametrize("name", ["faces64", "portraits256"])
def test_the_packed_files_of_the_shared_folder(name):
    source = SOURCES["packed"](Grid(size=64), str(shared("data", f"{name}.npz")), limit=20)
    assert source.data.shape == (20, 3, 64, 64)
    assert source.data.tensor.float().std() > 20


FILM = Grid(axes=3)
SOUND = Grid(axes=1, channels=1)


# -- sources


def test_what_a_path_of_one_datum_holds(tmp_path):
    for name in ("a.png", "a.gif", "a.mp4", "a.webm", "a.wav", "a.flac"):
        (tmp_path / name).write_bytes(b"")
    held = lambda name, *own: spec_of(str(tmp_path / name), *own)["name"]
    assert held("a.png") == held("a.png", "folder") == held("a.gif", "audio") == "folder"
    assert held("a.mp4") == held("a.webm", "image") == "video"
    assert held("a.wav") == held("a.flac", "video") == "audio"
    assert held("a.png", "image") == "image"
    assert held("a.gif", "video") == held("", "video") == "video"
    assert held("", "image") == "folder"
    assert spec_of(str(tmp_path / "a.mp4")) == {"name": "video", "path": str(tmp_path / "a.mp4")}
    assert "split" in spec_of(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "name", "modality", "shape", "rate"),
    [
        ("video", "video_carphone.mp4", FILM, (1, 3, 120, 144, 176), 30000 / 1001),
        ("audio", "audio_bach.wav", SOUND, (1, 1, 308207), 44100.0),
    ],
)
def test_the_files_of_the_shared_folder(kind, name, modality, shape, rate):
    path = str(shared("data", name))
    assert spec_of(path)["name"] == kind
    source = SOURCES[kind](modality, path)
    assert source.data.shape == shape
    assert source.suggests["modality"]["rate"] == pytest.approx(rate)
    assert source.read(source.train).tensor.std() > 0.05


# -- situations x readers

READERS = sorted(KEPT)
MANY = [name for name in READERS if KEPT[name].many]
FILES = [name for name in READERS if KEPT[name].suffix and not KEPT[name].many]


def read(name: str, path: object, **more: object) -> Source:
    modality = KEPT[name].modality()
    return SOURCES[name](modality, str(path), **dict(KEPT[name].more), **more)


@pytest.fixture(params=READERS)
def reader(request) -> str:
    return request.param


@pytest.fixture(params=MANY)
def many(request) -> str:
    return request.param


def same(one: Source, other: Source) -> bool:
    return torch.equal(one.data.tensor, other.data.tensor)


def put(name: str, folder) -> object:
    folder.mkdir(parents=True, exist_ok=True)
    return KEPT[name].write(folder)


def test_every_reader_is_held_to_the_table():
    assert set(KEPT) | WITHOUT_A_PATH == set(SOURCES)
    assert all(isinstance(kept, Kept) for kept in KEPT.values())


def test_every_reader_says_what_it_read(reader, tmp_path):
    summary = read(reader, put(reader, tmp_path)).summary
    assert summary.thing != "datum"
    assert summary.describe().startswith(f"{summary.count} {summary.thing}")
    assert "\n" not in summary.describe()
    assert "passed over" not in summary.describe()
    assert json.loads(json.dumps(summary.facts())) == summary.facts()


NAMES = ["2024-05-01", "20240501", "1e5", "true", "with space", "caf\u00e9", "a#b", "-x", "a=b",
         "line\nbreak", "tab\t", "quote'\"", "x" * 200]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder(name, tmp_path):
    expected = read("folder", put("folder", tmp_path / "plain"))
    assert same(read("folder", put("folder", tmp_path / name)), expected)


def test_a_name_that_is_not_utf_8(reader, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        path = put(reader, folder)
    except OSError:
        pytest.skip("this file system has no such names")
    found = read(reader, path)
    assert same(found, read(reader, put(reader, tmp_path / "plain")))
    json.dumps(found.summary.facts()).encode()


def test_a_link_to_the_data(reader, tmp_path):
    path = put(reader, tmp_path / "there")
    (tmp_path / "link").symlink_to(tmp_path / "there", target_is_directory=True)
    assert same(
        read(reader, tmp_path / "link" / path.relative_to(tmp_path / "there")), read(reader, path)
    )


def test_nothing_at_the_path(reader, tmp_path):
    with pytest.raises(InputError, match="does not exist|is no folder"):
        read(reader, tmp_path / "nothing")


def test_an_empty_folder(reader, tmp_path):
    with pytest.raises(InputError, match="empty"):
        read(reader, put_empty(tmp_path / "empty"))


def put_empty(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize("content", [b"", b"nothing of the kind\n", b"\0" * 64])
def test_a_file_of_something_else(reader, content, tmp_path):
    path = put(reader, tmp_path)
    file = sorted(f for f in tmp_path.rglob("*") if f.is_file())[0] if path.is_dir() else path
    if KEPT[reader].many:
        for other in set(tmp_path.rglob("*")) - {file}:
            other.unlink()
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(reader, path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


# -- readers of folders


def test_what_is_passed_over_is_said(many, tmp_path):
    expected = read(many, put(many, tmp_path / "plain"))
    path = put(many, tmp_path / "own")
    suffix = KEPT[many].suffix
    (path / ".DS_Store").write_bytes(b"x")
    (path / f"._0{suffix}").write_bytes(b"a companion")
    (path / "notes.txt").write_text("x")
    (path / ".ipynb_checkpoints").mkdir()
    shutil.copy(path / f"0{suffix}", path / ".ipynb_checkpoints" / f"0{suffix}")
    found = read(many, path)
    assert same(found, expected)
    line = found.summary.describe()
    assert "3 files passed over" in line
    assert ".txt" in line
    assert ".DS_Store" in line


def test_a_link_among_the_data_is_followed_once(many, tmp_path):
    path = put(many, tmp_path / "own")
    expected = read(many, path)
    inner = path / "more"
    inner.mkdir()
    first = f"0{KEPT[many].suffix}"
    shutil.move(path / first, inner / first)
    (path / "again").symlink_to(path, target_is_directory=True)  # a circle
    linked = read(many, path)
    assert len(linked.data) == COUNT
    assert sorted(linked.data.tensor.flatten(1).float().sum(1).tolist()) == sorted(
        expected.data.tensor.flatten(1).float().sum(1).tolist()
    )


def test_upper_case_suffixes(many, tmp_path):
    path = put(many, tmp_path / "own")
    expected = read(many, path)
    suffix = KEPT[many].suffix
    for file in list(path.iterdir()):
        file.rename(file.with_suffix(suffix.upper()))
    assert same(read(many, path), expected)


@pytest.mark.filterwarnings("ignore:skipped")
def test_one_broken_among_many_is_named(many, tmp_path):
    path = put(many, tmp_path / "own")
    suffix = KEPT[many].suffix
    for i in range(COUNT, 12):
        shutil.copy(path / f"1{suffix}", path / f"copy{i}{suffix}")
    (path / f"0{suffix}").write_bytes(b"broken")
    found = read(many, path)
    assert len(found.data) == 11
    assert f"1 unreadable (0{suffix})" in found.summary.describe()


def in_classes(name: str, folder, parts=("",)):
    """Two classes, b before a, in each part, with three data each."""
    source = put(name, folder / "flat")
    for part in parts:
        for label in ("b", "a"):
            own = folder / "set" / part / label
            own.mkdir(parents=True)
            for i in range(3):
                shutil.copy(source / f"{i}{KEPT[name].suffix}", own)
    return folder / "set"


def test_folders_are_classes(many, tmp_path):
    found = read(many, in_classes(many, tmp_path))
    assert found.names == ("a", "b")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "2 classes (a, b)" in found.summary.describe()


@pytest.mark.parametrize("parts", [("train", "val"), ("Train", "TEST"), ("training", "validation")])
def test_folders_of_parts_are_no_classes(many, parts, tmp_path):
    path = in_classes(many, tmp_path, parts)
    found = read(many, path)
    assert found.names == ("a", "b")
    assert (len(found.train), len(found.test)) == (6, 6)
    first = sorted(parts)[0]
    trains = range(6) if first.lower().startswith("train") else range(6, 12)
    assert sorted(found.train.tolist()) == list(trains)
    whole = read(many, path, split=(1.0, 0.0), shuffle=False)
    assert whole.train.tolist() == list(range(12))


def test_a_limit_takes_as_many_of_each_class(many, tmp_path):
    found = read(many, in_classes(many, tmp_path), limit=4)
    assert found.names == ("a", "b")
    assert found.labels.tolist() == [0, 0, 1, 1]
