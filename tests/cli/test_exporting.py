"""``fieldloom export``: what it writes, and what it refuses."""

import re

import pytest


def test_pages_and_sources(cli, own_run, tmp_path):
    out = tmp_path / "page.html"
    told = cli("export", own_run, "--sample", 3, "--count", 4, "--out", out)
    assert "opens in any browser" in told.stdout
    page = out.read_text()
    assert page.count("<option value=") == 4
    assert "sample 3.3" in page
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


def test_codes_of_encode(cli, own_run, tmp_path):
    cli("encode", own_run, "--out", tmp_path / "codes")
    told = cli("export", own_run, "--codes", tmp_path / "codes", "--index", 5, "--count", 2)
    assert "field.html" in told.stdout
    assert "code 6" in (own_run / "field.html").read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--index", 9999], "there are 0 to 358"),
        (["--sample", 1, "--index", 3], "give one"),
        (["--sample", 1, "--codes", "x"], "--sample and --codes each say"),
        (["--label", 3], "--label is of new samples"),
        (["--format", "glsl", "--count", 2], "is of one function"),
    ],
)
def test_refusals(cli, tiny_run, tmp_path, options, sentence):
    told = cli("export", tiny_run, *options, "--out", tmp_path / "x", status=2)
    assert sentence in " ".join(told.stderr.split())
    assert not list(tmp_path.iterdir())
