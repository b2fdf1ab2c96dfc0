"""encode and decode from the command line."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom import recipe
from fieldloom.codes import bulk, nef
from fieldloom.codes.files import read_codes
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import InputError
from fieldloom.training import train
from fits import tiny

# -- the command line and HDF5


@pytest.fixture(scope="module")
def fitted_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bulk") / "run"
    train(tiny(), str(folder), "field", "cpu")
    return folder


def test_encode(cli, fitted_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(fitted_run, run)
    assert "10 codes of 1 x " in cli("encode", run, "--device", "cpu").stdout
    found = bulk.read(run / "encoded")
    cli("encode", run, "--out", tmp_path / "c.st", "--device", "cpu")
    tensors, numbers, _ = read_tensors(tmp_path / "c.st")
    assert torch.equal(tensors["codes"], found.codes)
    assert torch.equal(tensors["places"], found.indices)
    assert numbers == {"failed": {}}
    assert {x.name for x in tmp_path.iterdir()} == {"run", "c.st"}
    system = fieldloom.load(run, device="cpu")
    source = fieldloom.assembly.open_source(system.recipe, system.modality)
    assert torch.equal(tensors["labels"], source.labels[source.test])
    codes = system.encode(source.read(source.test))
    torch.testing.assert_close(codes, found.codes)


def test_hdf5_from_the_command_line(cli, fitted_run, tmp_path):
    pytest.importorskip("h5py")
    for how in ((tmp_path / "a.hdf5",), (tmp_path / "b", "--format", "hdf5")):
        cli("encode", fitted_run, "--device", "cpu", "--out", *how)
    system = fieldloom.load(fitted_run, device="cpu")
    codes, beside = nef.read(tmp_path / "a.hdf5", system.family)
    assert codes.shape == (10, *system.family.code_shape)
    assert {"labels", "places", "errors"} == set(beside)
    assert torch.equal(nef.read(tmp_path / "b.hdf5", system.family)[0], codes)


def test_codes_are_decoded_from_every_format(cli, fitted_run, tmp_path):
    pytest.importorskip("h5py")
    system = fieldloom.load(fitted_run, device="cpu")
    for name in ("shards", "a.safetensors", "a.hdf5"):
        cli("encode", fitted_run, "--out", tmp_path / name, "--device", "cpu")
        out = tmp_path / f"from {name}"
        done = cli("decode", fitted_run, tmp_path / name, "--count", 3, "--out", out)
        assert "3 of 10 codes" in done.stdout
        assert len(list(out.glob("*.png"))) == 3
    codes = bulk.read(tmp_path / "shards").codes
    same = [read_codes(tmp_path / name, system) for name in ("a.safetensors", "a.hdf5")]
    assert all(torch.equal(x, codes) for x in same)
    other = tmp_path / "other.safetensors"
    for tensors, match in [
        ({"weights": codes}, "holds no codes: it has weights"),
        ({"codes": codes[:, :, 1:]}, "this run's are"),
        ({"codes": codes.long()}, "codes are floating-point"),
    ]:
        write_tensors(other, tensors, {})
        with pytest.raises(InputError, match=match):
            read_codes(other, system)
    write_tensors(other, {"codes": codes.double()}, {})
    assert torch.equal(read_codes(other, system), codes)
    with pytest.raises(InputError, match="does not exist"):
        read_codes(tmp_path / "none.st", system)


# -- what kills and errors leave


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
def test_odd_arguments(cli, case, own_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    Image.new("L", (8, 8), 99).save(tmp_path / "data" / "a.png")
    words, said = ODD[case]
    places = {"RUN": str(own_run), "DATA": "data"}
    words = [str(word).replace("RUN", places["RUN"]).replace("DATA", "data") for word in words]
    before = {x.name for x in own_run.iterdir()}
    status, told = cli.answer(*words)
    assert status == 2, told
    assert said in told
    assert before == {x.name for x in own_run.iterdir()}
    assert {x.name for x in tmp_path.iterdir()} == {"run", "data"}


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_encode_stopped_in_its_first_shard_goes_on(cli, own_run, tmp_path, monkeypatch, name):
    out = tmp_path / name
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "encode_shard", lambda *rest: (_ for _ in ()).throw(SystemExit(7)))
        assert cli.answer("encode", own_run, "--out", out)[0] == 7
    shards = out if name == "out" else tmp_path / f"{name}.shards"
    (shards / ".lock").write_text("")  # as kill -9 leaves it
    status, said = cli.answer("encode", own_run, "--out", out)
    assert status == 0, said
    assert out.exists()


@pytest.mark.slow
def test_codes_of_another_run_are_not_decoded(cli, own_run, tmp_path):
    other = tmp_path / "other"
    train(recipe.load("mnif:tiny", ["seed=3"]), str(other))
    assert cli.answer("encode", other, "--out", tmp_path / "one.safetensors")[0] == 0
    assert cli.answer("encode", other)[0] == 0
    for codes in (tmp_path / "one.safetensors", other / "encoded", other / "codes.safetensors"):
        status, said = cli.answer("decode", own_run, codes, "--count", 1)
        assert status == 2, codes
        assert "were found with other weights than this run's" in said
        assert cli.answer("decode", other, codes, "--count", 1)[0] == 0


def test_encode_that_goes_on_replaces_no_file_of_others(cli, own_run, tmp_path, monkeypatch):
    out = tmp_path / "codes.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "read", lambda *rest: (_ for _ in ()).throw(SystemExit(7)))
        assert cli.answer("encode", own_run, "--out", out)[0] == 7
    assert (tmp_path / "codes.safetensors.shards" / "manifest.json").is_file()
    out.write_text("mine")
    status, said = cli.answer("encode", own_run, "--out", out)
    assert status == 2
    assert "is there already" in said
    assert out.read_text() == "mine"
    out.unlink()
    assert cli.answer("encode", own_run, "--out", out)[0] == 0
    assert out.is_file()


def test_one_datum_has_no_other_to_go_to(cli, fitted_run, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    result = cli("interpolate", fitted_run, "--source", tmp_path / "one.png", status=2)
    assert "there is one datum alone, and interpolate goes from one to another." in result.stderr
