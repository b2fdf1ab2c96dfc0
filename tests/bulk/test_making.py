"""Jobs of every verb: the same files whoever computes them, resumed, damaged, and two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom.bulk import files, making
from fieldloom.bulk.fits import Fit, fit_files
from fieldloom.bulk.making import Draw, Files
from fieldloom.cli.jobs import describe
from fieldloom.codes import bulk, jobs, shards
from fieldloom.codes.bulk import Origin
from fieldloom.codes.shards import How
from fieldloom.engine.tensors import read_tensors
from fieldloom.errors import FieldloomError, InputError
from fieldloom.inputs import held_out_part
from media import gradient

QUICK = Fit(sets=("train.field.steps=3", "field.width=8", "field.grid.levels=3"), device="cpu")
KINDS = ["encode", "decode", "reconstruct", "sample", "fit"]


def job_of(kind, run, place):
    """A job of 20 data (of a fit 3) in shards of 7 (of a fit 1): (folder, how) -> what it says."""
    origin = Origin(str(run), device="cpu")
    system = fieldloom.load(run, device="cpu")
    source, indices = held_out_part(system, quiet=True)
    indices = indices[:20]
    if kind == "fit":
        paths = [place / f"{name}.png" for name in "abc"]
        for shift, path in enumerate(paths):
            Image.fromarray(np.roll(gradient(), shift, 1)).save(path)
        return lambda folder, how: fit_files(paths, folder, QUICK, how)
    if kind == "encode":

        def encode(folder, how):  # a part of the test data, which no origin names
            given = {"executor": how.executor, "workers": how.workers, "shared": True}
            whole = indices if how.executor == "local" else held_out_part(system, quiet=True)[1]
            return bulk.encode(system, source, whole, folder, 7, origin=origin, **given)

        return encode
    if kind == "decode":
        codes = place / "codes"
        bulk.encode(system, source, indices, codes)
        return lambda folder, how: making.decode(
            system, codes, folder, Files(12, "npy"), None, how, origin
        )
    if kind == "reconstruct":
        given = (system, source, indices)
        return lambda folder, how: making.reconstruct(*given, folder, Files(), how, origin)
    draw = Draw(20, Files(), 3, 5) if system.prior.classes else Draw(20, Files(), seed=5)
    return lambda folder, how: making.sample(system, draw, folder, how, origin)


def size_of(kind):
    return None if kind == "fit" else 7


def content(folder: Path) -> dict[str, bytes]:
    """All files of a job; of rows without seconds, of runs without their logs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix not in (".jsonl", ".toml") and path.name != "env.json":
            found[name] = path.read_bytes()
        if path.suffix == ".json" and path.name[0].isdigit():
            found[name] = json.loads(found[name]) | {"seconds": 0}
    return found


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_a_job_goes_on_and_is_done_again_where_it_was_damaged(kind, own_run, tmp_path, monkeypatch):
    work, how = job_of(kind, own_run, tmp_path), How(size_of(kind))
    straight, folder = tmp_path / "straight", tmp_path / "job"
    work(straight, how)
    plain, done = shards.write_tensors, []

    def dies(path, *rest):  # within the second shard, whose other files may be there
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(path)
        return plain(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_tensors", dies)
        with pytest.raises(KeyboardInterrupt):
            work(folder, how)
    state = jobs.read_state(folder)
    assert (state.done, state.left, state.job.kind) == (1, 2, kind)
    assert f"{kind}: {state.job.signals} " in describe(state)[0]
    spared = (folder / "00000.safetensors").stat().st_mtime_ns
    work(folder, How(None))  # in its own size of shards
    assert content(folder) == content(straight)
    assert (folder / "00000.safetensors").stat().st_mtime_ns == spared
    lost = next((x for x in sorted(folder.glob("*/*")) if x.suffix in (".png", ".npy")), None)
    lost = folder / "b" / "model.safetensors" if kind == "fit" else lost
    lost = lost or folder / "00001.safetensors"
    with lost.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.warns(UserWarning, match="lost or damaged, done again"):
        found = work(folder, how)
    if kind == "fit":  # a damaged run is named, and never written over
        assert "damaged" in {one.run.name: one.why for one in found}["b"]
    else:
        assert content(folder) == content(straight)


@pytest.mark.parametrize(
    "kind", [pytest.param(x, marks=[] if x == "sample" else pytest.mark.slow) for x in KINDS]
)
def test_workers_write_the_same_files(kind, own_run, tmp_path):
    work, size = job_of(kind, own_run, tmp_path), size_of(kind)
    if kind in ("encode", "reconstruct"):  # of the whole test part, as their workers find it
        size = 120
    folders = tmp_path / "one", tmp_path / "two"
    work(folders[0], How(size))
    work(folders[1], How(size, "processes", 2))
    names = [name for name in content(folders[0]) if name != "manifest.json"]
    one, two = map(content, folders)
    if kind != "encode":
        assert {name: two[name] for name in names} == {name: one[name] for name in names}
        return
    found = bulk.read(folders[1])
    torch.testing.assert_close(found.codes[:20], bulk.read(folders[0]).codes, rtol=0, atol=0)


def test_two_commands_on_one_folder_share_its_shards(own_run, tmp_path):
    work = job_of("sample", own_run, tmp_path)
    work(tmp_path / "straight", How(2))
    calls = [Thread(target=work, args=(tmp_path / "job", How(2))) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert content(tmp_path / "job") == content(tmp_path / "straight")


def test_samples_follow_from_the_seed_and_the_number_of_a_shard(own_run, tmp_path):
    system = fieldloom.load(own_run, device="cpu")
    making.sample(system, Draw(20, seed=5), tmp_path / "all", How(7))
    making.sample(system, Draw(9, seed=5), tmp_path / "some", How(7))
    making.sample(system, Draw(9, seed=6), tmp_path / "others", How(7))
    whole, some, others = (bulk.read(tmp_path / x) for x in ("all", "some", "others"))
    assert torch.equal(whole.codes[:7], some.codes[:7])  # the second shard is of another size
    assert not torch.isclose(whole.codes[:9], others.codes).all((1, 2)).any()
    assert len({tuple(code.flatten().tolist()) for code in whole.codes}) == 20
    seed = making.seed_of(5, 1)
    assert torch.equal(whole.codes[7:14], system.sample_codes(7, seed=seed))
    with pytest.raises(InputError, match="another job: its seed is '5', not '6'"):
        making.sample(system, Draw(20, seed=6), tmp_path / "all", How(7))
    with pytest.raises(InputError, match="label: 3 classes where one is needed, or 20"):
        making.sample(system, Draw(20, label=[0, 1, 2]), tmp_path / "none", How(7))


def test_a_job_of_samples_is_decoded(own_run, tmp_path):
    system = fieldloom.load(own_run, device="cpu")
    making.sample(system, Draw(5), tmp_path / "codes")
    found = making.decode(system, tmp_path / "codes", tmp_path / "files", Files(None, "npy"))
    assert (found.count, found.failed) == (5, {})
    codes = bulk.read(tmp_path / "codes").codes
    for i in range(5):
        datum = np.load(tmp_path / "files" / "00000" / f"{i:06d}.npy")
        assert np.array_equal(datum, system.predict(codes[i : i + 1]).tensor[0].numpy())


def test_a_reconstruction_is_measured_datum_by_datum(own_run, tmp_path):
    system = fieldloom.load(own_run, device="cpu")
    source, indices = held_out_part(system, quiet=True)
    making.reconstruct(system, source, indices[:12], tmp_path / "job", Files(None, "npy"), How(5))
    parts = [read_tensors(tmp_path / "job" / f"{i:05d}.safetensors").tensors for i in range(3)]
    data = source.read(indices[:12])
    made = system.predict_at(system.encode(data), data).tensor
    error = (made - data.tensor).square().flatten(1).mean(1)
    ours = torch.cat([part["psnr"] for part in parts])
    torch.testing.assert_close(ours, -10 * error.log10(), rtol=1e-4, atol=1e-4)
    assert torch.equal(torch.cat([part["places"] for part in parts]), indices[:12])
    first = np.load(tmp_path / "job" / "00000" / f"{int(indices[0]):06d}.npy")
    assert np.allclose(first, made[0].clamp(0, 1).numpy(), atol=1e-5)


def test_data_that_fail_are_named_and_the_others_made(own_run, tmp_path, monkeypatch):
    system, plain = fieldloom.load(own_run, device="cpu"), files.write_datum

    def spoilt(system, code, path, *rest):
        if path.stem == "000003":
            raise ValueError("three is wrong")
        return None if path.stem == "000008" else plain(system, code, path, *rest)

    monkeypatch.setattr(files, "write_datum", spoilt)
    with pytest.warns(UserWarning, match="2 of 10 signals failed .* because three is wrong"):
        found = making.sample(system, Draw(10, Files()), tmp_path / "job", How(5))
    assert found.failed == {3: "three is wrong", 8: "it has no surface"}
    assert found.count == 8
    assert not (tmp_path / "job" / "00000" / "000003.png").exists()
    monkeypatch.setattr(files, "write_datum", lambda *rest: None)
    with pytest.raises(FieldloomError, match="every signal failed"):
        making.sample(system, Draw(3, Files()), tmp_path / "none")


def test_codes_that_are_no_numbers_are_left_out(own_run, tmp_path):
    system = fieldloom.load(own_run, device="cpu")
    task = making.Sample(system, Draw(3), torch.arange(3))
    codes = torch.zeros(3, *system.family.code_shape)
    codes[1, 0, 0] = torch.nan
    made = task.write(tmp_path, 0, {"codes": codes, "places": task.places}, {})
    assert made.tensors["places"].tolist() == [0, 2]
    assert made.failed == {1: "its code is no finite number"}


@pytest.mark.parametrize("suffix", ["/../../x", ".png/../../x", "", ".."])
def test_a_suffix_of_a_manifest_leads_nowhere_else(tmp_path, suffix):
    with pytest.raises(InputError, match="is no suffix"):
        shards.files_at(tmp_path, 0, [0], suffix)


def test_files_are_not_written_through_a_link(own_run, tmp_path):
    system = fieldloom.load(own_run, device="cpu")
    for name in ("job", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "job" / "00000").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="00000' is a link: remove it"):
        making.sample(system, Draw(3, Files()), tmp_path / "job")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_a_job_needs_is_said_before_the_work(own_run, tmp_path):
    system = fieldloom.load(own_run, device="cpu")
    for call, said in [
        (lambda: making.sample(system, Draw(3, Files(None, "glb")), tmp_path / "a"), "glb"),
        (lambda: making.sample(system, Draw(3, Files(None, None, 2)), tmp_path / "a"), "project"),
        (lambda: making.sample(system, Draw(3), tmp_path / "a", How(0)), "shard = 0"),
        (
            lambda: making.sample(system, Draw(3), tmp_path / "a", How(None, "processes")),
            "executor 'processes': its workers load",
        ),
        (lambda: making.decode(system, tmp_path / "none", tmp_path / "a"), "does not exist"),
    ]:
        with pytest.raises(InputError, match=said):
            call()
        assert not (tmp_path / "a").exists()


KILLED = """
import sys
from fieldloom.cli import main
sys.argv = ["fieldloom", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments", [(2, 8), pytest.param((0, 1, 3, 4, 5, 7, 9, 10), marks=pytest.mark.soak)]
)
def test_a_job_that_is_killed_at_any_moment_ends_with_the_same_files(
    cli, own_run, tmp_path, moments
):
    words = ["sample", own_run, "--count", "60", "--shard", "5", "--device", "cpu"]
    words += ["--executor", "local", "--out"]
    command = [sys.executable, "-c", KILLED, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    start = partial(subprocess.Popen, env=environment, stderr=subprocess.PIPE)
    cli(*words, tmp_path / "straight")
    folder, kills = tmp_path / "job", 0
    for many in moments:
        child = start([*command, str(folder)])
        while len(list(folder.glob("[0-9]*.json"))) < many and child.poll() is None:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert kills
    assert start([*command, str(folder)]).wait(600) == 0
    assert content(folder) == content(tmp_path / "straight")
    assert len(list(folder.glob("*.json"))) == 13


def test_another_fit_is_refused_before_it_changes_anything(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    paths, folder = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "fits"
    with pytest.raises(FieldloomError, match="every signal failed"):
        fit_files(paths, folder, QUICK)
    row, other = (folder / "00001.json").read_bytes(), replace(QUICK, seed=1)
    with pytest.raises(InputError, match="its seed is '0', not '1'"):
        fit_files(paths, folder, other)
    assert (folder / "00001.json").read_bytes() == row
    for wrong in (0.0, float("nan")):
        with pytest.raises(InputError, match="a number above 0"):
            fit_files(paths, tmp_path / "new", Fit(minutes=wrong))
    assert not (tmp_path / "new").exists()
