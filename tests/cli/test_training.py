"""``--source`` of ``train``: the recipe that is trained."""

import pytest

from fieldloom.cli import training


class Reached(Exception):
    """The training would begin."""


@pytest.fixture
def trained(monkeypatch):
    """The recipes that trainings begin with, which go no further."""
    begun = []

    def start(recipe, *rest, **named):
        begun.append(recipe)
        raise Reached

    monkeypatch.setattr("fieldloom.training.train", start)

    def call(*words, **named):
        with pytest.raises(Reached):
            training.train(*words, **named)
        return begun[-1]

    return call


def test_the_settings_of_the_reader_come_with_it(trained, tmp_path):
    scene = tmp_path / "scene"
    (scene / "sparse" / "0").mkdir(parents=True)
    (scene / "sparse" / "0" / "cameras.bin").write_bytes(b"")
    source = trained("fit:scene", source=str(scene))["source"]
    assert source == {"name": "colmap", "path": str(scene), "hold_out": 8}
    more = trained("fit:scene", source=str(scene), set_=["source.hold_out=4"])["source"]
    assert more["hold_out"] == 4


def test_a_reader_that_is_named_is_kept(trained, tmp_path):
    source = trained("loe:video", source=str(tmp_path), set_=["source.name=folder"])["source"]
    assert source == {"name": "folder", "path": str(tmp_path)}
    both = [f"source.path={tmp_path}"]
    assert trained("mnif:faces64", source=str(tmp_path), set_=both)["source"]["name"] == "folder"
