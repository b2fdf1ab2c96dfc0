"""judge from the command line."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from commands import run
from fieldloom.evaluation.set_metrics import SET_METRICS


@pytest.mark.slow
def test_the_command(tiny_run, tmp_path, capsys):
    own = shutil.copytree(tiny_run, tmp_path / "run")
    words = ["analyse", "judge", own, "--count", 6, "--steps", 5]
    run(*words)
    said = capsys.readouterr().out
    for word in ("6 each against training data, full, by ssim", "bootstrap", "gaussian", "ratio"):
        assert word in said
    numbers = json.loads((own / "judge.json").read_text())
    assert numbers["options"] == {"steps": 5}
    assert numbers["measure"] == "ssim"
    assert len(numbers["verdicts"]) == 6 * 2 * 2
    assert set(numbers["verdicts"][0]["figures"]) == set(SET_METRICS)
    for space in ("weights", "signals"):
        near = numbers["nearest training fields"]["samples"][space]
        assert len(near["samples"]) == len(near["held-out"]) == 6
    assert Image.open(own / "judge.png").size == (3 * 98 + 2, 6 * 98 + 2)

    run(*words, "--out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "judge.json").read_text()) == numbers
    run(*words, "--metric", "pixels", "--seed", 1, "--label", 3, "--out", tmp_path / "other")
    other = json.loads((tmp_path / "other" / "judge.json").read_text())
    assert (other["measure"], other["label"], other["seed"]) == ("pixels", "3", 1)
    assert other["verdicts"] != numbers["verdicts"]

    capsys.readouterr()
    for more, message in (
        (["--metric", "emd"], "unknown measure of these data 'emd'"),
        (["--count", 400], "as many held-out data: there are"),
        (["--top-k", 3], "unknown sampling option"),
    ):
        run("analyse", "judge", own, *more, status=2)
        assert message in capsys.readouterr().err
