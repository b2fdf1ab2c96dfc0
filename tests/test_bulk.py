"""Fitting in bulk: stacks against separate fits, jobs that stop and go on, files of fit-a-nef."""

import json
import shutil
import signal as system_signals
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import fieldloom
from commands import command
from fieldloom import recipe
from fieldloom import training as trains
from fieldloom.codes import bulk, nef
from fieldloom.codes.files import read_codes
from fieldloom.conditioners import FlatWeights, Mixture
from fieldloom.encoders import Fit, Plateau, reconstruction_loss_in_stacks, stacks
from fieldloom.encoders.draws import point_sampler, select_signals
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors, write_tensors
from fieldloom.errors import FieldloomError, InputError
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp, Siren
from fieldloom.metrics.losses import bce, mse
from fieldloom.modalities.sources import Source
from fieldloom.objectives import Reconstruction
from fieldloom.renderers import Direct as Plain
from fieldloom.training import train
from fieldloom.types import Batch, Data, Signal

POINTS = 30
HOW = (Plain(), mse)


def family(width=6) -> Family:
    torch.manual_seed(0)
    field = Siren(2, 1, width=width, depth=3, frequency=4.0)
    return Family(field, FlatWeights(field.slots)).double()


def signals(count=5, seed=1) -> Signal:
    """Different scattered points of each signal; their values are of different size."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.rand(count, POINTS, 2, generator=generator, dtype=torch.float64) * 2 - 1
    values = torch.randn(count, POINTS, 1, generator=generator, dtype=torch.float64)
    size = torch.linspace(0.1, 2, count, dtype=torch.float64)[:, None, None]
    return Signal(coords, size * values, 7 + torch.arange(count))


def alone(fit: Fit, family: Family, signal: Signal) -> torch.Tensor:
    """A fit of one signal as it is commonly written: torch's Adam and ReduceLROnPlateau."""
    code = nn.Parameter(family.conditioner.origin(1).detach().clone())
    adam = torch.optim.AdamW([code], fit.rate, weight_decay=fit.weight_decay)
    anew = fit.draw == "anew" and fit.points is not None
    seen = point_sampler(signal, fit.points or POINTS, fit.seed)
    a_pass = POINTS // fit.points if anew else 1
    how = fit.plateau
    if how is not None:
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            adam, "min", how.factor, how.patience, how.threshold, min_lr=how.least
        )
    met, record, stale = [], float("inf"), 0
    for step in range(fit.steps):
        adam.zero_grad()
        batch = seen(step)
        loss = (family(batch.coords, code) - batch.values).square().mean()
        loss.backward()
        adam.step()
        met.append(loss.item())
        if how is not None and (step + 1) % a_pass == 0:
            mean = sum(met[-a_pass:]) / a_pass
            scheduler.step(mean)
            record, stale = min(record, mean), 0 if mean < record else stale + 1
            if how.stop is not None and stale >= how.stop:
                break
    return code.detach()


