"""Runs that read one large file by parts."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fieldloom.preparation import prepare
from fieldloom.training import train
from holdings import peak_of
from media import noise, wave
from refusals import little_memory

pytestmark = pytest.mark.usefixtures("cached")

RECIPE = {
    "modality": "image",
    "field": {"name": "siren", "width": 8, "depth": 3, "frequency": 30.0},
    "train": {"field": {"steps": 3, "batch": 1, "points": 50}},
}


def test_a_run_takes_the_size_of_its_picture(tmp_path, cached):
    Image.fromarray(noise(30, 40, 3)).save(tmp_path / "a.png")
    recipe = RECIPE | {"source": {"name": "image", "path": str(tmp_path / "a.png")}}
    system = train(recipe, str(tmp_path / "run"), device="cpu")
    assert system.recipe["modality"] == {"name": "image", "size": [30, 40]}
    assert system.predict(system.family.conditioner.origin(1)).shape == (1, 3, 30, 40)
    again, _ = prepare(system.recipe, torch.device("cpu"))  # as --resume does
    assert again == system.recipe
    assert len(list(cached.iterdir())) == 1
    given = recipe | {"modality": {"name": "image", "size": 16}}
    resolved, source = prepare(given, torch.device("cpu"))
    assert resolved["modality"]["size"] == 16
    assert source.data.shape == (1, 3, 16, 16)


def test_a_run_of_a_sound_knows_its_rate(tmp_path):
    soundfile.write(tmp_path / "a.wav", wave(channels=1), 1000)
    source = {"name": "audio", "path": str(tmp_path / "a.wav"), "seconds": 0.5}
    recipe, _ = prepare(RECIPE | {"modality": "audio", "source": source}, torch.device("cpu"))
    assert recipe["modality"] == {"name": "audio", "size": [500], "rate": 1000.0}


def test_a_run_reads_only_the_points_that_it_asks_for(tmp_path, monkeypatch):
    """The data reach the modality as they are stored: bytes, mapped, never copied."""
    Image.fromarray(noise(30, 40, 3)).save(tmp_path / "a.png")
    seen, observe = [], Grid.observe

    def watched(self, data, *rest, **named):
        seen.append(data)
        return observe(self, data, *rest, **named)

    monkeypatch.setattr(Grid, "observe", watched)
    source = {"name": "image", "path": str(tmp_path / "a.png")}
    train(RECIPE | {"source": source}, str(tmp_path / "run"), device="cpu")
    assert len(seen) == 3
    assert {data.tensor.dtype for data in seen} == {torch.uint8}
    assert len({data.tensor.data_ptr() for data in seen}) == 1


def test_few_points_of_a_large_picture_take_little_memory(tmp_path):
    """Beyond the file, which is mapped, less than its bytes; a copy in float is four times them."""
    path = tmp_path / "large.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (2000, 3000, 3))[::100] = 7
    data = torch.from_numpy(np.load(path, mmap_mode="c")).permute(2, 0, 1)[None]
    image, seen = Grid(size=(2000, 3000)), []
    with little_memory(data.nbytes):
        peak = peak_of(lambda: seen.append(image.observe(data, points=65536).target))
    assert seen[0].values.shape == (1, 65536, 3)
    assert data.nbytes < peak < 2 * data.nbytes
    assert peak_of(lambda: data.float()) == 5 * data.nbytes


def test_arrays_keep_their_own_size_where_the_modality_says_none(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 9, 14), np.uint8)
    np.save(tmp_path / "a.npy", noise)
    source = SOURCES["array"](Grid(axes=2), str(tmp_path / "a.npy"))
    assert source.suggests == {"modality": {"size": [9, 14]}}
    np.testing.assert_array_equal(source.data.tensor.numpy(), noise)
    resized = SOURCES["array"](Grid(axes=2, size=(4, 6)), str(tmp_path / "a.npy"))
    assert resized.data.shape == (2, 3, 4, 6)
    assert not resized.suggests
