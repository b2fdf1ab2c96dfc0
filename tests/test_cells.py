"""benchmarks/cells.py: which cells there are, and what it finds in their logs."""

import importlib
import sys
from math import log10
from pathlib import Path

import pytest
import torch

import fieldloom
from fieldloom import recipe
from fieldloom.assembly import open_source

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def cells():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("cells")
    for name in ("cells", "evidence"):
        sys.modules.pop(name, None)


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


def test_training_data_are_measured_as_test_data_are(cells):
    system = fieldloom.build("mnif", "tiny", evaluate={"metrics": ["psnr"]})
    found = cells.measure_training(system, 5)
    source = open_source(system.recipe, system.modality)
    places = source.train[torch.linspace(0, len(source.train) - 1, 5).round().long()]
    data = source.read(places)
    raw = system.predict(system.encode(data)).tensor
    errors = (raw - data.as_float().tensor).square().flatten(1).mean(1)
    assert found == {"train.psnr": pytest.approx((-10 * errors.log10()).mean().item(), 1e-4)}


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