BRISK = Plateau(patience=1, factor=0.5, threshold=0.02, least=1e-3)
CASES = {
    "plain": dict(),
    "decay": dict(weight_decay=0.1),
    "anew": dict(points=7, draw="anew"),
    "plateau": dict(plateau=BRISK, rate=0.3),
    "stop": dict(plateau=replace(BRISK, stop=3), rate=0.3),
    "all": dict(plateau=replace(BRISK, stop=4), rate=0.2, points=10, draw="anew", weight_decay=0.1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stack_is_its_separate_fits(case, monkeypatch):
    signal, own = signals(), family()
    fit = Fit(**{"steps": 60, "rate": 0.02, "keep": "last"} | CASES[case])
    together = fit(signal, own, *HOW)
    separate = torch.cat([alone(fit, own, signal.part(slice(i, i + 1))) for i in range(5)])
    close = dict(rtol=1e-5, atol=1e-7)  # 60 steps: a product's rounding grows
    torch.testing.assert_close(together, separate, **close)
    # whatever the company and the order, and in stacks of two
    order = torch.tensor([3, 0, 4, 2])
    part = Signal(signal.coords[order], signal.values[order], signal.index[order])
    monkeypatch.setattr(stacks, "CPU_LAYER", 2 * 4 * 6 * (fit.points or POINTS))
    torch.testing.assert_close(fit(part, own, *HOW), together[order], **close)


def test_the_best_of_random_draws_is_measured_on_all_points():
    signal, own = signals(), family()
    begun = reconstruction_loss_in_stacks(own.conditioner.origin(5), signal, own, *HOW)
    wild = dict(steps=40, rate=1.0, points=7, draw="anew")  # far too large a rate
    best, last = (Fit(**wild, keep=keep)(signal, own, *HOW) for keep in ("best", "last"))
    assert (reconstruction_loss_in_stacks(best, signal, own, *HOW) <= begun).all()
    assert (reconstruction_loss_in_stacks(last, signal, own, *HOW) > begun).any()


def test_the_plateau_is_torchs():
    """Any sequence of errors, no number among them, gives torch's rates."""
    generator = torch.Generator().manual_seed(3)
    sequence = torch.rand(80, generator=generator).tolist()
    sequence[5:5], sequence[40] = [float("nan")] * 3, 0.0
    for how in (Plateau(), Plateau(2, 0.8, 0.0, 1e-5), Plateau(0, 0.5, 0.2, 0.01)):
        adam = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.3)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            adam, "min", how.factor, how.patience, how.threshold, min_lr=how.least
        )
        stack = stacks.Stack.begin(torch.zeros(2, 1, 1, dtype=torch.float64), 0.3)
        for error in sequence:
            scheduler.step(error)
            stack.lower_rates(torch.tensor([error, 1.0], dtype=torch.float64), how)
            assert stack.rate[0].item() == pytest.approx(adam.param_groups[0]["lr"], rel=1e-12)
        assert stack.rate[0] < 0.3


def test_what_has_stopped_is_left_out():
    """Fields without any error stop at once; the arithmetic is then that of the others."""
    signal, own = signals(8), family()
    still = own(signal.coords, own.conditioner.origin(8)).detach()
    easy = torch.arange(8) < 5
    signal = replace(signal, values=torch.where(easy[:, None, None], still, signal.values))
    sizes = []

    class Counting(Plain):
        def __call__(self, function, coords, generator=None):
            sizes.append(len(coords))
            return super().__call__(function, coords, generator)

    fit = Fit(20, 1e-3, keep="last", plateau=Plateau(stop=2))
    code = fit(signal, own, Counting(), mse)
    assert set(sizes) == {8, 3}
    assert sizes.count(8) == 3  # 0, and twice not below it
    rest = fit(select_signals(signal, ~easy), own, *HOW)
    torch.testing.assert_close(code[~easy], rest, rtol=1e-9, atol=1e-12)
    sizes.clear()
    fit(select_signals(signal, easy), own, Counting(), mse)
    assert len(sizes) == 3  # nothing goes on


def test_one_bad_signal_spoils_no_other():
    signal, own = signals(), family()
    values = signal.values.clone()
    values[2, 4] = float("nan")
    fit = Fit(10, 0.02, keep="last", plateau=BRISK)
    spoilt, right = (fit(replace(signal, values=v), own, *HOW) for v in (values, signal.values))
    assert spoilt[2].isnan().all()
    others = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(spoilt[others], right[others])


