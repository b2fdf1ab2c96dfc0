"""Whatever argument a recipe gives to a part is taken, or refused in one sentence."""

import time
from dataclasses import fields
from functools import partial

import pytest
import torch
from torch import nn

import fieldloom
from fieldloom import memory, recipe, registry
from fieldloom.assembly import TABLES
from fieldloom.conditioners import FlatWeights, Shared
from fieldloom.encoders import Fit
from fieldloom.engine.stage import OPTIMIZERS
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Fourier, FourierMlp
from fieldloom.metrics.losses import mse
from fieldloom.nn.transformer import perceptron
from fieldloom.priors import Gaussian
from fieldloom.renderers import Direct as Seen
from fieldloom.settings import Evaluation, Stage, parse_evaluation, parse_stage

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
    "modality": {}, "renderer": {}, "field": DIMS, "arrangement": {}, "grid": {},
    "conditioner": {"slots": FIELD.slots}, "encoder": CODES, "prior": CODES, "codec": CODES,
    "denoiser": CODES, "critic": DIMS, "penalty": {}, "objective": PLAY,
}  # fmt: skip
SMALL = {"width": 16, "depth": 2, "heads": 2}
POINTS = {"name": "points", "layers": [[4, 2, 2], [1, 2, 1]]}
NEEDED = {
    "diffusion": {"denoiser": {"name": "resmlp", "depth": 2, "width": 16}},
    "volume": {"near": 1.0, "far": 2.0},
    "occupancy": {"near": 1.0, "far": 2.0},
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
