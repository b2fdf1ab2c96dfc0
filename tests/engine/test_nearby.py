"""What is offered in the place of a run that is none."""

import pytest

from fieldloom.engine.nearby import find_runs, no_run
from fieldloom.errors import in_words_of


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with three runs, one of them of mnif:digits."""
    for name in ("runs/photo", "runs/mnif-digits", "other/one"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "recipe.toml").write_text("seed = 0\n")
    (tmp_path / "a.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


NONE = {
    "runs": "'runs' is not a run, but holds 2: runs/mnif-digits, runs/photo; name one of them.",
    "other": "'other' is not a run; did you mean 'other/one', the run in it?",
    "runs/phto": "'runs/phto' is not a run; did you mean 'runs/photo'?",
    "phto": "'phto' is not a run; did you mean 'runs/photo'?",
    "mnif:digits": "'mnif:digits' is not a run but a recipe; did you mean 'runs/mnif-digits'",
    "mnif:tiny": "'mnif:tiny' is not a run but a recipe: fieldloom train mnif:tiny makes",
    "a.txt": "'a.txt' is not a run but a file: a run is a folder with a recipe.toml.",
    "xyz": "'xyz' is not a run: there is no such folder. There are: runs/mnif-digits, runs/photo.",
    "nowhere/xyz": "'nowhere/xyz' is not a run: there is no such folder.",
}


@pytest.mark.parametrize("name", NONE)
def test_the_nearest_run_is_named(name, place):
    with in_words_of({}):
        assert NONE[name] in str(no_run(place.relative_to(place) / name))


def test_in_python_the_call_is_named(place):
    assert 'fieldloom.train("mnif:tiny", RUN) makes a run' in str(
        no_run(place.relative_to(place) / "mnif:tiny")
    )


def test_a_folder_that_is_none_has_no_runs(place):
    assert find_runs(place / "a.txt") == []
    assert find_runs(place / "gone") == []
