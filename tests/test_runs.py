"""Run folders: what made a file, locks, links, what kills leave, moves, damage, outputs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import commands
import fieldloom
from fieldloom import recipe, stopping
from fieldloom import training as trains
from fieldloom.codes import bulk
from fieldloom.engine import lock
from fieldloom.engine.lock import hold_lock
from fieldloom.engine.run import RESERVED, Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError, Interrupted
from fieldloom.training import train

TINY = recipe.load("mnif:tiny")


@pytest.fixture
def own_run(tiny_run, tmp_path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def command(*arguments) -> tuple[int, str]:
    """A call of the command line: its status, and what it said."""
    done = commands.command(*arguments)
    return done.returncode, done.stderr


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
    with pytest.raises(InputError, match="made with other weights.*delete it, and --resume finds"):
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


BEFORE = Path(__file__).parent / "data" / "runs-of-before"


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
def test_damaged_metadata(case, own_run):
    from safetensors.torch import save_file

    name, text, said = DAMAGED[case]
    tensors = read_tensors(own_run / name).tensors
    save_file(tensors, own_run / name, {"fieldloom": text})
    status, words = command("sample", own_run, "--count", "1")
    assert status == 2
    assert said in words
    assert words.count("\n") == 1


def test_a_state_without_stage_or_step(own_run):
    for numbers in ({}, {"stage": "field"}, {"stage": "field", "step": -1}, {"step": 3}):
        write_tensors(own_run / "state.safetensors", {}, numbers)
        with pytest.raises(InputError, match=r"state\.safetensors' is damaged: (stage|step) is"):
            Run(own_run).read_state("field")


@pytest.mark.slow
def test_lines_that_are_none_of_a_log_are_left_out(own_run):
    whole = (own_run / "log.jsonl").read_bytes()
    lines = Run(own_run).read_log()
    bad = b'\xff\xfe\n[1]\nnull\n"x"\n{"stage": 3, "step": 1}\n{"step": 2}\n' + b"[" * 10**5 + b"\n"
    (own_run / "log.jsonl").write_bytes(bad + whole)
    with pytest.warns(UserWarning, match="7 line\\(s\\) cannot be read"):
        assert Run(own_run).read_log() == lines
    for verb in (["info"], ["analyse", "curves"], ["evaluate"]):
        status, said = command(*verb, own_run)
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
def test_info_of_odd_recipes(own_run, text, capsys):
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
    status, said = command("info", own_run)
    assert status in (0, 2), said
    assert "Traceback" not in said
    assert "fault" not in said
    assert "\x1b" not in said


# -- jobs of codes


@pytest.fixture
def job(own_run):
    """A finished job of several shards, and what encodes them again."""
    system = fieldloom.load(own_run)
    source = trains.prepare(Run(own_run).read_recipe(), torch.device("cpu"))[1]
    folder = own_run / "encoded"
    encode = lambda: bulk.encode(system, source, source.train, folder, shard=16)
    return folder, encode, encode().codes


@pytest.mark.slow
@pytest.mark.parametrize("how", ["lost", "flipped", "torn", "another's"])
def test_a_lost_or_damaged_shard_is_done_again(job, how):
    folder, encode, codes = job
    shard = folder / "00001.safetensors"
    whole, spared = shard.read_bytes(), (folder / "00000.safetensors").stat().st_mtime_ns
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    bad = {"lost": None, "flipped": flipped, "torn": whole[:50],
           "another's": (folder / "00002.safetensors").read_bytes()}[how]  # fmt: skip
    shard.unlink() if bad is None else shard.write_bytes(bad)
    with pytest.raises(InputError, match=r"00001\.safetensors"):
        bulk.read(folder)
    with pytest.warns(UserWarning, match=r"00001\.safetensors lost or damaged, done again"):
        again = encode()
    assert torch.equal(again.codes, codes)
    assert shard.read_bytes() == whole
    assert (folder / "00000.safetensors").stat().st_mtime_ns == spared


def test_a_manifest_leads_nowhere_else(job, tmp_path):
    """Names of files are never read from it: nothing outside is read or deleted."""
    folder = job[0]
    victim = tmp_path / "victim.safetensors"
    shutil.copy(folder / "00001.safetensors", victim)
    before = victim.read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        shard["file"] = "../../victim.safetensors"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "00001.safetensors").unlink()
    with pytest.raises(InputError, match=r"encoded/00001\.safetensors' does not exist"):
        bulk.read(folder)
    bulk.remove(folder)
    assert victim.read_bytes() == before
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.update(job=3),
        lambda x: x.update(shards=3),
        lambda x: x["shards"][0].pop("count"),
        lambda x: x["shards"].__setitem__(0, None),
        lambda x: x["shards"][0].update(count=-1),
        lambda x: x["shards"][0].update(failed={"x": "y"}),
        lambda x: x["job"].update(shard=0),
        lambda x: x["job"].update(signals=10**30),
        lambda x: x["job"].pop("system"),
    ],
)
def test_damaged_manifests(job, change):
    folder, encode, _ = job
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for work in (encode, lambda: bulk.read(folder)):
        with pytest.raises(InputError, match=r"manifest\.json' is damaged: "):
            work()


@pytest.mark.slow
def test_places_of_other_data_are_refused(job):
    """In a shard that says that it is whole."""
    folder, encode, _ = job
    tensors, numbers, made_by = read_tensors(folder / "00001.safetensors")
    tensors["places"][3] = 1 << 62
    write_tensors(folder / "00001.safetensors", tensors, numbers, made_by)
    with pytest.raises(InputError, match="are damaged: they hold indices of other data"):
        encode()


def test_a_folder_of_something_else_is_not_written_into(own_run, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "00000.safetensors").write_bytes(b"mine")
    status, said = command("encode", own_run, "--out", tmp_path / "x", "--overwrite")
    assert status == 2
    assert "is there already, of something else" in said
    assert (tmp_path / "x" / "00000.safetensors").read_bytes() == b"mine"


# -- links


def test_nothing_is_written_through_a_link_out_of_the_run(own_run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, verb in {
        "reconstructions": ["reconstruct", "--count", "1"],
        "encoded": ["encode"],
        "decoded": ["decode", str(own_run / "codes.safetensors"), "--count", "1"],
    }.items():
        (own_run / name).symlink_to(outside, target_is_directory=True)
        status, said = command(verb[0], own_run, *verb[1:])
        assert status == 2, said
        assert f"{name}' is a link out of the run" in said
    (outside / "report.json").write_text('{"figures": []}')
    (own_run / "theirs").symlink_to(outside, target_is_directory=True)
    status, said = command("evaluate", own_run, "--out", own_run / "theirs")
    assert status == 2
    assert "is a link out of the run" in said
    assert {x.name for x in outside.iterdir()} == {"report.json"}


@pytest.mark.slow
def test_a_file_that_is_a_link_is_replaced_not_written_through(own_run, tmp_path):
    victim = tmp_path / "victim"
    for name in ("log.jsonl", "sampled.png", "report.json", "env.json"):
        victim.write_text("mine")
        (own_run / name).unlink(missing_ok=True)
        (own_run / name).symlink_to(victim)
    assert command("sample", own_run, "--count", "1")[0] == 0
    assert command("evaluate", own_run)[0] == 0
    Run(own_run).rewind_log("field", 3)
    assert victim.read_text() == "mine"
    assert not (own_run / "sampled.png").is_symlink()
    (own_run / "log.jsonl").unlink()
    (own_run / "log.jsonl").symlink_to(victim)
    with pytest.raises(FieldloomError, match="cannot be written"):
        Run(own_run).append_log({"stage": "field", "step": 1})
    assert victim.read_text() == "mine"


def test_codes_of_training_are_not_written_through_a_link(own_run, tmp_path):
    (tmp_path / "outside").mkdir()
    (own_run / "codes.safetensors").unlink()
    (own_run / "codes").symlink_to(tmp_path / "outside", target_is_directory=True)
    status, said = command("analyse", "judge", own_run, "--count", "4")
    assert status == 2
    assert "is a link out of the run" in said
    assert not list((tmp_path / "outside").iterdir())


# -- outputs


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
        status, said = command(*verb, "--overwrite")
        assert status == 2, (verb, said)
        assert "belongs to the run itself" in said or verb[0] == "encode", said
    assert before == {x.name: x.read_bytes() for x in own_run.iterdir()}


def test_what_is_there_is_replaced_only_where_that_is_said(own_run, tmp_path):
    path = tmp_path / "mine.png"
    path.write_text("mine")
    verb = ["sample", own_run, "--count", "1", "--out", path]
    status, said = command(*verb)
    assert status == 2
    assert "mine.png' is there already: give another --out, or --overwrite." in said
    assert path.read_text() == "mine"
    assert command(*verb, "--overwrite")[0] == 0
    assert Image.open(path).size == (8, 8)
    assert command("sample", own_run, "--count", "1")[0] == 0
    assert command("sample", own_run, "--count", "1")[0] == 0  # its own name is its own


def test_other_data_are_reported_inside_the_run(own_run, tmp_path, monkeypatch):
    """``--source ..`` is a folder of pictures like any other: its report stays in the run."""
    pictures = tmp_path / "pictures" / "inner"
    pictures.mkdir(parents=True)
    for i in range(2):
        Image.new("L", (8, 8), 99 * i).save(pictures.parent / f"{i}.png")
    monkeypatch.chdir(pictures)
    status, said = command("evaluate", own_run, "--source", "..")
    assert status == 0, said
    assert (own_run / "pictures" / "report.json").is_file()
    assert {x.name for x in tmp_path.iterdir()} == {"pictures", "run"}
    (pictures.parent).rename(tmp_path / "codes")
    monkeypatch.chdir(tmp_path)
    status, said = command("evaluate", own_run, "--source", "codes")
    assert status == 2
    assert "belongs to the run itself" in said


# -- locks


HOLD = """
import sys, time
from pathlib import Path
from fieldloom.engine.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_writer_at_a_time(tmp_path):
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is being written by process {other.pid} on"):
            train(TINY, str(folder))
        assert [x.name for x in folder.iterdir()] == [".lock"]
    finally:
        other.kill()
        other.wait()
    train(TINY, str(folder), "field")  # the lock of a dead process is taken over
    assert not (folder / ".lock").exists()


