"""A run of before a part and its argument were renamed: it loads, goes on, and is checked."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fieldloom
from fieldloom import aliases, recipe
from fieldloom.assembly import open_source
from fieldloom.codes import bulk
from fieldloom.codes.files import read_codes
from fieldloom.conditioners import CONDITIONERS, Mixture
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors
from fieldloom.errors import InputError
from fieldloom.training import train

TINY = ["source.split=[64, 16]", "train.field.steps=8", "train.prior.steps=8",
        "train.field.save_every=2", "train.prior.save_every=2"]  # fmt: skip


class Blend(Mixture):
    """``mixture`` and its ``experts`` as a later version might call them."""

    def __init__(
        self, slots, components: int = 64, width: int = 64, coefficients: str = "latent"
    ) -> None:
        super().__init__(slots, components, width, coefficients)


def rename(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(CONDITIONERS, "blend", Blend)
    patch.delitem(CONDITIONERS, "mixture")
    patch.setattr(aliases, "NAMES", {"conditioner": {"mixture": "blend"}})
    patch.setattr(aliases, "KEYS", {"conditioner[blend].experts": "conditioner.components"})


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run on few digits that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(recipe.load("mnif:tiny", TINY), str(folder))
    return folder


def killed(patch: pytest.MonkeyPatch, place: object, name: str, times: int) -> None:
    """Let the program end when a function has been called so many times."""
    true: Callable = getattr(place, name)
    calls = []

    def counted(*arguments, **options):
        calls.append(name)
        if len(calls) > times:
            raise SystemExit
        return true(*arguments, **options)

    patch.setattr(place, name, counted)


def test_a_finished_run_gives_the_same(run, monkeypatch):
    before = fieldloom.load(run)
    code, values = (
        before.sample_codes(3, seed=1),
        before.decode(before.family.conditioner.origin(1)),
    )
    files = {file.name: file.read_bytes() for file in run.iterdir()}
    rename(monkeypatch)
    after = fieldloom.load(run)
    assert isinstance(after.family.conditioner, Blend)
    assert after.recipe["conditioner"]["components"] == 4
    assert torch.equal(after.sample_codes(3, seed=1), code)
    assert torch.equal(after.decode(after.family.conditioner.origin(1)).values, values.values)
    assert len(Run(run).read_codes(after).codes)
    train(None, str(run), resume=True)
    assert {file.name: file.read_bytes() for file in run.iterdir()} == files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name", "times"),
    [(Run, "write_state", 1), (bulk, "encode_shard", 1), (Run, "write_state", 4)],
    ids=["within the field", "within the codes", "within the prior"],
)
def test_an_interrupted_run_ends_in_the_same_weights(place, name, times, whole, tmp_path):
    """Bit for bit, whether the program was renamed within a stage or not."""
    folder = tmp_path / "interrupted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "SHARD", (16, 32))
        killed(patch, place, name, times)
        with pytest.raises(SystemExit):
            train(recipe.load("mnif:tiny", TINY), str(folder))
    assert Run(folder).has_codes == (times == 4)
    with pytest.MonkeyPatch.context() as patch:
        rename(patch)
        killed(patch, Run, "write_state", 1)  # and once more
        with pytest.raises(SystemExit):
            train(None, str(folder), resume=True)
    with pytest.MonkeyPatch.context() as patch:
        rename(patch)
        train(None, str(folder), resume=True)
        ours = read_tensors(folder / "model.safetensors")
        Run(folder).read_codes(fieldloom.load(folder))
    theirs = read_tensors(whole / "model.safetensors").tensors
    assert all(torch.equal(ours.tensors[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("change", ["experts = 5", "frequency = 31.0", "seed = 4"])
def test_no_check_is_lost(change, run, monkeypatch):
    """Another value beneath an old key is noticed as it was."""
    key = change.partition(" ")[0]
    text, count = re.subn(rf"(?m)^{key} = .*$", change, (run / "recipe.toml").read_text())
    assert count == 1
    (run / "recipe.toml").write_text(text)
    section = {"experts": "conditioner", "frequency": "field"}.get(key, key)
    with pytest.raises(InputError, match=rf"made with other {section}"):
        fieldloom.load(run)
    rename(monkeypatch)
    with pytest.raises(InputError, match=rf"made with other {section}"):
        fieldloom.load(run)


def test_codes_in_a_folder_of_their_own_stay_a_runs_own(run, tmp_path, monkeypatch):
    system = fieldloom.load(run)
    source = open_source(system.recipe, system.modality)
    found = bulk.encode(system, source, source.test[:40], tmp_path / "codes", shard=16)
    rename(monkeypatch)
    system = fieldloom.load(run)
    assert torch.equal(read_codes(tmp_path / "codes", system), found.codes)
    again = bulk.encode(system, source, source.test[:40], tmp_path / "codes", shard=16)
    assert torch.equal(again.codes, found.codes)


@pytest.mark.filterwarnings("ignore:recipe:UserWarning")
def test_fields_of_a_run_of_before_begin_a_run_of_now(run, tmp_path, monkeypatch):
    rename(monkeypatch)
    mine = recipe.load("mnif:tiny", ["conditioner.components=4"])
    system = train(mine, str(tmp_path / "new"), "prior", fields=run)
    assert torch.equal(Run(tmp_path / "new").read_codes(system).codes, Run(run).read_codes().codes)
    other = recipe.load("mnif:tiny", ["conditioner.components=5"])
    with pytest.raises(InputError, match=r"\[conditioner\] differs"):
        train(other, str(tmp_path / "other"), "prior", fields=run)


def test_a_saved_copy_is_the_same_run(run, tmp_path, monkeypatch):
    rename(monkeypatch)
    fieldloom.save(fieldloom.load(run), tmp_path / "copy")
    copy = fieldloom.load(tmp_path / "copy")
    assert bulk.fingerprint_system(copy) == bulk.fingerprint_system(fieldloom.load(run))
    assert copy.recipe["conditioner"]["name"] == "blend"
