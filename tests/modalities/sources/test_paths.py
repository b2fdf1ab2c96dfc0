"""Many paths in one block of bytes."""

import os
from pathlib import Path

import pytest

from fieldloom.modalities.sources.paths import Each, Paths, divide_name, stamp_file

NAMES = ["a/1.png", "a-b/é.png", os.fsdecode(b"a/\xff.png"), "z.png"]


@pytest.mark.parametrize("root", ["/data/set", ".", "/", "here"])
def test_they_are_as_paths_are(root):
    files = sorted(Path(root) / name for name in NAMES)
    found = Paths(Path(root), sorted(divide_name(file, Path(root)) for file in files))
    assert list(found) == files
    assert [found[i] for i in range(-4, 4)] == files + files
    assert found[1:3] == files[1:3]
    assert list(found.take([3, 0])) == [files[3], files[0]]
    assert found.folders() == [file.relative_to(root).parts[:-1] for file in files]
    with pytest.raises(IndexError):
        found[4]


def test_files_of_a_folder_share_its_names():
    found = Paths(Path("x"), ["a\0b\0" + str(i) for i in range(5)]).folders()
    assert len({id(names) for names in found}) == 1


def test_they_take_little_memory():
    found = Paths(Path("x"), (f"class\0{i:08d}.jpg" for i in range(1000)))
    assert len(found.block) + found.ends.itemsize * len(found.ends) < 30 * 1000


def test_each():
    assert list(Each(range(4), str)) == ["0", "1", "2", "3"]
    assert Each("abc", str.upper)[1:] == ["B", "C"]


def test_a_stamp_changes_with_the_file(tmp_path):
    file = tmp_path / "a"
    stamps = [stamp_file(file)]
    file.write_bytes(b"one")
    stamps.append(stamp_file(file))
    file.write_bytes(b"four")
    stamps.append(stamp_file(file))
    os.utime(file, (1, 1))
    stamps.append(stamp_file(file))
    assert len(set(stamps)) == 4
    assert "unread" in stamps[0]
