"""jobs, and encode by several workers, from the command line."""

import pytest
import torch

from fieldloom.codes import bulk


@pytest.mark.slow
def test_encode_by_two_workers_and_ask_how_far(cli, own_run, tmp_path):
    words = ["encode", own_run, "--device", "cpu", "--shard", 90]
    cli(*words, "--out", tmp_path / "one")
    cli(*words, "--out", tmp_path / "two", "--executor", "processes", "--workers", 2)
    one, two = (bulk.read(tmp_path / name) for name in ("one", "two"))
    assert torch.equal(one.codes, two.codes)
    said = cli("jobs", tmp_path / "two").stdout
    assert f"encode: 359 signals by '{own_run}', 4 shards of 90" in said
    assert "done: 4 shards, 359 codes; 0 shards are left" in said
    cli(*words, "--out", tmp_path / "c.safetensors", "--executor", "processes", "--workers", 2)
    assert not (tmp_path / "c.safetensors.shards").exists()


def test_what_an_executor_needs_is_said_first(cli, own_run, tmp_path):
    for words, said in {
        ("encode", own_run, "--executor", "procesess"): "did you mean 'processes'?",
        ("encode", own_run, "--workers", 2): "'local' is one; executor 'processes' has several",
        ("encode", own_run, "--executor", "slurm", "--workers", 2): "slurm",
        ("jobs", tmp_path): "holds no job: there is no manifest.json in it",
    }.items():
        status, told = cli.answer(*words)
        assert status == 2
        assert said in told
