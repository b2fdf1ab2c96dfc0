"""A glance at a run tells what reading the run tells, or nothing."""

import json
import shutil

import pytest

from fieldloom import recipe
from fieldloom.cli.listing import read_state
from fieldloom.engine.glance import glance
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import InputError
from fieldloom.training import train
from shared import OWN


def same(run):
    quick, whole = glance(str(run)), read_state(str(run))
    assert quick == whole
    return quick


def test_a_glance_is_what_the_run_is(own_run):
    state = same(own_run)
    assert state.finished == ["field", "codec", "prior"]
    assert state.title == "mnif:tiny"
    assert state.sizes.prior > 0
    assert state.log


def test_a_run_that_is_not_far_yet(tmp_path, monkeypatch):
    def dies(*rest):
        raise SystemExit

    monkeypatch.setattr(Run, "append_log", dies)
    with pytest.raises(SystemExit):
        train(recipe.load("mnif:tiny"), str(tmp_path / "run"))
    assert same(tmp_path / "run").finished == []
    environment = tmp_path / "run" / "env.json"
    told = json.loads(environment.read_text())
    for broken in ({"sizes": None}, {"sizes": {"code": [1]}}, {"made_by": {}}, {"made_by": 3}):
        environment.write_text(json.dumps(told | broken))
        assert glance(str(tmp_path / "run")) is None


def test_what_does_not_belong_to_the_run_is_not_told(own_run):
    held = (own_run / "recipe.toml").read_text()
    (own_run / "recipe.toml").write_text(held.replace("width = ", "width = 1", 1))
    assert glance(str(own_run)) is None
    (own_run / "recipe.toml").write_text(held)
    assert glance(str(own_run)) is not None
    whole = (own_run / "model.safetensors").read_bytes()
    for damaged in (whole[:-9], whole[:99], b"", whole + b"x"):
        (own_run / "model.safetensors").write_bytes(damaged)
        assert glance(str(own_run)) is None
        with pytest.raises(InputError, match="is damaged"):
            read_state(str(own_run))
    for none in ("", "nowhere", "x" * 5000, str(own_run / "recipe.toml")):
        assert glance(none) is None


def test_runs_of_before_are_read(tmp_path, own_run):
    run = shutil.copytree(OWN / "runs-of-before" / "finished", tmp_path / "before")
    assert glance(str(run)) is None
    with pytest.warns(UserWarning, match="older version"):
        assert read_state(str(run)).finished == ["field", "codec", "prior"]
    tensors, numbers, made_by = read_tensors(own_run / "model.safetensors")
    sizes = numbers.pop("sizes")
    write_tensors(own_run / "model.safetensors", tensors, numbers, made_by)
    assert glance(str(own_run)) is None
    assert read_state(str(own_run)).sizes.model_dump() == sizes
