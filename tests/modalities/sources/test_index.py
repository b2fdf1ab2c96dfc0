"""The index of large sets: what it holds, and what a later start looks at."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, images, index
from fieldloom.modalities.sources.files import Refused

RGB = Grid(size=(6, 8))


@pytest.fixture
def looked(monkeypatch) -> list[str]:
    """All sets are large; which files are looked at."""
    monkeypatch.setattr(images, "DECODED", 0)
    names, fill = [], index.fill_row

    def counted(row, file, name, *rest):
        names.append(Path(name.strip("'")).name)
        fill(row, file, name, *rest)

    monkeypatch.setattr(index, "fill_row", counted)
    return names


def draw(path: Path, seed: int, size=(8, 8), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    dtype, top = (np.uint16, 1 << 16) if mode == "I;16" else (np.uint8, 256)
    array = np.random.default_rng(seed).integers(0, top, shape, dtype)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve images of two classes, of several formats, sizes and kinds of numbers; one broken."""
    root, turned = tmp_path / "set", Image.Exif()
    turned[0x0112] = 6
    for i in range(6):
        draw(root / "a" / f"{i}.png", i, mode="L" if i == 2 else "RGB")
        draw(root / "b" / f"{i}.jpg", i, (9 + i, 12))
    draw(root / "b" / "0.jpg", 0, (9, 12), exif=turned)
    draw(root / "b" / "deep.png", 7, mode="I;16")
    (root / "b" / "none.jpg").write_bytes(b"no image")
    return root


def read(root: Path, **options):
    with pytest.warns(UserWarning, match="skipped 1 unreadable"):
        return SOURCES["folder"](RGB, str(root), **options)


def test_streamed_and_in_memory_are_the_same(folder, looked, monkeypatch):
    streamed = read(folder)
    monkeypatch.setattr(images, "DECODED", 1 << 30)
    eager = read(folder)
    assert isinstance(streamed.data.values, images.LazyImages)
    assert torch.equal(streamed.data.values.read(slice(None)), eager.data.values)
    for name in ("train", "test", "labels"):
        assert torch.equal(getattr(streamed, name), getattr(eager, name)), name
    assert streamed.names == eager.names == ("a", "b")
    assert streamed.summary == eager.summary
    assert "cropped and resized from 8 x 8 ... 14 x 12" in streamed.summary.describe()


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
def test_a_packed_set_is_the_same(folder, looked, monkeypatch, tmp_path):
    files = [file.read_bytes() for file in sorted(folder.rglob("*.*"))]
    data, ends = np.frombuffer(b"".join(files), np.uint8), np.cumsum([0, *map(len, files)])
    np.savez(tmp_path / "set.npz", data=data, offsets=ends)
    streamed, again = (SOURCES["packed"](RGB, str(tmp_path / "set.npz")) for _ in range(2))
    monkeypatch.setattr(images, "DECODED", 1 << 30)
    eager = SOURCES["packed"](RGB, str(tmp_path / "set.npz"))
    assert torch.equal(streamed.data.values.read(slice(None)), eager.data.values)
    assert len(looked) == 14 + 1
    assert again.facts() == streamed.facts()


def test_a_later_start_looks_at_what_changed(folder, looked):
    first = read(folder).facts()
    assert len(looked) == 14
    looked.clear()
    assert read(folder).facts() == first
    assert looked == ["none.jpg"]  # what was unreadable may have been so for a moment
    looked.clear()
    draw(folder / "a" / "0.png", 100)
    draw(folder / "a" / "new.png", 101)
    (folder / "b" / "1.jpg").unlink()
    later = read(folder)
    assert sorted(looked) == ["0.png", "new.png", "none.jpg"]
    assert len(later.data) == 13
    assert later.facts()["fingerprint"] != first["fingerprint"]


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
def test_the_fingerprint_is_of_the_content(folder, looked, cached, tmp_path):
    facts = read(folder).facts()
    shutil.rmtree(cached)
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    for file in elsewhere.rglob("*.*"):
        os.utime(file, (1, 1))
    assert read(elsewhere).facts() == facts
    for options in ({"filter": "box"}, {"shuffle": False}, {"range": (0.0, 255.0)}):
        if "range" in options:
            (folder / "b" / "deep.png").unlink()
            facts = read(folder).facts()
            assert read(folder, **options).facts() == facts  # the same numbers
        else:
            assert read(folder, **options).facts()["fingerprint"] != facts["fingerprint"]
    small = SOURCES["folder"](Grid(size=4), str(folder)).facts()
    assert small["fingerprint"] != facts["fingerprint"]


@pytest.mark.parametrize("harm", ["cut", "flipped", "text", "another"])
def test_a_damaged_index_is_made_again(harm, folder, looked, cached, tmp_path):
    facts = read(folder).facts()
    (file,) = cached.glob("index-*")
    content = bytearray(file.read_bytes())
    if harm == "cut":
        content = content[:-9]
    elif harm == "flipped":
        content[-50] ^= 1
    elif harm == "text":
        content = b"no index"
    else:
        index.write_index(file, np.zeros(3, index.ROW))
        content = file.read_bytes()
    file.write_bytes(content)
    looked.clear()
    assert read(folder).facts() == facts
    assert len(looked) == 14
    looked.clear()
    read(folder)
    assert len(looked) == 1


def test_what_was_looked_at_is_kept(folder, looked, monkeypatch):
    monkeypatch.setattr(index, "CHUNK", 2)
    monkeypatch.setattr(index, "count_cores", lambda: 1)
    fill = index.fill_row

    def stopped(*given):
        if len(looked) == 7:
            raise KeyboardInterrupt
        fill(*given)

    with monkeypatch.context() as patch:
        patch.setattr(index, "fill_row", stopped)
        with pytest.raises(KeyboardInterrupt):
            SOURCES["folder"](RGB, str(folder))
    before = list(looked)
    looked.clear()
    read(folder)
    again = set(before) & set(looked) - {"none.jpg"}
    assert len(before) == 7
    assert len(again) <= 2  # those of a chunk