def test_a_lock_of_another_host_is_for_the_user_to_judge(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text('{"host": "elsewhere", "process": 3, "start": "2026-01-01"}')
    with (
        pytest.raises(InputError, match=r"process 3 on elsewhere, since 2026-01-01: if that no"),
        hold_lock(tmp_path),
    ):
        raise AssertionError
    for content in ("", "nonsense", "[]", f'{{"host": "{socket.gethostname()}", "process": 1}}'):
        (tmp_path / ".lock").write_text(content)
        with hold_lock(tmp_path):
            told = json.loads((tmp_path / ".lock").read_text())
            assert told["process"] == os.getpid()
            with (
                pytest.raises(InputError, match="is being written by process"),
                hold_lock(tmp_path),
            ):
                raise AssertionError
        assert not (tmp_path / ".lock").exists()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """Only the text can tell there: of a process of this host whether it lives."""
    fail = lambda *rest: (_ for _ in ()).throw(OSError(38, "Function not implemented"))
    monkeypatch.setattr(lock.fcntl, "flock", fail)
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    told = {"host": socket.gethostname(), "process": dead.pid, "start": "2026-01-01"}
    (tmp_path / ".lock").write_text(json.dumps(told))
    with (
        hold_lock(tmp_path),
        pytest.raises(InputError, match=f"by process {os.getpid()} on"),
        hold_lock(tmp_path),
    ):
        raise AssertionError


def test_a_lock_is_not_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / lock.NAME).symlink_to(victim)
    with pytest.raises(FieldloomError, match="cannot be written"), hold_lock(tmp_path / "run"):
        raise AssertionError
    assert victim.read_text() == "mine"


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


