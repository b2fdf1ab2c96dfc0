"""Sizes are estimated and refused before they are taken."""

import time

import pytest
import torch
from torch import nn

import fieldloom
from fieldloom import memory, recipe
from fieldloom.assembly import TABLES, assemble, objective_of
from fieldloom.conditioners import Shared
from fieldloom.encoders import Nothing
from fieldloom.errors import InputError
from fieldloom.evaluation.evaluator import check_memory
from fieldloom.permit import Permit
from fieldloom.settings import parse_evaluation
from fieldloom.training import train

GB = 10**9


@pytest.fixture(autouse=True)
def _memory(monkeypatch):
    """The same machine everywhere."""
    monkeypatch.setattr(memory, "total_memory", lambda: 24 * GB)


MANY = {
    ("mnif:tiny", "conditioner.experts=1000000000"): r"'mixture' .* TB \(experts = 1000000000",
    ("mnif:tiny", "conditioner.width=1000000000000"): r"'mixture' would take 48 TB \(width",
    ("mnif:tiny", "field.depth=1000000"): r"field 'siren' would take 33\.1 GB \(depth = 1000000",
    ("mnif:tiny", "field.width=10000000"): r"field 'siren' would take 400 TB \(width = 10000000",
    ("mnif:tiny", "modality.channels=1000000000000"): "the field would take 36 TB",
    ("mnif:tiny", "prior.steps=4000000000000"): r"prior 'diffusion' would take 256 TB \(steps",
    ("mnif:tiny", "prior.denoiser.depth=1000000"): r"denoiser 'resmlp' would .* \(depth = 1000000",
    ("mnif:tiny", "prior.denoiser.width=16000000"): r"denoiser 'resmlp' would .* PB \(width",
    ("mnif:tiny", "known.classes=1000000000000"): r"denoiser 'resmlp' .* TB \(classes = 1",
    ("mnif:tiny", "encoder.steps=1000000000000"): r"encoder 'cavia' would .* PB \(steps",
    (
        "weights:tiny",
        "prior.codec.codebook_size=1000000000000",
    ): r"codec 'quantize' would .* TB \(codebook_size",
    ("weights:tiny", "prior.codec.levels=1000000000000"): r"codec 'quantize' .* TB \(levels",
    ("weights:tiny", "prior.depth=1000000000000"): r"prior 'autoregressive' .* PB \(depth",
    ("weights:tiny-graph", "prior.codec.rounds=1000000000"): r"codec 'graph' would .* TB \(rounds",
    ("laginr:tiny", "encoder.depth=1000000000"): r"encoder 'transformer' would .* TB \(depth",
    ("laginr:tiny", "prior.denoiser.depth=1000000000"): r"denoiser 'dit' would .* TB \(depth",
    ("loe:image", "field.depth=1000000000"): r"field 'experts' would take .* TB \(depth",
    ("loe:image", "field.tiling.tiles=1000000000"): r"the field would take .* ZB \(tiling.tiles",
    ("gem:tiny", "known.signals=1000000000000"): r"encoder 'autodecode' would .* TB \(signals",
    ("gasp:tiny", "field.encoding.count=1000000000000"): "would take .* TB",
    (
        "hyperdiffusion:tiny",
        "prior.denoiser.depth=100000000",
    ): r"'weight-transformer' would .* TB \(depth",
}


@pytest.mark.parametrize(("name", "override"), MANY)
def test_sizes_are_refused_before_they_are_taken(name, override):
    began = time.process_time()
    with pytest.raises(InputError, match=MANY[name, override]) as caught:
        fieldloom.build(recipe.load(name, [override]))
    assert time.process_time() - began < 30  # nothing of that size was begun
    assert "this machine has 24 GB: take less; large=True" in str(caught.value)


def test_critics_are_estimated_too():
    critic = {"name": "patches", "depth": 10**9}
    prior = {"name": "gaussian", "standard": True}
    system = fieldloom.build(
        "mnif", "tiny", prior=prior, objective={"name": "adversarial", "critic": critic, "r1": 0}
    )
    with pytest.raises(InputError, match=r"critic 'patches' would take .* TB \(depth"):
        objective_of(system)


