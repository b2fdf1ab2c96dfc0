"""``fieldloom export``: what it writes, and what it refuses."""

import re

import numpy as np
import pytest
from PIL import Image


def options_of(page):
    """The names in the picker of a page."""
    return re.findall(r'<option value="\d+">([^<]*)</option>', page)


@pytest.fixture
def files(tmp_path):
    """Two pictures of one's own."""
    paths = [tmp_path / "a.png", tmp_path / "b & c.png"]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((8, 8), 40 + 90 * i, np.uint8)).save(path)
    return paths


def test_pages_and_sources(cli, own_run, tmp_path):
    out = tmp_path / "page.html"
    told = cli("export", own_run, "--sample", 3, "--count", 4, "--out", out)
    assert "opens in any browser" in told.stdout
    page = out.read_text()
    assert options_of(page) == [f"sample 3.{i}" for i in range(4)]
    assert not re.search(r"(src|href)=.http", page)
    cli("export", own_run, "--index", 2)
    assert "datum " in (own_run / "field.html").read_text()
    cli("export", own_run, "--between", 5, "--out", tmp_path / "steps")
    steps = (tmp_path / "steps.html").read_text()
    assert "75 % datum" in steps
    assert 'max="4"' in steps
    cli("export", own_run, "--format", "wgsl", "--out", tmp_path / "field")
    assert "fn field" in (tmp_path / "field.wgsl").read_text()
    assert (tmp_path / "field.bin").stat().st_size % 16 == 0
    told = cli("export", own_run, "--format", "glsl", "--out", tmp_path / "field", status=2)
    assert "field.bin' is there already" in " ".join(told.stderr.split())
    assert not (tmp_path / "field.glsl").exists()


def test_several_of_every_kind_are_in_one_picker(cli, own_run, tmp_path, files):
    out = tmp_path / "page.html"
    chosen = ["--index", 1, "--index", 4, "--signal", files[1], "--sample", 7, "--label", 3]
    cli("export", own_run, *chosen, "--out", out)
    names = options_of(out.read_text())
    assert [name.split()[0] for name in names] == ["datum", "datum", "b", "sample"]
    assert names[2:] == ["b &amp; c.png", "sample 7, 3"]


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        (["--signal", "A", "--signal", "B"], ("a.png", "b &amp; c.png")),
        (["--signal", "A", "--sample", 3], ("a.png", "sample 3")),
        (["--index", 5, "--sample", 3], ("datum", "sample 3")),
        (["--sample", 3], ("sample 3.0", "sample 3.1")),
    ],
)
def test_from_one_to_another_whatever_they_are(cli, own_run, files, options, ends):
    given = [dict(A=files[0], B=files[1]).get(x, x) for x in options]
    cli("export", own_run, *given, "--between", 3)
    names = options_of((own_run / "field.html").read_text())
    assert len(names) == 3
    assert names[0].startswith(f"100 % {ends[0]}")
    assert names[2].startswith("0 % ")
    assert f"100 % {ends[1]}" in names[2]


def test_codes_of_encode(cli, own_run, tmp_path):
    cli("encode", own_run, "--out", tmp_path / "codes")
    told = cli("export", own_run, "--code", tmp_path / "codes", "--index", 5, "--count", 2)
    assert "field.html" in told.stdout
    assert options_of((own_run / "field.html").read_text()) == ["code 5", "code 6"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--index", 9999], "there are 0 to 358"),
        (["--source", "x", "--codes", "x"], "each say what --index is of"),
        (["--label", 3], "--label is of new samples"),
        (["--format", "glsl", "--count", 2], "is of one function"),
        (["--format", "wgsl", "--signal", "no.png", "--sample", 3], "is of one function"),
        (["--format", "onnx", "--half", "--signal", "nothing.png"], "--half is of --format html"),
        (["--signal", "nothing.png", "--out", "TAKEN"], "is there already"),
        (["--between", 4, "--count", 2], "leave out --count"),
        (["--between", 4, "--signal", "FILE"], "choose two, not 1"),
        (["--between", 4, "--index", 1, "--index", 2, "--sample", 3], "choose two, not 3"),
        (["--signal", "FOLDER"], "holds 2 data, and is of one"),
        (["--signal", "nothing.png"], "--signal 'nothing.png' does not exist"),
    ],
)
def test_refusals(cli, tiny_run, tmp_path, files, options, sentence):
    (taken := tmp_path / "taken.html").touch()
    given = [dict(FILE=files[0], FOLDER=tmp_path, TAKEN=taken).get(x, x) for x in options]
    given += [] if taken in given else ["--out", tmp_path / "x"]
    told = cli("export", tiny_run, *given, status=2)
    assert sentence in " ".join(told.stderr.split())
    assert not list(tmp_path.glob("x*"))
