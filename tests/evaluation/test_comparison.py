"""Samples are judged beside baselines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fieldloom
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.evaluation import evaluator_of
from fieldloom.evaluation.comparison import (
    ComparisonOptions,
    collect_sets,
    compare_with_baselines,
    sample_count,
)
from fieldloom.types import Data


@pytest.fixture(scope="module")
def digits(tiny_run):
    system = fieldloom.load(tiny_run, device="cpu")
    return system, fieldloom.assembly.open_source(system.recipe, system.modality)


def rows(data: Tensor) -> list[tuple[float, ...]]:
    return [tuple(x) for x in data.flatten(1).tolist()]


def test_references_are_data_and_sets_are_drawn_apart_from_them(digits, monkeypatch):
    system, source = digits
    known = torch.arange(len(source.train)).float().view(-1, 1, 1).expand(-1, 1, 8)
    decode = lambda code: Data(code[:, :, :1, None].expand(-1, 1, 8, 8))
    monkeypatch.setattr(system, "decode", decode)
    found = collect_sets(
        system, source, known, {"samples": known[:50]}, options=ComparisonOptions(noise=0.0)
    )
    assert set(found.sets) == {"samples", "start", "noise", "gaussian", "fields", "held-out"}
    assert set(found.references) == {"training", "held-out"}
    assert all(len(x) == 50 for x in [*found.sets.values(), *found.references.values()])
    train, test = (rows(source.read(part).tensor) for part in (source.train, source.test))
    drawn = [train.index(x) for x in rows(found.references["training"])]
    for name in ("noise", "fields"):
        copied = set(found.sets[name][:, 0, 0, 0].int().tolist())
        assert len(copied) == 50
        assert len(copied & set(drawn)) < 15  # by chance
    held = set(rows(found.references["held-out"]))
    assert held <= set(test)
    assert set(rows(found.sets["held-out"])) <= set(test) - held
    assert rows(source.read(found.held_out).tensor) == rows(found.references["held-out"])
    assert found.absent == {"training": 0, "held-out": 0}


def test_a_class_is_judged_against_itself(digits, tiny_run):
    system, source = digits
    known, labels, *_ = Run(tiny_run).read_codes()
    found = collect_sets(
        system, source, known, {"samples": known[:9]}, labels, ComparisonOptions(label=3)
    )
    for name, part in {"training": source.train, "held-out": source.test}.items():
        own = rows(source.read(part[source.labels[part] == 3]).tensor)
        assert set(rows(found.references[name])) <= set(own)
    assert sample_count(source, 3) == min(64, int((source.labels[source.test] == 3).sum()) // 2)
    assert sample_count(source) == 64
    many = known[:400]
    with pytest.raises(InputError, match="as many training data: there are"):
        collect_sets(system, source, known, {"samples": many}, labels, ComparisonOptions(label=3))


@pytest.mark.slow
def test_several_sets_of_samples_are_judged_as_each_alone(digits, tiny_run):
    system, source = digits
    known, labels, *_ = Run(tiny_run).read_codes()
    sets = {"a": known[:10], "b": known[10:20] + 0.1}
    pixels = ComparisonOptions("pixels")
    both = compare_with_baselines(system, source, known, sets, labels, pixels)
    for name, codes in sets.items():
        alone = compare_with_baselines(system, source, known, {name: codes}, labels, pixels)
        assert alone.sets == [x for x in both.sets if x.set not in sets or x.set == name]
        near = [x.novelty[name]["weights"].samples.indices.tolist() for x in (both, alone)]
        assert near[0] == near[1]
    for wrong, match in [
        ({"a": known[:10], "b": known[:9]}, r"equally large: these have \[9, 10\]"),
        ({"noise": known[:10]}, "cannot be called 'noise'"),
    ]:
        with pytest.raises(InputError, match=match):
            collect_sets(system, source, known, wrong, labels)


def test_training_codes_as_samples_are_found_out(digits, tiny_run):
    system, source = digits
    known, labels, *_ = Run(tiny_run).read_codes()
    found = compare_with_baselines(
        system, source, known, {"ours": known[5:15]}, labels, ComparisonOptions("pixels")
    )
    assert found.novelty["ours"]["weights"].samples.indices.tolist() == list(range(5, 15))
    for space in ("weights", "signals"):
        own = found.novelty["ours"][space]
        assert own.samples.distances.max() < 1e-6  # decoding rounds by its batch
        assert own.ratio < 0.05
        assert own.nearer > 0.5
        assert len(own.held_out.distances) == 10


def test_data_that_cannot_be_judged(digits):
    system, source = digits
    bare = fieldloom.build("functa", "tiny", conditioner="shared", encoder="nothing", prior="none")
    with pytest.raises(InputError, match="have no codes"):
        evaluator_of(bare, source).choose_measure()
    samples = {"samples": torch.zeros(2, 1, 8)}
    with pytest.raises(InputError, match="measure of these data 'chamfer'"):
        compare_with_baselines(
            system, source, torch.zeros(9, 1, 8), samples, options=ComparisonOptions("chamfer")
        )
    film = fieldloom.build("functa", "tiny", modality={"name": "video", "size": [2, 8, 8]})
    with pytest.raises(InputError, match="pictures and of shapes"):
        evaluator_of(film, source).choose_measure()
