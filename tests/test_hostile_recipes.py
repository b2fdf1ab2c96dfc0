"""Whatever a recipe, ``--set`` or an argument asks for is made, or refused in one sentence."""

import time
from dataclasses import fields
from functools import partial

import pytest
import torch
from torch import nn

import fieldloom
from fieldloom import memory, recipe, registry
from fieldloom.assembly import TABLES, assemble, objective_of
from fieldloom.conditioners import FlatWeights, Shared
from fieldloom.encoders import Fit, Nothing
from fieldloom.engine.stage import OPTIMIZERS
from fieldloom.errors import InputError
from fieldloom.evaluation.evaluator import check_memory
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp
from fieldloom.metrics.losses import mse
from fieldloom.nn.transformer import perceptron
from fieldloom.permit import Permit
from fieldloom.priors import Gaussian
from fieldloom.renderers import Direct as Seen
from fieldloom.settings import Evaluation, Stage, parse_evaluation, parse_stage
from fieldloom.training import train

GB = 10**9


@pytest.fixture(autouse=True)
def _memory(monkeypatch):
    """The same machine everywhere."""
    monkeypatch.setattr(memory, "total_memory", lambda: 24 * GB)


def sentence(make, *arguments, **named) -> str | None:
    """What is said of the arguments; None where they are taken."""
    began = time.process_time()
    try:
        made = memory.make_within_limit(partial(make, *arguments, **named), "this")
        if isinstance(made, registry.find("field", "siren", TABLES) | FourierMlp):
            memory.make_within_limit(lambda: Shared(made.slots), "this")  # its draws
        said = None
    except InputError as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 700
        assert "cannot be made" not in said  # a sentence of ours
    assert time.process_time() - began < 30  # nothing of that size was begun
    return said


# -- every argument of every part

VALUES = (0, -1, 10**12, float("nan"), float("inf"), 1e308, 1e-320, "text", [], [-1, 2], {}, True)

FIELD = FourierMlp(2, 1, width=4, depth=2, encoding=Fourier("log", count=2))
FAMILY = Family(FIELD, FlatWeights(FIELD.slots))
DIMS = {"coord_dim": 2, "value_dim": 1, "direction_dim": 0}
CODES = {
    "code_shape": FAMILY.code_shape,
    "layout": FAMILY.conditioner.layout,
    "signals": 10,
    "classes": 3,
    "batch": 4,
    "axes": (8, 8),
    "coord_dim": 2,
    "value_dim": 1,
}
PLAY = {
    "family": FAMILY,
    "encoder": Fit(),
    "render": Seen(),
    "loss_fn": mse,
    "prior": Gaussian(FAMILY.code_shape, standard=True),
    "link": None,
    "coord_dim": 2,
    "value_dim": 1,
    "span": 2.0,
}
KNOWN = {
    "modality": {}, "renderer": {}, "field": DIMS, "arrangement": {},
    "conditioner": {"slots": FIELD.slots}, "encoder": CODES, "prior": CODES, "codec": CODES,
    "denoiser": CODES, "critic": DIMS, "penalty": {}, "objective": PLAY,
}  # fmt: skip
SMALL = {"width": 16, "depth": 2, "heads": 2}
POINTS = {"name": "points", "layers": [[4, 2, 2], [1, 2, 1]]}
NEEDED = {
    "diffusion": {"denoiser": {"name": "resmlp", "depth": 2, "width": 16}},
    "volume": {"near": 1.0, "far": 2.0},
    "substitute": {"slot": "0.weight"},
    "factor": {"slot": "0.weight"},
    "interleaved": {"scale": 4.0},
    "given": {"scales": [1.0, 2.0]},
    "points": {"layers": POINTS["layers"]},
    "adversarial": {"critic": POINTS},
    "transformer": SMALL | {"patch": 4},
    "resmlp": {"width": 16, "depth": 2},
    "dit": SMALL,
    "weight-transformer": SMALL,
    "autoregressive": SMALL,
    "local": {"width": 8, "features": 8, "tokens": 4},
}


def test_every_kind_of_part_is_tried():
    assert set(KNOWN) == set(TABLES) - {"source", "start", "unseen"}


