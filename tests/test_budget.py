"""More steps, fewer, or the end at a checkpoint: whatever is killed meanwhile, the run goes on."""

import pytest
import torch

import fieldloom
from fieldloom import recipe
from fieldloom.budget import end_stage
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import InputError
from fieldloom.training import train
from fieldloom.unfinished import Unfinished
from pictures import picture, stopped

CONSTANT = "train.field.schedule=constant"
FEW = ["source.split=[8, 4]", "train.field.batch=4", "train.field.steps=6", "train.prior.steps=6"]


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(x, theirs[n]) for n, x in ours.items())


def weights(run):
    return Run(run).read_weights()[0]


@pytest.fixture
def begun(tmp_path):
    """A fit that was stopped after step 7 of 12, at a constant rate."""
    stopped(picture(tmp_path, CONSTANT), tmp_path / "run", 7)
    return tmp_path / "run"


@pytest.mark.parametrize("steps", [16, 7])
def test_more_steps_and_fewer_are_those_of_a_run_that_had_them(begun, tmp_path, steps):
    train(None, str(begun), resume=True, steps={"field": steps})
    own = picture(tmp_path, CONSTANT, f"train.field.steps={steps}")
    theirs = train(own, str(tmp_path / "straight"))
    assert same(theirs.state_dict(), weights(begun))
    fieldloom.load(begun)  # its files are of the recipe that it has now
    assert Run(begun).read_recipe()["train"]["field"]["steps"] == steps
    logs = [[line["step"] for line in Run(x).read_log()] for x in (begun, tmp_path / "straight")]
    assert logs[0] == logs[1] or steps == 7  # which was logged as no last step


def test_the_schedule_is_that_of_the_new_steps(tmp_path, monkeypatch):
    run, rates = tmp_path / "run", []
    stopped(picture(tmp_path), run, 7)
    with monkeypatch.context() as patch:
        real = fieldloom.engine.loop.rate_at
        patch.setattr("fieldloom.engine.loop.rate_at", lambda *given: rates.append(real(*given)))
        with pytest.raises(TypeError):  # the first step has its rate
            train(None, str(run), resume=True, steps={"field": 14})
    assert rates == [0.5]


@pytest.mark.parametrize("killed", ["write_recipe", "write_json", "_run_stage"])
def test_a_kill_while_the_steps_are_changed(begun, tmp_path, monkeypatch, killed):
    """Before the recipe is replaced, after it, and before the first step by the new one."""
    before = read_tensors(begun / "state.safetensors")
    real, owner = getattr(Run, killed, None), Run if hasattr(Run, killed) else "fieldloom.training"

    def dies(self, *given):
        if killed == "write_json" and given[0] == "data.json":
            return real(self, *given)
        raise SystemExit

    with monkeypatch.context() as patch:
        if owner is Run:
            patch.setattr(Run, killed, dies)
        else:
            patch.setattr(f"{owner}.{killed}", dies)
        with pytest.raises(SystemExit):
            train(None, str(begun), resume=True, steps={"field": 15})
    fieldloom.load(begun)
    after = read_tensors(begun / "state.safetensors")
    assert same(before.tensors, after.tensors)
    train(None, str(begun), resume=True)
    steps = 12 if killed == "write_recipe" else 15
    own = picture(tmp_path, CONSTANT, f"train.field.steps={steps}")
    assert same(train(own, str(tmp_path / "straight")).state_dict(), weights(begun))


def test_a_checkpoint_of_a_version_that_did_not_say_its_steps(begun, tmp_path):
    held = read_tensors(begun / "state.safetensors")
    numbers = {key: x for key, x in held.numbers.items() if key != "steps"}
    write_tensors(begun / "state.safetensors", held.tensors, numbers, held.made_by)
    assert fieldloom.load(begun).unfinished.steps == 12
    train(None, str(begun), resume=True, steps={"field": 15})
    own = picture(tmp_path, CONSTANT, "train.field.steps=15")
    assert same(train(own, str(tmp_path / "straight")).state_dict(), weights(begun))


