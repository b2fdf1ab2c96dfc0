"""Analyses and test-time optimisation, against slow and obvious ways to the same numbers."""

import json
import math
import shutil

import pytest
import torch
from PIL import Image

import fieldloom
from commands import run
from fieldloom.encoders import Fit
from fieldloom.engine.run import save
from fieldloom.errors import InputError
from fieldloom.evaluation.influence import analyse_influence, draw_tokens, influence, locality
from fieldloom.evaluation.learning_curves import Curve, learning_curve
from fieldloom.evaluation.plots import Panel, plot
from fieldloom.evaluation.timing import (
    Budget,
    Rates,
    mean_curve,
    measured_steps,
    psnr_against_time,
    random_network,
)
from fieldloom.evaluation.views import psnr_by_support, psnr_of_held_out
from fieldloom.metrics.paired import psnr
from fieldloom.modalities.sources import Source
from fieldloom.types import Cameras, Data

CODED = ["functa", "mnif", "transinr", "ipc", "laginr"]


@pytest.fixture(params=CODED)
def system(request):
    return fieldloom.build(request.param, "tiny")


@pytest.fixture
def images() -> Data:
    return Data(torch.rand(3, 1, 8, 8))


@pytest.fixture(scope="module")
def scenes():
    """A light field of 8 x 8 with one view held out; two objects of five views, with cameras."""
    system = fieldloom.build(
        "laginr",
        "tiny",
        source={"name": "multiview"},
        modality={"name": "views", "size": 8, "support": [1, 3], "query": 1, "held": 1},
        renderer="plucker",
        field={"features": 12},
        prior="none",
    )
    orbit = system.modality.cameras(5)
    cameras = Cameras(orbit.c2w.expand(2, -1, -1, -1), orbit.intrinsics.expand(2, -1, -1))
    return system, Data(torch.rand(2, 5, 3, 8, 8), cameras)


# -- influence


def test_influence_is_the_difference_without_a_token(system, images):
    code = system.encode(images.part([0]))
    tokens = draw_tokens(system, 3)
    found = influence(system, code, tokens)
    torch.testing.assert_close(found.whole, system.predict(code).tensor[0])
    assert found.maps.shape == (len(tokens), 8, 8)
    for token, seen in zip(tokens, found.maps, strict=True):
        without = code.clone()
        without[:, token] = 0
        made = system.predict(without).tensor[0]
        torch.testing.assert_close(seen, (made - found.whole).abs().mean(0))
    assert found.maps.max() > 0


def test_tokens_are_drawn_from_the_seed():
    system = fieldloom.build("laginr", "tiny")
    assert draw_tokens(system, 99) == [0, 1, 2, 3]
    drawn = {tuple(draw_tokens(system, 2, seed)) for seed in range(30)}
    assert drawn == {(a, b) for a in range(4) for b in range(a + 1, 4)}
    assert draw_tokens(system, 2, 5) == draw_tokens(system, 2, 5)
    assert draw_tokens(fieldloom.build("functa", "tiny"), 8) == [0]


def test_influence_on_a_view(scenes):
    """The view is the first held-out one of each object, by its own camera."""
    system, data = scenes
    found = analyse_influence(system, data, 99)
    assert len(found.tokens) == len(found.influences[0].maps)
    for i, own in enumerate(found.influences):
        code, camera = system.encode(data)[i : i + 1], data.cameras.part([i]).views([4])
        torch.testing.assert_close(found.originals[i], data.tensor[i, 4])
        whole = system.predict(code, cameras=camera).tensor[0, 0]
        torch.testing.assert_close(own.whole, whole)
        for token, seen in zip(found.tokens, own.maps, strict=True):
            without = code.clone()
            without[:, token] = 0
            changed = system.predict(without, cameras=camera).tensor[0, 0]
            torch.testing.assert_close(seen, (changed - whole).abs().mean(0))
    assert found.draw().shape == (2 * (2 + len(found.tokens)), 3, 8, 8)


def test_locality():
    maps = torch.zeros(4, 10, 10)
    maps[0] = 3
    maps[1, 2, 7] = 5
    maps[2] = torch.rand(10, 10)
    found = locality(maps)
    assert found[0].item() == pytest.approx(0.1)
    assert found[1] == 1
    by_size = sorted(maps[2].flatten().tolist())
    assert found[2].item() == pytest.approx(sum(by_size[-10:]) / sum(by_size), rel=1e-5)
    assert found[3].isnan()


# -- curves, support


def test_a_learning_curve_has_only_lines_with_psnr():
    log = [
        {"stage": "field", "step": 10, "psnr": 12.0, "seconds_a_step": 0.5},
        {"stage": "field", "step": 20, "loss": 1.0, "seconds_a_step": 0.5},
        {"stage": "field", "step": 30, "psnr": 15.0, "seconds_a_step": 0.4},
        {"stage": "prior", "step": 10, "psnr": 99.0, "seconds_a_step": 0.5},
    ]
    assert learning_curve(log) == ([10, 30], [5.0, 12.0], [12.0, 15.0])


