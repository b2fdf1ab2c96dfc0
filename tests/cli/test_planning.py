"""plan, from the command line."""

import json

import pytest

from fieldloom.cli.planning import describe_span
from fieldloom.planning import Span


def test_a_plan_is_printed_and_written(cli, tmp_path):
    out = tmp_path / "plan.json"
    words = ["--signals", "1_000_000", "--workers", "1e3", "--processes", 4, "--price", 0.5]
    said = cli("plan", "mnif:tiny", *words, "--seconds", 0.1, "--out", out)
    for text in ("train field", "encode", "cost", "would not scale", "assumed", "measured here"):
        assert text in said.stdout
    told = json.loads(out.read_text())
    assert (told["signals"], told["workers"]) == (1_000_000, 1000)
    status, again = cli.answer("plan", "mnif:tiny", *words, "--out", out)
    assert status == 2
    assert "is there already" in again


def test_a_plan_of_a_run(cli, tiny_run):
    said = cli("plan", "--run", tiny_run, "--signals", "1e9", "--seconds", 0.1).stdout
    assert "train field" not in said
    assert "sample codes" in said


def test_what_is_wrong_is_said(cli, tiny_run, tmp_path):
    for words, said in {
        ("mnif:tiny",): "--signals is missing",
        ("mnif:tiny", "--signals", "1.5"): "--signals '1.5' is not right: it is a whole number",
        ("mnif:tiny", "--signals", "1M"): "as 1e6 or 1_000_000",
        ("mnif:tiny", "--signals", "1e6", "--workers", "0"): "--workers '0' is not right",
        ("mnif:tiny", "--signals", "1e6", "--price", "-1"): "--price -1.0 is not right",
        ("mnif:tiny", "--signals", "1e6", "--seconds", "nan"): "--seconds nan is not right",
        ("--signals", "1e6"): "a recipe, as in",
        ("mnif:tiny", "--run", tiny_run, "--signals", "1e6"): "not both",
        (tiny_run, "--signals", "1e6"): "fieldloom plan --run",
        ("--run", tmp_path, "--signals", "1e6"): "is not a run",
        ("mnif:tinny", "--signals", "1e6"): "did you mean 'tiny'",
        ("mnif:tiny", "--signals", "1e6", "--source", "nowhere"): "nowhere",
        ("--run", tiny_run, "--set", "field.width=3", "--signals", "1e6"): "does not change",
    }.items():
        status, told = cli.answer("plan", *words)
        assert status == 2, words
        assert said in told, told


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        (Span(1.0, 3.0, 4.0), "3 h (1 to 4)"),
        (Span(0.01, 0.01, 0.01), "36 s"),
        (Span(0.5, 0.5, 0.5), "30 min"),
        (Span(72.0, 72.0, 72.0), "3 days"),
        (Span(87660.0, 87660.0, 87660.0), "10 years"),
    ],
)
def test_times_have_the_unit_that_suits_them(hours, said):
    assert describe_span(hours) == said
