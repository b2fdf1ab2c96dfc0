"""What a command may replace."""

import json

import numpy as np
import pytest
from PIL import Image

import fieldloom
from fieldloom.engine.run import RESERVED
from fieldloom.errors import InputError


@pytest.mark.parametrize("name", RESERVED)
def test_no_verb_replaces_what_a_run_is_made_of(cli, own_run, name):
    before = {x.name: x.read_bytes() for x in own_run.iterdir()}
    out = own_run / name
    verbs = [
        ["encode", own_run, "--out", out],
        ["reconstruct", own_run, "--out", out],
        ["evaluate", own_run, "--out", out],
        ["analyse", "influence", own_run, "--out", out],
        ["interpolate", own_run, "--out", out],
        ["cost", "mnif:tiny", "--out", out],
    ]
    for verb in verbs:
        status, said = cli.answer(*verb, "--overwrite")
        assert status == 2, (verb, said)
        assert "belongs to the run itself" in said or verb[0] == "encode", said
    assert before == {x.name: x.read_bytes() for x in own_run.iterdir()}


def test_what_is_there_is_replaced_only_where_that_is_said(cli, own_run, tmp_path):
    path = tmp_path / "mine.png"
    path.write_text("mine")
    verb = ["sample", own_run, "--count", "1", "--out", path]
    status, said = cli.answer(*verb)
    assert status == 2
    assert "mine.png' is there already: give another --out, or --overwrite." in said
    assert path.read_text() == "mine"
    assert cli.answer(*verb, "--overwrite")[0] == 0
    assert Image.open(path).size == (8, 8)
    assert cli.answer("sample", own_run, "--count", "1")[0] == 0
    assert cli.answer("sample", own_run, "--count", "1")[0] == 0  # its own name is its own


def names(folder) -> set[str]:
    return {x.name for x in folder.iterdir()}


def test_files_of_an_earlier_call_do_not_stay_beside_new_ones(cli, own_run, tmp_path):
    folder = own_run / "reconstructions"
    cli("reconstruct", own_run, "--count", 5)
    (folder / "notes.txt").write_text("mine")
    (folder / "0001.txt").mkdir()
    assert {"0000.png", "0004.png"} < names(folder)
    cli("reconstruct", own_run, "--count", 2)
    assert names(folder) == {"0000.png", "0001.png", "notes.txt", "0001.txt"}
    out = tmp_path / "out"
    cli("reconstruct", own_run, "--count", 3, "--out", out)
    said = cli("reconstruct", own_run, "--count", 1, "--out", out, status=2).stderr
    assert "is there already: give another --out, or --overwrite." in said
    assert len(names(out)) == 3
    cli("reconstruct", own_run, "--count", 1, "--out", out, "--overwrite")
    assert names(out) == {"0000.png"}


def test_a_report_replaces_its_own_and_no_other(cli, own_run, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8), 99).save(data / name)
    report = own_run / "data" / "report.json"
    cli("evaluate", own_run, "--source", data)
    written = json.loads(report.read_text())
    assert "reconstructions.png" in written["images"]
    assert set(written["images"]) <= names(report.parent)
    report.write_text(json.dumps(written | {"images": ["old.png", "odd.toml", "../x.png"]}))
    for name in ("old.png", "other.png", "odd.toml", "../x.png"):
        (report.parent / name).write_text("")
    cli("evaluate", own_run, "--source", data)  # its own place, again
    assert "old.png" not in names(report.parent)
    assert {"other.png", "odd.toml"} < names(report.parent)
    assert (own_run / "x.png").exists()
    fieldloom.evaluate(own_run, data, own_run)  # the run's own folder
    fieldloom.evaluate(own_run, data, own_run)
    with pytest.raises(InputError, match=r"report.json' is there already: overwrite=True replaces"):
        fieldloom.evaluate(own_run, data, report.parent)
    said = cli("evaluate", own_run, "--source", data, "--out", report.parent, status=2).stderr
    assert "is there already" in said
    fieldloom.evaluate(own_run, data, report.parent, overwrite=True)


def test_python_replaces_files_where_that_is_said(own_run, tmp_path):
    system, path = fieldloom.load(own_run), tmp_path / "mine.png"
    path.write_text("mine")
    codes = system.sample_codes(1)
    with pytest.raises(InputError, match=r"mine.png' is there already: overwrite=True replaces it"):
        fieldloom.render(system, path, codes)
    assert path.read_text() == "mine"
    fieldloom.render(system, path, codes, overwrite=True)
    assert Image.open(path).size == (8, 8)
    data, file = tmp_path / "a.npy", tmp_path / "codes.safetensors"
    np.save(data, np.zeros((3, 1, 8, 8), np.float32))
    file.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        fieldloom.encode(system, file, data)
    assert file.read_text() == "mine"
    found = fieldloom.encode(system, file, data, overwrite=True)
    assert len(found.codes) == 3


def test_a_suffix_that_is_not_written_is_refused(cli, own_run, tmp_path):
    wrong = cli("sample", own_run, "--count", 1, "--out", tmp_path / "my.jpg", status=2)
    assert "a sheet of images is written as a .png" in wrong.stderr
    wrong = cli("reconstruct", own_run, "--out", tmp_path / "one.png", status=2)
    assert "a folder is written, with a file for each datum in it" in wrong.stderr
    assert not list(tmp_path.glob("*.*"))


def test_data_that_are_gone_say_how_a_run_finds_them_again(cli, own_run, tmp_path):
    recipe = own_run / "recipe.toml"
    text = recipe.read_text()
    gone = tmp_path / "gone"
    recipe.write_text(text.replace('name = "digits"', f'name = "array"\npath = "{gone}"', 1))
    if recipe.read_text() == text:
        pytest.fail("this run has another source")
    wrong = cli("reconstruct", own_run, status=2)
    assert "do not exist" in wrong.stderr
    assert "train --resume --run RUN --source PLACE" in wrong.stderr