@pytest.mark.parametrize("kind", KNOWN)
def test_every_argument_of_every_part(kind):
    refused = 0
    for name, make in TABLES[kind].items():
        known = KNOWN[kind]
        needed = {} if (kind, name) == ("modality", "points") else NEEDED.get(name, {})
        asked = set(registry.hints_of(make)) - set(known) - {"permit", "generator", "skip"}
        build = partial(registry.build, kind, tables=TABLES, **known)
        assert sentence(build, spec={"name": name} | needed) is None
        for argument in sorted(asked):
            for value in VALUES:
                spec = {"name": name} | needed | {argument: value}
                refused += sentence(build, spec=spec) is not None
    assert refused


def test_every_argument_of_a_stage_an_evaluation_and_an_optimiser():
    for kind, make in ((Stage, partial(parse_stage, "field")), (Evaluation, parse_evaluation)):
        for argument in (field.name for field in fields(kind)):
            assert {sentence(make, {argument: value}) for value in VALUES} - {None}
        for spec in (3, "x", None, [1]):
            assert "it is a table" in (sentence(make, spec) or "")
    weights = [nn.Parameter(torch.zeros(1))]
    for name, make in OPTIMIZERS.items():
        build = partial(
            registry.build, "optimizer", tables={"optimizer": OPTIMIZERS}, parameters=weights
        )
        for argument in set(registry.hints_of(make)) - {"parameters"}:
            for value in (*VALUES, [2.0, 3.0], [0.9, float("nan")]):
                spec = {"name": name, argument: value}
                if sentence(build, spec=spec) is None:
                    weights[0].grad = torch.ones(1)
                    build(spec=spec).step()  # torch has no objection either