def test_draws():
    """Of known points alone, alike for a place and a step, unlike otherwise, all equally often."""
    signal = signals(3)
    mask = torch.rand(3, POINTS, generator=torch.Generator().manual_seed(0)) < 0.5
    signal = signal.hide(mask)
    seen = point_sampler(signal, 8, seed=0)
    first, second = seen(0), seen(1)
    assert first.coords.shape == (3, 8, 2)
    assert first.mask is None
    same = lambda a, b: bool((a.coords == b.coords).all())
    assert same(first, seen(0))
    assert not same(first, second)
    assert not same(first, point_sampler(signal, 8, seed=1)(0))
    assert same(first.part(slice(1, 2)), point_sampler(signal.part(slice(1, 2)), 8, seed=0)(0))
    found = (first.coords[:, :, None] == signal.coords[:, None]).all(-1)  # (3, 8, POINTS)
    assert found.any(-1).all()
    assert (found & mask[:, None]).sum() == found.sum()
    values = (found[..., None] * signal.values[:, None]).sum(2)
    torch.testing.assert_close(values, first.values)

    few, many = signals(2), 4000
    counted = torch.zeros(2, POINTS)
    for step in range(many // 20):
        drawn = point_sampler(few, 20, seed=5)(step)
        counted += (drawn.coords[:, :, None] == few.coords[:, None]).all(-1).sum(1)
    expected = many / POINTS
    chi = ((counted - expected).square() / expected).sum(1)
    assert (chi < 70).all()  # 29 degrees of freedom: beyond it once in 30,000
    with pytest.raises(InputError, match="known"):
        point_sampler(signal.hide(torch.zeros_like(mask)), 8, seed=0)


def test_signals_on_one_grid_share_it():
    signal = signals(4)
    grid = replace(signal, coords=signal.coords[:1].expand(4, -1, -1))
    whole = replace(grid, coords=grid.coords.contiguous())
    for step in (0, 3):
        one, other = (point_sampler(x, 9, 0)(step) for x in (grid, whole))
        assert torch.equal(one.coords, other.coords)
        assert torch.equal(one.values, other.values)
    rows = torch.tensor([True, False, True, True])
    assert select_signals(grid, rows).coords.stride(0) == 0
    assert torch.equal(select_signals(grid, rows).values, grid.values[rows])


def test_random_origins():
    """Each place its own draw of the field, the same in any batch."""
    signal, own = signals(3), family()
    fit = Fit(0, origin="random")
    begun = fit(signal, own, *HOW)
    assert begun[0].ne(begun[1]).any()
    assert torch.equal(fit(signal.part(slice(2, 3)), own, *HOW), begun[2:])
    assert begun[0].ne(Fit(0, origin="random", seed=1)(signal, own, *HOW)[0]).any()
    bound = own.field.slots["1.weight"].init(None).abs().max() * 1.5  # of a uniform draw
    assert begun.abs().max() < max(1.0, bound)
    assert torch.equal(Fit(0)(signal, own, *HOW), own.conditioner.origin(3))
    mixture = Family(own.field, Mixture(own.field.slots, experts=2, width=3))
    with pytest.raises(InputError, match="flat-weights"):
        fit(signal, mixture, *HOW)
    with pytest.raises(InputError, match="start"):
        Fit(origin="random", start=Fit())


@pytest.mark.parametrize("wrong", [dict(factor=1.0), dict(patience=-1), dict(stop=0)])
def test_wrong_plateaus(wrong):
    with pytest.raises(InputError, match="plateau"):
        Plateau(**wrong)


def test_training_a_fit_trains_its_start():
    """Reconstruction moves the origin towards what explains the signals by itself."""
    own, signal = family(), signals(2)
    objective = Reconstruction(own, Fit(5), *HOW)
    loss, _ = objective.loss("field", Batch(signal, signal))
    loss.backward()
    plain = reconstruction_loss_in_stacks(own.conditioner.origin(2), signal, own, *HOW).mean()
    torch.testing.assert_close(loss.detach(), plain)
    assert own.conditioner.start.grad.abs().max() > 0


# -- jobs

TINY = [
    "source={ name = 'digits', split = [40, 10] }",
    "modality={ name = 'image', size = 8, channels = 1, range = 'unit' }",
    "field={ name = 'fourier-mlp', width = 8, depth = 3, features = 'octaves', count = 2 }",
    "conditioner=flat-weights",
    "encoder={ name = 'fit', steps = 6, points = 16, draw = 'anew', keep = 'last' }",
    "loss=bce",
    "train.field.steps=1",
]


def tiny(*more: str) -> recipe.Recipe:
    own = recipe.load("learned-init:tiny", [*TINY, *more])
    own["train"]["field"].pop("points")  # training sees all of them
    return {key: value for key, value in own.items() if key != "objective"}


def a_system(*more: str):
    system = fieldloom.build(tiny(*more))
    generator = torch.Generator().manual_seed(4)
    data = torch.rand(20, 1, 8, 8, generator=generator)
    labels, indices = torch.arange(20) % 3, torch.arange(20)
    return system, Source(Data(data, label=labels), ("a", "b", "c"), indices, indices[:0])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_job_and_its_manifest(tmp_path):
    system, source = a_system()
    places = torch.randperm(20)[:13]
    found = bulk.encode(system, source, places, tmp_path / "job", shard=5)
    assert set(content(tmp_path / "job")) == {
        "manifest.json", "00000.safetensors", "00001.safetensors", "00002.safetensors"
    }  # fmt: skip
    manifest = json.loads((tmp_path / "job" / "manifest.json").read_text())
    assert manifest["job"]["signals"] == 13
    assert manifest["shards"] == [  # what is of each signal stands in the shards alone
        {"count": count, "failed": {}} for count in (5, 5, 3)
    ]
    shards = [read_tensors(tmp_path / "job" / f"{i:05d}.safetensors")[0] for i in range(3)]
    assert torch.equal(torch.cat([x["places"] for x in shards]), places)
    assert torch.equal(torch.cat([x["errors"] for x in shards]), found.errors)
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
    """The same shards, bit for bit; torn: killed between a shard and its line of the manifest."""
    system, source = a_system()
    bulk.encode(system, source, source.train, tmp_path / "straight", shard=6)
    plain, done = (bulk.atomic.write_text if torn else bulk.encode_shard), []

    def dies(*rest):
        if len(done) == (3 if torn else 2):  # the manifest is written once before any shard
            raise KeyboardInterrupt
        done.append(rest)
        return plain(*rest)

    with monkeypatch.context() as patch:
        patch.setattr(bulk.atomic if torn else bulk, "write_text" if torn else "encode_shard", dies)
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
sys.path.insert(0, sys.argv[1])
import test_bulk as here
system, source = here.a_system()
plain, shards = here.bulk.reconstruction_loss_in_stacks, []

def dies(*rest):
    shards.append(rest)
    if len(shards) == 3:  # in the middle of the third shard: it is fitted, and not yet measured
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*rest)

