"""Data sets of the Hugging Face hub, read from a folder and never fetched unasked."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fuzz import good
from media import gradient
from refusals import READERS, draw, refused, write

# -- the network


def saved(root: Path, rows: list, kind=None) -> str:
    """A data set of Hugging Face with such rows."""
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    pair = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": kind or pair})
    datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(str(root))
    return str(root)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("mnist", "not in the local cache: --network"),
        ("user/mnist", "not in the local cache: --network"),
        ("hf://datasets/user/mnist", "no name of a data set; of an address --network"),
        ("buckets/a/b/c", "no name of a data set"),
        ("https://localhost/a", "no name of a data set"),
        ("pandas", "no name of a data set"),
        ("json", "no name of a data set"),
    ],
)
def test_data_sets_are_not_fetched_unasked(path, words, offline, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    monkeypatch.chdir(tmp_path)
    before = datasets.config.HF_HUB_OFFLINE
    refused(words, READERS["huggingface"], path)
    assert before == datasets.config.HF_HUB_OFFLINE


def test_rows_are_not_followed_out_of_their_data_set(offline, tmp_path):
    outside = write(tmp_path / "outside.png", good.picture(draw(), "png"))
    for i, (where, words) in enumerate([
        (str(outside), "row 0 of .* lies at .*outside.png', outside the data set's folder"),
        ("../outside.png", "outside the data set's folder"),
        ("https://localhost/a.png", "row 0 of .* is fetched from 'https://localhost/a.png': --net"),
        ("zip://a.png::https://localhost/a.zip", "is fetched from"),
        (None, "holds no image"),
    ]):  # fmt: skip
        rows = [{"bytes": None, "path": where}] * 30
        refused(words, READERS["huggingface"], saved(tmp_path / f"{i}", rows))
    rows = [{"bytes": None, "path": str(tmp_path / "own" / "a.png")}]
    path = saved(tmp_path / "own", rows)
    write(tmp_path / "own" / "a.png", outside.read_bytes())
    assert len(READERS["huggingface"](path).data) == 1


def test_data_sets_that_are_wrong(offline, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    rows = [{"bytes": good.picture(draw(), "png"), "path": None}] * 3
    path = saved(tmp_path / "a", rows)
    saved(tmp_path / "b", rows)
    refused("no column 'x'", READERS["huggingface"], path, key="x")
    refused("must hold integers or texts", READERS["huggingface"], path, label="image")
    numbers = saved(tmp_path / "c", [1, 2], datasets.Value("int64"))
    refused("the column 'image' of .* holds no images", READERS["huggingface"], numbers)
    refused("has no rows|no data set that", READERS["huggingface"], saved(tmp_path / "d", []))
    state = json.loads((tmp_path / "a" / "state.json").read_text())
    for told, words in (
        (state | {"_data_files": [{"filename": "../b/data-00000-of-00001.arrow"}]}, "outside"),
        (state | {"_data_files": [{"filename": 3}]}, "no file of a saved data set"),
        ([], "no file of a saved data set"),
        ({}, "no file of a saved data set"),
    ):
        write(tmp_path / "a" / "state.json", json.dumps(told).encode())
        refused(words, READERS["huggingface"], path)
    write(tmp_path / "a" / "state.json", json.dumps(state).encode())
    whole = (table := next(tmp_path.glob("a/*.arrow"))).read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:30] + b"\xff" * 30 + whole[60:]):
        table.unlink()  # never what a mapping reads
        refused("source.path|cannot be read|no picture", READERS["huggingface"], str(table.parent))
        write(table, content)
        refused("source.path|cannot be read|no picture", READERS["huggingface"], str(table.parent))


def test_a_card_names_no_files_elsewhere(offline, tmp_path):
    pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    for kind in ("cat", "dog"):
        write(tmp_path / "set" / kind / "a.png", good.picture(draw(), "png"))
    card = "---\nlicense_link: https://a.b\nconfigs:\n- config_name: a\n  data_files: {}\n---\n"
    for name, words in (
        ("https://localhost/a.csv", "README.md' names 'https://localhost/a.csv': --network"),
        ("../../a.csv", "which lies outside its folder"),
        ("[{split: train, path: /etc/*}]", "which lies outside its folder"),
    ):
        write(tmp_path / "set" / "README.md", card.format(name).encode())
        refused(words, READERS["huggingface"], str(tmp_path / "set"))
    write(tmp_path / "set" / "README.md", b"---\nlicense_link: https://example.com\n---\n")
    read = partial(READERS["huggingface"], split=(1.0, 0.0), label="label")
    assert read(str(tmp_path / "set")).names == ("cat", "dog")


RGB, GREY = Grid(size=16), Grid(size=16, channels=1)


def test_hugging_face_from_a_folder(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    images = [Image.fromarray(np.roll(gradient(16, 16), i, 0)) for i in range(6)]
    table = datasets.Dataset.from_dict(
        {"image": images, "kind": [0, 1, 0, 1, 0, 1]},
        features=datasets.Features({"image": datasets.Image(), "kind": datasets.Value("int64")}),
    )
    table.save_to_disk(str(tmp_path / "set"))
    source = SOURCES["huggingface"](
        RGB, str(tmp_path / "set"), label="kind", split=(4, 2), shuffle=False
    )
    assert source.data.shape == (6, 3, 16, 16)
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert (
        source.data.tensor[2].numpy() == np.roll(gradient(16, 16), 2, 0).transpose(2, 0, 1)
    ).all()
    with pytest.raises(InputError, match="no column 'picture'"):
        SOURCES["huggingface"](RGB, str(tmp_path / "set"), key="picture")


def test_labels_that_are_pictures_are_not_decoded(tmp_path):
    """Decoding them could fetch an address, or open a file of any kind."""
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    rows = {"image": [Image.new("RGB", (8, 8))], "label": [Image.new("RGB", (8, 8))]}
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(InputError, match="must hold integers or texts"):
        SOURCES["huggingface"](RGB, str(tmp_path / "set"), label="label", split=(1.0, 0.0))
