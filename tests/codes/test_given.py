"""Trainings that begin with codes: of a run that had more data, and of other programs."""

import numpy as np
import pytest
import torch

import fieldloom
import shared
from fieldloom import training as trains
from fieldloom.codes import nef
from fieldloom.codes.files import encode_into, open_codes
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.inputs import source_of
from fieldloom.types import Data
from refusals import npz, refused

QUICK = {
    "source": {"split": [64, 16]},
    "train": {"field": {"steps": 2}, "prior": {"steps": 4, "save_every": 2}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose field is trained, and what it encoded: 60 of all its data, in shards of 7."""
    folder = tmp_path_factory.mktemp("given") / "run"
    system = fieldloom.train("functa:tiny", folder, stage="field", **QUICK)
    source = source_of(system, quiet=True)
    encode_into(system, source, torch.arange(60), folder.parent / "codes", shard=7)
    encode_into(system, source, torch.arange(60), folder.parent / "one.safetensors")
    return folder


def prior_of(folder) -> dict[str, torch.Tensor]:
    return {n: x for n, x in Run(folder).read_weights()[0].items() if n.startswith("prior")}


@pytest.mark.parametrize("name", ["codes", "one.safetensors"])
def test_a_prior_on_what_a_run_encoded(run, tmp_path, name):
    found = run.parent / name
    fieldloom.train("functa:tiny", tmp_path / "a", fields=run, codes=found, **QUICK)
    held = Run(tmp_path / "a").read_codes()
    assert torch.equal(held.codes, open_codes(found)[:])
    assert held.labels is not None
    assert torch.equal(held.labels, open_codes(found).read(slice(None), "labels"))
    assert len(fieldloom.load(tmp_path / "a").sample(2)) == 2


def test_large_codes_stay_in_their_files(run, tmp_path, monkeypatch):
    given = {"fields": run, "codes": run.parent / "codes"} | QUICK
    fieldloom.train("functa:tiny", tmp_path / "memory", **given)
    monkeypatch.setattr(trains, "IN_MEMORY", 0)
    system = fieldloom.train("functa:tiny", tmp_path / "files", **given)
    assert not (tmp_path / "files" / "codes.safetensors").exists()
    memory, files = prior_of(tmp_path / "memory"), prior_of(tmp_path / "files")
    for key, value in memory.items():  # but for the codec's rounding, which Adam's first steps show
        gap = (files[key].double() - value).abs().mean() / (value.double().std() + 1e-8)
        assert value.ndim == 0 or float(gap) < (1e-5 if "codec" in key else 0.05), key
    known, labels = trains.lock_and_find_codes(system, source_of(system, quiet=True),
                                               Run(tmp_path / "files"))  # fmt: skip
    assert torch.equal(known, open_codes(run.parent / "codes")[:])
    assert labels is not None


def test_large_codes_when_training_goes_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(trains, "IN_MEMORY", 0)
    given = {"fields": run, "codes": run.parent / "codes"} | QUICK
    fieldloom.train("functa:tiny", tmp_path / "straight", **given)
    fieldloom.train("functa:tiny", tmp_path / "run", stage="codec", **given)
    (run.parent / "codes").rename(run.parent / "elsewhere")
    try:
        refused("no longer there", fieldloom.train, None, tmp_path / "run", resume=True)
    finally:
        (run.parent / "elsewhere").rename(run.parent / "codes")
    fieldloom.train(None, tmp_path / "run", resume=True)
    straight, ours = prior_of(tmp_path / "straight"), prior_of(tmp_path / "run")
    assert all(torch.equal(ours[key], x) for key, x in straight.items())
    told = Run(tmp_path / "run").read_environment()["codes"]
    assert told["count"] == 60
    system = fieldloom.load(tmp_path / "run")
    refused("are others than", trains.reopen, told | {"count": 59}, system)


def test_codes_that_do_not_fit(run, tmp_path):
    train = lambda **given: fieldloom.train("functa:tiny", tmp_path / "new", **given | QUICK)
    codes = run.parent / "codes"
    refused("codes needs fields", train, codes=codes)
    refused("codes needs fields", train, fields=codes, codes=codes)
    refused("are no fields without the weights", train, fields=codes)
    other = fieldloom.train("functa:tiny", tmp_path / "other", stage="field", seed=7, **QUICK)
    assert other.finished == ["field"]
    refused("found with other weights", train, fields=tmp_path / "other", codes=codes)
    with pytest.raises(InputError, match="nowhere' is not a run"):
        train(fields=tmp_path / "nowhere")
    refused("does not exist", train, fields=run, codes=tmp_path / "nowhere")
    assert not (tmp_path / "new" / "recipe.toml").exists()


# -- other programs

SIREN = {
    "field": {"name": "siren", "width": 6, "depth": 3, "frequency": 8.0},
    "modality": {"coords": {"place": "corner", "low": -1.0, "high": 1.0, "order": "reversed"},
                 "range": (-0.1307 / 0.3081, (1 - 0.1307) / 0.3081)},
    "encoder": {"name": "fit", "steps": 2},
}  # fmt: skip


def flax_siren(params: dict[str, np.ndarray], coords: np.ndarray, omega: float) -> np.ndarray:
    """fit-a-nef's SIREN by hand: sin(omega (x W + b)) in hidden layers, a linear last one."""
    for i in range(2):
        kernel = f"kernel_net_{i}.linear"
        coords = np.sin(omega * (coords @ params[f"{kernel}.kernel"] + params[f"{kernel}.bias"]))
    return coords @ params["output_linear.kernel"] + params["output_linear.bias"]


def test_fields_of_fit_a_nef_show_their_pictures(tmp_path):
    """Their grid is (x, y) with corners at -1 and 1, their values less the mean, by the std."""
    h5py = pytest.importorskip("h5py", reason="the extra 'hdf5' is not installed")
    generator = np.random.default_rng(0)
    shapes = {f"kernel_net_{i}.linear.{n}": s for i, w in enumerate((2, 6))
              for n, s in (("bias", (6,)), ("kernel", (w, 6)))}  # fmt: skip
    shapes |= {"output_linear.bias": (1,), "output_linear.kernel": (6, 1)}
    fields = [{n: 0.3 * generator.normal(size=s) for n, s in shapes.items()} for _ in range(70)]
    with h5py.File(tmp_path / "nefs_0-70.hdf5", "w") as file:
        flat = [np.concatenate([x.ravel() for x in one.values()]) for one in fields]
        file["params"] = np.stack(flat).astype("f4")
        config = file.create_dataset("param_config", (1,), h5py.string_dtype())
        config[0] = str([[n, list(s)] for n, s in shapes.items()]).replace("'", '"')
        file["labels"] = np.arange(70) % 10
    given = {"fields": tmp_path / "nefs_0-70.hdf5"} | QUICK | SIREN
    system = fieldloom.train("hyperdiffusion:tiny", tmp_path / "run", **given)
    held = Run(tmp_path / "run").read_codes(system)
    assert torch.equal(held.labels, torch.arange(70) % 10)
    axis = np.linspace(-1, 1, 8)
    x, y = np.meshgrid(axis, axis, indexing="xy")  # rows of the picture are y
    for i in (0, 69):
        found = flax_siren(fields[i], np.stack([x, y], -1), 8.0)[..., 0] * 0.3081 + 0.1307
        values = system.predict(held.codes[i : i + 1]).tensor
        assert np.allclose(values[0, 0].numpy(), found, atol=1e-5)
    assert len(system.sample(2)) == 2
    refused("holds other fields than this run's", fieldloom.train, "hyperdiffusion:tiny",
            tmp_path / "b", **given | {"field": {**SIREN["field"], "width": 7}})  # fmt: skip


FUNCTA = {
    "field": {"width": 16, "depth": 5},
    "conditioner": {"width": 12},
    "encoder": {"steps": 3},
    "modality": {"channels": 3},
}


def functa_arrays() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters of the official code by its names, and its other vectors."""
    with np.load(shared.shared("vectors", "functa_official_jax.npz")) as file:
        whole = dict(file)
    params = {n.removeprefix("param:"): x for n, x in whole.items() if n.startswith("param:")}
    return params, whole


def test_functa_shows_the_pictures_of_the_official_code(tmp_path):
    """Decoded at the official codes, the losses are those that the official code found."""
    params, official = functa_arrays()
    codes = official["latent_after3"]
    many = np.concatenate([codes, np.random.default_rng(0).normal(size=(61, 12))])
    npz(tmp_path / "functa.npz", modulation=many, psnr=np.full(64, 20.0), **params)
    rgb = np.random.default_rng(1).random((20, 8, 8, 3))
    np.savez(tmp_path / "data.npz", images=rgb)
    given = QUICK | FUNCTA | {"source": {"name": "array", "path": str(tmp_path / "data.npz"),
                                         "split": [0.8, 0.2]}}  # fmt: skip
    system = fieldloom.train(
        "functa:tiny", tmp_path / "run", fields=tmp_path / "functa.npz", **given
    )
    held = Run(tmp_path / "run").read_codes(system)
    assert np.allclose(held.extras["errors"], 0.01)
    values = system.predict(held.codes[:3]).tensor.numpy()
    target = official["target"].transpose(0, 3, 1, 2)
    losses = ((values - target) ** 2).mean((1, 2, 3))
    assert np.allclose(losses, official["loss_after3"], rtol=1e-4)
    assert len(fieldloom.load(tmp_path / "run").sample(2)) == 2
    found = system.encode(Data(torch.from_numpy(target).float()))  # by its learned rates
    assert np.allclose(found[:, 0].numpy(), codes, atol=2e-3)


def test_functa_files_that_do_not_fit(tmp_path):
    params, official = functa_arrays()
    codes, system = official["latent_after3"], fieldloom.build("functa:tiny", **FUNCTA)
    take = lambda name, **arrays: trains.open_given(system, npz(tmp_path / name, **arrays), None)
    refused("has no parameters of functa's network", take, "a.npz", modulation=codes)
    refused("has no array 'modulation'", take, "b.npz", **params)
    refused("must be one for each of 3", take, "c.npz", modulation=codes, psnr=[1.0], **params)
    hidden = {n.replace("linear_0", "linear_1"): x for n, x in params.items()}
    refused("has hidden layers", take, "d.npz", modulation=codes, **hidden)
    wide = params | {next(n for n in params if n.endswith("layer/linear/w")): np.ones((3, 16))}
    refused("weight' is .1, 3, 16., not .1, 2, 16.", take, "e.npz", modulation=codes, **wide)
    (tmp_path / "f.npz").write_bytes(b"\x80\x04\x95")
    refused("is a pickle, which can run code", trains.open_given, system, tmp_path / "f.npz", None)
    other = fieldloom.build(
        "functa:tiny", **FUNCTA | {"modality": {"channels": 3, "range": "signed"}}
    )
    refused("pixel centres in .0, 1.", trains.open_given, other, tmp_path / "e.npz", None)
    mixture = fieldloom.build("mnif:tiny")
    refused("need field 'siren'", trains.open_given, mixture, tmp_path / "e.npz", None)
    with pytest.raises(InputError, match="hdf5|HDF5"):
        nef.open_fields(tmp_path / "e.npz", mixture.family)
