"""The shards of jobs as one set of codes: their index, and folders that are damaged."""

import json
import shutil

import pytest
import torch

from code_sets import write_job
from fieldloom.codes import index, jobs
from fieldloom.codes.files import open_codes
from fieldloom.engine.tensors import write_tensors
from refusals import refused


@pytest.fixture
def folder(tmp_path):
    return write_job(tmp_path / "job", torch.arange(24.0).view(12, 1, 2), 3, fail=(4,))


def test_an_index_is_made_once_and_read(folder, monkeypatch):
    monkeypatch.setattr(index, "MANY", 4)
    codes = open_codes(folder)[:]
    assert (folder / index.INDEX).is_file()
    monkeypatch.setattr(jobs, "read_row", lambda *given: pytest.fail("a row was read"))
    stored = open_codes(folder, verify=False)
    assert torch.equal(stored[:], codes)


def test_no_index_of_few_shards(folder):
    open_codes(folder)
    assert not (folder / index.INDEX).exists()


def test_an_index_is_removed_with_its_job(folder, monkeypatch):
    monkeypatch.setattr(index, "MANY", 4)
    open_codes(folder)
    jobs.remove(folder)
    assert not folder.exists()


@pytest.mark.parametrize("counts", [[3, 2, 3], [3, 2, 3, 9], [3, 2, 3, -3], [3.0, 2, 3, 3]])
def test_an_index_of_something_else(folder, counts):
    job = index.require_manifest(folder).job
    made_by = {"job": index.fingerprint(job.content())}
    write_tensors(folder / index.INDEX, {"counts": torch.tensor(counts)}, {}, made_by)
    if counts[3:] in ([9], [-3]):
        refused("more codes than its 3 signals", open_codes, folder)
    else:
        assert len(open_codes(folder)) == 11


def test_an_index_of_other_shards_or_jobs(folder):
    job = index.require_manifest(folder).job
    index.write_index(folder, job, torch.tensor([3, 3, 3, 3]))
    refused("does not hold the 3 codes", open_codes(folder).__getitem__, slice(None))
    index.write_index(folder, job.model_copy(update={"system": "t"}), torch.tensor([3, 3, 3, 3]))
    assert len(open_codes(folder)) == 11
    (folder / index.INDEX).write_bytes(b"no index")
    with pytest.warns(UserWarning, match="made again"):
        assert len(open_codes(folder)) == 11


def test_folders_of_jobs_are_one_set(folder, tmp_path):
    for name in ("b", "a"):
        shutil.copytree(folder, tmp_path / "jobs" / name)
    (tmp_path / "jobs" / "notes.txt").write_text("no job")
    one, two = open_codes(folder), open_codes(tmp_path / "jobs")
    assert torch.equal(two[:], torch.cat([one[:], one[:]]))
    assert torch.equal(two[[21, 0, 11]], one[[10, 0, 0]])
    assert two.fingerprint() != one.fingerprint()


def test_what_is_not_finished_or_lost(folder, tmp_path):
    path = jobs.shard_path(folder, 2)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\1")
    stored = open_codes(folder)
    refused("not the file that its row names by hash", stored.__getitem__, 7)
    assert open_codes(folder, verify=False)[7].shape == (1, 2)
    path.write_bytes(content[:-8])
    refused("cut off", open_codes(folder).__getitem__, 7)
    path.unlink()
    refused("does not exist", open_codes(folder).__getitem__, 7)
    jobs.row_of(folder, 2).unlink()
    refused("are not finished", open_codes, folder)
    (tmp_path / "empty").mkdir()
    refused("there is no manifest.json", open_codes, tmp_path / "empty")


def test_rows_and_manifests_that_lie(folder):
    row = jobs.row_of(folder, 1)
    told = json.loads(row.read_text())
    row.write_text(json.dumps(told | {"count": 3}))
    refused("does not hold the 3 codes", open_codes(folder).__getitem__, 4)
    row.write_text(json.dumps(told | {"count": 1 << 62}))
    refused("more codes than its 3 signals", open_codes, folder)
    manifest = json.loads((folder / jobs.MANIFEST).read_text())
    manifest["job"] |= {"signals": 1 << 62, "shard": 1}
    (folder / jobs.MANIFEST).write_text(json.dumps(manifest))
    refused("are not finished", open_codes, folder)


def test_one_file_with_a_wrong_checksum(tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", {"codes": torch.ones(3, 1, 2)}, {})
    assert open_codes(path).fingerprint() != ""
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    refused("does not have the checksum", open_codes(path).__getitem__, 0)


@pytest.mark.parametrize("name", ["places", "labels", "errors"])
def test_columns_that_are_none(tmp_path, name):
    tensors = {"codes": torch.ones(3, 1, 2), name: torch.ones(2).long()}
    path = write_tensors(tmp_path / "a.safetensors", tensors, {})
    refused(f"its {name} are no number for each code", open_codes, path)
