"""The recipe of HyperDiffusion, from fits to samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fieldloom
from fieldloom import recipe as recipes
from fieldloom.assembly import open_source
from fieldloom.engine.run import Run
from fieldloom.fields import FourierMlp
from fieldloom.metrics.cost import count_parameters
from fieldloom.training import train
from vectors import same


@pytest.mark.parametrize(
    ("variant", "count"),
    [("planes", 1_407_225_600), ("cars", 672_729_600), ("chairs", 1_407_225_600)],
)
def test_published_rows(variant: str, count: int) -> None:
    """Fields of 36,737 weights, 500 steps of linear noise on x0, no codec."""
    with torch.device("meta"):
        system = fieldloom.build("hyperdiffusion", variant)
    assert system.family.code_shape == (1, 36_737)
    prior = system.prior
    assert prior is not None
    assert count_parameters(prior.denoiser) == count
    assert type(prior.codec).__name__ == "Identity"
    assert prior.betas[[0, -1]].tolist() == pytest.approx([1e-4, 2e-2])
    assert isinstance(system.family.field, FourierMlp)
    assert system.family.field.scale * system.modality.high == 0.5


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hyperdiffusion") / "tiny"
    train(recipes.load("hyperdiffusion:tiny"), str(folder), device="cpu")
    return folder


def test_all_fields_start_from_the_fit_of_the_first(run: Path) -> None:
    """One step of Reptile at rate 1 on one datum ends where its fit from the first draw does."""
    trained = fieldloom.load(str(run))
    fresh = fieldloom.build(trained.recipe)
    source = open_source(trained.recipe, trained.modality)
    start = trained.family.conditioner.start
    fits = fresh.encode(source.read(source.train), batch=8)
    far = (fits - start).flatten(1).norm(dim=1)
    assert far.min() < 1e-5 < 1e-3 < far.sort().values[1]
    codes, *_ = Run(str(run)).read_codes()
    same(trained.encode(source.read(source.train[:5]), batch=5), codes[:5], rtol=1e-4, atol=1e-6)
    assert (codes - start).flatten(1).norm(dim=1).min() > 1e-3


def test_samples_are_fields_of_the_asked_class(run: Path) -> None:
    trained = fieldloom.load(str(run))
    drawn = trained.sample_codes(4, label=3, seed=1)
    assert drawn.shape == (4, *trained.family.code_shape)
    assert trained.decode(drawn, 16).shape == (4, 1, 16, 16)
    other = trained.sample_codes(4, label=4, seed=1)
    assert not torch.allclose(drawn, other)


@pytest.mark.parametrize("conditioner", ["flat-weights", "mixture", "shift", "hyper", "columns"])
def test_fields_without_a_last_bias_are_conditioned(conditioner: str) -> None:
    field = dict(name="fourier-mlp", width=8, depth=3, count=2, output_bias=False)
    spec = {"name": conditioner} | ({} if conditioner == "flat-weights" else {"width": 4})
    spec |= {"mixture": {"experts": 2}, "hyper": {"hidden": [5]}, "columns": {"groups": 2}}.get(
        conditioner, {}
    )
    system = fieldloom.build("mnif", "tiny", field=field, conditioner=spec, prior="none")
    assert "2.bias" not in system.family.field.slots
    assert system.decode(system.family.conditioner.origin(2)).shape == (2, 1, 8, 8)
