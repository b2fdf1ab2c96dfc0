"""Data sets of the Hugging Face hub, read from a folder and never fetched unasked."""

import errno
import io
import json
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, hub_streams, images, streams
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
        ("mnist", "not in the local cache: network=True"),
        ("user/mnist", "not in the local cache: network=True"),
        ("hf://datasets/user/mnist", "no name of a data set; of an address network=True"),
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
        ("https://localhost/a.png", "row 0 of .* is fetched from 'https://localhost/a.png': net"),
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
        ("https://localhost/a.csv", "README.md' names 'https://localhost/a.csv': network=True"),
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
    same = SOURCES["huggingface"](RGB, (tmp_path / "set").as_uri(), split=(4, 2), shuffle=False)
    assert same.data.tensor.equal(source.data.tensor)
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


# -- classes, limits, streams


LEVELS = [0, 30, 60, 90, 120, 150]
NAMES = ["eel", "cat", "dog", "ant"]
GREYS = Grid(size=8, channels=1)
WHOLE = {"split": (1.0, 0.0), "shuffle": False}


def labelled(numbers: list, kind=None, image=None):
    """Pictures of the grey levels ``LEVELS`` with these labels, of the classes ``NAMES``."""
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    features = {
        "image": image or datasets.Image(),
        "kind": kind or datasets.ClassLabel(names=NAMES),
    }
    rows = []
    for level in LEVELS[: len(numbers)]:
        content = io.BytesIO()
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(content, "PNG")
        rows.append({"bytes": content.getvalue(), "path": None})
    rows = rows if image is None else [[row, row] for row in rows]
    table = {"image": rows, "kind": numbers}
    return datasets.Dataset.from_dict(table, features=datasets.Features(features))


def kept(table, root: Path, form: str) -> str:
    """A folder with a table: as ``save_to_disk`` makes it, or with one file of another form."""
    if form == "saved":
        table.save_to_disk(str(root))
    else:
        root.mkdir()
        write_table = {"parquet": table.to_parquet, "json": table.to_json}[form]
        write_table(str(root / f"train.{form}"))
    return str(root)


def read_levels(path: str, **named):
    source = SOURCES["huggingface"](GREYS, path, label="kind", **WHOLE, **named)
    return source, source.data.tensor[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_names_of_classes_are_the_data_sets_own(form, offline, tmp_path):
    path = kept(labelled([2, 0, 0, 2, 3, 0]), tmp_path / "set", form)
    source, held = read_levels(path)
    assert (source.names, source.labels.tolist()) == (tuple(NAMES), [2, 0, 0, 2, 3, 0])
    assert held == LEVELS
    assert source.summary.describe() == "6 images, 4 classes (eel, cat, dog, ant), 8 x 8"
    source, held = read_levels(path, limit=4)  # a balanced four
    assert (held, source.labels.tolist()) == ([0, 30, 60, 120], [2, 0, 0, 3])


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_a_stream_reads_the_first_rows(form, offline, tmp_path):
    path = kept(labelled([2, 0, 0, 2, 3, 0]), tmp_path / "set", form)
    whole, levels = read_levels(path)
    for limit in (4, 6, 99, None):
        source, held = read_levels(path, streaming=True, limit=limit)
        assert held == levels[:limit]
        assert source.labels.tolist() == whole.labels.tolist()[:limit]
        assert source.names == whole.names
        assert f"the first {len(held)} rows of a stream" in source.summary.describe()
    if form == "parquet":
        words = "no data set that can be loaded .*nope"
        refused(words, read_levels, path, part="nope", streaming=True, limit=2)


def test_a_stream_of_other_files(offline, tmp_path):
    """Rows of JSON tell no kinds of columns; those of a folder of images are files."""
    for name, level in (("cat/a", 40), ("dog/b", 80), ("dog/c", 90)):
        image = Image.fromarray(np.full((8, 8), level, np.uint8))
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "files" / f"{name}.png")
    rows = [
        {"image": str(tmp_path / "files" / f"{name}.png"), "kind": kind}
        for name, kind in (("dog/b", "x"), ("cat/a", "y"))
    ]
    for streaming in (False, True):
        read = partial(SOURCES["huggingface"], GREYS, limit=3, streaming=streaming, **WHOLE)
        source = read(str(tmp_path / "files"), label="label")
        assert source.data.tensor[:, 0, 0, 0].tolist() == [40, 80, 90]
        assert (source.names, source.labels.tolist()) == (("cat", "dog"), [0, 1, 1])
        lines = "\n".join(map(json.dumps, rows)).encode()
        write(tmp_path / "files" / "own" / "train.json", lines)
        told = refused("outside the data set's folder", read, str(tmp_path / "files" / "own"))
        assert "dog/b.png" in told
        (tmp_path / "files" / "own" / "train.json").unlink()


