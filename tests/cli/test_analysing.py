"""Analyses and test-time optimisation from the command line."""

import json
import shutil

import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom.engine.run import save
from fieldloom.evaluation.views import psnr_by_support, psnr_of_held_out
from fieldloom.modalities.sources import Source


@pytest.mark.slow
def test_commands_on_a_run(cli, tiny_run, tmp_path, capsys):
    own = shutil.copytree(tiny_run, tmp_path / "run")
    twin = shutil.copytree(tiny_run, tmp_path / "other" / "run")
    cli("analyse", "influence", own, "--count", 2, "--tokens", 5)
    numbers = json.loads((own / "influence.json").read_text())
    assert 0.1 <= numbers["locality"] <= 1
    assert numbers["tokens"] == [0]  # a run of one token
    assert numbers["runs"] == [str(own)]
    assert numbers["recipes"] == ["mnif:tiny"]
    assert Image.open(own / "influence.png").size == (3 * 98 + 2, 2 * 98 + 2)
    assert f"{numbers['locality']:.1%}" in capsys.readouterr().out

    cli("analyse", "curves", own, twin, "--out", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 900
    cli("analyse", "time", own, "--count", 2, "--steps", 3, "--width", 8, "--out", tmp_path)
    timed = json.loads((tmp_path / "time.json").read_text())
    assert set(timed["curves"]) == {"encoder", "codes", "weights", "scratch"}
    assert timed["data"] == 2
    assert timed["rates"].pop("codes") == "0.1 of the root mean square, of weights 0.0001"
    assert timed["rates"] == {"weights": 1e-4, "scratch": 1e-3}
    assert (tmp_path / "time.png").is_file()

    capsys.readouterr()
    cli("analyse", "support", own, status=2)
    assert "support is measured of runs of scenes" in capsys.readouterr().err
    cli("analyse", "time", own, "--code-rate", 0, status=2)
    assert "above 0" in capsys.readouterr().err
    cli("analyse", "curves", tmp_path / "none", status=2)
    assert "is not a run" in capsys.readouterr().err
    (own / "log.jsonl").unlink()
    cli("analyse", "curves", own, status=2)
    assert "has no PSNR" in capsys.readouterr().err


def test_reconstruct_refines(cli, tiny_run, tmp_path, capsys):
    for what in ("codes", "weights"):
        out = tmp_path / what
        words = ["reconstruct", tiny_run, "--count", 2, "--resolution", 5, "--out", out]
        cli(*words, "--refine", what, "--refine-steps", 15, "--refine-rate", 1e-2)
        said = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("PSNR"))
        system = fieldloom.load(tiny_run, device="cpu")
        source = fieldloom.assembly.open_source(system.recipe, system.modality)
        found = system.refine(source.read(source.test[:2]), what, 15, 1e-2)
        assert said == (
            f"PSNR of what was encoded: {found.before.mean():.2f} dB, "
            f"{found.after.mean():.2f} dB after 15 steps on {what}"
        )
        assert found.after.mean() > found.before.mean()
        made = found.system.decode(found.code, 5).tensor
        pixels = torch.tensor(list(Image.open(out / "0001.png").convert("L").getdata()))
        assert (pixels / 255 - made[1].flatten()).abs().max() < 0.003
    cli(*words, "--overwrite", "--refine", "codes", "--refine-rate", 0, status=2)
    assert "rate = 0" in capsys.readouterr().err


def test_context_is_all_that_is_refined_on(cli, tmp_path, capsys):
    """A run that encodes from a part of the points says what that does to all of them."""
    hidden = {"context": {"hide": 0.5}}
    save(fieldloom.build("functa", "tiny", modality=hidden), tmp_path / "half")
    words = ["reconstruct", tmp_path / "half", "--count", 2, "--refine", "codes"]
    cli(*words, "--refine-steps", 2)
    assert "PSNR of all points" in capsys.readouterr().out


def test_commands_on_views(cli, scenes, tmp_path, capsys, monkeypatch):
    system, data = scenes
    save(system, tmp_path / "views")
    indices = torch.arange(len(data))
    source = Source(data, (), indices, indices)
    monkeypatch.setattr("fieldloom.inputs.held_out_part", lambda system, path: (source, indices))
    cli("analyse", "support", tmp_path / "views", "--views", 3)
    numbers = json.loads((tmp_path / "views" / "support.json").read_text())
    assert numbers["views"] == [1, 2, 3]
    expected = psnr_by_support(system, data, [1, 2, 3])
    assert numbers["psnr"]["views"] == pytest.approx(expected)
    assert (tmp_path / "views" / "support.png").is_file()
    cli("analyse", "influence", tmp_path / "views", "--tokens", 2, "--count", 1)
    assert Image.open(tmp_path / "views" / "influence.png").size == (4 * 98 + 2, 98 + 2)
    capsys.readouterr()
    words = ["reconstruct", tmp_path / "views", "--refine", "codes", "--refine-steps", 2]
    cli(*words, "--out", tmp_path / "orbits")
    before = psnr_of_held_out(system, system.encode(data), data).mean()
    assert f"PSNR of held-out views: {before:.2f} dB" in capsys.readouterr().out
