"""The data that a trained system works on."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fieldloom
from fieldloom import registry
from fieldloom.inputs import source_of
from fieldloom.modalities import Grid
from fieldloom.modalities.sources.source import Source, make_source
from fieldloom.modalities.sources.summary import Summary


def read_levels(modality: Grid, path: str, white: float = 100.0) -> Source:
    """Levels of a text file, one datum a line."""
    rows = np.loadtxt(Path(path), ndmin=2) / white
    values = torch.from_numpy(rows.reshape(-1, 1, *modality.size)).float()
    return make_source(values, None, (1.0, 0.0), shuffle=False, summary=Summary("level"))


@pytest.fixture
def levels(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    fieldloom.register("source", "levels", read_levels)


def test_a_reader_of_others_reads_other_paths_too(levels, tmp_path):
    np.savetxt(tmp_path / "a.txt", np.full((2, 64), 50.0))
    np.savetxt(tmp_path / "b.txt", np.full((3, 64), 25.0))
    source = {"name": "levels", "path": str(tmp_path / "a.txt")}
    quick = {"train": {"field": {"steps": 1}, "prior": {"steps": 1}}}
    system = fieldloom.train(
        "mnif", tmp_path / "run", "tiny", stage="field", device="cpu", source=source, **quick
    )
    assert source_of(system).data.tensor.unique().tolist() == [0.5]
    found = source_of(system, tmp_path / "b.txt")
    assert found.summary.describe() == "3 levels, 8 x 8"
    assert found.data.tensor.unique().tolist() == [0.25]


def test_the_path_of_a_reader_of_others_may_be_anything(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})

    def read_address(modality: Grid, path: str) -> Source:
        """Black images of an address, which is no file."""
        assert path == "store://images"
        return make_source(torch.zeros(2, 1, *modality.size), None, (1.0, 0.0), shuffle=False)

    fieldloom.register("source", "store", read_address)
    system = fieldloom.build("mnif", "tiny", source={"name": "store", "path": "store://images"})
    assert len(source_of(system).data) == 2
