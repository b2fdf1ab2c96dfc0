"""What a command may replace."""

import pytest
from PIL import Image

from calls import answer
from fieldloom.engine.run import RESERVED


@pytest.mark.parametrize("name", RESERVED)
def test_no_verb_replaces_what_a_run_is_made_of(own_run, name):
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
        status, said = answer(*verb, "--overwrite")
        assert status == 2, (verb, said)
        assert "belongs to the run itself" in said or verb[0] == "encode", said
    assert before == {x.name: x.read_bytes() for x in own_run.iterdir()}


def test_what_is_there_is_replaced_only_where_that_is_said(own_run, tmp_path):
    path = tmp_path / "mine.png"
    path.write_text("mine")
    verb = ["sample", own_run, "--count", "1", "--out", path]
    status, said = answer(*verb)
    assert status == 2
    assert "mine.png' is there already: give another --out, or --overwrite." in said
    assert path.read_text() == "mine"
    assert answer(*verb, "--overwrite")[0] == 0
    assert Image.open(path).size == (8, 8)
    assert answer("sample", own_run, "--count", "1")[0] == 0
    assert answer("sample", own_run, "--count", "1")[0] == 0  # its own name is its own
