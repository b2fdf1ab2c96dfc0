"""Live pages beside a report: what is on them, and what is passed over in a sentence."""

import pytest
import torch

import fieldloom
from fieldloom.engine.run import Run
from fieldloom.report import Live, live
from fieldloom.report.files import own_files


@pytest.fixture
def system():
    return fieldloom.build("mnif", "tiny", prior="none")


def make_live(system, file="live.html"):
    return Live(file, "Two", torch.zeros(2, *system.family.code_shape), ["a", "b"])


def test_pages_too_large_or_of_other_data_are_passed_over(system, tmp_path, monkeypatch):
    run = Run(tmp_path)
    assert live.write_pages(run, system, [make_live(system)]) == ({"live.html": "Two"}, [])
    assert "<option" in (tmp_path / "live.html").read_text()
    monkeypatch.setattr(live, "NUMBERS", 2 * system.family.numbers - 1)
    pages, passed = live.write_pages(run, system, [make_live(system, "large.html")])
    assert not pages
    assert "too many for a report; 'fieldloom export' writes one of any size" in passed[0]
    monkeypatch.undo()
    other = fieldloom.build("mnif", "tiny", modality={"size": 8, "channels": 2}, prior="none")
    pages, passed = live.write_pages(run, other, [make_live(other, "other.html")])
    assert "these data have 2 channels" in passed[0]
    assert {path.name for path in tmp_path.iterdir()} == {"live.html"}


def test_own_files_are_those_that_the_report_names(tmp_path):
    run = Run(tmp_path)
    assert own_files(run) == set()
    wrong = ["a.png", "../b.png", "c.txt", "report.html", 3]
    run.write_json("report.json", {"images": wrong, "pages": ["live.html", "model.safetensors"]})
    assert own_files(run) == {"a.png", "live.html"}
