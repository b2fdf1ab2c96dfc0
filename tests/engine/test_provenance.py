"""What a run says of the code and of the recipe that it comes from."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fieldloom import recipe as recipes
from fieldloom.engine import provenance


def changed(name, *overrides, **known):
    recipe = recipes.load(name, overrides)
    return provenance.changed_settings(recipe | {"known": known})


def test_settings_that_differ_from_the_row():
    assert changed("mnif:digits") == {}
    assert changed("mnif:digits", "field.width=8", "train.field.steps=3") == {
        "field.width": 8, "train.field.steps": 3,
    }  # fmt: skip
    assert changed("mnif:digits", "prior=none")["prior.name"] == "none"
    assert changed("mnif:digits", "prior=none")["prior.codec"] is None


@pytest.mark.parametrize(
    "override",
    ["source.path=there", "train.field.micro=4", "train.field.log_every=3", "kernels=auto"],
)
def test_where_data_lie_and_what_the_machine_decides_is_no_change(override):
    found = changed("mnif:digits", override, signals=3)
    assert found == ({"kernels": "auto"} if override == "kernels=auto" else {})


def test_what_follows_from_the_data_is_no_change():
    """A recipe of a fit leaves the size open, and its run has it; a size of a row is a change."""
    assert changed("fit:image", "modality.size=[7, 9]") == {}
    assert changed("mnif:digits", "modality.size=9") == {"modality.size": 9}


def test_a_row_that_is_not_there():
    recipe = recipes.load("mnif:digits")
    assert provenance.changed_settings(recipe | {"recipe": "gone:row"}) is None
    assert provenance.changed_settings({**recipe, "recipe": None}) is None


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_the_commit_of_an_unchanged_checkout(tmp_path, monkeypatch):
    package = tmp_path / "src" / "pack"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "engine" / "provenance.py"))
    assert provenance.commit() is None  # no checkout
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    assert provenance.commit() == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("beside the package")
    assert provenance.commit() is not None
    (package / "__init__.py").write_text("changed")
    assert provenance.commit() is None
    monkeypatch.setenv("PATH", str(Path(tmp_path) / "empty"))
    assert provenance.commit() is None  # no git