def test_what_cannot_be_changed_any_more(begun, tmp_path, cli):
    go_on = ["train", "--resume", "--run", begun]
    before = {x.name: x.read_bytes() for x in begun.iterdir() if x.name != "data.json"}
    for change, said in {
        "train.field.steps=3": "train.field.steps = 3: 7 steps are done already; --finish ends",
        "train.field.steps=0": "steps = 0: at least 1",
        "train.field.steps=x": "steps",
        "train.field.ema=0.5": "cannot change it, but for the place of the same data",
        "train.field={steps=30, batch=2}": "cannot change it",
        "seed=3": "cannot change it",
    }.items():
        status, words = cli.answer(*go_on, "--set", change)
        assert status == 2, change
        assert said in words
    for more in (
        ["--finish", "--minutes", "1"],
        ["--minutes", "1", "--set", "train.field.steps=9"],
    ):
        status, words = cli.answer(*go_on, *more)
        assert status == 2
        assert "exclude one another" in words
    assert before == {x.name: x.read_bytes() for x in begun.iterdir() if x.name != "data.json"}
    assert cli.answer("train")[0] == 2
    assert "give --run RUN" in cli.answer("train", "--resume")[1]
    cli(*go_on, "--set", "train.field.steps=9")  # without a recipe
    cli(*go_on, "--set", "train.field.steps=9")  # as it is
    status, words = cli.answer(*go_on, "--set", "train.field.steps=30")
    assert status == 2
    assert "the stage 'field' is finished, and its optimizer's state is not kept" in words


def test_a_recipe_that_was_edited_to_fewer_steps_than_are_done(begun):
    Run(begun).write_recipe(recipe.change_stage(Run(begun).stored_recipe, "field", {"steps": 5}))
    with pytest.raises(InputError, match="steps = 5: 7 steps are done already; finish=True"):
        train(None, str(begun), resume=True)


def test_a_stage_is_finished_at_its_checkpoint(cli, tmp_path):
    """The weights are the averaged ones that were there, and the run is a whole one."""
    run = tmp_path / "run"
    stopped(picture(tmp_path), run, 7)
    there = fieldloom.load(run).state_dict()
    done = cli("train", "--finish", "--run", run)
    assert "its stage 'field' ends here, after step 7." in done.stderr
    assert "PSNR over all points" in done.stdout
    assert (run / "fitted.png").is_file()
    assert not (run / "state.safetensors").exists()
    system = fieldloom.load(run)
    assert system.unfinished is None
    assert system.finished == ["field"]
    assert same(there, system.state_dict())
    assert Run(run).read_recipe()["train"]["field"]["steps"] == 7
    assert (
        "has no checkpoint after a step" in cli("train", "--finish", "--run", run, status=2).stderr
    )


@pytest.mark.parametrize("killed", ["write_system", "drop_state"])
def test_a_kill_while_a_stage_is_finished(tmp_path, monkeypatch, killed):
    run = tmp_path / "run"
    stopped(picture(tmp_path), run, 7)
    there = fieldloom.load(run).state_dict()

    def dies(*given):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Run, killed, dies)
        with pytest.raises(SystemExit):
            train(None, str(run), finish=True)
    assert same(there, fieldloom.load(run).state_dict())
    train(None, str(run), resume=True)
    assert same(there, weights(run))
    assert not (run / "state.safetensors").exists()


def test_later_stages_are_trained_after_one_that_was_finished(tmp_path):
    run = tmp_path / "run"
    stopped(recipe.load("mnif:tiny", FEW), run, 4)
    begun = Unfinished("field", 4, 6)
    with pytest.raises(InputError, match="that was begun is 'field', not 'prior'"):
        end_stage(fieldloom.load(run), Run(run), begun, "prior")
    assert fieldloom.train(None, run, finish=True, device="cpu").finished == ["field"]
    assert not (run / "codes.safetensors").exists()
    done = train(None, str(run), resume=True)
    assert done.finished == ["field", "codec", "prior"]
    stages = Run(run).read_recipe()["train"]
    assert [stages[name]["steps"] for name in ("field", "prior")] == [4, 6]
    Run(run).read_codes(done)
    short = recipe.load("mnif:tiny", [*FEW, "train.field.steps=4"])
    assert Run(run).stored_recipe["train"] == train(short, str(tmp_path / "b")).recipe["train"]


def test_a_gan_that_was_finished_is_a_whole_one(tmp_path):
    run = tmp_path / "run"
    stopped(recipe.load("gasp:tiny", ["train.field.steps=6"]), run, 2)
    assert train(None, str(run), finish=True).finished == ["field", "codec", "prior"]
    assert len(fieldloom.load(run).sample(2)) == 2