def test_a_recipe_of_the_users_own_is_no_run(tmp_path):
    """``train X/recipe.toml --run X``: what lies there is the user's, and stays as it is."""
    own = "# mine\n" + recipe.dump(recipe.load("mnif:tiny"))
    (tmp_path / "recipe.toml").write_text(own)
    (tmp_path / "log.jsonl").write_text("mine")
    for more in ([], ["--resume"]):
        place = tmp_path / "recipe.toml"
        status, said = command("train", place, "--run", tmp_path, *more)
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
    with pytest.raises(InputError, match="is this very run; --resume goes on"):
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


ODD = {
    "a source that is a number": (["evaluate", "RUN", "--set", "source=3"], "only keys of"),
    "a user that is none": (["evaluate", "RUN", "--source", "~nosuchuser/x"], "does not exist"),
    "no folder": (["info", ""], "RUN '' names no folder"),
    "no folder to train into": (["train", "mnif:tiny", "--run", ""], "--run '' names no folder"),
    "the folder above": (["sample", "RUN", "--out", ".."], "--out '..' names no file"),
    "the lock": (["encode", "RUN", "--out", "RUN/.lock"], "belongs to the run itself"),
    "a report of other data in the run's place": (
        ["evaluate", "RUN", "--source", "DATA", "--out", "RUN"], "is there already"),
    "steps beyond memory": (["interpolate", "RUN", "--steps", 10**11], "--steps 100000000000"),
    "samples beyond memory": (
        ["sample", "RUN", "--count", 9 * 10**4, "--resolution", 9999], "at resolution 9999 would"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", ODD)
def test_odd_arguments(case, own_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    Image.new("L", (8, 8), 99).save(tmp_path / "data" / "a.png")
    words, said = ODD[case]
    places = {"RUN": str(own_run), "DATA": "data"}
    words = [str(word).replace("RUN", places["RUN"]).replace("DATA", "data") for word in words]
    before = {x.name for x in own_run.iterdir()}
    status, told = command(*words)
    assert status == 2, told
    assert said in told
    assert before == {x.name for x in own_run.iterdir()}
    assert {x.name for x in tmp_path.iterdir()} == {"run", "data"}


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_encode_stopped_in_its_first_shard_goes_on(own_run, tmp_path, monkeypatch, name):
    out = tmp_path / name
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "encode_shard", lambda *rest: (_ for _ in ()).throw(SystemExit(7)))
        assert command("encode", own_run, "--out", out)[0] == 7
    shards = out if name == "out" else tmp_path / f"{name}.shards"
    (shards / ".lock").write_text("")  # as kill -9 leaves it
    status, said = command("encode", own_run, "--out", out)
    assert status == 0, said
    assert out.exists()


@pytest.mark.slow
def test_codes_of_another_run_are_not_decoded(own_run, tmp_path):
    other = tmp_path / "other"
    train(recipe.load("mnif:tiny", ["seed=3"]), str(other))
    assert command("encode", other, "--out", tmp_path / "one.safetensors")[0] == 0
    assert command("encode", other)[0] == 0
    for codes in (tmp_path / "one.safetensors", other / "encoded", other / "codes.safetensors"):
        status, said = command("decode", own_run, codes, "--count", 1)
        assert status == 2, codes
        assert "were found with other weights than this run's" in said
        assert command("decode", other, codes, "--count", 1)[0] == 0


def test_encode_that_goes_on_replaces_no_file_of_others(own_run, tmp_path, monkeypatch):
    out = tmp_path / "codes.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "read", lambda *rest: (_ for _ in ()).throw(SystemExit(7)))
        assert command("encode", own_run, "--out", out)[0] == 7
    assert (tmp_path / "codes.safetensors.shards" / "manifest.json").is_file()
    out.write_text("mine")
    status, said = command("encode", own_run, "--out", out)
    assert status == 2
    assert "is there already" in said
    assert out.read_text() == "mine"
    out.unlink()
    assert command("encode", own_run, "--out", out)[0] == 0
    assert out.is_file()


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


def test_a_run_moves_with_its_data(with_data, tmp_path):
    with_data.rename(tmp_path / "elsewhere")
    run = tmp_path / "elsewhere" / "runs" / "mine"
    assert train(None, str(run), resume=True).finished == ["field", "codec", "prior"]
    status, said = command("evaluate", run, "--set", "evaluate.samples=4")
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
def test_data_may_have_a_new_place_but_must_be_the_same(with_data, tmp_path):
    run, new = with_data / "runs" / "mine", tmp_path / "new"
    (with_data / "data").rename(new)
    status, said = command("train", "mnif:tiny", "--run", run, "--resume")
    assert status == 2
    assert "does not exist" in said
    go_on = ["train", "mnif:tiny", "--run", run, "--resume", "--set", f"source.path={new}"]
    (new / "00.png").rename(tmp_path / "taken.png")
    status, said = command(*go_on)
    assert status == 2
    assert "have changed: signals was 11, and is 10" in said
    (tmp_path / "taken.png").rename(new / "00.png")
    status, said = command(*go_on)
    assert status == 0, said
    assert Run(run).read_recipe()["source"]["path"] == str(new)
    new.rename(tmp_path / "newer")
    place = f"source.path={tmp_path / 'newer'}"
    status, said = command("evaluate", run, "--set", place, "--set", "evaluate.samples=4")
    assert status == 0, said
    status, said = command("train", "mnif:tiny", "--run", run, "--resume", "--set", "seed=3")
    assert status == 2
    assert "cannot change it, but for source.path" in said


def test_verbs_notice_that_the_data_of_a_run_have_changed(with_data):
    run = with_data / "runs" / "mine"
    Image.new("L", (8, 8), 7).save(with_data / "data" / "00.png")
    for verb in (["evaluate"], ["reconstruct"], ["encode"], ["analyse", "influence"]):
        status, said = command(*verb, run)
        assert status == 2, (verb, said)
        assert "have changed: fingerprint was" in said


# -- stopping


def asks_after(count, monkeypatch):
    """Let the user ask to stop at the so-manieth look of a long step."""
    looks = []
    plain = stopping.should_pause

    def should_pause():
        looks.append(1)
        if len(looks) == count:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return plain()

    monkeypatch.setattr(stopping, "should_pause", should_pause)


INNER = ["encoder.steps=40", "encoder.points=16", "encoder.draw=anew", "source.split=[40, 10]",
         "encoder.plateau={patience=1, stop=4, factor=0.5}", "train.prior.steps=2"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 17, 33])
def test_a_long_step_keeps_what_it_has(tmp_path, monkeypatch, count):
    """HyperDiffusion's stage of one step, stopped within it: it ends with the very same weights."""
    own = recipe.load("hyperdiffusion:tiny", INNER)
    train(own, str(tmp_path / "straight"))
    with monkeypatch.context() as patch:
        asks_after(count, patch)
        with pytest.raises(Interrupted, match="stopped within step 1 of 1; --resume goes on"):
            train(own, str(tmp_path / "run"))
    state = read_tensors(tmp_path / "run" / "state.safetensors")
    assert int(state.tensors["paused/loss/step"]) == count - 1
    train(None, str(tmp_path / "run"), resume=True)
    ours, theirs = (fieldloom.load(tmp_path / x).state_dict() for x in ("run", "straight"))
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 30, 70])
def test_a_step_of_several_micro_batches_keeps_those_that_are_done(tmp_path, monkeypatch, count):
    change = [
        "train.field.batch=3",
        "train.field.micro=1",
        "encoder.steps=25",
        "encoder.plateau={}",
    ]
    own = recipe.load("hyperdiffusion:tiny", [*INNER, *change])
    train(own, str(tmp_path / "straight"), "field")
    with monkeypatch.context() as patch:
        asks_after(count, patch)
        with pytest.raises(Interrupted, match="stopped within step 1 of 1"):
            train(own, str(tmp_path / "run"), "field")
    kept = read_tensors(tmp_path / "run" / "state.safetensors").tensors
    assert int(kept["paused/micro"]) == (count - 1) // 25
    assert ("paused/grad/0" in kept) == (count > 25)
    train(None, str(tmp_path / "run"), "field", resume=True)
    ours, theirs = (fieldloom.load(tmp_path / x).state_dict() for x in ("run", "straight"))
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 8, 14, 20, 31])
def test_a_fit_that_starts_from_a_fit_keeps_what_it_has(tmp_path, monkeypatch, count):
    """The inner one's five steps, the outer one's, stack by stack."""
    change = ["encoder.start={name='fit', steps=5, points=16, draw='anew'}", "encoder.steps=6"]
    own = recipe.load("hyperdiffusion:tiny", [*INNER, *change])
    monkeypatch.setattr("fieldloom.encoders.stacks.CPU_LAYER", 16 * 8 * 4 * 16)  # stacks of sixteen
    train(own, str(tmp_path / "straight"))
    with monkeypatch.context() as patch:
        asks_after(count, patch)
        with pytest.raises(Interrupted, match="stopped within"):
            train(own, str(tmp_path / "run"))
    train(None, str(tmp_path / "run"), resume=True)
    ours, theirs = (Run(tmp_path / x).read_codes()[0] for x in ("run", "straight"))
    assert torch.equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("count", [41, 60, 95])
