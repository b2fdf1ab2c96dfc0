"""Parts that others wrote, and what is wrong with what they give: one sentence, never a guess."""

import copy

import jaxtyping
import pytest
import torch
from torch import nn

import fieldloom
from fieldloom import assembly, recipe, registry
from fieldloom.assembly import make_modality, open_source
from fieldloom.encoders import ENCODERS
from fieldloom.errors import InputError
from fieldloom.fields import FIELDS
from fieldloom.modalities import Grid, Modality
from fieldloom.modalities.sources.source import make_source
from fieldloom.priors.diffusion import Diffusion
from fieldloom.types import Cameras, Data

SOURCE = make_source(torch.rand(6, 1, 8, 8), list("aabbab"), (4, 2), shuffle=False)
VIEWS = Cameras(torch.eye(4).expand(6, 1, 4, 4), torch.ones(6, 1, 4))


def spoil(**changes):
    """The source with what its constructor would refuse, where a test checks annotations."""
    spoilt = copy.copy(SOURCE)
    for name, value in changes.items():
        object.__setattr__(spoilt, name, value)
    return spoilt


READERS = {
    "a tensor": (torch.rand(6, 1, 8, 8), "a reader returned a Tensor; it must return a Source"),
    "a tensor inside": (
        spoil(data=torch.rand(6, 1, 8, 8)), "the reader's data are a Tensor: Data"),
    "another shape": (
        spoil(data=Data(torch.rand(6, 8, 8, 1))), r"shape \(6, 8, 8, 1\) is not \(batch"),
    "levels as floats": (
        spoil(data=Data(torch.rand(6, 1, 8, 8) * 255)), "the reader's data: floats from"),
    "NaN": (
        spoil(data=Data(torch.full((6, 1, 8, 8), torch.nan))), "are NaN or infinite"),
    "cameras": (
        spoil(data=Data(torch.rand(6, 1, 8, 8), VIEWS)), "cameras are of views"),
    "a list of indices": (spoil(train=[0, 1]), "train is no tensor .* below 6"),
    "an index too large": (spoil(test=torch.tensor([6])), "test is no tensor .* below 6"),
    "a mask": (spoil(train=torch.ones(6).bool()), "train is no tensor"),
    "nothing to train on": (spoil(train=torch.arange(0)), "no data to train on"),
    "a class without a name": (spoil(names=("a",)), "go from 0 to 1, and names has 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", READERS)
def test_what_a_registered_reader_must_not_return(case, monkeypatch):
    given, message = READERS[case]
    monkeypatch.setitem(registry._registered, ("source", "mine"), lambda modality: given)
    with pytest.raises(InputError, match=message):
        open_source({"source": "mine"}, Grid(2, 8, 1))


def test_what_a_registered_reader_may_return(monkeypatch, capsys):
    monkeypatch.setitem(registry._registered, ("source", "mine"), lambda modality: SOURCE)
    assert open_source({"source": "mine"}, Grid(2, 8, 1)) is SOURCE
    assert (
        "read: 6 data, 2 classes (a, b), 8 x 8, 4 to train on, 2 to test" in capsys.readouterr()[1]
    )


class Bare(Modality):
    def shape(self, resolution=None):
        return (8,)

    def grid(self, resolution=None, cameras=None):
        return torch.linspace(-1, 1, 8)[None, :, None]


class NoChannels(Bare):
    coord_dim = 1


class NoGrid(Modality):
    coord_dim, channels = 1, 1


MODALITIES = {Bare: "Bare states no coord_dim", NoChannels: "NoChannels states no channels",
              NoGrid: "NoGrid has no method 'shape'"}  # fmt: skip


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_modality_that_does_not_say_what_it_must(modality, monkeypatch):
    monkeypatch.setitem(registry._registered, ("modality", "mine"), modality)
    with pytest.raises(InputError, match=MODALITIES[modality]):
        make_modality("mine")
    with pytest.raises(InputError, match=MODALITIES[modality]):
        fieldloom.build("mnif", "tiny", modality="mine")


class Flat(FIELDS["siren"]):
    """Gives one value where the data have three."""

    def __call__(self, coords, weights):
        return super().__call__(coords, weights)[..., :1]


class Short(ENCODERS["cavia"]):
    """Gives one code for all signals."""

    def forward(self, signal, family, render, loss_fn):
        return super().forward(signal, family, render, loss_fn)[:1]


class Half(nn.Module):
    """Gives half of the width."""

    def forward(self, code, time, label=None):
        return code[..., :4]


@pytest.fixture
def mine(monkeypatch):
    def build(kind, part, **more):
        monkeypatch.setitem(registry._registered, (kind, "mine"), part)
        return fieldloom.build("mnif", "tiny", **more)

    return build


@pytest.fixture
def unchecked():
    """Without the checks of annotations, which users do not have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_a_field_of_another_shape(mine):
    system = mine("field", Flat, field={"name": "mine", "width": 4}, modality={"channels": 3})
    with pytest.raises(
        InputError, match=r"values of the shape \(2, 64, 1\), where .* \(2, 64, 3\)"
    ):
        system.encode(torch.rand(2, 3, 8, 8))


def test_an_encoder_of_another_shape(mine):
    system = mine("encoder", Short, encoder={"name": "mine"})
    with pytest.raises(InputError, match=r"encoder Short gave .* \(1, 1, 8\), .* is \(2, 1, 8\)"):
        system.encode(torch.rand(2, 1, 8, 8))


def test_a_denoiser_of_another_shape():
    prior = Diffusion((1, 8), Half(), steps=10)
    with pytest.raises(InputError, match=r"Half gave the shape \(2, 1, 4\), .* is \(2, 1, 8\)"):
        prior.loss(torch.rand(2, 1, 8))


def test_the_sizes_that_another_part_takes_by_itself_are_told():
    for name, file in recipe.read_bundled().items():  # each is read once: bundled ones name all
        variants = file.pop("variants")
        for variant in variants:
            layers = recipe.variant_layers(variants, variant, "variant")
            found = assembly.sizes_left_out(recipe.add_settings(recipe.resolve(file, *layers)))
            assert found == {}, f"{name}:{variant}"
    spec = recipe.load("mnif:tiny", ["prior.denoiser.name=dit", "prior.denoiser.depth=2"])
    assert assembly.sizes_left_out(spec) == {"prior.denoiser = 'dit'": dict(width=1024, heads=16)}
    spec = recipe.load("gasp:tiny", ["objective.critic.name=patches", "field.name=wave-mlp"])
    assert list(assembly.sizes_left_out(spec)) == [
        "field = 'wave-mlp'",
        "objective.critic = 'patches'",
    ]
