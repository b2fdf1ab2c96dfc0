"""Images in tar archives: the same as those of files, in the same order."""

import os
import shutil

import pytest
import torch

from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, images, readers_at, spec_of
from fieldloom.permit import Permit
from refusals import refused
from tarred import levels_of, pack, picture, samples

GRID = Grid(size=16)
WHOLE = {"split": (1.0, 0.0), "shuffle": False}


def read(path, **more):
    return SOURCES["tar"](GRID, str(path), **more)


def shards(folder, classes=True):
    pack(folder / "s-000.tar", samples([20, 30, 40], classes))
    pack(folder / "s-001.tar", samples([50, 60], classes))
    return folder


def test_samples_of_all_archives_with_their_classes(tmp_path):
    path = shards(tmp_path / "set")
    found = read(path, **WHOLE)
    assert levels_of(found) == [20, 30, 40, 50, 60]
    assert (found.names, found.labels.tolist()) == (("0", "1"), [0, 1, 0, 1, 0])
    line = "5 images, 2 classes (0, 1), 16 x 16, in 2 tar archives"
    assert found.summary.describe() == line
    named = read(path, label="json.of.kind", **WHOLE)
    assert (named.names, named.labels.tolist()) == (("k0", "k1"), [0, 1, 0, 1, 0])
    assert levels_of(read(path / "s-{000..001}.tar", **WHOLE)) == [20, 30, 40, 50, 60]
    assert levels_of(read(path / "s-001.tar", **WHOLE)) == [50, 60]
    assert levels_of(read(path, limit=3, **WHOLE)) == [20, 30, 40]
    assert levels_of(read(path, limit=2, label="cls", **WHOLE)) == [20, 30]
    told = refused("has no '.txt', and 5 of 5 have none", read, path, label="txt")
    assert "'0020.png' of" in told


def test_the_source_is_chosen_by_the_files(tmp_path):
    path = shards(tmp_path / "set")
    assert readers_at(str(path)) == readers_at(str(path / "s-000.tar")) == ["tar"]
    pattern = str(path / "s-{000..001}.tar")
    assert spec_of(pattern) == {
        "name": "tar",
        "path": pattern,
        "split": [1.0, 0.0],
        "shuffle": False,
    }
    (path / "a.png").write_bytes(picture(9))
    assert readers_at(str(path)) == ["folder", "tar"]
    assert spec_of(str(path), "tar")["name"] == "tar"


@pytest.mark.parametrize(
    ("names", "parts", "words"),
    [
        (("x-train-0.tar", "x-val-0.tar"), ([20, 30], [40]), "divided by the archives train, val"),
        (("Test.tar", "TRAINING_0.tar"), ([40], [20, 30]), "the archives training, test"),
        (("train/0.tar", "val/0.tar"), ([20, 30], [40]), "by the archives train, val"),
        (("a-0.tar", "a-1.tar"), None, ""),
        (("train-0.tar", "trainval-1.tar"), None, ""),
        (("train-0.tar", "train-test-1.tar"), None, ""),
    ],
)
def test_archives_of_parts_divide_the_data(names, parts, words, tmp_path):
    for name, levels in zip(names, ([20, 30], [40]), strict=True):
        pack(tmp_path / name, samples(levels))
    found = read(tmp_path)
    values = found.data.tensor[:, 0, 0, 0]
    own = [values[part].tolist() for part in (found.train, found.test)]
    assert own == [*parts] if parts else sorted([*own[0], *own[1]]) == [20, 30, 40]
    assert words in found.summary.describe()
    assert ("divided" in found.summary.describe()) == bool(parts)


def test_folders_within_archives_are_classes_and_parts(tmp_path):
    files = {
        f"{p}/{c}/{i}.png": picture(20 * i + 20)
        for p in ("train", "val")
        for c in "ab"
        for i in (0, 1)
    }
    found = read(pack(tmp_path / "a.tar", files))
    assert (found.names, found.labels.tolist()) == (("a", "b"), [0, 0, 1, 1] * 2)
    assert (found.train.tolist(), found.test.tolist()) == ([0, 1, 2, 3], [4, 5, 6, 7])
    assert read(tmp_path / "a.tar", label_depth=0).labels is None
    refused(
        "label_depth = 2: 'train/a/0.png' of .* lies in 1 folder",
        read,
        tmp_path / "a.tar",
        label_depth=2,
    )
    pack(tmp_path / "b.tar", {"a/1.png": picture(20), "b/2.png": picture(30), "3.png": picture(40)})
    assert (
        "no classes, with 1 of 3 images outside their folders"
        in read(tmp_path / "b.tar").summary.describe()
    )
    pack(tmp_path / "c.tar", samples([20, 30]) | {"x.png": picture(40)})
    assert (
        "no classes, with 1 of 3 samples without one" in read(tmp_path / "c.tar").summary.describe()
    )


