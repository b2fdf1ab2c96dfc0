"""The same images as files, in tar archives, behind an address and as rows give the same run."""

import fsspec
import numpy as np
import pytest
import torch

from fieldloom import recipe as recipes
from fieldloom.errors import InputError
from fieldloom.inputs import source_of
from fieldloom.modalities.sources import images
from fieldloom.training import train
from tarred import pack, picture

COUNT, BATCH = 24, 4


@pytest.fixture
def places(tmp_path, cached):
    """Where the same images lie, as settings of sources; all are streamed."""
    files = {f"{'ab'[i // 12]}/{i:02}.png": picture(8 * i + 20, 8) for i in range(COUNT)}
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name, content in files.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(content)
        memory.pipe_file(f"memory://set/{name}", content)
    shards = [dict([*files.items()][first : first + 8]) for first in range(0, COUNT, 8)]
    for i, shard in enumerate(shards):
        path = pack(tmp_path / "tars" / f"s-{i:03}.tar", shard)
        memory.pipe_file(f"memory://tars/{path.name}", path.read_bytes())
    yield {
        "files": {"name": "folder", "path": str(tmp_path / "files")},
        "tars": {"name": "tar", "path": str(tmp_path / "tars")},
        "objects": {"name": "folder", "path": "memory://set"},
        "tars elsewhere": {"name": "tar", "path": "memory://tars"},
    }
    memory.store.clear()


def recipe_of(source: dict) -> dict:
    own = recipes.load("mnif:tiny")
    field = own["train"]["field"] | {"steps": 6, "batch": BATCH, "save_every": 2}
    changed = {
        "source": source | {"split": [0.75, 0.25]},
        "modality": {"name": "image", "size": 8, "channels": 1},
    }
    return own | changed | {"train": own["train"] | {"field": field}}


def test_a_run_is_the_same_wherever_the_images_lie(places, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DECODED", 0)
    runs = {
        name: train(recipe_of(source), str(tmp_path / name), stage="field", device="cpu")
        for name, source in places.items()
    }
    for name, run in runs.items():
        for key, value in runs["files"].state_dict().items():
            assert torch.equal(run.state_dict()[key], value), (name, key)
        assert run.recipe["known"] == runs["files"].recipe["known"], name
        assert np.array_equal(source_of(run).labels, source_of(runs["files"]).labels)


def test_a_run_on_archives_resumes_bit_for_bit(places, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DECODED", 0)
    name = "tars elsewhere"
    whole = train(recipe_of(places[name]), str(tmp_path / "whole"), stage="field", device="cpu")
    steps, read = [], images.LazyImages.read

    def killed(self, which):
        steps.extend([1] * (isinstance(which, torch.Tensor) and len(which) == BATCH))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return read(self, which)

    with monkeypatch.context() as patch:
        patch.setattr(images.LazyImages, "read", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(places[name]), str(tmp_path / "cut"), stage="field", device="cpu")
    resumed = train(None, str(tmp_path / "cut"), stage="field", device="cpu", resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_archives_that_changed_are_other_data(places, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DECODED", 0)
    run = train(recipe_of(places["tars"]), str(tmp_path / "run"), stage="field", device="cpu")
    pack(tmp_path / "tars" / "s-001.tar", {f"b/{i}.png": picture(i, 9) for i in range(8)})
    with pytest.raises(InputError, match="data"):
        source_of(run)
