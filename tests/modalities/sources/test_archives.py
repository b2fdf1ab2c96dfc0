"""Which archives a path, an address or a pattern stands for."""

import pytest

from fieldloom.modalities.sources.archives import expand, find_archives, is_pattern
from refusals import refused, write


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{00..02}.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("a-{0..10}", [f"a-{i}" for i in range(11)]),
        ("a-{008..10}", ["a-008", "a-009", "a-010"]),
        ("a-{2..0}", ["a-2", "a-1", "a-0"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("{a,b{1..2}}.tar", ["a.tar", "b1.tar", "b2.tar"]),
        ("a{}b", ["ab"]),
        ("a{b", ["a{b"]),
    ],
)
def test_braces(pattern, names):
    assert expand(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..9999999999}", "{0..9999}{0..99}", "{a,b}" * 30])
def test_braces_without_end(pattern):
    refused("stands for more than 100,000 names", expand, pattern)


def test_which_archives_are_found(tmp_path, monkeypatch):
    for name in ("t-0.tar", "t-1.tar", "t-2.tar", "val/v.tar", "notes.txt", ".h.tar"):
        write(tmp_path / "set" / name, b"x")
    names = lambda path: list(find_archives(str(path)).names)
    assert names(tmp_path / "set") == ["t-0.tar", "t-1.tar", "t-2.tar", "val/v.tar"]
    assert names(tmp_path / "set" / "t-{0..1}.tar") == ["t-0.tar", "t-1.tar"]
    assert names(tmp_path / "set" / "t-[12].tar") == ["t-1.tar", "t-2.tar"]
    assert names(tmp_path / "set" / "*.tar") == ["t-0.tar", "t-1.tar", "t-2.tar"]
    monkeypatch.chdir(tmp_path)
    assert names("set/t-?.tar") == ["t-0.tar", "t-1.tar", "t-2.tar"]
    refused("t-3.tar', which is not there", names, "set/t-{0..3}.tar")
    refused("x-\\*.tar', which is not there", names, "set/x-*.tar")
    refused("does not exist", names, "nothing.tar")
    write(tmp_path / "odd{1}.tar", b"x")
    assert not is_pattern("odd{1}.tar")
    assert names("odd{1}.tar") == ["odd{1}.tar"]
    write(tmp_path / "texts" / "a.txt", b"x")
    refused("holds no tar archives, but 1 .txt", names, "texts")