def test_support_is_measured_on_held_out_views(scenes):
    system, data = scenes
    found = psnr_by_support(system, data, [1, 3])
    for count, said in zip((1, 3), found, strict=True):
        values = []
        for i in range(2):
            datum = data.part([i])
            code = system.encode_signal(system.modality.support(datum, count))
            made = system.predict(code, cameras=datum.cameras.views([4])).tensor[0, 0]
            values.append(psnr(made[None], data.tensor[i, 4][None]).item())
        assert said == pytest.approx(sum(values) / 2, rel=1e-5)
    assert found[0] != pytest.approx(found[1], abs=1e-6)
    with pytest.raises(InputError, match="5 views, and only 4"):
        psnr_by_support(system, data, [5])
    with pytest.raises(InputError, match="has no views that are held out"):
        psnr_by_support(fieldloom.build("functa", "tiny"), Data(torch.rand(2, 1, 8, 8)), [1])


# -- time


def test_marks_go_from_the_first_to_the_last_step():
    for steps in (0, 1, 7, 100, 1000):
        marks = measured_steps(steps)
        assert marks[0] == 0
        assert marks[-1] == steps
        assert marks == sorted(set(marks))
        assert len(marks) <= 34


def test_curves_are_averaged_as_far_as_all_come():
    a, b = (
        Curve([0, 2, 5], [0.0, 1.0, 3.0], [10.0, 20.0, 30.0]),
        Curve([0, 2], [1.0, 2.0], [20.0, 24.0]),
    )
    assert mean_curve([a, b]) == Curve([0, 2], [0.5, 1.5], [15.0, 22.0])


@pytest.mark.parametrize("name", ["functa", "laginr"])
def test_four_ways_to_a_field(name, images):
    """All begin where they should, and what is measured after the last step is what is there."""
    system, images = fieldloom.build(name, "tiny"), images.part([0, 1])
    found = psnr_against_time(
        system, images, Budget(6, math.inf), Rates(1e-3, 1e-4, 1e-3), width=16
    )
    assert list(found) == ["encoder", "codes", "weights", "scratch"]
    encoded = psnr(system.predict(system.encode(images)).tensor, images.tensor).mean().item()
    for what in ("encoder", "codes", "weights"):
        assert found[what].psnr[0] == pytest.approx(encoded, abs=1e-3)
    assert found["encoder"].steps == [0]
    for what, rate in (("codes", 1e-3), ("weights", 1e-4)):
        refined = system.refine(images, what, 6, rate, 64)
        assert found[what].steps == [0, 1, 2, 3, 4, 5, 6]
        assert found[what].psnr[-1] == pytest.approx(refined.after.mean().item(), abs=1e-3)
    assert found["scratch"].psnr[-1] > found["scratch"].psnr[0]


def test_a_network_from_scratch_fits_a_picture(images):
    system = fieldloom.build("functa", "tiny")
    other, code = random_network(system, width=32)
    sizes = [64 * 32 + 32, 32 * 32 + 32, 32 * 32 + 32, 32 + 1]  # 32 cosines and 32 sines first
    assert code.shape == (1, 1, sum(sizes))
    signal = system.modality.encoding(images.part([0]))
    fitted = Fit(150, 3e-3)(signal, other.family, other.render, other.loss_fn)
    assert other.psnr(fitted, signal).item() > 25
    assert not torch.equal(code, random_network(system, width=32, seed=1)[1])


def test_a_budget_of_no_seconds_measures_only_the_beginning(images):
    system = fieldloom.build("functa", "tiny")
    found = psnr_against_time(system, images.part([0]), Budget(9, 0.0), width=8)
    assert all(curve.steps == [0] for curve in found.values())


def test_time_is_of_grids_with_codes(scenes, images):
    with pytest.raises(InputError, match="grids"):
        psnr_against_time(*scenes)
    bare = fieldloom.build("functa", "tiny", conditioner="shared", encoder="nothing", prior="none")
    for ask in (lambda: psnr_against_time(bare, images), lambda: draw_tokens(bare, 1)):
        with pytest.raises(InputError, match="have no codes"):
            ask()


# -- the command line


