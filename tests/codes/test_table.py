"""The table of what stands beside codes, as pandas reads it."""

import numpy as np
import pytest
import torch

from code_sets import write_job
from fieldloom.codes import table
from fieldloom.codes.files import open_codes
from fieldloom.engine.tensors import write_tensors

pandas = pytest.importorskip("pandas", reason="the extra 'parquet' is not installed")
pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")


def test_a_row_a_code(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "ROWS", 8)
    codes = torch.randn(23, 1, 4)
    job = write_job(tmp_path / "job", codes, 5, fail=(6,), labels=torch.arange(23) % 3)
    path = table.write_table(open_codes(job), tmp_path / "a.parquet", ["cat", "dog"])
    found = pandas.read_parquet(path)
    assert list(found) == ["place", "error", "label", "class", "shard", "row"]
    good = np.array([i for i in range(23) if i != 6])
    assert found["place"].tolist() == good.tolist()
    assert found["label"].tolist() == (good % 3).tolist()
    assert found["class"].fillna("").tolist()[:3] == ["cat", "dog", ""]
    for i in (0, 5, 6, 21):  # each is where the table says
        where = open_codes(job).parts.open(int(found["shard"][i]), True)
        row = where.read("codes", torch.tensor([int(found["row"][i])]))[0]
        assert torch.equal(row, codes[int(found["place"][i])])


def test_folders_of_jobs_and_one_file(tmp_path):
    for name in ("a", "b"):
        write_job(tmp_path / "jobs" / name, torch.randn(7, 1, 4), 3)
    path = table.write_table(open_codes(tmp_path / "jobs"), tmp_path / "jobs.parquet")
    found = pandas.read_parquet(path)
    assert found["folder"].tolist() == ["a"] * 7 + ["b"] * 7
    assert found["shard"].tolist() == [0, 0, 0, 1, 1, 1, 2] * 2
    one = write_tensors(tmp_path / "one.safetensors", {"codes": torch.randn(4, 1, 2)}, {})
    found = pandas.read_parquet(table.write_table(open_codes(one), tmp_path / "one.parquet"))
    assert found["row"].tolist() == [0, 1, 2, 3]
