"""Plots of curves."""

from PIL import Image

from fieldloom.evaluation.plots import Panel, plot


def test_a_plot_shows_every_line(tmp_path):
    one = Panel("x", "y", {"a": ([0, 1, 2], [1.0, 2.0, 3.0])})
    two = Panel("x", "y", {**one.lines, "b": ([0, 1, 2], [3.0, 2.0, 1.0])})
    assert plot(one) != plot(two)
    (tmp_path / "two.png").write_bytes(plot(one, two))
    assert Image.open(tmp_path / "two.png").size == (1100, 396)


def test_runs_of_one_name_are_told_apart():
    from fieldloom.cli.analysing import name_runs

    assert name_runs(["a/run", "b/run", "c"]) == {"a/run": "a/run", "b/run": "b/run", "c": "c"}