WRONG = {
    "field.width=0": "width is at least 1",
    "field.frequency=inf": r"field\.frequency = inf is not right: numbers lie between",
    "field.frequency=1e-320": "at least 1e-37 in size",
    "field.width=100000000000000000000": r"whole numbers lie below 2\^63",
    "modality.axes=0": "axes = 0: from 1 to 62",
    "prior.label_dropout=nan": r"prior\.label_dropout = nan is not right",
    "prior.betas=[0.5, 0.1]": "between 0 and 1, the smaller one first",
    "prior.denoiser.groups=0": "multiple of groups = 0",
    "prior.denoiser={name='dit', width=32, heads=3}": "heads = 3: a divisor of the width, 32",
    "prior.denoiser={name='dit', width=32, heads=2, ratio=nan}": "ratio = nan is not right",
    "prior.denoiser={name='dit', width=32, heads=2, ratio=1e-3}": "at least one hidden unit",
    "prior.codec={name='whiten', per='row'}": "'element', 'channel'",
    "prior.codec=3": "codec = 3 is not right: it is a name, or a table",
    "encoder={name='fit', start=3}": "start = 3 is not right: it is a name, or a table",
    "encoder={name='fit', start='fitt'}": "unknown start 'fitt'; did you mean 'fit'",
    "modality.context.hide=nan": "hide = nan is not right",
    "field=':'": "unknown field ':'",
    "field=''": "unknown field ''",
    "train.field.batch=0": r"train\.field\.batch = 0 is not right: it is a whole number, from 1",
    "train.field.batch='x'": r"train\.field\.batch = 'x' is not right",
    "known.classes=-1": r"known\.classes = -1 is not right",
    "known.names=3": r"known\.names = 3 is not right: it is a list of names",
    'recipe="a\\u001b[31m"': "recipe = 'a.*' is not right: it is plain text",
    "field.width.deep.er=3": r"field\.width = \{'deep'.* is not right",
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_values(override):
    with pytest.raises(InputError, match=WRONG[override]) as caught:
        fieldloom.build(recipe.load("mnif:tiny", [override]))
    assert "\n" not in str(caught.value)


def test_numbers_that_torch_takes_are_still_taken():
    build = lambda **more: registry.build("field", {"name": "siren", **more}, TABLES, **DIMS)
    assert build(frequency=1e30).frequencies[0] == 1e30
    assert build(offset=-1e-30).offset == -1e-30
    assert perceptron(8, 0.1)[0].out_features == 1
    with pytest.raises(InputError, match="ratio = nan: a number"):
        perceptron(8, float("nan"))


def test_a_part_that_raises_something_else_is_named():
    class Odd(FourierMlp):
        def __init__(self, coord_dim: int, value_dim: int, direction_dim: int, size: int):
            self.slots = {}
            raise ZeroDivisionError(f"size {size}\nand more")

    tables = {"field": {"odd": Odd}}
    with pytest.raises(InputError, match="field 'odd' cannot be made from .*: size 3 and more"):
        registry.build("field", {"name": "odd", "size": 3}, tables, **DIMS)


# -- sizes

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
    assert "this machine has 24 GB: take less; --large" in str(caught.value)


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
    "resolution": ({"resolution": 10**6}, r"would take 4 TB .*resolution = 1000000\)"),
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
    changes = ["train.prior.ema=0.9", "train.field.steps=1", "train.prior.steps=1"]
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


# -- overrides and files

OVERRIDES = {
    "a=" + "[" * 100_000: "too long, or nested too deeply",
    "a=" + "[" * 200 + "]" * 200: "more than 32 tables and lists",
    "a=" + "{a=" * 40 + "1" + "}" * 40: "more than 32 tables and lists",
    "a=" + "9" * 5000: "too long, or nested too deeply",
    "a=1979-05-27": "1979-05-27 is a date",
    "a=[07:32:00]": "07:32:00 is a date",
    ":": "not of the form",
    "=": "not of the form",
    "": "not of the form",
    ".": "not of the form",
    "a.=" + "x" * 10**6: "not of the form",
    "a\x1b[31m.b=3": "not of the form",
    ".".join("a" * 10_000) + "=1": "not of the form",
}


@pytest.mark.parametrize("case", range(len(OVERRIDES)))
def test_overrides_that_are_none(case):
    override = list(OVERRIDES)[case]
    with pytest.raises(InputError, match=OVERRIDES[override]) as caught:
        recipe.load("mnif:tiny", [override])
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_an_override_is_one_value():
    assert recipe.parse_override("a=1\nb = 2") == {"a": "1\nb = 2"}  # text, and nothing more
    assert recipe.parse_override("a=" + "x" * 1000) == {"a": "x" * 1000}
    deep = ".".join("a" * 20)
    assert recipe.parse_override(f"{deep}=1")["a"]["a"]["a"]


FILES = {
    "binary": (b"\x00\xff\xfe", "not valid TOML"),
    "nul": (b"a = '\x00'", "not valid TOML"),
    "deep": (b"a = " + b"[" * 100_000, "not valid TOML"),
    "dotted": (b"modality = 1\n" + b".".join([b"a"] * 500) + b" = 1", "more than 32 tables"),
    "digits": (b"seed = " + b"9" * 5000, "not valid TOML"),
    "date": (b"seed = 1979-05-27", "is a date"),
    "large": (b"#" * (1 << 20) + b"\n#", "more than 1 MiB: it is no recipe"),
    "variants": (b"variants = 3", "variants = 3 is not right: it is a table of tables"),
    "variant": (b"[variants]\nx = 3", r"variants\.x = 3 is not right: it is a table"),
    "a list of stages": (b"train = [1]", r"train = \[1\] is not right: it is a table"),
    "format": (b"format = " + b"9" * 4000, "has format 99.* and this program reads"),
    "seed": (b"seed = -1", "seed = -1 is not right"),
    "markup": (b'recipe = "[/nope]\\u0007"', "recipe = .* it is plain text"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_recipes(case, tmp_path):
    content, message = FILES[case]
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        recipe.validate(recipe.load(str(file) + (":x" if case.startswith("variant") else "")))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_names_that_are_no_recipes(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    for name, message in {
        str(tmp_path / "folder.toml"): "is no file",
        str(tmp_path / "none.toml"): "does not exist",
        "x" * 5000: "unknown recipe",
        "x" * 5000 + ".toml": "does not exist",
        "a\0b": "unknown recipe",
        "../recipes/mnif": "unknown recipe",
        "mnif:": "unknown variant of recipe 'mnif' ''",
        "[/nope]": "unknown recipe",
        "": "unknown recipe",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            recipe.load(name)
        assert str(caught.value).isprintable()


def test_recipes_of_python_that_are_none():
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(InputError, match="more than 32"):
        fieldloom.build({"field": deep})
    for wrong in ({"x": 2}, {"field": {1: 2}, "modality": "image"}, {"field": "siren"}):
        with pytest.raises(InputError):
            fieldloom.build(wrong)
    with pytest.raises(InputError, match="more than 32"):
        fieldloom.build("mnif", "tiny", field=deep)
    with pytest.raises(InputError, match="'my_fields:Odd' cannot be imported"):
        fieldloom.build("mnif", "tiny", field={"name": "my_fields:Odd"}, trust="my_fields")
