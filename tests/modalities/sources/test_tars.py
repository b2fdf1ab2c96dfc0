"""Indices of tar archives: by headers alone, kept, and refused where an archive is not whole."""

import io
import os
import tarfile

import pytest

from fieldloom.errors import InputError
from fieldloom.modalities.sources import tars
from fieldloom.modalities.sources.stored import find_stored
from fieldloom.modalities.sources.tars import Wanted, index_archive, read_headers, split_name
from refusals import refused
from tarred import pack, picture, samples

NEAR = 1 << 13


def index(path, *wanted):
    return index_archive(find_stored(path), Wanted(*wanted), NEAR)


def contents(path, found) -> list[bytes]:
    whole = path.read_bytes()
    return [whole[at : at + n] for at, n in zip(found.offsets, found.sizes, strict=True)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("block", [1, 512, NEAR])
def test_contents_lie_where_the_index_says(form, block, tmp_path):
    files = {
        f"{'x' * 70}/{'y' * 90}.png" if form != tarfile.USTAR_FORMAT else "a/y.png": b"1" * 513,
        "caf\u00e9.jpg": b"22",
        "a.b/c.jpg": b"",
        "z.webp": b"3" * 20_000,
    }
    path = pack(tmp_path / "a.tar", files, form)
    found = read_headers(find_stored(path), Wanted(), block)
    assert (found.names, contents(path, found)) == ([*files], [*files.values()])
    with tarfile.open(path) as archive:
        assert found.offsets == [member.offset_data for member in archive]


def test_members_of_one_stem_are_one_sample(tmp_path):
    files = {
        "b.jpg": b"1", "c.txt": b"", "a.png": b"2", "b.cls": b"7\n", "a.cls": b" cat ",
        "d.seg.png": b"3", "e.seg.png": b"4", "e.png": b"5", "e.cls": b"7", "b.jpg ": b"",
    }  # fmt: skip
    found = index(pack(tmp_path / "a.tar", files))
    assert found.names == ["b.jpg", "a.png", "d.seg.png", "e.png"]
    assert found.labels == ["7", "cat", None, "7"]
    assert found.passed["further images"] == ["e.seg.png"]
    assert found.passed["not images"] == ["c.txt"]
    chosen = index(tmp_path / "a.tar", "seg.png")
    assert (chosen.names, chosen.labels) == (["d.seg.png", "e.seg.png"], [None, "7"])
    pack(tmp_path / "b.tar", {"a.png": b"1", "a.jpg": b"2"})
    told = refused("'a.png' and 'a.jpg' are one sample", index, tmp_path / "b.tar")
    assert "source={" in told
    assert index(tmp_path / "b.tar", "jpg").names == ["a.jpg"]
    assert split_name("a.b/c.d.E") == ("a.b/c", "d.e")


def test_of_members_of_one_name_the_last_one_counts(tmp_path):
    """That is what ``tar --append`` and ``--update`` mean."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for content in (b"1", b"22"):
            member = tarfile.TarInfo("a.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert contents(path, index(path)) == [b"22"]


@pytest.mark.parametrize(
    ("content", "label", "found"),
    [
        (b'{"of": {"kind": "x"}}', "json.of.kind", "x"),
        (b'{"kind": 3}', "json.kind", 3),
        (b'{"of": 3}', "json.kind", "has no 'kind'; it has of"),
        (b"[1]", "json.kind", "has no 'kind'; it has no keys"),
        (b'{"kind": [1]}', "json.kind", "has the class \\[1\\]: a text or an integer is right"),
        (b'{"kind": true}', "json.kind", "has the class True"),
        (b'{"kind": ', "json.kind", "cannot be read"),
        (b"[" * 100_000, "json.kind", "cannot be read"),
        (b"\xff", "json.kind", "cannot be read"),
    ],
)
def test_classes_in_json(content, label, found, tmp_path):
    pack(tmp_path / "a.tar", {"a.json": content, "a.png": b"1"})
    if isinstance(found, str) and len(found) > 1:
        told = refused(found, index, tmp_path / "a.tar", None, label)
        assert "'a.json' of " in told
    else:
        assert index(tmp_path / "a.tar", None, label).labels == [found]


def test_an_index_is_kept_and_made_anew_where_the_archive_changes(tmp_path, monkeypatch):
    path = pack(tmp_path / "a.tar", samples([20]))
    first = index(path)
    monkeypatch.setattr(tars, "read_headers", lambda *given: pytest.fail("read again"))
    assert index(path) == first
    kept = next((tars.cache_folder() / "tars").iterdir())
    monkeypatch.undo()
    for broken in (b"", b"[1]", b"{}", kept.read_bytes()[:-9]):
        kept.write_bytes(broken)
        assert index(path) == first
    pack(path, samples([30, 40]))
    os.utime(path, ns=(1, 1))
    assert len(index(path).names) == 2


# -- archives that are not whole, or worse


def damaged() -> dict[str, tuple[bytes, str]]:
    """A name -> the bytes of an archive, and what is said of it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a.png", "b.png"):
            member = tarfile.TarInfo(name)
            member.size = 1000
            archive.addfile(member, io.BytesIO(bytes(range(250)) * 4))
    whole = stream.getvalue()
    second = 512 + 1024
    negative = bytearray(whole)
    negative[second + 124 : second + 136] = b"\xff" * 8 + (-(second + 512)).to_bytes(
        4, "big", signed=True
    )
    head = negative[second : second + 512]
    head[148:156] = b" " * 8
    negative[second + 148 : second + 156] = b"%06o\0 " % sum(head)
    huge = tarfile.TarInfo("././@LongLink")
    huge.size, huge.type = 1 << 40, tarfile.GNUTYPE_LONGNAME
    return {
        "empty": (b"", "is no whole tar archive: empty"),
        "text": (b"nothing of the kind\n" * 99, "is no whole tar archive"),
        "in a member": (whole[: second + 600], "cut off within 'b.png'"),
        "in a header": (whole[: second + 100], "it is damaged|cut off"),
        "after the members": (whole[: 2 * second], "cut off at its end"),
        "zeros": (bytes(10240), "^$"),
        "a header": (whole[:second] + b"\xff" * 512 + whole[second + 512 :], "it is damaged"),
        "negative": (bytes(negative), "negative size"),
        "long name": (huge.tobuf(tarfile.GNU_FORMAT)[:512] + whole, "a header tells of"),
        "gzip": (b"\x1f\x8b\x08" + whole, "is compressed \\(gzip\\).* unpack it .* with gunzip"),
        "zstd": (b"\x28\xb5\x2f\xfd" + whole, "is compressed \\(zstd\\)"),
    }


@pytest.mark.parametrize("kind", sorted(set(damaged()) - {"zeros"}))
def test_archives_that_are_not_whole(kind, tmp_path):
    content, words = damaged()[kind]
    path = tmp_path / f"{kind}.tar"
    path.write_bytes(content)
    told = refused(words, index, path)
    assert f"{kind}.tar'" in told
    assert not (tars.cache_folder() / "tars").exists()


def test_an_archive_of_nothing(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(damaged()["zeros"][0])
    assert index(path).names == []


def test_names_lead_nowhere(tmp_path):
    """Nothing is extracted, so that a name is a text; links are passed over."""
    names = [
        "/etc/a.png",
        "../../b.png",
        "c/../../d.png",
        "./e.png",
        "\x1b[2Jf.png",
        "n" * 200 + ".png",
    ]
    path = pack(tmp_path / "in" / "a.tar", dict.fromkeys(names, b"1"), tarfile.GNU_FORMAT)
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"link{ord(kind)}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for name in ("._g.png", "__MACOSX/h.png", ".git/i.png"):
            archive.addfile(tarfile.TarInfo(name))
    before = sorted((tmp_path / "in").rglob("*"))
    found = index(path)
    assert found.names == names
    assert len(found.passed["links"]) == 4
    assert len(found.passed["hidden"]) == 3
    assert sorted((tmp_path / "in").rglob("*")) == before


def test_a_file_that_goes_away(tmp_path):
    path = pack(tmp_path / "a.tar", {"a.png": picture(20)})
    held = find_stored(path)
    path.unlink()
    with pytest.raises(InputError, match="a.tar' cannot be read: No such file"):
        index_archive(held, Wanted(), NEAR)
    refused("cannot be read: No such file", find_stored, path)
