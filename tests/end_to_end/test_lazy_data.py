"""Runs on data that are read when they are asked for."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import fieldloom
from fieldloom import recipe as recipes
from fieldloom.errors import InputError
from fieldloom.evaluation import batches, evaluate
from fieldloom.inputs import source_of
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, images, source
from fieldloom.preparation import prepare
from fieldloom.training import train
from fieldloom.types import Lazy


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(path)
    (tmp_path / "images" / "a" / "none.png").write_bytes(b"no image")
    return tmp_path / "images"


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Folders are read lazily; how many images each reading decodes."""
    monkeypatch.setattr(images, "DECODED", 24 * 64 - 1)
    monkeypatch.setattr(source, "PIECE", 2 * 64)
    asked, read = [], images.LazyImages.read

    def counted(self, which):
        found = read(self, which)
        asked.append(len(found))
        return found

    monkeypatch.setattr(images.LazyImages, "read", counted)
    return asked


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
def test_a_folder_is_the_same_lazily(folder, reads, monkeypatch):
    grid = Grid(size=8, channels=1)
    lazy = SOURCES["folder"](grid, str(folder))
    assert isinstance(lazy.data.values, Lazy)
    assert reads == []
    monkeypatch.setattr(images, "DECODED", 1 << 30)
    eager = SOURCES["folder"](grid, str(folder))
    assert isinstance(eager.data.values, Tensor)
    assert lazy.data.shape == eager.data.shape == (24, 1, 8, 8)
    known = eager.facts()
    assert lazy.facts() == known | {"fingerprint": lazy.facts()["fingerprint"]}
    assert reads == []
    assert lazy.facts(known) == known
    assert max(reads) == 2
    assert torch.equal(lazy.labels, eager.labels)
    for which in (slice(3, 9), [20, 1, 1], torch.tensor([-1]), []):
        assert torch.equal(lazy.data.part(which).tensor, eager.data.part(which).tensor)
    (folder / "b" / "01.png").write_bytes(b"gone since")
    with pytest.raises(InputError, match=r"b/01\.png' is no image that can be read"):
        lazy.data.part([12])  # the first after the twelve of class a


def recipe_of(folder, steps: int = 6) -> dict:
    own = recipes.load("mnif:tiny")
    field = own["train"]["field"] | {"steps": steps, "batch": 4, "micro": 4, "save_every": 2}
    changed = {
        "source": {"name": "folder", "path": str(folder), "split": [0.75, 0.25]},
        "modality": {"name": "image", "size": 8, "channels": 1},
        "evaluate": {"metrics": ["psnr", "frechet"], "samples": 8},
    }
    return own | changed | {"train": own["train"] | {"field": field}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
def test_a_run_on_lazy_data_is_that_on_eager_data(folder, reads, tmp_path, monkeypatch):
    """Trained, encoded, sampled, evaluated and resumed, with never the whole set in memory."""
    monkeypatch.setattr(batches, "WHOLE", 8 * 64)
    monkeypatch.setattr(batches, "MULTIPLE", 8)
    lazy = train(recipe_of(folder), str(tmp_path / "lazy"), device="cpu")
    _, own = prepare(lazy.recipe, torch.device("cpu"))
    result = evaluate(lazy, own)
    codes = lazy.encode(own.data)
    assert max(reads) <= 18  # a shard of codes has 16 to 512 signals: here all that train
    assert reads.count(4) >= 6  # the steps
    monkeypatch.setattr(images, "DECODED", 1 << 30)
    monkeypatch.setattr(batches, "WHOLE", 1 << 28)
    eager = train(recipe_of(folder), str(tmp_path / "eager"), device="cpu")
    _, own = prepare(eager.recipe, torch.device("cpu"))
    for name, value in eager.state_dict().items():
        assert torch.equal(lazy.state_dict()[name], value), name
    assert torch.equal(codes, eager.encode(own.data))
    exact = ("psnr", "frechet", "nearest.sample", "nearest.test")
    for one, other in zip(result.metrics, evaluate(eager, own).metrics, strict=True):
        assert one.name == other.name
        if one.name in exact:
            assert one.value == pytest.approx(other.value, rel=1e-6), one.name


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
@pytest.mark.parametrize("cache", ["none", "decoded"])
def test_lazy_runs_resume_bit_for_bit(cache, folder, reads, tmp_path, monkeypatch, cached):
    """Also where the cache is deleted in between."""
    whole = train(recipe_of(folder), str(tmp_path / "whole"), stage="field", device="cpu")
    recipe = recipe_of(folder)
    recipe["source"]["cache"] = cache
    steps, read = [], images.LazyImages.read

    def killed(self, which):
        steps.extend([1] * (isinstance(which, Tensor) and len(which) == 4))
        if len(steps) == 5:  # one is read ahead
            raise KeyboardInterrupt
        return read(self, which)

    with monkeypatch.context() as patch:
        patch.setattr(images.LazyImages, "read", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, str(tmp_path / "cut"), stage="field", device="cpu")
    shutil.rmtree(cached)
    resumed = train(None, str(tmp_path / "cut"), stage="field", device="cpu", resume=True)
    # checkpoints lie two steps apart; a busy machine reads one batch further before it ends
    assert reads.count(4) in (6 + 4 + 2, 6 + 5 + 2)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
def test_runs_of_before_are_recognised(folder, reads, tmp_path, monkeypatch):
    """Their recipe has a fingerprint of decoded images, which is found as it was then."""
    run, facts = tmp_path / "run", source.Source.facts
    with monkeypatch.context() as patch:
        old = {"fingerprint": "of an older version"}
        patch.setattr(source.Source, "facts", lambda self, known: facts(self, old))
        train(recipe_of(folder, 2), str(run), stage="field", device="cpu")
    system = fieldloom.load(str(run))
    found = source_of(system)
    assert len(found.data) == 24
    again, _ = prepare(system.recipe, torch.device("cpu"))
    assert again["known"] == facts(found, system.recipe["known"])
    assert not again["known"]["fingerprint"].startswith(source.CONTENT)
    assert found.facts()["fingerprint"].startswith(source.CONTENT)
    shutil.copy(folder / "a" / "00.png", folder / "b" / "01.png")
    with pytest.raises(InputError, match="fingerprint was '[0-9a-f]{16}', and is '[0-9a-f]{16}'"):
        source_of(system)
