"""Samples against data that do not fit in memory together."""

import math

import pytest
import torch

import fieldloom
from fieldloom.evaluation import batches
from fieldloom.evaluation.batches import read_parts
from fieldloom.evaluation.evaluator import Evaluator
from fieldloom.evaluation.generation import ChosenData, fitted_places, some_of
from fieldloom.modalities.sources import Source
from fieldloom.modalities.sources.source import make_source


@pytest.fixture
def source(monkeypatch) -> Source:
    """400 training data in the order of their classes, of which a part holds 128."""
    monkeypatch.setattr(batches, "WHOLE", 1)
    values = torch.arange(500, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    labels = [place * 4 // 400 for place in range(400)] + [0] * 100
    return make_source(values, labels, (400, 100), shuffle=False)


def test_a_classifier_is_fitted_to_data_of_all_classes(source):
    places = fitted_places(source)
    assert source.labels[source.train[places]].bincount().tolist() == [32, 32, 32, 32]
    chosen = ChosenData(places)
    for part in read_parts(source, source.train):
        chosen.add(part)
    assert torch.equal(chosen.values, source.read(source.train[places]).tensor)


def test_few_data_are_all_taken():
    few = torch.tensor([3, 1, 2])
    assert torch.equal(some_of(few, 128), few)
    assert len(some_of(few[:0], 128)) == 0


@pytest.mark.parametrize(
    ("broken", "why"),
    [("codes", "the codes of 64 of 64"), ("first", "values"), ("later", "values")],
)
def test_a_broken_prior_does_not_cost_the_figures_of_held_out_data(
    broken, why, tiny_run, tmp_path, monkeypatch
):
    system = fieldloom.load(tiny_run)
    if broken == "codes":
        for parameter in system.prior.parameters():
            parameter.data.fill_(math.nan)
    else:
        monkeypatch.setattr(Evaluator, "samples_at_a_time", 16)
        value = lambda first: math.inf if first == (48 if broken == "later" else 0) else 0.5
        decode = lambda self, codes, first=0: torch.full((len(codes), 1, 8, 8), value(first))
        monkeypatch.setattr(Evaluator, "decode_part", decode)
    with pytest.warns(UserWarning, match=f"no sample is measured: {why}"):
        found = fieldloom.evaluate(system, folder=tmp_path / "report")
    assert math.isfinite(found.value("psnr"))
    assert found.samples is found.sample_codes is None
    assert {"frechet", "precision", "novelty"}.isdisjoint(one.name for one in found.metrics)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Not measured: codes or values of samples are NaN or infinite" in page
    assert "fieldloom sample" not in page