@pytest.mark.filterwarnings("ignore:skipped")
def test_what_is_broken_is_named(tmp_path):
    for i in range(12):
        pack(tmp_path / f"s-{i:02}.tar", samples([20 + 10 * i, 21 + 10 * i]))
    whole = (tmp_path / "s-03.tar").read_bytes()
    (tmp_path / "s-03.tar").write_bytes(whole[:-10000])
    pack(tmp_path / "s-04.tar", samples([60]) | {"0061.png": b"broken"})
    found = read(tmp_path)
    assert len(found.data) == 21
    assert "2 files passed over: 2 unreadable (s-03.tar, 0061.png)" in found.summary.describe()
    (tmp_path / "s-05.tar").write_bytes(whole[:700])
    told = refused("2 of 12 archives cannot be read", read, tmp_path)
    assert "s-03.tar'" in told
    assert "s-05.tar'" in told


def test_compressed_archives_are_refused_with_what_helps(tmp_path):
    path = shards(tmp_path / "set")
    packed = shutil.make_archive(str(tmp_path / "packed" / "a"), "gztar", path)
    for one in (packed, os.path.dirname(packed)):
        assert readers_at(one) == ["tar"]
        refused(
            "a.tar.gz' is compressed .*cannot be read one by one: unpack it .* gunzip", read, one
        )


def test_archives_without_images(tmp_path):
    pack(tmp_path / "a.tar", {"a.txt": b"x", "b.txt": b"y", "c.json": b"{}"})
    refused("a.tar' holds no images, but 2 .txt, 1 .json", read, tmp_path / "a.tar")
    shards(tmp_path / "set")
    told = refused("holds no images with the extension 'tif'", read, tmp_path / "set", key="tif")
    assert "source.key" in told


def test_the_same_images_as_files_and_as_archives(tmp_path):
    """In memory and streamed: tensors, labels, parts, and what a limit takes."""
    files = {f"{c}/{i}.png": picture(10 * i + ord(c) - 90) for c in "ab" for i in range(6)}
    for name, content in files.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(content)
    pack(tmp_path / "tars" / "a.tar", {k: v for k, v in files.items() if k < "b"})
    pack(tmp_path / "tars" / "b.tar", {k: v for k, v in files.items() if k > "b"})
    for limit in (None, 5):
        for room in (1 << 30, 0):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(images, "DECODED", room)
                one = SOURCES["folder"](GRID, str(tmp_path / "files"), limit=limit)
                other = read(tmp_path / "tars", limit=limit)
            assert isinstance(one.data.values, torch.Tensor) == (room > 0)
            for part in ("train", "test"):
                left, right = (s.take(getattr(s, part)) for s in (one, other))
                assert torch.equal(left.tensor, right.tensor)
                assert torch.equal(left.label, right.label)
            assert one.names == other.names
            assert one.facts()["fingerprint"] == other.facts()["fingerprint"]


def test_an_archive_that_changes_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DECODED", 0)
    path = shards(tmp_path / "set")
    found = read(path, **WHOLE)
    pack(path / "s-000.tar", {})
    refused(
        "'0020.png' of .*s-000.tar' (is no image|cannot be read: the archive ends)",
        found.take,
        torch.tensor([0]),
    )
    (path / "s-000.tar").unlink()
    refused("s-000.tar' cannot be read: No such file", found.take, torch.tensor([0]))


def test_a_member_that_claims_too_much(tmp_path):
    path = pack(tmp_path / "a.tar", samples([20]))
    from fieldloom.modalities.sources.shards import Wanted, find_archives, index_archives

    members, _ = index_archives(find_archives(str(path), Permit()), Wanted(), str(path))
    members.sizes[0] = 1 << 40
    refused("tells of 1,099,511,627,776 bytes", members.read, 0)
