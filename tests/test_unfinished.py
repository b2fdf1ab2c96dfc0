"""Every verb works on the checkpoint of a run that is not finished, and says so."""

import json

import pytest
import torch

import fieldloom
from fieldloom import recipe
from fieldloom import training as trains
from fieldloom.engine.glance import glance
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import InputError
from fieldloom.inputs import source_of
from fieldloom.training import train
from fieldloom.unfinished import Unfinished
from pictures import picture, stopped

FEW = ["source.split=[8, 4]", "train.field.batch=4", "train.field.steps=12", "train.prior.steps=12"]
SAID = "is unfinished: these are its weights after step 7 of 12 of the stage 'field'."


def codes_of(run):
    system = fieldloom.load(run)
    return trains.lock_and_find_codes(system, source_of(system, quiet=True), Run(run))[0]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A fit of a picture that was stopped after step 7 of 12."""
    folder = tmp_path_factory.mktemp("begun")
    said = stopped(picture(folder), folder / "run", 7)
    assert said.startswith("stopped after step 7 of 12; --resume goes on from here. ")
    for command in ("render", "evaluate", "train --finish --run"):
        assert f"'fieldloom {command} {folder / 'run'}'" in said
    return folder / "run"


def test_a_checkpoint_is_loaded_with_its_averaged_weights(begun, capsys):
    system = fieldloom.load(begun)
    assert f"'{begun}' {SAID}" in capsys.readouterr().err
    assert system.unfinished == Unfinished("field", 7, 12)
    assert system.finished == []
    held = read_tensors(begun / "state.safetensors").tensors
    state = system.state_dict()
    averaged = {n.removeprefix("averaged/"): x for n, x in held.items() if n.startswith("avera")}
    assert averaged
    assert all(torch.equal(state[name], x) for name, x in averaged.items())
    assert not all(torch.equal(held[f"model/{name}"], x) for name, x in averaged.items())


def test_verbs_say_what_they_work_on(cli, begun, tmp_path):
    image = tmp_path / "drawn.png"
    assert SAID in cli("render", begun, "--out", image).stderr
    assert image.is_file()
    report = tmp_path / "report"
    assert SAID in cli("evaluate", begun, "--out", report).stderr
    told = json.loads((report / "report.json").read_text())
    assert told["unfinished"] == {"stage": "field", "step": 7, "steps": 12}
    page = (report / "report.html").read_text()
    assert "This run is unfinished: its weights after step 7 of 12" in page
    said = cli("info", begun).stdout
    assert "checkpoint after step 7 of 12 of the stage 'field'" in said
    assert "'step': 6" in said
    assert glance(str(begun)).unfinished == Unfinished("field", 7, 12)


def test_a_run_without_a_checkpoint_says_so(cli, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(trains, "_train_stages", lambda *rest: None)
        train(picture(tmp_path), str(run))
    for verb in (["render", run], ["evaluate", run], ["train", "--finish", "--run", run]):
        status, said = cli.answer(*verb)
        assert status == 2
        none = "no weights yet: its training has not come to its first checkpoint"
        assert none in said or "has no checkpoint after a step" in said
    assert cli.answer("info", run)[0] == 0


def test_a_checkpoint_of_another_recipe_is_refused(begun, tmp_path):
    run = Run(tmp_path / "other")
    own = Run(begun)
    run.begin(own.stored_recipe | {"seed": 3}, {})
    run.write_recipe(own.stored_recipe | {"seed": 3})
    (run.folder / "state.safetensors").write_bytes((begun / "state.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"state\.safetensors' .*made with other seed"):
        fieldloom.load(run.folder)
    assert glance(str(run.folder)) is None


def test_an_unfinished_prior_is_sampled_from(tmp_path, capsys):
    """The field is finished, its codes are kept; the prior has the weights of its checkpoint."""
    own, run = recipe.load("mnif:tiny", [*FEW, "train.prior.ema=0.5"]), tmp_path / "run"
    straight = train(own, str(tmp_path / "straight"))
    said = stopped(own, run, 4)  # within the field
    assert "stopped after step 4 of 12" in said
    with pytest.raises(InputError, match="has no codes of its training data yet"):
        codes_of(run)
    assert not (run / "codes.safetensors").exists()
    with pytest.raises(InputError, match="the prior is not trained yet"):
        fieldloom.load(run).sample_codes(1)
    stopped(None, run, 8 + 5)
    capsys.readouterr()
    system = fieldloom.load(run)
    assert "weights after step 5 of 12 of the stage 'prior'." in capsys.readouterr().err
    assert system.finished == ["field", "codec"]
    assert system.generates
    held = read_tensors(run / "state.safetensors").tensors
    state = system.state_dict()
    averaged = {n.removeprefix("averaged/"): x for n, x in held.items() if n.startswith("avera")}
    assert all(torch.equal(state[name], x) for name, x in averaged.items())
    theirs = straight.state_dict()
    fields = [name for name in theirs if not name.startswith("prior")]
    assert all(torch.equal(state[name], theirs[name]) for name in fields)
    assert system.sample(2).shape == (2, 1, 8, 8)
    assert codes_of(run).shape == (8, 1, 8)  # those of the finished field
    ours = train(None, str(run), resume=True).state_dict()  # as if nobody had looked
    assert all(torch.equal(x, ours[name]) for name, x in theirs.items())


def test_codes_of_a_checkpoint_are_not_those_of_the_finished_weights(tmp_path, cli):
    run = tmp_path / "run"
    stopped(recipe.load("mnif:tiny", FEW), run, 4)
    assert "weights after step 4 of 12" in cli("encode", run).stderr
    assert "weights after step 4 of 12" in cli("encode", run, "--out", tmp_path / "x.hdf5",
                                               status=None).stderr  # fmt: skip
    cli("encode", run, "--out", tmp_path / "a.safetensors")
    assert "weights after step 4 of 12" in cli("reconstruct", run).stderr
    train(None, str(run), "field", resume=True)
    status, said = cli.answer("encode", run)
    assert status == 2
    assert "holds codes of another job: its system is" in said
    status, said = cli.answer("decode", run, tmp_path / "a.safetensors")
    assert status == 2
    assert "were found with other weights than this run's" in said


def test_a_gan_that_is_not_finished_is_sampled_from(tmp_path, capsys):
    run = tmp_path / "run"
    stopped(recipe.load("gasp:tiny", ["train.field.steps=6"]), run, 2)
    system = fieldloom.load(run)
    assert "weights after step 2 of 6" in capsys.readouterr().err
    assert len(system.sample(2)) == 2


def test_a_state_left_beside_its_finished_stage_is_not_taken(own_run, capsys):
    """Killed between the two: the run is finished."""
    held = read_tensors(own_run / "model.safetensors")
    numbers = {"stage": "prior", "step": 3, "steps": 20}
    write_tensors(own_run / "state.safetensors", {}, numbers, held.made_by)
    assert fieldloom.load(own_run).unfinished is None
    assert "unfinished" not in capsys.readouterr().err
    assert glance(str(own_run)).unfinished is None


def test_files_of_an_unfinished_run_do_not_stay_beside_the_finished_ones(cli, tmp_path):
    run = tmp_path / "run"
    stopped(recipe.load("mnif:tiny", FEW), run, 4)
    (run / "notes-unfinished.png").write_text("mine")
    mine = {x.name for x in run.iterdir()}
    verbs = (["reconstruct", run, "--count", 2], ["render", run])
    for verb in verbs:
        cli(*verb)
    made = {x.name for x in run.iterdir()} - mine
    assert {"reconstructions-unfinished"} < made
    assert all("-unfinished" in name for name in made)
    (run / "reconstructions-unfinished" / "notes.txt").write_text("mine")
    cli("train", "--finish", "--run", run)
    for verb in verbs:
        cli(*verb)
    drawn = {name.replace("-unfinished", "") for name in made}
    left = {x.name for x in run.iterdir() if "-unfinished" in x.name}
    assert drawn < {x.name for x in run.iterdir()}
    assert left == {"notes-unfinished.png", "reconstructions-unfinished"}
    assert [x.name for x in (run / "reconstructions-unfinished").iterdir()] == ["notes.txt"]
