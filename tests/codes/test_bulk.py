"""Fitting in bulk: jobs that stop and go on, their shards and manifests."""

import json
import shutil
import signal as system_signals
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fieldloom
import shared
from fieldloom import training as trains
from fieldloom.codes import bulk, jobs, shards
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError
from fieldloom.metrics.losses import bce
from fieldloom.modalities.sources import Source
from fieldloom.renderers import Direct as Plain
from fieldloom.training import train
from fieldloom.types import Data
from fits import tiny

# -- jobs


def a_system(*more: str):
    system = fieldloom.build(tiny(*more))
    generator = torch.Generator().manual_seed(4)
    data = torch.rand(20, 1, 8, 8, generator=generator)
    labels, indices = torch.arange(20) % 3, torch.arange(20)
    return system, Source(Data(data, label=labels), ("a", "b", "c"), indices, indices[:0])


def content(folder: Path) -> dict[str, bytes]:
    """The files of a job; of a row without the seconds that its shard took."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for name in found:
        if name.endswith(".json") and name != "manifest.json":
            row = json.loads(found[name])
            assert row.pop("seconds") is None or row["hash"]  # none in those of older versions
            found[name] = json.dumps(row).encode()
    return found


def rows(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9]*.json"))]


def test_a_job_and_its_manifest(tmp_path):
    system, source = a_system()
    places = torch.randperm(20)[:13]
    found = bulk.encode(system, source, places, tmp_path / "job", shard=5)
    assert set(content(tmp_path / "job")) == {
        "manifest.json",
        *(f"0000{i}.{end}" for i in range(3) for end in ("safetensors", "json")),
    }
    manifest = json.loads((tmp_path / "job" / "manifest.json").read_text())
    assert manifest["job"]["signals"] == 13
    assert manifest["shards"] == []  # as older versions had them
    assert [row["count"] for row in rows(tmp_path / "job")] == [5, 5, 3]
    assert [row["failed"] for row in rows(tmp_path / "job")] == [{}] * 3
    parts = [read_tensors(tmp_path / "job" / f"{i:05d}.safetensors")[0] for i in range(3)]
    assert torch.equal(torch.cat([x["places"] for x in parts]), places)
    assert torch.equal(torch.cat([x["errors"] for x in parts]), found.errors)
    assert torch.equal(found.indices, places)
    for row, place in enumerate(places.tolist()):  # one by one, by hand
        signal = system.modality.encoding(source.data.tensor[place][None])
        signal = replace(signal, index=torch.tensor([place]))
        code = system.encoder(signal, system.family, Plain(), bce)
        torch.testing.assert_close(found.codes[row], code[0], rtol=1e-4, atol=1e-6)
        error = bce(system.family(signal.coords, code), signal.values)[0].detach()
        torch.testing.assert_close(found.errors[row], error, rtol=1e-4, atol=1e-6)
    assert torch.equal(bulk.read(tmp_path / "job").codes, found.codes)


@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_job_goes_on(tmp_path, monkeypatch, torn):
    """The same shards, bit for bit; torn: killed between a shard and its row."""
    system, source = a_system()
    bulk.encode(system, source, source.train, tmp_path / "straight", shard=6)
    plain, done = (jobs.atomic.write_text if torn else bulk.encode_shard), []

    def dies(*rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(rest)
        return plain(*rest)

    with monkeypatch.context() as patch:
        patch.setattr(jobs.atomic if torn else bulk, "write_text" if torn else "encode_shard", dies)
        with pytest.raises(KeyboardInterrupt):
            bulk.encode(system, source, source.train, tmp_path / "job", shard=6)
    assert (tmp_path / "job" / "00002.safetensors").is_file() == torn
    with pytest.raises(InputError, match="not finished"):
        bulk.read(tmp_path / "job")
    spared = (tmp_path / "job" / "00000.safetensors").stat().st_mtime_ns
    again = a_system()[0]
    bulk.encode(again, source, source.train, tmp_path / "job")  # its own size of shards
    assert content(tmp_path / "job") == content(tmp_path / "straight")
    assert (tmp_path / "job" / "00000.safetensors").stat().st_mtime_ns == spared
    bulk.encode(again, source, source.train, tmp_path / "job")  # nothing left to do
    assert content(tmp_path / "job") == content(tmp_path / "straight")


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
import test_bulk as here
system, source = here.a_system()
plain, shards = here.bulk.reconstruction_loss_in_stacks, []

def dies(*rest):
    shards.append(rest)
    if len(shards) == 3:  # in the middle of the third shard: it is fitted, and not yet measured
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*rest)

here.bulk.reconstruction_loss_in_stacks = dies
here.bulk.encode(system, source, source.train, sys.argv[3], shard=6)
"""