def test_a_long_shard_keeps_what_it_has(tmp_path, monkeypatch, count):
    own = recipe.load("hyperdiffusion:tiny", INNER)
    monkeypatch.setattr("fieldloom.encoders.stacks.CPU_LAYER", 16 * 8 * 4 * 7)  # stacks of seven
    train(own, str(tmp_path / "straight"))
    with monkeypatch.context() as patch:
        asks_after(count, patch)
        with pytest.raises(Interrupted, match=r"stopped within shard \d of \d; --resume goes on"):
            train(own, str(tmp_path / "run"))
    paused = tmp_path / "run" / "codes" / "paused.safetensors"
    assert paused.is_file()
    if count == 95:  # torn: the shard is done from its start
        paused.write_bytes(paused.read_bytes()[:99])
    train(None, str(tmp_path / "run"), resume=True)
    ours, theirs = (Run(tmp_path / x).read_codes()[0] for x in ("run", "straight"))
    assert torch.equal(ours, theirs)
    assert not (tmp_path / "run" / "codes").exists()


def test_a_second_signal_ends_at_once():
    with stopping.stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stopping.stop_requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT), time.sleep(5)
    assert not stopping.stop_requested()


def test_what_nobody_would_keep_does_not_pause():
    with stopping.stoppable():
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)
        assert stopping.stop_requested()
        assert not stopping.should_pause()
        with stopping.pausable():
            assert stopping.should_pause()


SLOW = """
import sys, time
import fieldloom.system as systems
plain = systems.System.{method}
def slow(self, *rest, **named):
    print("now", flush=True)
    time.sleep(30)
systems.System.{method} = slow
from fieldloom.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "method", "number"),
    [("sample", "decode", signal.SIGTERM), ("reconstruct", "encode_signal", signal.SIGHUP)],
)
def test_verbs_end_by_any_signal_as_by_ctrl_c(own_run, verb, method, number):
    program = [sys.executable, "-c", SLOW.format(method=method), verb, own_run]
    going = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert going.stdout.readline() == "now\n"
    going.send_signal(number)
    _, said = going.communicate(timeout=20)
    assert going.returncode == 130
    assert said.splitlines()[-1] == "error: stopped; what was finished is kept."
    assert "Traceback" not in said