def test_processes_take_over_what_others_have_seen(folder, looked, monkeypatch):
    """Here the other one has seen all, while this one was looking at its first two."""
    monkeypatch.setattr(index, "CHUNK", 2)
    monkeypatch.setattr(index, "SAVED", 0.0)
    fill, inside = index.fill_row, []

    def other(*given):
        fill(*given)
        if not inside:
            inside.append(1)
            read(folder)

    monkeypatch.setattr(index, "fill_row", other)
    facts = read(folder).facts()
    assert len(looked) <= 14 + 4
    monkeypatch.setattr(index, "fill_row", fill)
    assert read(folder).facts() == facts


def test_a_cache_that_cannot_be_written(folder, looked, cached):
    cached.write_bytes(b"a file")
    with pytest.warns(UserWarning, match="cannot be written"):
        streamed = SOURCES["folder"](RGB, str(folder))
    assert len(streamed.data) == 13


def write_dark(root: Path, tops: list[int]) -> Path:
    root.mkdir()
    for i, top in enumerate(tops):
        Image.fromarray(np.full((6, 8), top, np.uint8)).save(root / f"{i:03d}.png")
    return root


@pytest.mark.parametrize(
    ("tops", "decoded", "said"),
    [
        ([200] + [0] * 30, 1, None),
        ([0] * 9 + [200] + [0] * 21, 12, None),
        ([0, 1] * 15, 30, "uint8 numbers of 0 and 1 alone"),
        ([0] * 20 + [1] * 9 + [3], 30, "largest value 3 of 255"),
        ([3] * 30, 7, "(7 looked at)"),
    ],
)
def test_how_dark_a_set_is(tops, decoded, said, looked, tmp_path, monkeypatch):
    """As many are decoded as the scale needs; of what is certain, a few for the words."""
    monkeypatch.setattr(index, "SAMPLE", 5)
    measured, extent = [], index.extent_of
    monkeypatch.setattr(
        index, "extent_of", lambda *given: measured.append(given[1]) or extent(*given)
    )
    root = write_dark(tmp_path / "dark", tops)
    grey = Grid(size=(6, 8), channels=1)
    streamed = SOURCES["folder"](grey, str(root))
    assert len(measured) == decoded
    assert said is None or said in streamed.summary.taken["range"]
    assert said is not None or "range" not in streamed.summary.taken
    monkeypatch.setattr(images, "DECODED", 1 << 30)
    eager = SOURCES["folder"](grey, str(root))
    assert torch.equal(streamed.data.values.read(slice(None)), eager.data.values)


def test_the_bright_one_is_gone(looked, tmp_path):
    root = write_dark(tmp_path / "dark", [200, 1, 0])
    grey = Grid(size=(6, 8), channels=1)
    assert SOURCES["folder"](grey, str(root)).data.values.read(slice(1, 2)).max() == 1
    (root / "000.png").unlink()
    assert SOURCES["folder"](grey, str(root)).data.values.read(slice(0, 1)).max() == 255


def test_a_given_range_is_checked(looked, tmp_path):
    root = write_dark(tmp_path / "set", [200, 1, 0])
    SOURCES["folder"](RGB, str(root))
    with pytest.raises(InputError, match="go from 0 to 200"):
        SOURCES["folder"](RGB, str(root), range=(0.0, 100.0))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif"])
def test_what_was_cut_off_is_found_at_once(suffix, folder, looked):
    cut = draw(folder / "a" / f"cut.{suffix}", 5, (40, 40))
    cut.write_bytes(cut.read_bytes()[:-40])
    (folder / "b" / "none.jpg").unlink()
    with pytest.warns(UserWarning, match=rf"skipped 1 unreadable images: .*cut.{suffix}"):
        SOURCES["folder"](RGB, str(folder))


def test_what_is_found_late_is_one_sentence(folder, looked):
    source = read(folder, split=(1.0, 0.0), shuffle=False)
    (folder / "b" / "5.jpg").write_bytes(b"gone")
    with pytest.raises(InputError, match=r"b/5.jpg' is no image .* shows only now: .*cache"):
        source.data.values.read(slice(None))


def test_what_is_too_large_is_refused(folder, looked, monkeypatch):
    monkeypatch.setattr("fieldloom.modalities.sources.formats.PIXELS", 10)
    with pytest.raises(Refused, match="pixels"):
        SOURCES["folder"](RGB, str(folder))


def test_stamps_that_are_the_same(looked, cached, tmp_path):
    """Then names tell images apart."""
    files = [draw(tmp_path / f"{i}.png", i) for i in range(3)]
    load = lambda stamps: images.load_images(
        ["x", "y", "z"], files.__getitem__, RGB, "bicubic", False, stamps=stamps, place="here"
    )
    first, _, _ = load(["1", "1", "1"])
    again, _, _ = load(["1", "1", "1"])
    assert len(looked) == 3
    assert torch.equal(first.contents, again.contents)
    assert len({bytes(x.numpy()) for x in again.contents}) == 3
    assert len(list(cached.glob("index-*"))) == 1


def test_a_row_is_as_small_as_is_said():
    assert index.ROW.itemsize == 74
    assert "74 bytes" in index.__doc__


def test_no_images(looked):
    found = index.index_images([], SimpleNamespace, False, stamps=[], place="none")
    assert len(found.rows) == 0