def test_commands_on_a_run(tiny_run, tmp_path, capsys):
    own = shutil.copytree(tiny_run, tmp_path / "run")
    twin = shutil.copytree(tiny_run, tmp_path / "other" / "run")
    run("analyse", "influence", own, "--count", 2, "--tokens", 5)
    numbers = json.loads((own / "influence.json").read_text())
    assert 0.1 <= numbers["locality"] <= 1
    assert numbers["tokens"] == [0]  # a run of one token
    assert numbers["runs"] == [str(own)]
    assert numbers["recipes"] == ["mnif:tiny"]
    assert Image.open(own / "influence.png").size == (3 * 98 + 2, 2 * 98 + 2)
    assert f"{numbers['locality']:.1%}" in capsys.readouterr().out

    run("analyse", "curves", own, twin, "--out", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 900
    run("analyse", "time", own, "--count", 2, "--steps", 3, "--width", 8, "--out", tmp_path)
    timed = json.loads((tmp_path / "time.json").read_text())
    assert set(timed["curves"]) == {"encoder", "codes", "weights", "scratch"}
    assert timed["data"] == 2
    assert timed["rates"] == {"codes": 1e-2, "weights": 1e-4, "scratch": 1e-3}
    assert (tmp_path / "time.png").is_file()

    capsys.readouterr()
    run("analyse", "support", own, status=2)
    assert "support is of views" in capsys.readouterr().err
    run("analyse", "time", own, "--code-rate", 0, status=2)
    assert "above 0" in capsys.readouterr().err
    run("analyse", "curves", tmp_path / "none", status=2)
    assert "is not a run" in capsys.readouterr().err
    (own / "log.jsonl").unlink()
    run("analyse", "curves", own, status=2)
    assert "has no PSNR" in capsys.readouterr().err


def test_reconstruct_refines(tiny_run, tmp_path, capsys):
    for what in ("codes", "weights"):
        out = tmp_path / what
        words = ["reconstruct", tiny_run, "--count", 2, "--resolution", 5, "--out", out]
        run(*words, "--refine", what, "--refine-steps", 15, "--refine-rate", 1e-2)
        said = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("PSNR"))
        system = fieldloom.load(tiny_run, device="cpu")
        source = fieldloom.assembly.open_source(system.recipe, system.modality)
        found = system.refine(source.read(source.test[:2]), what, 15, 1e-2)
        assert said == (
            f"PSNR of what was encoded: {found.before.mean():.2f} dB, "
            f"after 15 steps on {what} {found.after.mean():.2f}"
        )
        assert found.after.mean() > found.before.mean()
        made = found.system.decode(found.code, 5).tensor
        pixels = torch.tensor(list(Image.open(out / "0001.png").convert("L").getdata()))
        assert (pixels / 255 - made[1].flatten()).abs().max() < 0.003
    run(*words, "--overwrite", "--refine", "codes", "--refine-rate", 0, status=2)
    assert "rate = 0" in capsys.readouterr().err


def test_context_is_all_that_is_refined_on(tmp_path, capsys):
    """A run that encodes from a part of the points says what that does to all of them."""
    hidden = {"context": {"hide": 0.5}}
    save(fieldloom.build("functa", "tiny", modality=hidden), tmp_path / "half")
    words = ["reconstruct", tmp_path / "half", "--count", 2, "--refine", "codes"]
    run(*words, "--refine-steps", 2)
    assert "PSNR of all points" in capsys.readouterr().out


def test_commands_on_views(scenes, tmp_path, capsys, monkeypatch):
    system, data = scenes
    save(system, tmp_path / "views")
    indices = torch.arange(len(data))
    source = Source(data, (), indices, indices)
    monkeypatch.setattr("fieldloom.inputs.held_out_part", lambda system, path: (source, indices))
    run("analyse", "support", tmp_path / "views", "--views", 3)
    numbers = json.loads((tmp_path / "views" / "support.json").read_text())
    assert numbers["views"] == [1, 2, 3]
    expected = psnr_by_support(system, data, [1, 2, 3])
    assert numbers["psnr"]["views"] == pytest.approx(expected)
    assert (tmp_path / "views" / "support.png").is_file()
    run("analyse", "influence", tmp_path / "views", "--tokens", 2, "--count", 1)
    assert Image.open(tmp_path / "views" / "influence.png").size == (4 * 98 + 2, 98 + 2)
    capsys.readouterr()
    words = ["reconstruct", tmp_path / "views", "--refine", "codes", "--refine-steps", 2]
    run(*words, "--out", tmp_path / "orbits")
    before = psnr_of_held_out(system, system.encode(data), data).mean()
    assert f"PSNR of held-out views: {before:.2f} dB" in capsys.readouterr().out


def test_a_plot_shows_every_line(tmp_path):
    one = Panel("x", "y", {"a": ([0, 1, 2], [1.0, 2.0, 3.0])})
    two = Panel("x", "y", {**one.lines, "b": ([0, 1, 2], [3.0, 2.0, 1.0])})
    assert plot(one) != plot(two)
    (tmp_path / "two.png").write_bytes(plot(one, two))
    assert Image.open(tmp_path / "two.png").size == (1100, 396)


def test_runs_of_one_name_are_told_apart():
    from fieldloom.cli.analysing import name_runs

    assert name_runs(["a/run", "b/run", "c"]) == {"a/run": "a/run", "b/run": "b/run", "c": "c"}
