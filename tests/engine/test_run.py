"""Run folders: what made a file, links, what kills leave, moves, damage."""

import json
import os
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom import recipe
from fieldloom import training as trains
from fieldloom.engine.run import RESERVED, Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError
from fieldloom.training import train
from shared import OWN

TINY = recipe.load("mnif:tiny")


def forget_what_made(folder: Path) -> None:
    """The run as a program of before wrote it."""
    for path in folder.glob("*.safetensors"):
        tensors, numbers, _ = read_tensors(path)
        write_tensors(path, tensors, numbers)
    text = (folder / "recipe.toml").read_text().replace(f"format = {recipe.FORMAT}", "format = 1")
    (folder / "recipe.toml").write_text(text)


# -- what made a file


def test_every_file_of_tensors_says_what_made_it(own_run):
    made_by = read_tensors(own_run / "model.safetensors").made_by
    assert made_by.keys() > {"seed", "data", "field", "prior", "train.field"}
    codes = read_tensors(own_run / "codes.safetensors").made_by
    assert codes.keys() == made_by.keys() | {"weights"}
    assert json.loads((own_run / "env.json").read_text())["made_by"] == made_by


@pytest.mark.parametrize("change", ["seed=1", "field.frequency=31", "train.field.steps=21"])
def test_weights_of_another_recipe_are_refused(own_run, change, tmp_path):
    other = Run(own_run)
    other.write_recipe(recipe.merge(other.read_recipe(), recipe.parse_override(change)))
    named = change.partition("=")[0].removesuffix(".frequency").removesuffix(".steps")
    with pytest.raises(InputError, match=rf"model\.safetensors' .* made with other {named}:"):
        fieldloom.load(own_run)


def test_what_a_file_does_not_depend_on_may_change(own_run):
    run = Run(own_run)
    for change in ("evaluate.samples=3", "train.field.save_every=7", "train.prior.log_every=1"):
        run.write_recipe(recipe.merge(run.read_recipe(), recipe.parse_override(change)))
    assert fieldloom.load(own_run).finished == ["field", "codec", "prior"]
    assert len(run.read_codes(fieldloom.load(own_run)).codes)


def test_codes_of_other_weights_are_refused(own_run, tmp_path):
    path = own_run / "codes.safetensors"
    tensors, numbers, made_by = read_tensors(path)
    write_tensors(path, tensors, numbers, made_by | {"weights": "0" * 16})
    with pytest.raises(
        InputError, match="made with other weights.*delete it, and training with resume=True finds"
    ):
        Run(own_run).read_codes(fieldloom.load(own_run))
    path.unlink()
    trains.training_codes(fieldloom.load(own_run), trains.prepare(Run(own_run).read_recipe(),
                          torch.device("cpu"))[1], Run(own_run))  # fmt: skip
    assert torch.equal(Run(own_run).read_codes()[0], tensors["codes"])


def test_files_that_do_not_say_what_made_them_are_of_another_run(own_run):
    forget_what_made(own_run)
    text = (own_run / "recipe.toml").read_text().replace("format = 1", f"format = {recipe.FORMAT}")
    (own_run / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=r"model\.safetensors' does not say what made it"):
        fieldloom.load(own_run)


