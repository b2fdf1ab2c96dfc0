"""``docs/results`` has the numbers of the JSON of ``benchmarks/results``, and no others."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))


@pytest.fixture(scope="module")
def evidence():
    """benchmarks/evidence.py: what was measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("evidence")
    for name in ("evidence", "tables"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tables(evidence):
    """benchmarks/tables.py: how it is written."""
    return importlib.import_module("tables")


@pytest.fixture(scope="module")
def committed(evidence):
    """The tables of ``benchmarks/pages``."""
    return evidence.read_tables()


@pytest.fixture
def results(tmp_path):
    """A description of one table, ``t``, of rows a to d; ``put(row, seed, psnr)`` adds a cell."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "results" / "cells" / "t").mkdir(parents=True)
    (tmp_path / "pages" / "p.toml").write_text(
        """
        [t]
        about = "T"
        order = { figure = "psnr", published = "psnr", headline = "a" }
        columns = [{ label = "PSNR", figure = "psnr", published = "psnr", format = ".1f" }]
        [t.rows]
        a = { label = "A", published = { psnr = "30.0" } }
        b = { label = "B", published = { psnr = "29.0" }, older = "old.json#rows/b" }
        c = { label = "C", published = { psnr = "28.0" } }
        d = { label = "D", published = { psnr = "27.5" }, quoted = true }
        """
    )
    figures = [{"name": "psnr", "value": 21.04, "how": "mean"}, {"name": "psnr", "value": 9.0}]
    old = {"command": "make old", "rows": [{"row": "b", "figures": figures}]}
    (tmp_path / "results" / "old.json").write_text(json.dumps(old))

    def put(row, seed, psnr, **more):
        cell = {"seed": seed, "figures": {"psnr": psnr}, "seconds": {"field": 10 + seed}, **more}
        path = tmp_path / "results" / "cells" / "t" / f"{row}-seed{seed}.json"
        path.write_text(json.dumps(cell))

    put.read = lambda module: module.read_tables(tmp_path / "pages", tmp_path / "results")["t"]
    return put


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_say_what_the_json_says(page, tables, committed):
    fresh = tables.write_page(page.read_text(), committed)
    assert page.read_text() == fresh, "python benchmarks/tables.py write"


def test_every_table_stands_in_its_page(committed):
    for table in committed.values():
        text = (ROOT / "docs" / "results" / f"{table.page}.md").read_text()
        assert f"<!-- table: {table.name} -->" in text
    assert {table.page for table in committed.values()} == {page.stem for page in PAGES} - {
        "README"
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_text_has_no_measured_numbers(page):
    """Decimals, shares and decibels stand in what is written from the JSON, or in code spans."""
    text = re.sub(r"<!-- .*?<!-- end -->|`[^`]*`", "", page.read_text(), flags=re.S)
    text = re.sub(r"arXiv:\d+\.\d+|95 % interval", "", text)
    assert not re.findall(r".*\d\.\d.*|.*\d ?%.*|.*\d dB.*", text)


def test_rows_that_were_not_run_say_so_and_quoted_ones_have_no_figures(results, tables):
    lines = tables.write_table(results.read(tables))
    assert lines[0] == "|  | PSNR | published |"
    assert lines[2:] == [
        "| A | not run | 30.0 |",
        "| B | 21.0 | 29.0 |",
        "| C | not run | 28.0 |",
        "| D (quoted) | - | 27.5 |",
    ]


def test_seeds_are_their_mean_and_the_interval_of_student(results, tables, evidence):
    for seed, psnr in enumerate([20.0, 21.0, 22.0]):
        results("a", seed, psnr)
    assert evidence.find_interval([20.0, 21.0, 22.0]) == pytest.approx(4.302653 / 3**0.5)
    table = results.read(tables)
    assert tables.write_table(table)[2] == "| A | 21.0 ± 2.5 (3) | 30.0 |"
    assert "| 0; 1; 2 | - | field 11 |" in tables.write_runs(table)[2]


def test_older_figures_are_not_ranked_with_cells(results, tables):
    results("a", 0, 25.0)
    results("c", 0, 26.0)
    table = results.read(tables)
    assert "| B (an older run) | 21.0 |" in tables.write_table(table)[3]
    text = " ".join(tables.write_order(table))
    assert "0 of 1 pairs as published" in text
    assert "the other way round here: A before C." in text


def test_pairs_whose_intervals_overlap_are_undecided(results, tables):
    for seed, off in enumerate([-0.1, 0.0, 0.1]):
        results("a", seed, 25 + off)
        results("b", seed, 25.2 + off)
        results("c", seed, 24 + off)
    text = " ".join(tables.write_order(results.read(tables)))
    assert text == (
        "**Order** by PSNR: 2 of 3 pairs as published. Undecided, since their intervals overlap: "
        "A before B."
    )


def test_a_row_of_which_a_seed_diverged_is_undecided(results, tables):
    for name, off in {"a": 25.0, "c": 20.0}.items():
        results(name, 0, off)
        results(name, 1, off + 0.1)
    results("a", 2, None)
    text = " ".join(tables.write_order(results.read(tables)))
    assert "0 of 1 pairs as published. Undecided, since their intervals overlap" in text


def test_seeds_of_other_settings_are_refused(results, tables):
    results("a", 0, 25.0, overrides={"steps": 1})
    results("a", 1, 25.0, overrides={"steps": 2})
    with pytest.raises(ValueError, match=r"a-seed1\.json: another overrides than a-seed0\.json"):
        results.read(tables)


def test_cells_without_a_description_get_a_row(results, tables):
    results("new", 0, 25.0)
    assert tables.write_table(results.read(tables))[-1] == "| new | 25.0 | - |"


def test_a_figure_of_some_seeds_says_of_how_many(tables):
    column = tables.Column("F", "steps.20dB", format=".0f")
    assert tables.show_values([300.0], column, 3) == "300 (1 of 3)"
    assert tables.show_values([300.0, 302.0], column, 3) == "301 ± 13 (2 of 3)"
    assert tables.show_values([], column, 3) == "-"
    assert tables.show_values([float("nan"), 302.0], column, 2) == "not finite (2)"
    assert tables.show_values([float("inf")], column) == "not finite"


def test_rows_whose_figure_is_no_number_are_not_ranked(results, tables):
    results("a", 0, float("nan"))
    results("c", 0, 20.0)
    text = " ".join(tables.write_order(results.read(tables)))
    assert "fewer than two of the published rows were run" in text


def test_a_stage_that_one_seed_lacks_is_the_mean_of_the_others(results, tables):
    results("a", 0, 20.0, steps={"field": 4})
    results("a", 1, 20.0, steps={"field": 4, "prior": 6})
    assert "| field 4, prior 6 |" in tables.write_runs(results.read(tables))[2]


def test_a_row_may_have_the_cells_of_another_table(results, tables, tmp_path):
    results("a", 0, 25.0)
    (tmp_path / "pages" / "q.toml").write_text(
        """
        [u]
        about = "U"
        columns = [{ label = "PSNR", figure = "psnr", format = ".1f" }]
        [u.rows]
        same = { label = "S", cell = "t/a", older = "old.json#rows/b" }
        other = { label = "O", cell = "t/c", older = "old.json#rows/b" }
        """
    )
    read = tables.read_tables(tmp_path / "pages", tmp_path / "results")["u"]
    assert tables.write_table(read)[2:] == ["| S | 25.0 |", "| O (an older run) | 21.0 |"]
