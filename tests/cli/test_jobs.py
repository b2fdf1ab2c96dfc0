"""jobs, and encode by several workers, from the command line."""

import pytest
import torch
from PIL import Image

from fieldloom.codes import bulk
from media import gradient


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


def test_each_verb_as_a_job(cli, own_run, tmp_path):
    """From the command line, in this process; what is in the files is asked in tests/bulk."""
    words = ["--device", "cpu", "--executor", "local"]
    codes, drawn, made = (tmp_path / name for name in ("codes", "drawn", "made"))
    cli("sample", own_run, "--count", 5, "--only-codes", "--shard", 3, "--out", codes, *words)
    said = cli("jobs", codes).stdout
    assert f"sample: 5 samples by '{own_run}', 2 shards of 3" in said
    assert "done: 2 shards, 5 samples; 0 shards are left" in said
    said = cli("decode", own_run, codes, "--out", drawn, "--resolution", 9, *words).stdout
    assert f"decoded 5 of 5: {drawn}" in said
    assert Image.open(drawn / "00000" / "000004.png").size == (9, 9)
    cli("reconstruct", own_run, "--count", 3, "--out", made, "--format", "npy", *words)
    assert len(list(made.glob("00000/*.npy"))) == 3
    cli("reconstruct", own_run, "--count", 3, "--out", made, "--format", "npy", *words)
    other = cli("reconstruct", own_run, "--count", 3, "--out", made, *words, status=2).stderr
    assert "another job: its format is '.npy', not '.png'" in other
    cli("evaluate", own_run, *words)
    assert (own_run / "report.json").is_file()
    assert not (own_run / "evaluated").exists()


def test_many_files_are_fitted_each_by_itself(cli, tmp_path):
    for name in ("a", "b"):
        Image.fromarray(gradient()).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no data")
    quick = ["--set", "train.field.steps=3", "--set", "field.width=8"]
    said = cli("fit", tmp_path, "--executor", "local", "--run", tmp_path / "fits", *quick).stdout
    assert "1 passed over (notes.txt)" in said
    assert "fitted 2 of 3" in said
    assert "c.png' is of no kind that is known" in said
    lines = (tmp_path / "fits" / "results.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["a", "b", "c"]
    Image.fromarray(gradient()).save(tmp_path / "c.png")  # it is mended, and tried again
    files = sorted(tmp_path.glob("*.png"))
    assert "fitted 3 of 3" in cli("fit", *files, "--run", tmp_path / "fits", *quick).stdout
    both = cli("fit", *files, "--run", tmp_path / "x", *quick, "--minutes", 1, status=2).stderr
    assert "minutes and steps are both given" in both
    assert not (tmp_path / "x").exists()
    assert "--resume is of one file" in cli("fit", *files, "--resume", status=2).stderr
    alone = cli("fit", tmp_path, status=2).stderr
    assert "--executor local fits each file by itself" in alone
