"""benchmarks/cells.py and cell_figures.py: which cells there are, and what is found of them."""

import importlib
import json
import re
import subprocess
import sys
import threading
import time
from math import log10
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fieldloom
from fieldloom import recipe
from fieldloom.assembly import open_source
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.training import training_codes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def cells():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("cells")
    for name in (
        "cells",
        "cell_figures",
        "checkpoints",
        "curves",
        "evidence",
        "phases",
        "sheets",
        "watching",
    ):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def own(cells):
    """What cells measure beside evaluations."""
    return sys.modules["cell_figures"]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A run of fields as tokens, whose prior is trained; and its system."""
    folder = tmp_path_factory.mktemp("words") / "run"
    return fieldloom.train("weights", folder, "tiny", device="cpu"), Run(folder)


def write_digits(folder):
    pixels = torch.randint(0, 256, (20, 8, 8), generator=torch.Generator().manual_seed(0))
    np.savez(folder / "digits.npz", data=pixels.byte().numpy())


def test_a_commit_is_dirty_where_its_code_has_changed(cells, tmp_path, monkeypatch):
    git = lambda *words: subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True
    )
    code, result = tmp_path / "src" / "a.py", tmp_path / "benchmarks" / "results" / "a.json"
    for path in (code, result):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    monkeypatch.setattr(cells, "HERE", tmp_path / "benchmarks")
    result.unlink()
    (tmp_path / "untracked").touch()
    clean = cells.find_commit()
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    code.write_text("2")
    assert cells.find_commit() == f"{clean}-dirty"


def cell_of(cells, **changes):
    """A cell of seconds, of ``digits.npz``."""
    known = {
        "table": "table",
        "row": "row",
        "seed": 0,
        "recipe": "mnif",
        "variant": "tiny",
        "data": "digits.npz",
        "source": {"name": "array"},
        "part": "all",
        "stage": "all",
        "changes": {"prior": "none", "evaluate": {"metrics": ["psnr"]}},
        "run": "table/row",
        "measures": {},
    }
    return cells.Cell(**known | changes)


def log_of(psnrs, span=2.0, every=5):
    """Lines of a run whose losses are of these PSNRs."""
    return [
        {
            "stage": "field",
            "step": every * (i + 1),
            "loss": span**2 * 10 ** (-psnr / 10),
            "psnr": psnr,
            "seconds_a_step": 0.5,
        }
        for i, psnr in enumerate(psnrs)
    ]


def test_a_level_is_reached_where_the_psnr_stays_above_it(cells):
    log = log_of([14] * 30 + [21] * 10 + [14] * 20 + [25] * 40)
    found = cells.find_reached(log, 2.0, 100.0)
    mixed = [(n * 10 ** (-1.4) + (10 - n) * 10 ** (-2.5)) / 10 for n in range(11)]
    after = next(10 - n for n in range(10, -1, -1) if -10 * log10(mixed[n]) > 20)
    assert found == {
        "steps.20dB": 5 * (60 + after),
        "seconds.20dB": 60.0 + after,  # a step is 0.2 of the processor's 100 seconds
        "steps.24dB": 5 * 70,
        "seconds.24dB": 70.0,
    }


def test_what_is_not_reached_has_no_figure(cells):
    assert cells.find_reached(log_of([14] * 50), 2.0, 10.0) == {}
    assert cells.find_reached(log_of([25] * 40 + [14] * 9), 2.0, 10.0) == {}
    assert cells.find_reached([], 2.0, 10.0) == {}
    entropies = [{k: x for k, x in line.items() if k != "psnr"} for line in log_of([30] * 9)]
    assert cells.find_reached(entropies, 2.0, 10.0) == {}


def test_a_stage_has_its_share_of_the_seconds(cells):
    prior = {"stage": "prior", "step": 100, "loss": 1.0, "seconds_a_step": 0.5}
    found = cells.find_reached([*log_of([30] * 20, span=1.0), prior], 1.0, 80.0)
    assert found["steps.20dB"] == 5
    assert found["seconds.20dB"] == 2.0


def test_data_that_are_missing_are_named(cells, monkeypatch, capsys, tmp_path):
    to = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["cells.py", "run", "decide-growth", *to])
    with pytest.raises(SystemExit):
        cells.main()
    assert capsys.readouterr().err.endswith(f"not in {tmp_path}: hires_pluto_4408x4344.jpg\n")


def test_cells_are_of_known_recipes_and_stand_in_a_table(cells):
    evidence = importlib.import_module("evidence")
    tables = evidence.read_tables()
    known = {name: file["variants"] for name, file in recipe.read_bundled().items()}
    for cell in cells.read_cells(None):
        assert cell.row in {row.name for row in tables[cell.table].rows}, cell.name
        assert cell.variant in known[cell.recipe], cell.name


def test_a_training_that_falls_apart_is_a_result(cells, tmp_path):
    write_digits(tmp_path)
    rates = {"train": {"field": {"optimizer": {"name": "sgd", "rate": 1e6}}}}
    cell = cell_of(cells, changes=rates | {"prior": "none"})
    found = cells.run_cell(cell, tmp_path, tmp_path / "runs")
    assert f"at step {found['figures']['fell.apart']}: its batch" in found["diverged"]
    assert set(found["figures"]) == {"fell.apart"}
    assert "processor_seconds" not in found
    again = cells.run_cell(cell, tmp_path, tmp_path / "runs")
    assert again["figures"] == found["figures"]


def test_wrong_input_is_no_result(cells, tmp_path):
    write_digits(tmp_path)
    cell = cell_of(cells, changes={"encoder": {"rate": -1.0}})
    with pytest.raises(InputError):
        cells.run_cell(cell, tmp_path, tmp_path / "runs")


def test_rows_that_share_a_run_train_once(cells, tmp_path):
    write_digits(tmp_path)
    first = cells.run_cell(cell_of(cells), tmp_path, tmp_path / "runs")
    measures = {"training": {"count": 5}, "refined": {"steps": 2}}
    other = cell_of(cells, row="other", measures=measures, evaluated=False)
    second = cells.run_cell(other, tmp_path, tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs" / "table").glob("*-seed0")] == ["row-seed0"]
    assert first["curves"] == second["curves"]
    assert set(second["figures"]) == {"train.psnr", "refined.psnr"}
    assert second["measures"] == measures
    assert second["figures"]["refined.psnr"] >= first["figures"]["psnr"]


def test_a_row_that_shares_a_run_is_evaluated_by_its_own_settings(cells, tmp_path):
    write_digits(tmp_path)
    first = cells.run_cell(cell_of(cells), tmp_path, tmp_path / "runs")
    own = {"prior": "none", "evaluate": {"metrics": ["mse"]}}
    other = cells.run_cell(cell_of(cells, row="other", changes=own), tmp_path, tmp_path / "runs")
    assert {"psnr", "mse"} & set(first["figures"]) == {"psnr"}
    assert {"psnr", "mse"} & set(other["figures"]) == {"mse"}
    assert other["curves"] == first["curves"]
    cells.run_cell(cell_of(cells, row="other", changes=own), tmp_path, tmp_path / "b")
    last = cells.run_cell(cell_of(cells), tmp_path, tmp_path / "b")
    assert {"psnr", "mse"} & set(last["figures"]) == {"psnr"}


def test_a_run_of_other_settings_is_not_measured(cells, tmp_path):
    write_digits(tmp_path)
    cells.run_cell(cell_of(cells), tmp_path, tmp_path / "runs")
    changes = {"prior": "none", "evaluate": {"metrics": ["psnr"]}, "encoder": {"rate": 0.5}}
    for other in (cell_of(cells, changes=changes), cell_of(cells, variant="digits")):
        assert other.settings()["resolved"] != cell_of(cells).settings()["resolved"]
        with pytest.raises(InputError, match="row-seed0' holds a run of other settings: remove it"):
            cells.run_cell(other, tmp_path, tmp_path / "runs")


def test_the_stage_of_a_codec_has_the_fields_before_it(cells, tmp_path):
    write_digits(tmp_path)
    measures = {"codec": {"count": 4}}
    changes = {"recipe": "weights", "variant": "tiny-graph", "stage": "codec", "changes": {}}
    cell = cell_of(cells, **changes, measures=measures, evaluated=False)
    found = cells.run_cell(cell, tmp_path, tmp_path / "runs")
    assert found["steps"] == {"field": 1, "codec": 10}
    assert {"fitted.psnr", "ceiling.psnr"} <= set(found["figures"])


def test_seconds_are_counted_over_starts_and_kills(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "COUNTED", 0.01)
    path = tmp_path / "seconds"
    path.write_text("100.0")
    with cells.count_seconds(path):
        began = time.process_time()
        while time.process_time() - began < 0.1 or float(path.read_text()) == 100:
            pass
        within = float(path.read_text())  # what a kill would leave
    assert 100 < within <= float(path.read_text()) < 200


def test_training_data_are_measured_as_test_data_are(own):
    system = fieldloom.build("mnif", "tiny", evaluate={"metrics": ["psnr"]})
    found = own.measure_training(system, None, 5)
    source = open_source(system.recipe, system.modality)
    places = source.train[torch.linspace(0, len(source.train) - 1, 5).round().long()]
    data = source.read(places)
    raw = system.predict(system.encode(data)).tensor
    errors = (raw - data.as_float().tensor).square().flatten(1).mean(1)
    assert found == {"train.psnr": pytest.approx((-10 * errors.log10()).mean().item(), 1e-4)}


def test_the_entropy_of_places(own):
    ids = torch.tensor([[0, 3, 1], [1, 3, 1], [2, 3, 2], [7, 3, 2]])
    entropies = torch.tensor([4.0, 1.0, 2.0]).log().double()
    torch.testing.assert_close(own.place_entropy(ids), entropies)


def test_the_cross_entropy_of_training_codes(own, words):
    system, run = words
    found = own.measure_entropy(system, run)
    codes, labels = training_codes(system, open_source(system.recipe, system.modality), run)
    prior = system.prior
    with torch.no_grad():
        losses = prior.loss(codes[:], labels) * prior.count  # nats a code, with its class
        hidden = prior.hidden_states(prior.tokenize(codes[:]), labels)[:, 0]
        class_loss = torch.nn.functional.cross_entropy(hidden @ prior.label.weight.T, labels)
    expected = (losses.mean() - class_loss) / prior.tokens
    assert found["cross.entropy"] == pytest.approx(expected.item(), rel=1e-5)
    assert 0 < found["marginal.entropy"] < np.log(15)


def test_samples_are_judged_as_the_command_judges_them(own, words, cli):
    system, run = words
    found = own.measure_samples(system, run, {"top_k": 2, "temperature": 1.0}, 16)
    options = ["--count", "16", "--top-k", "2", "--temperature", "1.0", "--seed", "0"]
    cli("analyse", "judge", run.folder, *options)
    verdicts = json.loads((run.folder / "judge.json").read_text())["verdicts"]
    asked = {"set": "samples", "reference": "held-out", "protocol": "full"}
    (same,) = (one["figures"] for one in verdicts if asked.items() <= one.items())
    assert found == same
    assert found != own.measure_samples(system, run, {"top_k": 15, "temperature": 1.0}, 16)


def test_codecs_are_measured_of_their_own_data(own, words):
    system, run = words
    found = own.measure_codec(system, run, 8)
    source = open_source(system.recipe, system.modality)
    codes, _ = training_codes(system, source, run)
    few = torch.linspace(0, len(codes) - 1, 8).round().long()
    data = source.read(source.train[few])
    for name, some in (
        ("fitted.psnr", codes[few]),
        ("ceiling.psnr", system.prior.codec.decode(system.prior.codec.encode(codes[few]))),
    ):
        errors = (system.predict(some).tensor - data.as_float().tensor).square()
        psnr = (-10 * errors.flatten(1).mean(1).log10()).mean().item()
        assert found[name] == pytest.approx(psnr, abs=1e-4)


def test_units_that_are_never_active(own, words):
    system, run = words
    found = own.measure_start(system, run, 5)
    assert 0 <= found["dead.units"] < found["units"] == 8  # two hidden layers of 4
    assert {"fitted.psnr"} < set(found)
    conditioner = system.family.conditioner
    weights = {name: part.clone() for name, part in conditioner.unpack(conditioner.start).items()}
    weights["0.bias"][0] = torch.tensor([-1e6, 1e6, -1e6, 1e6])
    weights["1.bias"][0] = torch.tensor([1e9, 1e9, 1e9, -1e12])
    active = own.count_active(system, conditioner.pack(weights))
    assert active.tolist() == [False, True, False, True, True, True, True, False]
    assert system.family.field.activation(torch.tensor(-1.0)) == 0  # is left as it was


def test_checkpoints_are_kept_and_evaluated(cells, own, tmp_path, monkeypatch):
    checkpoints = sys.modules["checkpoints"]
    write_digits(tmp_path)
    stops = {"train": {"field": {"steps": 20, "save_every": 5}}}
    folder = tmp_path / "runs" / "table" / "row-seed0"
    plain = Run.write_state

    def copied(run, *given):  # as the thread does, which would miss such fast checkpoints
        plain(run, *given)
        checkpoints.copy_checkpoint(run.folder, folder / "checkpoints")

    monkeypatch.setattr(Run, "write_state", copied)
    changes = {"prior": "none", "evaluate": {"metrics": ["psnr"]}} | stops
    cell = cell_of(cells, changes=changes, measures={"held-out": {"count": 2}})
    found = cells.run_cell(cell, tmp_path, tmp_path / "runs")["figures"]
    assert [name for name in found if name.startswith("held")] == [
        f"held.{step}" for step in (5, 10, 15, 20)
    ]
    assert found["held.20"] == pytest.approx(found["psnr"], abs=1e-3)  # both test digits
    early = fieldloom.load(folder / "checkpoints" / "5", "cpu")
    assert early.unfinished.step == 5
    data = open_source(early.recipe, early.modality)
    data = data.read(data.test)
    errors = (early.predict(early.encode(data)).tensor - data.as_float().tensor).square()
    psnr = (-10 * errors.flatten(1).mean(1).log10()).mean().item()
    assert found["held.5"] == pytest.approx(psnr, abs=0.05)
    curve = importlib.import_module("curves").held_out_curve
    seed = importlib.import_module("evidence").Seed({"figures": found}, {})
    assert [step for step, _ in curve(seed)] == [5, 10, 15, 20]


def test_sheets_show_data_that_may_be_published_alone(cells, tmp_path, monkeypatch, capsys):
    sheets = importlib.import_module("sheets")
    write_digits(tmp_path)
    cell = cell_of(cells)
    cells.run_cell(cell, tmp_path, tmp_path / "runs")
    monkeypatch.setattr(sheets, "read_cells", lambda seeds: [cell])
    monkeypatch.setattr(sheets, "IMAGES", tmp_path)
    command = ["sheets.py", "table", "--runs", str(tmp_path / "runs"), "--count", "9"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        sheets.main()
    assert "digits.npz: its licence does not allow pictures of it." in capsys.readouterr().err
    monkeypatch.setitem(sheets.PUBLISHED, "digits.npz", "CC0")
    sheets.main()
    system = fieldloom.load(tmp_path / "runs" / cell.folder / "run", "cpu")
    lines = sheets.draw_reconstructions([system], 2)
    source = open_source(system.recipe, system.modality)
    data = source.read(source.test)
    made = system.predict(system.encode(data)).tensor.clamp(0, 1)
    expected = torch.cat([data.as_float().tensor, made]).expand(-1, 3, -1, -1)
    torch.testing.assert_close(lines, expected, atol=1e-5, rtol=0)
    with Image.open(tmp_path / "table-sheet.png") as image:
        assert image.size == (2 * 98 + 2, 2 * 98 + 2)


def test_checkpoints_are_copied_while_a_run_is_trained(cells, tmp_path, monkeypatch):
    checkpoints = sys.modules["checkpoints"]
    monkeypatch.setattr(checkpoints, "PAUSE", 0.01)
    seen = threading.Event()
    monkeypatch.setattr(checkpoints, "copy_checkpoint", lambda run, into: seen.set())
    with checkpoints.keep_checkpoints(tmp_path, tmp_path / "kept"):
        assert seen.wait(60)

    def fail(run, into):
        seen.set()
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "copy_checkpoint", fail)
    seen.clear()
    with (
        pytest.raises(OSError, match="no space left"),
        checkpoints.keep_checkpoints(tmp_path, tmp_path / "kept"),
    ):
        assert seen.wait(60)


def test_the_phases_of_a_siren(cells):
    phases = importlib.import_module("phases")
    system = fieldloom.build("mnif", "tiny", conditioner={"gain": "sqrt", "experts": 64})
    field, conditioner = system.family.field, system.family.conditioner
    weights = conditioner(conditioner.origin(1).detach())
    h = system.modality.grid()
    found = phases.measure_phases(system)
    assert len(found) == field.depth - 1 == 2
    for i, own in enumerate(found):
        phase = field.frequencies[i] * (h @ weights[f"{i}.weight"] + weights[f"{i}.bias"])
        assert own == pytest.approx(phase.std((0, 1)).mean().item(), rel=1e-4)
        h = phase.sin()
    small = fieldloom.build("mnif", "tiny", conditioner={"gain": 1.0, "experts": 64})
    ratio = found / phases.measure_phases(small)
    assert ratio[0] == pytest.approx(8, rel=0.01)  # the mean of 64 draws
    assert ratio[1] > 8
