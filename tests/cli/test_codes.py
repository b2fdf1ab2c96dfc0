"""What is said of a set of codes, and its table."""

import pytest
import torch

from code_sets import write_job


def test_codes_and_their_table(cli, tmp_path):
    pandas = pytest.importorskip("pandas", reason="the extra 'parquet' is not installed")
    job = write_job(tmp_path / "job", torch.randn(10, 1, 4), 3)
    said = cli("codes", job, "--parquet", tmp_path / "a.parquet").stdout
    assert "10 codes of 1 x 4 numbers in 4 files, 0.0 MB in float32" in said
    assert "beside each: errors, places" in said
    assert len(pandas.read_parquet(tmp_path / "a.parquet")) == 10
    again = cli("codes", job, "--parquet", tmp_path / "a.parquet", status=2).stderr
    assert "is there already: give another --parquet, or --overwrite" in again
    assert "ends in .parquet" in cli("codes", job, "--parquet", tmp_path / "a", status=2).stderr
    assert "does not exist" in cli("codes", tmp_path / "nowhere", status=2).stderr