BEFORE = OWN / "runs-of-before"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finished", "state", "codes"])
def test_a_run_of_before_is_loaded_with_a_sentence_and_goes_on(kind, tmp_path):
    """Written by version 0.1.0 at commit 9a14836: finished, within a stage, within the codes."""
    folder = shutil.copytree(BEFORE / kind, tmp_path / "run")
    if kind != "state":
        with pytest.warns(UserWarning, match="was written by an older version"):
            assert "field" in fieldloom.load(folder).finished
    with pytest.warns(UserWarning, match="was written by an older version"):
        system = train(None, str(folder), resume=True)
    assert system.finished == ["field", "codec", "prior"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fieldloom.load(folder).finished == system.finished
        Run(folder).read_codes(system)
    whole = read_tensors(BEFORE / "finished" / "model.safetensors").tensors
    for name, tensor in system.state_dict().items():  # made on one processor, finished on another
        assert torch.allclose(tensor, whole[name], rtol=1e-2, atol=1e-2), name
    assert {x.name for x in folder.iterdir()} == {*RESERVED} - {"state.safetensors", "codes"}


def test_a_state_of_another_seed_is_refused(tmp_path, monkeypatch):
    """A stale state in a run of another seed, or of other settings, trains nothing."""
    write = Run.write_state

    def dies(*rest):
        write(*rest)
        raise SystemExit

    monkeypatch.setattr(Run, "write_state", dies)
    for seed in (0, 1):
        own = recipe.load("mnif:tiny", [f"seed={seed}", "train.field.save_every=5"])
        with pytest.raises(SystemExit):
            train(own, str(tmp_path / str(seed)))
    shutil.copy(tmp_path / "0" / "state.safetensors", tmp_path / "1" / "state.safetensors")
    with pytest.raises(InputError, match=r"state\.safetensors' .*made with other seed:"):
        train(None, str(tmp_path / "1"), resume=True)


@pytest.mark.parametrize("name", ["model.safetensors", "codes.safetensors"])
def test_one_flipped_bit_is_noticed(own_run, name):
    whole = bytearray((own_run / name).read_bytes())
    for place in (len(whole) - 1, len(whole) - 999, len(whole) // 2):
        whole[place] ^= 1
        (own_run / name).write_bytes(whole)
        with pytest.raises(InputError, match=f"{name}' is damaged"):
            read_tensors(own_run / name)
        whole[place] ^= 1


# -- text files


DAMAGED = {
    "metadata that are a list": ("model.safetensors", "[]", "its metadata are no table"),
    "metadata that are null": ("model.safetensors", "null", "its metadata are no table"),
    "metadata that are no JSON": ("model.safetensors", "{", "cannot be read"),
    "stages that are none": ("model.safetensors", '{"finished": ["fieldd"]}', "finished.0 is"),
    "stages that are a number": ("model.safetensors", '{"finished": 3}', "finished is 3"),
    "what made it is a list": ("model.safetensors", '{"made_by": []}', "is damaged"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_metadata(cli, case, own_run):
    from safetensors.torch import save_file

    name, text, said = DAMAGED[case]
    tensors = read_tensors(own_run / name).tensors
    save_file(tensors, own_run / name, {"fieldloom": text})
    status, words = cli.answer("sample", own_run, "--count", "1")
    assert status == 2
    assert said in words
    assert words.count("\n") == 1


def test_a_state_without_stage_or_step(own_run):
    for numbers in ({}, {"stage": "field"}, {"stage": "field", "step": -1}, {"step": 3}):
        write_tensors(own_run / "state.safetensors", {}, numbers)
        with pytest.raises(InputError, match=r"state\.safetensors' is damaged: (stage|step) is"):
            Run(own_run).read_state("field")


@pytest.mark.slow
def test_lines_that_are_none_of_a_log_are_left_out(cli, own_run):
    whole = (own_run / "log.jsonl").read_bytes()
    lines = Run(own_run).read_log()
    bad = b'\xff\xfe\n[1]\nnull\n"x"\n{"stage": 3, "step": 1}\n{"step": 2}\n' + b"[" * 10**5 + b"\n"
    (own_run / "log.jsonl").write_bytes(bad + whole)
    with pytest.warns(UserWarning, match="7 line\\(s\\) cannot be read"):
        assert Run(own_run).read_log() == lines
    for verb in (["info"], ["analyse", "curves"], ["evaluate"]):
        status, said = cli.answer(*verb, own_run)
        assert status == 0, said


@pytest.mark.parametrize(
    "text",
    [
        "[known]",
        'recipe = "[/nope]"',
        'recipe = "a\\u001b[31mb"',
        'recipe = "[bold]x"',
        "[known]\nsignals = 'x'",
    ],
)
def test_info_of_odd_recipes(cli, own_run, text, capsys):
    held = (own_run / "recipe.toml").read_text()
    top, _, rest = held.partition("[known]")
    rest = rest.partition("\n\n")[2]
    if text.startswith("recipe"):
        top = "\n".join(x for x in top.splitlines() if not x.startswith("recipe ="))
        held = f"{text}\n{top}\n[known]\n{rest}"
    else:
        held = f"{top}\n{text}\n{rest}"
    (own_run / "recipe.toml").write_text(held)
    forget_what_made(own_run)
    status, said = cli.answer("info", own_run)
    assert status in (0, 2), said
    assert "Traceback" not in said
    assert "fault" not in said
    assert "\x1b" not in said


# -- jobs of codes


def test_a_folder_of_something_else_is_not_written_into(cli, own_run, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "00000.safetensors").write_bytes(b"mine")
    status, said = cli.answer("encode", own_run, "--out", tmp_path / "x", "--overwrite")
    assert status == 2
    assert "is there already, of something else" in said
    assert (tmp_path / "x" / "00000.safetensors").read_bytes() == b"mine"


# -- links


def test_nothing_is_written_through_a_link_out_of_the_run(cli, own_run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, verb in {
        "reconstructions": ["reconstruct", "--count", "1"],
        "encoded": ["encode"],
        "decoded": ["decode", str(own_run / "codes.safetensors"), "--count", "1"],
    }.items():
        (own_run / name).symlink_to(outside, target_is_directory=True)
        status, said = cli.answer(verb[0], own_run, *verb[1:])
        assert status == 2, said
        assert f"{name}' is a link out of the run" in said
    (outside / "report.json").write_text('{"figures": []}')
    (own_run / "theirs").symlink_to(outside, target_is_directory=True)
    theirs = ["evaluate", own_run, "--out", own_run / "theirs", "--overwrite"]
    status, said = cli.answer(*theirs)
    assert status == 2
    assert "is a link out of the run" in said
    assert {x.name for x in outside.iterdir()} == {"report.json"}


@pytest.mark.slow
def test_a_file_that_is_a_link_is_replaced_not_written_through(cli, own_run, tmp_path):
    victim = tmp_path / "victim"
    for name in ("log.jsonl", "sampled.png", "report.json", "env.json"):
        victim.write_text("mine")
        (own_run / name).unlink(missing_ok=True)
        (own_run / name).symlink_to(victim)
    assert cli.answer("sample", own_run, "--count", "1")[0] == 0
    assert cli.answer("evaluate", own_run)[0] == 0
    Run(own_run).rewind_log("field", 3)
    assert victim.read_text() == "mine"
    assert not (own_run / "sampled.png").is_symlink()
    (own_run / "log.jsonl").unlink()
    (own_run / "log.jsonl").symlink_to(victim)
    with pytest.raises(FieldloomError, match="cannot be written"):
        Run(own_run).append_log({"stage": "field", "step": 1})
    assert victim.read_text() == "mine"


def test_codes_of_training_are_not_written_through_a_link(cli, own_run, tmp_path):
    (tmp_path / "outside").mkdir()
    (own_run / "codes.safetensors").unlink()
    (own_run / "codes").symlink_to(tmp_path / "outside", target_is_directory=True)
    status, said = cli.answer("analyse", "judge", own_run, "--count", "4")
    assert status == 2
    assert "is a link out of the run" in said
    assert not list((tmp_path / "outside").iterdir())


# -- outputs


def test_other_data_are_reported_inside_the_run(cli, own_run, tmp_path, monkeypatch):
    """``--source ..`` is a folder of pictures like any other: its report stays in the run."""
    pictures = tmp_path / "pictures" / "inner"
    pictures.mkdir(parents=True)
    for i in range(2):
        Image.new("L", (8, 8), 99 * i).save(pictures.parent / f"{i}.png")
    monkeypatch.chdir(pictures)
    status, said = cli.answer("evaluate", own_run, "--source", "..")
    assert status == 0, said
    assert (own_run / "pictures" / "report.json").is_file()
    assert {x.name for x in tmp_path.iterdir()} == {"pictures", "run"}
    (pictures.parent).rename(tmp_path / "codes")
    monkeypatch.chdir(tmp_path)
    status, said = cli.answer("evaluate", own_run, "--source", "codes")
    assert status == 2
    assert "belongs to the run itself" in said


# -- locks


def test_a_refused_command_leaves_no_folder(tmp_path):
    with pytest.raises(InputError):
        train(recipe.load("mnif:tiny", ["field.frequency='x'"]), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# -- what kills and errors leave


def test_what_killed_processes_left_is_removed_at_the_next_start(own_run):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    host = socket.gethostname()
    left = [
        ".model.safetensors.a1b2c3d4",  # as programs of before named them
        f".state.safetensors.{host}-{dead.pid}-a1b2c3d4.partial",
        f".sampled.png.{host}-{dead.pid}-a1b2c3d4.partial",
    ]
    kept = [
        f".sampled.png.{host}-{os.getpid()}-a1b2c3d4.partial",
        ".sampled.png.elsewhere-3-a1b2c3d4.partial",
        ".mine",
        ".model.safetensors.backup-of-mine",
    ]
    for name in (*left, *kept):
        (own_run / name).write_text("x")
    system = fieldloom.load(own_run)
    Run(own_run).write_state("field", ({}, {"step": 3}))  # of a stage that is finished
    (own_run / "codes").mkdir()
    train(None, str(own_run), resume=True)
    there = {x.name for x in own_run.iterdir()}
    assert not there & {*left, "state.safetensors"}
    assert there >= set(kept)
    del system


@pytest.mark.slow
def test_shards_left_beside_their_codes_are_removed(tmp_path, monkeypatch):
    """Killed after the codes are joined, before the shards are removed."""
    with monkeypatch.context() as patch:
        patch.setattr(trains.bulk, "remove", lambda *rest: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            train(TINY, str(tmp_path / "run"))
    assert (tmp_path / "run" / "codes" / "manifest.json").is_file()
    train(None, str(tmp_path / "run"), resume=True)
    assert not (tmp_path / "run" / "codes").exists()


def test_a_run_that_made_nothing_is_replaced_by_the_corrected_command(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail = lambda *rest: (_ for _ in ()).throw(InputError("of this test"))
        patch.setattr(trains.Training, "advance", fail)
        with pytest.raises(InputError, match="of this test"):
            train(TINY, str(folder))
    assert (folder / "recipe.toml").is_file()
    other = recipe.load("mnif:tiny", ["seed=5"])
    train(other, str(folder), "field")
    assert Run(folder).read_recipe()["seed"] == 5
    with pytest.raises(InputError, match="holds a run already"):
        train(TINY, str(folder))


def test_a_recipe_of_the_users_own_is_no_run(cli, tmp_path):
    """``train X/recipe.toml --run X``: what lies there is the user's, and stays as it is."""
    own = "# mine\n" + recipe.dump(recipe.load("mnif:tiny"))
    (tmp_path / "recipe.toml").write_text(own)
    (tmp_path / "log.jsonl").write_text("mine")
    for more in ([], ["--resume"]):
        place = tmp_path / "recipe.toml"
        status, said = cli.answer("train", place, "--run", tmp_path, *more)
        assert status == 2
        assert more or "holds a recipe.toml that no training has written there" in said
    assert (tmp_path / "recipe.toml").read_text() == own
    assert (tmp_path / "log.jsonl").read_text() == "mine"
    assert {x.name for x in tmp_path.iterdir()} == {"recipe.toml", "log.jsonl"}


def test_a_run_that_was_only_given_fields_is_replaced(tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    fail = lambda *rest: (_ for _ in ()).throw(InputError("of this test"))
    with monkeypatch.context() as patch:
        patch.setattr(trains, "train_prior", fail)
        with pytest.raises(InputError, match="of this test"):
            train(TINY, str(folder), fields=tiny_run)
    system = train(recipe.load("mnif:tiny", ["train.prior.steps=3"]), str(folder), fields=tiny_run)
    assert system.finished == ["field", "codec", "prior"]
    with pytest.raises(InputError, match="holds a run already"):
        train(TINY, str(folder), fields=tiny_run)


def test_a_run_does_not_begin_with_its_own_fields(tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    fail = lambda *rest: (_ for _ in ()).throw(InputError("of this test"))
    with monkeypatch.context() as patch:
        patch.setattr(trains, "train_prior", fail)
        with pytest.raises(InputError, match="of this test"):
            train(TINY, str(folder), fields=tiny_run)
    before = {x.name: x.read_bytes() for x in folder.iterdir()}
    with pytest.raises(InputError, match="is this very run; resume=True goes on"):
        train(TINY, str(folder), fields=folder)
    assert before == {x.name: x.read_bytes() for x in folder.iterdir()}


def test_a_beginning_that_fails_leaves_a_folder_for_the_corrected_command(tmp_path, monkeypatch):
    """Only env.json is there, of whatever recipe."""
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_recipe", lambda *rest: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            train(TINY, str(tmp_path / "run"))
    assert {x.name for x in (tmp_path / "run").iterdir()} == {"env.json"}
    train(recipe.load("mnif:tiny", ["seed=8"]), str(tmp_path / "run"), "field")


def test_a_finished_run_whose_recipe_is_lost_is_not_begun_again(own_run):
    (own_run / "recipe.toml").unlink()
    before = {x.name: x.read_bytes() for x in own_run.iterdir()}
    with pytest.raises(InputError, match=r"but no recipe\.toml: it is of another run"):
        train(TINY, str(own_run))
    with pytest.raises(InputError, match=r"but no recipe\.toml: it is of another run"):
        fieldloom.save(fieldloom.build(TINY), own_run)
    assert before == {x.name: x.read_bytes() for x in own_run.iterdir()}


def test_a_run_without_its_environment_goes_on(own_run):
    """People remove it before they share a run: it tells of their machine."""
    (own_run / "env.json").unlink()
    assert train(None, str(own_run), resume=True).finished == ["field", "codec", "prior"]


def test_a_state_says_by_what_it_was_trained_not_what_lies_there_now(own_run):
    other = recipe.merge(Run(own_run).read_recipe(), {"seed": 9})
    Run(own_run).write_state("prior", ({}, {"step": 3}), other)
    with pytest.raises(InputError, match="made with other seed"):
        Run(own_run).read_state("prior")


# -- moves


@pytest.fixture
def with_data(tmp_path):
    """A project: data, and a run on them."""
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(12):
        levels = generator.integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(levels).save(project / "data" / f"{i:02d}.png")
    change = ["source.name=folder", f"source.path={project / 'data'}", "train.field.save_every=5"]
    train(recipe.load("mnif:tiny", change), str(project / "runs" / "mine"), "field")
    return project


def test_a_run_moves_with_its_data(cli, with_data, tmp_path):
    with_data.rename(tmp_path / "elsewhere")
    run = tmp_path / "elsewhere" / "runs" / "mine"
    assert train(None, str(run), resume=True).finished == ["field", "codec", "prior"]
    status, said = cli.answer("evaluate", run, "--set", "evaluate.samples=4")
    assert status == 0, said


def test_a_run_moves_without_its_data(with_data, tmp_path):
    shutil.move(with_data / "runs" / "mine", tmp_path / "far" / "away" / "mine")
    run = tmp_path / "far" / "away" / "mine"
    assert train(None, str(run), resume=True).finished == ["field", "codec", "prior"]


def test_a_run_beside_other_data_of_the_same_name_keeps_its_own(with_data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(with_data, other)
    Image.new("L", (8, 8), 7).save(other / "data" / "00.png")
    run = other / "runs" / "mine"
    assert train(None, str(run), resume=True).finished == ["field", "codec", "prior"]


@pytest.mark.slow
def test_data_may_have_a_new_place_but_must_be_the_same(cli, with_data, tmp_path):
    run, new = with_data / "runs" / "mine", tmp_path / "new"
    (with_data / "data").rename(new)
    status, said = cli.answer("train", "mnif:tiny", "--run", run, "--resume")
    assert status == 2
    assert "does not exist" in said
    go_on = ["train", "mnif:tiny", "--run", run, "--resume", "--set", f"source.path={new}"]
    (new / "00.png").rename(tmp_path / "taken.png")
    status, said = cli.answer(*go_on)
    assert status == 2
    assert "have changed: signals was 11, and is 10" in said
    (tmp_path / "taken.png").rename(new / "00.png")
    status, said = cli.answer(*go_on)
    assert status == 0, said
    assert Run(run).read_recipe()["source"]["path"] == str(new)
    new.rename(tmp_path / "newer")
    place = f"source.path={tmp_path / 'newer'}"
    status, said = cli.answer("evaluate", run, "--set", place, "--set", "evaluate.samples=4")
    assert status == 0, said
    status, said = cli.answer("train", "mnif:tiny", "--run", run, "--resume", "--set", "seed=3")
    assert status == 2
    assert "cannot change it, but for the place of the same data" in said


def test_verbs_notice_that_the_data_of_a_run_have_changed(cli, with_data):
    run = with_data / "runs" / "mine"
    Image.new("L", (8, 8), 7).save(with_data / "data" / "00.png")
    for verb in (["evaluate"], ["reconstruct"], ["encode"], ["analyse", "influence"]):
        status, said = cli.answer(*verb, run)
        assert status == 2, (verb, said)
        assert "have changed: fingerprint was" in said
