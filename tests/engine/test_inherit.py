"""Runs that begin with the fields of another."""

import json
import shutil

import numpy as np
import pytest
import torch

import fieldloom
from fieldloom import recipe
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.training import train

SMALL = ["source.split=[40, 10]", "train.prior.steps=6"]


@pytest.fixture(scope="module")
def giver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields") / "giver"
    train(recipe.load("weights:tiny", SMALL), str(folder))
    return folder


def test_what_begins_with_anothers_fields_ends_as_if_it_had_fitted_its_own(giver, tmp_path):
    graph = recipe.load("weights:tiny-graph", SMALL)
    train(graph, str(tmp_path / "own"))
    train(graph, str(tmp_path / "given"), fields=giver)
    own, given = (Run(tmp_path / name) for name in ("own", "given"))
    ours, theirs = (run.read_system("cpu").state_dict() for run in (own, given))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert torch.equal(own.read_codes()[0], Run(giver).read_codes()[0])
    stages = [[line["stage"] for line in run.read_log()] for run in (own, given)]
    assert stages[0] == stages[1]
    assert own.read_recipe() == given.read_recipe()
    options = (system := fieldloom.load(own.folder)).settings.evaluation.options()
    assert options == {"temperature": 0.8}
    assert system.sample_codes(2, **options).isfinite().all()  # of its own options


def test_only_the_prior_is_asked_for_and_the_giver_is_remembered(giver, tmp_path):
    mine = recipe.load("weights:tiny", [*SMALL, "seed=3"])
    system = train(mine, str(tmp_path / "b"), "prior", fields=giver)
    assert system.finished == ["field", "codec", "prior"]
    told = json.loads((tmp_path / "b" / "env.json").read_text())["fields"]
    assert told == {"run": str(giver), "seed": 0}


def test_the_same_data_may_lie_elsewhere(tmp_path):
    ours = ["source.name=array", "source.split=[9, 1]", "train.prior.steps=2"]
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random((10, 8, 8)))
    np.save(tmp_path / "c.npy", np.random.default_rng(1).random((10, 8, 8)))
    of = lambda name: recipe.load("weights:tiny", [*ours, f"source.path={tmp_path / name}.npy"])
    train(of("a"), str(tmp_path / "first"))
    train(of("b"), str(tmp_path / "second"), fields=tmp_path / "first")
    with pytest.raises(InputError, match=r"\[known\] differs"):
        train(of("c"), str(tmp_path / "third"), fields=tmp_path / "first")


def test_what_was_left_half_begun_is_begun_again(giver, tmp_path, monkeypatch):
    """Killed at any write of its beginning, before the recipe is there."""
    folder, mine = tmp_path / "b", recipe.load("weights:tiny", SMALL)
    for name in ("write_system", "write_codes", "write_log", "write_recipe"):
        with monkeypatch.context() as patch:
            patch.setattr(Run, name, lambda *rest, **named: (_ for _ in ()).throw(SystemExit))
            with pytest.raises(SystemExit):
                train(mine, str(folder), fields=giver)
        assert not (folder / "recipe.toml").exists()
        if name == "write_system":  # nothing but env.json is there: any command may begin
            continue
        with pytest.raises(InputError, match=r"holds .* but no recipe\.toml: it is of another run"):
            train(recipe.load("weights:tiny", [*SMALL, "seed=9"]), str(folder), fields=giver)
    system = train(mine, str(folder), fields=giver)
    assert system.finished == ["field", "codec", "prior"]
    stages = [line["stage"] for line in Run(folder).read_log()]
    assert stages == [line["stage"] for line in Run(giver).read_log()]


def test_files_of_another_run_are_not_taken(giver, tmp_path):
    """A folder without a recipe, and one whose recipe is another's."""
    for name in ("model.safetensors", "codes.safetensors"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(giver / name, folder / name)
        with pytest.raises(InputError, match="it is of another run"):
            train(recipe.load("weights:tiny", SMALL), str(folder))
        assert {file.name for file in folder.iterdir()} == {name}
    train(recipe.load("weights:tiny", [*SMALL, "seed=4"]), str(tmp_path / "own"), "field")
    shutil.copy(giver / "codes.safetensors", tmp_path / "own" / "codes.safetensors")
    with pytest.raises(InputError, match=r"codes\.safetensors' .*made with other .*seed"):
        train(None, str(tmp_path / "own"), resume=True)


def test_fields_without_codes_are_fitted(giver, tmp_path):
    train(recipe.load("weights:tiny", SMALL), str(tmp_path / "bare"), "field")
    system = train(
        recipe.load("weights:tiny", SMALL), str(tmp_path / "b"), fields=tmp_path / "bare"
    )
    assert torch.equal(Run(tmp_path / "b").read_codes()[0], Run(giver).read_codes()[0])
    assert system.finished == ["field", "codec", "prior"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("field.width=5", r"\[field\] differs, .*'width': 4.* there and .*'width': 5"),
        ("encoder.steps=4", r"\[encoder\] differs"),
        ("source.split=[40, 12]", r"\[source\] differs"),
        ("train.field.steps=2", r"\[train.field\] differs"),
    ],
)
def test_fields_of_other_parts_are_refused(giver, tmp_path, change, match):
    with pytest.raises(InputError, match=match):
        train(recipe.load("weights:tiny", [*SMALL, change]), str(tmp_path / "b"), fields=giver)
    assert not (tmp_path / "b").exists()


def test_a_giver_must_have_a_trained_field(giver, tmp_path):
    mine = recipe.load("weights:tiny", SMALL)
    with pytest.raises(InputError, match="is not a run"):
        train(mine, str(tmp_path / "b"), fields=tmp_path / "none")
    run = Run(giver)
    half = Run(tmp_path / "half")
    system = run.read_system("cpu")
    system.finished = []
    half.write_system(system)
    half.write_recipe(run.read_recipe())
    with pytest.raises(InputError, match="no trained field yet"):
        train(mine, str(tmp_path / "b"), fields=half.folder)
    assert not (tmp_path / "b").exists()
