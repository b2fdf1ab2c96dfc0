"""Sets that come in parts: the same figures, and never a whole part of the set in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom import recipe as recipes
from fieldloom.assembly import build, open_source
from fieldloom.codes.bulk import encode
from fieldloom.errors import InputError
from fieldloom.evaluation import batches, evaluate
from fieldloom.evaluation.evaluator import check_memory
from fieldloom.modalities.sources import Source, images
from fieldloom.permit import Permit
from fieldloom.system import System
from fieldloom.training import train
from fieldloom.types import Lazy
from holdings import peak_of

COUNT, SIDE = 1000, 16
WHOLE = COUNT * SIDE * SIDE * 3 * 4
"""Bytes of the set as floats."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many small pictures of two classes, a few colours each."""
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(COUNT):
        path = root / "ab"[number % 2] / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (3, 3, 3), np.uint8)).save(path)
    return root


def recipe_of(folder: Path, **changes: object) -> recipes.Recipe:
    """A tiny system of pictures and a prior of a closed form."""
    own = {
        "source": {"name": "folder", "path": str(folder), "split": [0.8, 0.2]},
        "modality": {"name": "image", "size": SIDE, "channels": 3},
        "encoder": {"patch": SIDE // 4},
        "prior": "gaussian",
        "train": {"field": {"steps": 3, "batch": 8}},
        "evaluate": {"metrics": ["psnr", "frechet"], "detector": "gabor", "samples": 40},
    }
    return recipes.merge(recipes.merge(recipes.load("laginr:tiny"), own), changes)


def trained(recipe: recipes.Recipe) -> tuple[System, Source]:
    """A system as if it were trained, and its data, which are lazy where the test says so."""
    system = build(recipe)
    assert system.prior is not None
    origin = system.family.conditioner.origin(1)[0].detach()
    system.prior.fit(torch.randn(64, *system.family.code_shape), start=origin)
    system.finished = ["field", "codec", "prior"]
    return system, open_source(system.recipe, system.modality)


def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "DECODED", 1)
    monkeypatch.setattr(batches, "WHOLE", 1)  # so that a part is as small as it can be


@pytest.mark.slow
def test_an_evaluation_holds_no_part_of_the_set(folder, monkeypatch):
    """It holds no more of a large set than of a small one, unless it may."""
    in_small_parts(monkeypatch)
    system, source = trained(recipe_of(folder))
    assert isinstance(source.data.values, Lazy)
    few = Source(source.data, source.names, source.train[:128], source.test[:128], source.filter)
    small = peak_of(lambda: evaluate(system, few))
    streamed = peak_of(lambda: evaluate(system, source)) - small
    monkeypatch.undo()
    held = peak_of(lambda: evaluate(system, source)) - small
    assert streamed < WHOLE / 2 < WHOLE < held, (streamed / WHOLE, held / WHOLE)


@pytest.mark.slow
def test_training_and_encoding_hold_no_part_of_the_set(folder, tmp_path, monkeypatch):
    in_small_parts(monkeypatch)
    some = recipe_of(folder, source={"split": [0.3, 0.1]})
    train(some, str(tmp_path / "before"), "field", "cpu")
    peak = peak_of(lambda: train(some, str(tmp_path / "run"), "all", "cpu"))
    assert peak < WHOLE / 4
    system, source = trained(recipe_of(folder))
    many = torch.arange(COUNT // 4)
    peak = peak_of(lambda: encode(system, source, many, tmp_path / "codes", shard=COUNT))
    assert peak < WHOLE / 6


def test_no_image_is_decoded_more_often_than_needed(folder, monkeypatch):
    """The test part for its reconstruction and as a set to compare with, the training part once."""
    in_small_parts(monkeypatch)
    system, source = trained(recipe_of(folder))
    read, seen = images.LazyImages.read, []

    def counted(self, which):
        found = read(self, which)
        seen.append(len(found))
        return found

    monkeypatch.setattr(images.LazyImages, "read", counted)
    few = Source(source.data, source.names, source.train[:150], source.test[:140], source.filter)
    evaluate(system, few)
    assert sum(seen) == 150 + 140 + 128
    assert max(seen) == 128


METRICS = ["psnr", "ssim", "mse", "frechet", "kid", "precision-recall"]
FOUND = {"psnr", "mse", "rfrechet", "frechet", "kid", "precision", "nearest.sample", "novelty"}


def small_recipe(folder: Path, few: Path) -> recipes.Recipe:
    """The recipe of 200 of the pictures, at 8 x 8, by many metrics."""
    few.mkdir()
    for number in range(200):
        path = folder / "ab"[number % 2] / f"{number:04d}.png"
        (few / path.name).symlink_to(path)
    small = recipe_of(few, modality={"size": 8}, encoder={"patch": 2})
    return recipes.merge(small, {"evaluate": {"metrics": METRICS}})


def measured(figures: list[dict]) -> list[dict]:
    """The figures that do not depend on the machine."""
    return [x for x in figures if x["name"] not in ("decoded", "memory")]


def test_streamed_sets_give_the_same_figures(folder, tmp_path, monkeypatch):
    """Also where sets in memory come in parts."""
    recipe = small_recipe(folder, tmp_path / "few")
    found = []
    for decoded, parts in ((1, 1), (1 << 30, 1), (1, 1 << 28)):
        monkeypatch.setattr(images, "DECODED", decoded)
        monkeypatch.setattr(batches, "WHOLE", parts)
        torch.manual_seed(0)
        system, source = trained(recipe)
        assert isinstance(source.data.values, Lazy) == (decoded == 1)
        found.append(measured([x.as_json() for x in evaluate(system, source).metrics]))
    assert found[0] == found[1]
    assert {x["name"] for x in found[0]} >= FOUND
    for one, whole in zip(found[0], found[2], strict=True):
        assert one["value"] == pytest.approx(whole["value"], rel=1e-6)


@pytest.mark.slow
def test_the_command_line_gives_the_same_figures_lazily(folder, tmp_path, monkeypatch, cli):
    recipe, found = small_recipe(folder, tmp_path / "few"), []
    for name, decoded in {"lazy": 1, "eager": 1 << 30}.items():
        monkeypatch.setattr(images, "DECODED", decoded)
        train(recipe, str(tmp_path / name), device="cpu")
        cli("evaluate", tmp_path / name)
        report = json.loads((tmp_path / name / "report.json").read_text())
        found.append((measured(report["figures"]), report["nearest"]))
    assert found[0] == found[1]
    assert {x["name"] for x in found[0][0]} >= FOUND


def test_memory_is_estimated_by_what_is_held_at_a_time(folder, monkeypatch):
    """A set of any size is streamed; codes of all of it are not."""
    from fieldloom import memory

    system, source = trained(recipe_of(folder))
    system.permit = Permit()
    many = torch.zeros(1, dtype=torch.long).expand(10**9)
    huge = Source(source.data, source.names, many, source.test, source.filter)
    settings = system.settings.evaluation
    monkeypatch.setattr(memory, "total_memory", lambda: 16 << 30)
    check_memory(settings, system, 256, huge)
    coded = Source(source.data, source.names, many[:1], many, source.filter)
    with pytest.raises(InputError, match="evaluate would take 260 GB"):
        check_memory(settings, system, 256, coded)
    monkeypatch.setattr(memory, "total_memory", lambda: 1 << 30)
    with pytest.raises(InputError, match="evaluate would take"):
        check_memory(settings, system, 256, huge)