here.bulk.reconstruction_loss_in_stacks = dies
here.bulk.encode(system, source, source.train, sys.argv[2], shard=6)
"""


@pytest.mark.slow
def test_a_killed_job_goes_on(tmp_path):
    system, source = a_system()
    bulk.encode(system, source, source.train, tmp_path / "straight", shard=6)
    command = [sys.executable, "-c", KILLED, Path(__file__).parent, tmp_path / "job"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -system_signals.SIGKILL, done.stderr
    begun = content(tmp_path / "job")
    whole = {"manifest.json", "00000.safetensors", "00001.safetensors"}
    assert set(begun) == whole | {".lock"}  # which is taken over
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
    manifest = json.loads((tmp_path / "job" / "manifest.json").read_text())
    assert [list(x["failed"]) for x in manifest["shards"]] == [["3"], ["11"], []]
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


# -- the command line and HDF5


@pytest.fixture(scope="module")
def fitted_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bulk") / "run"
    train(tiny(), str(folder), "field", "cpu")
    return folder


def test_encode(fitted_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(fitted_run, run)
    assert "10 codes of (1, " in command("encode", run, "--device", "cpu").stdout
    found = bulk.read(run / "encoded")
    command("encode", run, "--out", tmp_path / "c.st", "--device", "cpu")
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


def test_hdf5_from_the_command_line(fitted_run, tmp_path):
    pytest.importorskip("h5py")
    for how in ((tmp_path / "a.hdf5",), (tmp_path / "b", "--format", "hdf5")):
        command("encode", fitted_run, "--device", "cpu", "--out", *how)
    system = fieldloom.load(fitted_run, device="cpu")
    codes, beside = nef.read(tmp_path / "a.hdf5", system.family)
    assert codes.shape == (10, *system.family.code_shape)
    assert {"labels", "places", "errors"} == set(beside)
    assert torch.equal(nef.read(tmp_path / "b.hdf5", system.family)[0], codes)


def test_codes_are_decoded_from_every_format(fitted_run, tmp_path):
    pytest.importorskip("h5py")
    system = fieldloom.load(fitted_run, device="cpu")
    for name in ("shards", "a.safetensors", "a.hdf5"):
        command("encode", fitted_run, "--out", tmp_path / name, "--device", "cpu")
        out = tmp_path / f"from {name}"
        done = command("decode", fitted_run, tmp_path / name, "--count", 3, "--out", out)
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


@pytest.mark.parametrize("name", ["siren", "mlp"])
def test_hdf5_layout(tmp_path, name):
    """As fit-a-nef writes it: read by hand; and back."""
    h5py = pytest.importorskip("h5py")
    if name == "siren":
        field = Siren(2, 3, width=4, depth=3)
        theirs = ["kernel_net_0.linear", "kernel_net_1.linear", "output_linear"]
    else:
        field = FourierMlp(2, 3, width=4, depth=3, encoding=Fourier("none"))
        theirs = ["Dense_0", "Dense_1", "Dense_2"]
    own = Family(field, FlatWeights(field.slots, width=7))  # tokens, the last one padded
    codes = own.conditioner.pack({n: torch.randn(6, *s.shape) for n, s in field.slots.items()})
    path = nef.write(tmp_path / "nefs_0-6.hdf5", own, codes, {"labels": torch.arange(6)})
    with h5py.File(path) as file:
        told = json.loads(file["param_config"][0].decode())
        params, labels = file["params"][:], file["labels"][:]
    assert [n for n, _ in told] == [f"{x}.{y}" for x in theirs for y in ("bias", "kernel")]
    assert [tuple(s) for _, s in told] == [(4,), (2, 4), (4,), (4, 4), (3,), (4, 3)]
    assert params.dtype == "float32"
    assert params.shape == (6, 12 + 20 + 15)
    weights = own.conditioner(codes)
    assert (params[:, :4] == weights["0.bias"].detach().numpy()).all()
    assert (params[:, 4:12] == weights["0.weight"].detach().flatten(1).numpy()).all()
    assert (labels == range(6)).all()
    back, beside = nef.read(path, own)
    assert torch.equal(back, codes)
    assert torch.equal(beside["labels"], torch.arange(6))
    other = Siren(2, 3, width=5, depth=3)
    with pytest.raises(InputError, match="other fields"):
        nef.read(path, Family(other, FlatWeights(other.slots)))
    with h5py.File(path, "r+") as file:  # whatever else may stand in such a file
        file["a number"], file["a string"] = 3, "said"
        file["strings"], file["too few"] = ["x"] * 6, [1, 2]
        file["one row a field"] = labels.astype(">i4")
        file.create_group("a group")["labels"] = labels
    back, beside = nef.read(path, own)
    assert torch.equal(back, codes)
    assert set(beside) == {"labels", "one row a field"}
    assert torch.equal(beside["one row a field"], torch.arange(6, dtype=torch.int32))
    for wrong, match in ((params[:, :-1], "46 numbers a field"), (params[0], "no matrix")):
        with h5py.File(path, "r+") as file:
            del file["params"]
            file["params"] = wrong
        with pytest.raises(InputError, match=match):
            nef.read(path, own)
    (tmp_path / "bad.hdf5").write_bytes(b"no")
    with pytest.raises(InputError, match="no HDF5 file"):
        nef.read(tmp_path / "bad.hdf5", own)
    for only in (
        FlatWeights(field.slots, only="*.weight"),
        Mixture(field.slots, experts=2, width=3),
    ):
        with pytest.raises(InputError, match="HDF5 of fields"):
            nef.write(path, Family(field, only), codes, {})