def test_estimating_changes_no_weight(monkeypatch):
    plain = assemble(recipe.load("mnif:tiny"), Permit(large=True))
    monkeypatch.setattr(memory, "UNCHECKED", 0)  # everything is estimated on the device meta first
    before = torch.get_rng_state()
    estimated = fieldloom.build("mnif", "tiny")
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(plain.parameters(), estimated.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_user_may_allow_what_is_too_large(monkeypatch):
    monkeypatch.setattr(memory, "total_memory", lambda: 100_000)
    with pytest.raises(InputError, match=r"would take .* kB .*, and this machine has 100 kB"):
        fieldloom.build("mnif", "tiny")
    fieldloom.build("mnif", "tiny", large=True)


def test_several_parts_that_are_too_large_together(monkeypatch):
    """No part is, and nothing is made of them before the whole is known."""
    made = []

    class Half(Shared):
        def __init__(self, slots):
            super().__init__(slots)
            self.more = nn.Parameter(torch.zeros(3_000_000))
            made.append(self.more)

    class Other(Nothing):
        def __init__(self):
            super().__init__()
            self.more = nn.Parameter(torch.zeros(3_000_000))
            made.append(self.more)

    monkeypatch.setattr(memory, "UNCHECKED", 1_000_000)
    monkeypatch.setattr(memory, "total_memory", lambda: 20_000_000)
    monkeypatch.setitem(TABLES["conditioner"], "half", Half)
    monkeypatch.setitem(TABLES["encoder"], "other", Other)
    small = {"modality": "image", "field": {"name": "siren", "width": 4}, "conditioner": "half"}
    fieldloom.build(small)
    assert [x.device.type for x in made] == ["meta", "cpu"]
    made.clear()
    with pytest.raises(InputError, match=r"encoder 'other' would take 24\.\d MB"):
        fieldloom.build(small | {"encoder": "other"})
    assert [x.device.type for x in made] == ["meta"]


def test_a_part_that_cannot_be_made_without_numbers_is_counted_as_it_is_made(monkeypatch):
    class Numbers(Shared):
        def __init__(self, slots):
            super().__init__(slots)
            self.mean = torch.ones(1000).mean().item()

    monkeypatch.setattr(memory, "UNCHECKED", 0)
    monkeypatch.setitem(TABLES["conditioner"], "numbers", Numbers)
    small = {"modality": "image", "field": {"name": "siren", "width": 4}}
    small["conditioner"] = "numbers"
    assert fieldloom.build(small).family.conditioner.mean == 1
    monkeypatch.setattr(memory, "total_memory", lambda: 170_000)
    with pytest.raises(InputError, match="conditioner 'numbers' would take"):
        fieldloom.build(small)


BATCHES = {
    "train.field.batch=1000000000": r"train\.field would take 768 GB \(batch = 1000000000, 536 w",
    "train.prior.batch=1000000000": r"train\.prior would take .* \(batch = 1000000000",
    "modality.size=1000000": r"one datum of the size \(1000000, 1000000\) would take 13 TB",
}


@pytest.mark.parametrize("override", BATCHES)
def test_training_is_estimated_before_it_begins(override, tmp_path):
    with pytest.raises(InputError, match=BATCHES[override]):
        train(recipe.load("mnif:tiny", [override]), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


ASKED = {
    "samples": ({"samples": 10**12}, r"evaluate would take .* TB \(samples = 1000000000000"),
    "points": ({"points": 10**12, "metrics": ["shapes"]}, r"would take .* points = 10000000"),
    "resolution": ({"resolution": 10**6}, r"would take 1\.02 PB .*resolution = 1000000\)"),
}


@pytest.mark.parametrize("case", ASKED)
def test_an_evaluation_is_estimated_before_it_begins(case):
    spec, message = ASKED[case]
    how, system = parse_evaluation(spec), fieldloom.build("mnif", "tiny")
    with pytest.raises(InputError, match=message):
        check_memory(how, system, how.samples or 256)
    check_memory(parse_evaluation({}), system, 256)
    system.permit = Permit(large=True)
    check_memory(how, system, how.samples or 256)


@pytest.mark.slow
def test_weights_are_estimated_with_what_training_keeps_of_them(tmp_path, monkeypatch):
    """Gradients and two moments: 4 times what the system itself takes, and the averages."""
    asked = []
    monkeypatch.setattr(memory, "check", lambda what, count, *rest: asked.append((what, count)))
    changes = ["train.prior.ema=0.9", "train.field.steps=1", "train.prior.steps=1",
               "source.split=[300, 20]"]  # fmt: skip
    loaded = recipe.load("mnif:tiny", changes)
    system = train(loaded, str(tmp_path / "run"))
    counts = dict(asked)
    weights = sum(p.nbytes for p in system.prior.parameters())
    codes = 4 * 4 * 64 * 8  # four batches of 64 codes of 8 numbers
    assert counts["train.prior"] == 5 * weights + codes
    family = sum(p.nbytes for x in (system.family, system.encoder) for p in x.parameters())
    assert counts["train.field"] == 4 * family + 4 * 16 * 64 * 3  # 16 pictures, y, x and grey


def test_what_this_machine_has(tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "a" / "b").mkdir(parents=True)
    (root / "memory" / "job").mkdir(parents=True)
    (root / "a" / "memory.max").write_text("5000\n")
    (root / "a" / "b" / "memory.max").write_text("max\n")
    (root / "memory" / "job" / "memory.limit_in_bytes").write_text("7000\n")
    own.write_text("0::/a/b\n4:cpu:/x\n9:memory:/job\n")
    assert set(memory._limits(own, root)) == {5000, 7000}
    assert list(memory._limits(tmp_path / "none", root)) == []


def test_bytes_as_people_say_them():
    said = [memory.format_bytes(n) for n in (0, 999, 1000, 65_536 * GB, 24 * GB, 10**900)]
    assert said == ["0 B", "999 B", "1 kB", "65.5 TB", "24 GB", "more than 1000 YB"]


@pytest.mark.parametrize(
    ("make", "given", "named"),
    [
        (torch.arange, (5,), {}),
        (torch.arange, (0.0, 3.0, 0.4), {}),
        (torch.arange, (9, 2, -2), {"dtype": torch.float64}),
        (torch.eye, (3,), {}),
        (torch.eye, (3, 4), {}),
        (torch.linspace, (0, 1), {"steps": 5}),
        (torch.randint, (0, 3, (2, 4)), {}),
        (torch.randint, (3,), {"size": (2,)}),
        (torch.randperm, (7,), {}),
    ],
)
def test_numbers_are_counted_as_torch_makes_them(make, given, named):
    """Without the device ``meta``, for which torch imports its compiler."""
    assert memory._bytes(make, given, named) == make(*given, **named).nbytes