PLACES = Path(__file__).parent, Path(shared.__file__).parent  # of this file, and of what it imports


@pytest.mark.slow
def test_a_killed_job_goes_on(tmp_path):
    system, source = a_system()
    bulk.encode(system, source, source.train, tmp_path / "straight", shard=6)
    command = [sys.executable, "-c", KILLED, *PLACES, tmp_path / "job"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -system_signals.SIGKILL, done.stderr
    begun = content(tmp_path / "job")
    whole = {
        "manifest.json",
        *(f"0000{i}.{end}" for i in (0, 1) for end in ("safetensors", "json")),
    }
    assert set(begun) == whole | {".lock", "00002.claim-0"}  # which are taken over
    bulk.encode(system, source, source.train, tmp_path / "job")
    assert content(tmp_path / "job") == content(tmp_path / "straight")


def test_another_job_is_refused(tmp_path):
    system, source = a_system()
    bulk.encode(system, source, source.train, tmp_path / "job")
    other = a_system("seed=5")[0]
    changed = replace(source, data=replace(source.data, values=source.data.tensor.flip(0)))
    for key, own in {
        "system": (other, source, source.train),
        "data": (system, changed, source.train),
        "places": (system, source, source.train.flip(0)),
        "signals": (system, source, source.train[:4]),
    }.items():
        with pytest.raises(InputError, match=f"another job's|another job: its {key}"):
            bulk.encode(*own, tmp_path / "job")
    with pytest.raises(InputError, match="worst"):
        bulk.encode(system, source, source.train, tmp_path / "job", worst=1.0)
    with pytest.raises(InputError, match="no codes"):
        bulk.read(tmp_path)
    bulk.remove(tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_failed_signals_are_told_and_left_out(tmp_path):
    system, source = a_system()
    data = source.data.tensor.clone()
    data[[3, 11]] = float("nan")
    source = replace(source, data=replace(source.data, values=data))
    with pytest.warns(UserWarning, match="2 of 20 signals failed"):
        found = bulk.encode(system, source, source.train, tmp_path / "job", shard=7)
    assert set(found.failed) == {3, 11}
    assert "no finite number" in found.failed[3]
    assert found.indices.tolist() == [x for x in range(20) if x not in (3, 11)]
    assert found.codes.isfinite().all()
    assert [list(row["failed"]) for row in rows(tmp_path / "job")] == [["3"], ["11"], []]
    limit = found.errors.median().item()
    with pytest.warns(UserWarning, match="is above"):
        strict = bulk.encode(system, source, source.train, tmp_path / "strict", worst=limit)
    assert torch.equal(strict.indices, found.indices[found.errors <= limit])
    assert any("is above" in why for why in strict.failed.values())
    with pytest.raises(FieldloomError, match="every signal failed"):
        bulk.encode(system, source, source.train, tmp_path / "none", worst=0.0)


@pytest.mark.parametrize("prior", ["gaussian", "neighbours"])
def test_training_goes_on_without_failed_signals(prior, tmp_path, monkeypatch):
    """A prior learns from the codes that there are, with their labels."""
    plain = bulk.encode_shard

    def spoilt(system, source, places, worst=1e9):
        found = plain(system, source, places)
        good = found.indices != places[1]
        kept = (x[good] for x in found[:3])
        return bulk.EncodedSet(*kept, {int(places[1]): "of this test"})

    monkeypatch.setattr(bulk, "SHARD", (4, 16))
    monkeypatch.setattr(bulk, "encode_shard", spoilt)
    folder = tmp_path / "run"
    with pytest.warns(UserWarning, match="5 of 80 signals failed"):
        train(tiny(f"prior={prior}", "source.split=[80, 10]"), str(folder), device="cpu")
    codes, labels, *_ = Run(folder).read_codes()
    tensors, numbers, _ = read_tensors(folder / "codes.safetensors")
    assert len(codes) == len(labels) == 75
    assert set(tensors) == {"codes", "labels", "places", "errors"}
    source = trains.prepare(Run(folder).read_recipe(), torch.device("cpu"))[1]
    assert torch.equal(labels, source.labels[tensors["places"]])
    assert {int(p) for p in numbers["failed"]} == set(source.train[1::16].tolist())
    assert not (folder / "codes").exists()
    assert fieldloom.load(folder, device="cpu").sample(3).tensor.isfinite().all()


def test_the_start_is_the_fit_of_one_training_signal(tmp_path):
    """One step of Reptile at rate 1: all other signals start where that one ended."""
    spec = tiny(
        "train.field={ steps = 1, batch = 1, optimizer = { name = 'sgd', rate = 1.0 } }",
        "encoder.draw=once",
    ) | {"objective": "reptile"}
    system = train(spec, str(tmp_path / "run"), "field", "cpu")
    fresh = fieldloom.build(Run(tmp_path / "run").read_recipe())
    source = trains.prepare(spec, torch.device("cpu"))[1]
    fits = fresh.encode(source.read(source.train))
    near = (fits - system.family.conditioner.origin(1)).abs().amax((1, 2))
    assert near.min() < 1e-5
    assert near.median() > 1e-3


def test_one_bulk_call_encodes_as_many_small_ones():
    system, source = a_system()
    whole = system.encode(source.data)
    assert [len(x) for x in system.signals(source.data)] == [20]
    torch.testing.assert_close(system.encode(source.data, batch=3), whole, rtol=1e-4, atol=1e-6)
    some = torch.tensor([4, 9])
    few = system.encode(source.read(some))
    torch.testing.assert_close(few, whole[some], rtol=1e-4, atol=1e-6)


# -- jobs of codes


@pytest.fixture(scope="module")
def encoded(tiny_run, tmp_path_factory):
    """A finished job of five shards; tests copy it. Its system, its source, and its codes."""
    system = fieldloom.load(tiny_run)
    source = trains.prepare(Run(tiny_run).read_recipe(), torch.device("cpu"))[1]
    folder = tmp_path_factory.mktemp("jobs") / "encoded"
    found = bulk.encode(system, source, source.train[:80], folder, shard=16)
    return folder, system, source, found.codes


@pytest.fixture
def job(encoded, tmp_path):
    """A finished job of several shards, and what encodes them again."""
    straight, system, source, codes = encoded
    folder = shutil.copytree(straight, tmp_path / "encoded")
    return folder, lambda: bulk.encode(system, source, source.train[:80], folder, shard=16), codes


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


def test_a_manifest_and_rows_lead_nowhere_else(job, tmp_path):
    """Names of files are never read from them: nothing outside is read, written or deleted."""
    folder = job[0]
    victim = tmp_path / "victim.safetensors"
    shutil.copy(folder / "00001.safetensors", victim)
    before = victim.read_bytes()
    for path in (folder / "manifest.json", *folder.glob("[0-9]*.json")):
        found = json.loads(path.read_text()) | {"file": "../../victim.safetensors"}
        if path.name == "manifest.json":
            found["shards"] = [{"count": 16, "failed": {}, "file": "../../victim.safetensors"}] * 5
        path.write_text(json.dumps(found))
    (folder / "00000.claim-0").write_text(
        '{"host": "../..", "process": 1, "birth": "", "since": ""}'
    )
    (folder / "00001.safetensors").unlink()
    (folder / "00002.error").symlink_to(victim)
    with pytest.raises(InputError, match=r"encoded/00001\.safetensors' does not exist"):
        bulk.read(folder)
    (folder / "00000.claim-0").unlink()
    bulk.remove(folder)
    assert victim.read_bytes() == before
    assert not folder.exists()


def as_before(folder: Path) -> None:
    """A job as older versions wrote it: rows in the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"] = [{"count": row["count"], "failed": row["failed"]} for row in rows(folder)]
    del manifest["about"]
    (folder / "manifest.json").write_text(json.dumps(manifest) + "\n")
    for path in folder.glob("[0-9]*.json"):
        path.unlink()


def test_a_job_of_an_older_version_is_read_and_goes_on(tmp_path):
    system, source = a_system()
    found = bulk.encode(system, source, source.train, tmp_path / "job", shard=6)
    before = {x: y for x, y in content(tmp_path / "job").items() if x.endswith("safetensors")}
    as_before(tmp_path / "job")
    assert torch.equal(bulk.read(tmp_path / "job").codes, found.codes)
    manifest = json.loads((tmp_path / "job" / "manifest.json").read_text())
    manifest["shards"] = manifest["shards"][:2]
    (tmp_path / "job" / "manifest.json").write_text(json.dumps(manifest))
    spared = (tmp_path / "job" / "00000.safetensors").stat().st_mtime_ns
    again = bulk.encode(system, source, source.train, tmp_path / "job")
    assert torch.equal(again.codes, found.codes)
    assert before.items() <= content(tmp_path / "job").items()
    assert (tmp_path / "job" / "00000.safetensors").stat().st_mtime_ns == spared
    assert len(rows(tmp_path / "job")) == 4


def test_a_shard_of_another_content_than_its_row_names_is_done_again(tmp_path):
    system, source = a_system()
    found = bulk.encode(system, source, source.train, tmp_path / "job", shard=6)
    straight = content(tmp_path / "job")
    path = tmp_path / "job" / "00001.safetensors"
    tensors, numbers, made_by = read_tensors(path)
    tensors["codes"][0] += 1
    write_tensors(path, tensors, numbers, made_by)  # whole by itself
    with pytest.raises(InputError, match="not the file that its row names"):
        bulk.read(tmp_path / "job")
    with pytest.warns(UserWarning, match="00001.safetensors lost or damaged, done again"):
        again = bulk.encode(system, source, source.train, tmp_path / "job")
    assert torch.equal(again.codes, found.codes)
    assert content(tmp_path / "job") == straight


def test_a_full_disk_is_named_and_loses_nothing(tmp_path, monkeypatch):
    system, source = a_system()
    straight = bulk.encode(system, source, source.train, tmp_path / "straight", shard=6)
    plain = shards.write_tensors

    def full(path, *rest):
        if path.name == "00002.safetensors":
            raise OSError(28, "No space left on device", str(path))
        return plain(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_tensors", full)
        with pytest.raises(OSError, match="No space left"):
            bulk.encode(system, source, source.train, tmp_path / "job", shard=6)
    state = jobs.read_state(tmp_path / "job")
    assert (state.done, state.left, state.codes) == (2, 2, 12)
    assert "the disk is full" in state.failures[2].why
    found = bulk.encode(system, source, source.train, tmp_path / "job")
    assert torch.equal(found.codes, straight.codes)
    assert content(tmp_path / "job") == content(tmp_path / "straight")


@pytest.fixture
def started_as_the_command(own_run, tmp_path):
    """What workers of the run load, and a job of this process."""
    origin = bulk.Origin(str(own_run))
    system, source, places = origin.open()
    found = bulk.encode(system, source, places, tmp_path / "straight", shard=4)
    return origin, (system, source, places), found


@pytest.mark.slow
def test_workers_of_a_run_find_the_same_codes(started_as_the_command, tmp_path):
    origin, opened, straight = started_as_the_command
    again = bulk.encode(
        *opened, tmp_path / "job", shard=4, executor="processes", workers=2, origin=origin,
        shared=True,
    )  # fmt: skip
    assert torch.equal(again.codes, straight.codes)
    found = lambda folder: {x: y for x, y in content(folder).items() if x != "manifest.json"}
    assert found(tmp_path / "job") == found(tmp_path / "straight")
    manifest = json.loads((tmp_path / "job" / "manifest.json").read_text())
    assert manifest["about"] == {"run": origin.run, "source": ""}


def test_executors_say_what_they_need(tmp_path):
    system, source = a_system()
    for name, said in {
        "processes": "'processes': its workers load the system and the data themselves",
        "proceses": "unknown executor 'proceses'; did you mean 'processes'",
    }.items():
        with pytest.raises(InputError, match=said):
            bulk.encode(system, source, source.train, tmp_path / "job", executor=name)
    with pytest.raises(InputError, match="workers = 2: 'local' is one"):
        bulk.encode(system, source, source.train, tmp_path / "job", workers=2)
    with pytest.raises(InputError, match="shard = 0"):
        bulk.encode(system, source, source.train, tmp_path / "job", shard=0)


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
    as_before(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for work in (encode, lambda: bulk.read(folder)):
        with pytest.raises(InputError, match=r"manifest\.json' is damaged: "):
            work()


@pytest.mark.slow
def test_places_of_other_data_are_refused(job):
    """In a shard that says that it is whole, of an older version, whose hash no row names."""
    folder, encode, _ = job
    as_before(folder)
    tensors, numbers, made_by = read_tensors(folder / "00001.safetensors")
    tensors["places"][3] = 1 << 62
    write_tensors(folder / "00001.safetensors", tensors, numbers, made_by)
    with pytest.raises(InputError, match="are damaged: they hold indices of other data"):
        encode()


@pytest.mark.parametrize("worst", [float("nan"), float("-inf")])
def test_a_largest_error_is_a_number(worst, tmp_path):
    system, source = a_system()
    with pytest.raises(InputError, match=r"worst.* is not right: it is a number"):
        bulk.encode(system, source, source.train, tmp_path / "job", worst=worst)
    assert not (tmp_path / "job").exists()
