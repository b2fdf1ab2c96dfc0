"""A job's folder that someone else has written into: one sentence, and nothing outside is touched.

Names of files are made from numbers; what a manifest, a row, a claim or a note says is only shown.
"""

import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import numbers_in_shards as squares
from fieldloom.cli.jobs import describe
from fieldloom.codes import jobs
from fieldloom.engine.schemas import LARGEST, Job, Manifest, Shard
from fieldloom.errors import FieldloomError, InputError
from fieldloom.executors import claims, local
from fieldloom.executors.work import Work, forget_failures, read_failures

JOB = Job(signals=28, shard=4, worst=None, data="d", places="p", system="s")
ROW = Shard(count=4, failed={}, hash="h", seconds=1.0)

NAMES = [
    "../outside/mine",
    "/etc/passwd",
    "00001/../../outside/mine",
    "\x00",
    "a\nb",
    "x" * 100_000,
]
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1", "1" * 5000, str(2**70), "true", "null"]
SHAPES = ["[" * 100_000, '{"a":' * 100_000, "[]", "{}", '"text"', "", "\ufeff{}", "nul"]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """What is no claim ends at once, and not after the lease."""
    monkeypatch.setattr(claims, "LEASE", -1.0)


@pytest.fixture
def outside(tmp_path):
    """A file that no one may touch, beside the folder of a job."""
    folder = tmp_path / "outside"
    folder.mkdir()
    path = folder / "mine"
    path.write_text("mine")
    os.utime(path, (1000, 1000))
    yield folder
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert path.read_text() == "mine"
    assert path.stat().st_mtime == 1000
    assert {path.name for path in tmp_path.iterdir()} <= {"outside", "job"}


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "job"
    path.mkdir()
    jobs.begin(path, JOB, {})
    return path


def look(folder: Path) -> str:
    """What is said of a job: its state, or the one sentence that says why there is none."""
    try:
        said = "\n".join(describe(jobs.read_state(folder)))
    except InputError as error:
        said = str(error)
        assert "\n" not in said
    assert said.isprintable() or "\n" in said
    assert len(said) < 4000
    return said


def work_on(folder: Path) -> None:
    """All that a command does to a folder beside its shards; then the folder is removed."""
    for call in (
        partial(forget_failures, folder),
        partial(claims.sweep, folder),
        partial(local.run, squares.job(folder)),
        partial(jobs.remove, folder),
    ):
        with suppress(FieldloomError, OSError):
            call()


def texts_of(model: dict, place: tuple[str, ...]) -> list[str]:
    """JSON of a model with each wrong value at a place."""
    mark = "@@"
    inner = model
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = mark
    text = json.dumps(model)
    return [text.replace(f'"{mark}"', x) for x in [*map(json.dumps, NAMES), *NUMBERS, "[[]]"]]


@pytest.mark.parametrize("key", ["signals", "shard", "worst", "data", "places", "system"])
def test_manifests(folder, outside, key):
    for text in texts_of({"job": JOB.model_dump(), "shards": [], "about": {}}, ("job", key)):
        (folder / "manifest.json").write_text(text)
        look(folder)
    work_on(folder)


def test_what_a_manifest_says_about_itself(folder, outside):
    for about in ({"run": name, "source": name} for name in NAMES):
        manifest = {"job": JOB.model_dump(), "about": about}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        look(folder)
    rows = [{"count": 1, "failed": {}, "file": "../outside/mine"}]
    (folder / "manifest.json").write_text(json.dumps({"job": JOB.model_dump(), "shards": rows}))
    look(folder)
    work_on(folder)


@pytest.mark.parametrize("key", ["count", "failed", "hash", "seconds"])
def test_rows(folder, outside, key):
    for text in texts_of(ROW.model_dump(), (key,)):
        jobs.row_of(folder, 1).write_text(text)
        look(folder)
    work_on(folder)


def test_rows_that_name_files(folder, outside):
    """Entries that no row has are passed over; a failed signal has a number."""
    for name in NAMES:
        for more in ({"file": name}, {"shard": name}, {"path": name}):
            jobs.row_of(folder, 1).write_text(json.dumps(ROW.model_dump() | more))
            assert "done: 1 shards, 4 codes; 6 shards are left" in look(folder)
        jobs.row_of(folder, 1).write_text(json.dumps(ROW.model_dump() | {"failed": {name: "why"}}))
        assert "is damaged" in look(folder)
    work_on(folder)


@pytest.mark.parametrize("name", ["manifest.json", "00001.json", "00001.error", "00001.claim-0"])
def test_files_of_any_shape(folder, outside, name):
    for text in SHAPES:
        (folder / name).write_text(text)
        look(folder)
        read_failures(folder, 7)
        claims.read_holders(folder)
    (folder / name).write_bytes(b"\xff\xfe\x00")
    look(folder)
    work_on(folder)


@pytest.mark.parametrize("name", ["manifest.json", "00001.json", "00001.error", "00001.claim-0"])
def test_files_of_a_hundred_megabytes(folder, outside, name):
    with (folder / name).open("wb") as file:
        file.write(b'{"why":"' if "error" in name else b"[0")
        file.truncate(max(100 << 20, LARGEST + 2))
    said = look(folder)
    assert "more than" in said or not name.endswith(".json")
    assert read_failures(folder, 7) == {}
    assert claims.read_holders(folder) == {}
    (folder / name).unlink()


@pytest.mark.parametrize("suffix", [".json", ".error", ".claim-0", ".paused", ".squares"])
def test_links_out_of_the_folder(folder, outside, suffix):
    """A link is read, as any file, and removed or replaced itself."""
    path = folder / f"00001{suffix}"
    path.symlink_to(outside / "mine")
    look(folder)
    work_on(folder)
    path.unlink(missing_ok=True)
    path.symlink_to(outside)  # a folder
    look(folder)
    work_on(folder)


def test_names_that_are_no_shards(folder, outside):
    for name in (
        "-0001.json",
        "00001.json.json",
        "1e5.json",
        " 00001.json",
        "00001.claim-../x"[:13],
    ):
        (folder / name).write_text("{}")
    (folder / "00002.json").mkdir()
    assert "7 shards are left" in look(folder)
    work_on(folder)


def test_words_that_would_be_run(folder, outside, tmp_path):
    """Pickles and Python in the folder are never loaded."""
    evil = b"cos\nsystem\n(S'touch %s'\ntR." % os.fsencode(tmp_path / "run")
    for name in ("00001.json", "00001.error", "00001.claim-0", "00001.paused", "manifest.json"):
        (folder / name).write_bytes(evil)
        look(folder)
    work_on(folder)
    assert not (tmp_path / "run").exists()


def test_a_manifest_of_another_job_is_refused_by_workers_that_come(folder, outside):
    other = Manifest(job=JOB.model_copy(update={"data": "other"}))
    jobs.write_row(folder, 0, ROW)
    (folder / "manifest.json").write_text(other.model_dump_json())
    with pytest.raises(InputError, match="another job: its data is 'other', not 'd'"):
        jobs.begin(folder, JOB, {})


def test_a_full_disk_where_not_even_a_claim_can_be_made(folder, outside, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device", str(folder / "00000.claim-0"))

    monkeypatch.setattr(claims.atomic, "write_new", full)
    with pytest.raises(OSError, match="No space"):
        local.run(Work(folder, 7, lambda: print))
    assert not list(folder.glob("*.error"))