@pytest.mark.parametrize("form", ["saved", "parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_without_a_label_are_named(form, streaming, offline, tmp_path):
    more = {"streaming": True, "limit": 6} if streaming else {}
    text = pytest.importorskip("datasets").Value("string")
    for name, numbers, kind, words in (
        (
            "none",
            [0, 1, None, 2, -1, 0],
            None,
            "row 2 of '.*none' has no label \\(its 'kind' is None\\)",
        ),
        (
            "minus",
            [0, 1, 1, 2, -1, 0],
            None,
            "row 4 of '.*minus' has no label \\(its 'kind' is -1\\)",
        ),
        ("text", ["a", "b", None], text, "row 2 of '.*text' has no label"),
    ):
        path = kept(labelled(numbers, kind), tmp_path / name, form)
        told = refused(words, read_levels, path, **more)
        assert "leave source.label out" in told
        source = SOURCES["huggingface"](GREYS, path, **WHOLE, **more)
        assert (len(source.data), source.labels) == (len(numbers), None)


@pytest.mark.parametrize("form", ["saved", "parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_sets_that_hold_no_images_are_refused(form, streaming, offline, tmp_path):
    datasets = pytest.importorskip("datasets")
    more = {"streaming": True, "limit": 6} if streaming else {}
    empty = kept(labelled([]), tmp_path / "empty", form)
    refused("has no rows|no data", read_levels, empty, **more)
    several = labelled([0, 1], image=datasets.Sequence(datasets.Image()))
    refused(
        "holds no images, one a row, but List",
        read_levels,
        kept(several, tmp_path / "b", form),
        **more,
    )


def test_parts_of_saved_sets(offline, tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {"train": labelled([0, 1, 2]), "test": labelled([3])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    source, held = read_levels(str(tmp_path / "set"), part="test")
    assert (held, source.labels.tolist(), source.names) == ([0], [3], tuple(NAMES))
    source, held = read_levels(str(tmp_path / "set"), part="train", streaming=True, limit=2)
    assert (held, source.labels.tolist()) == ([0, 30], [0, 1])
    refused("has no part 'all'", read_levels, str(tmp_path / "set"), part="all")


# -- large sets


def pictures(count: int, size: int = 64):
    """Rows of pictures of noise, which do not compress."""
    datasets = pytest.importorskip("datasets")
    pixels, rows = draw(), []
    for _ in range(count):
        content = io.BytesIO()
        Image.fromarray(pixels.integers(0, 256, (size, size, 3), np.uint8)).save(content, "PNG")
        rows.append({"bytes": content.getvalue(), "path": None})
    kinds = datasets.ClassLabel(names=NAMES)
    features = datasets.Features({"image": datasets.Image(), "kind": kinds})
    table = {"image": rows, "kind": [i % 4 for i in range(count)]}
    return datasets.Dataset.from_dict(table, features=features)


@pytest.mark.parametrize("form", ["saved", "parquet", "stream"])
def test_rows_are_read_when_they_are_needed(form, offline, tmp_path, monkeypatch):
    """No encoded image stays in memory, neither Python's nor Arrow's."""
    pyarrow = pytest.importorskip("pyarrow")
    count, each = 80, 64 * 64 * 3
    path = kept(pictures(count), tmp_path / "set", "saved" if form == "saved" else "parquet")
    read = partial(SOURCES["huggingface"], Grid(size=8), path, label="kind", **WHOLE)
    whole = read()
    monkeypatch.setattr(images, "DECODED", 0)
    monkeypatch.setattr(streams, "SHARD", 40 * each)
    tracemalloc.start()
    before = pyarrow.total_allocated_bytes()
    source = read(streaming=form == "stream")
    held = tracemalloc.get_traced_memory()[0] + pyarrow.total_allocated_bytes() - before
    tracemalloc.stop()
    assert held < count * each / 4
    assert source.take(source.train).tensor.equal(whole.data.tensor)
    assert source.labels.equal(whole.labels)
    assert source.names == whole.names
    again = read(streaming=form == "stream")
    assert again.facts() == source.facts()


@pytest.mark.parametrize("version", ["the same", "another"])
def test_a_stream_goes_on_where_it_stopped(version, offline, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    table = pictures(50)
    (tmp_path / "set").mkdir()
    for i in range(2):
        part = table.select(range(25 * i, 25 * i + 25))
        part.to_parquet(str(tmp_path / "set" / f"train-{i}.parquet"))
    monkeypatch.setattr(streams, "SHARD", 7 * 64 * 64 * 3)
    read = partial(
        SOURCES["huggingface"], RGB, str(tmp_path / "set"), streaming=True, label="kind", **WHOLE
    )
    with monkeypatch.context() as patch:
        patch.setattr(streams, "write_shard", failing(streams.write_shard, 3))
        refused("cannot be written to the cache .*the disk is full. 21 rows .* are there", read)
    if version == "another":
        monkeypatch.setattr(datasets, "__version__", "0")
    asked = []
    monkeypatch.setattr(hub_streams, "read_cell", counting(hub_streams.read_cell, asked))
    found = read()
    assert len(asked) == 29
    source = SOURCES["huggingface"](RGB, str(tmp_path / "set"), label="kind", **WHOLE)
    assert found.data.tensor.equal(source.data.tensor)
    assert found.labels.equal(source.labels)
    monkeypatch.setattr(hub_streams, "load", lambda *given, **named: pytest.fail("opened again"))
    assert read(limit=30).data.tensor.equal(source.data.tensor[:30])


def failing(write, after: int):
    """What writes so many times, and then finds the disk full."""
    left = [None] * after

    def call(*given):
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left.pop()
        return write(*given)

    return call


def counting(read, asked: list):
    def call(*given):
        asked.append(1)
        return read(*given)

    return call


def test_a_stream_of_files_that_change_is_another(offline, tmp_path):
    path = kept(labelled([2, 0, 1]), tmp_path / "set", "parquet")
    assert read_levels(path, streaming=True)[1] == LEVELS[:3]
    (tmp_path / "set" / "train.parquet").unlink()
    labelled([2, 0, 1, 1]).to_parquet(str(tmp_path / "set" / "train.parquet"))
    assert read_levels(path, streaming=True)[1] == LEVELS[:4]


@pytest.mark.filterwarnings("ignore:skipped")
def test_broken_rows_of_a_stream_are_named(offline, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"bytes": good.picture(draw(), "png"), "path": None} for _ in range(20)]
    rows[3]["bytes"], rows[7]["bytes"] = b"broken", b"nothing"
    features = datasets.Features({"image": datasets.Image()})
    path = kept(datasets.Dataset.from_dict({"image": rows}, features), tmp_path / "set", "parquet")
    for streaming in (False, True):
        found = SOURCES["huggingface"](RGB, path, streaming=streaming)
        assert "2 rows passed over: 2 unreadable (row 3, row 7)" in found.summary.describe()
