"""The folder of a job: who begins it, and how far it is."""

import json
import os
import subprocess
import sys

import pytest

from fieldloom.cli.jobs import describe, describe_seconds
from fieldloom.codes import jobs
from fieldloom.engine.schemas import Job, Manifest, Shard
from fieldloom.errors import InputError
from fieldloom.executors import claims
from fieldloom.executors.work import Work, row_of, write_failure

JOB = Job(signals=10, shard=4, worst=None, data="d", places="p", system="s")


def row(**more) -> Shard:
    return Shard(count=4, failed={}, hash="h", seconds=30.0, **more)


def test_one_job_begins_in_a_folder(tmp_path):
    other = JOB.model_copy(update={"data": "other"})
    assert jobs.begin(tmp_path, JOB, {}) == JOB
    assert jobs.begin(tmp_path, other, {}) == other  # nothing was done yet
    held = claims.take(tmp_path, "00001")  # now a worker is at it
    with pytest.raises(InputError, match="another job: its data is 'other', not 'd'"):
        jobs.begin(tmp_path, JOB, {})
    claims.release(held)
    assert jobs.begin(tmp_path, JOB, {}) == JOB
    jobs.write_row(tmp_path, 2, row())
    with pytest.raises(InputError, match="another job"):
        jobs.begin(tmp_path, other, {})


def test_rows_of_an_older_manifest_become_files(tmp_path):
    old = Manifest(job=JOB, shards=[Shard(count=4, failed={}), Shard(count=3, failed={"5": "why"})])
    (tmp_path / "manifest.json").write_text(old.model_dump_json())
    before = [jobs.read_row(tmp_path, n, old) for n in range(3)]
    jobs.begin(tmp_path, JOB, {})
    new = jobs.read_manifest(tmp_path)
    assert new.shards == []
    assert [jobs.read_row(tmp_path, n, new) for n in range(3)] == before
    assert row_of(tmp_path, 1).is_file()
    assert jobs.read_state(tmp_path).failed == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"count": -1, "failed": {}}', "[" * 5000])
def test_damaged_rows_are_refused(tmp_path, content):
    jobs.begin(tmp_path, JOB, {})
    row_of(tmp_path, 1).write_text(content)
    with pytest.raises(InputError, match=r"00001\.json' is damaged"):
        jobs.read_state(tmp_path)


def test_a_job_says_how_far_it_is(tmp_path):
    with pytest.raises(InputError, match="holds no job"):
        jobs.read_state(tmp_path)
    jobs.begin(tmp_path, JOB, {"run": "runs/a", "source": "faces"})
    jobs.write_row(tmp_path, 0, Shard(count=3, failed={"2": "its error is above 1"}, seconds=30.0))
    write_failure(Work(tmp_path, 3, lambda: print), 1, OSError(28, "full", "x/00001.safetensors"))
    state = jobs.read_state(tmp_path)
    assert (state.shards, state.done, state.left, state.codes, state.failed) == (3, 1, 2, 3, 1)
    said = "\n".join(describe(state))
    assert "encode: 10 signals of 'faces' by 'runs/a', 3 shards of 4" in said
    assert "done: 1 shards, 3 codes; 2 shards are left" in said
    assert "signals that failed: 1" in said
    assert "failed: shard 00001, on " in said
    assert "the disk is full ('x/00001.safetensors')" in said
    assert "left: about 60 seconds (30 s a shard, 1 worker); no one computes" in said
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with claims.claimed(tmp_path, "00001"), claims.claimed(tmp_path, "00002"):
        dead = json.loads((tmp_path / "00002.claim-0").read_text()) | {"process": child.pid}
        (tmp_path / "00002.claim-0").write_text(json.dumps(dead))
        state = jobs.read_state(tmp_path)
        said = "\n".join(describe(state))
    assert state.workers == 1
    assert f"shard 00001: process {os.getpid()} on " in said
    assert f"shard 00002: process {child.pid} on " in said
    assert "which has ended: another takes the shard over" in said
    assert "no one computes" not in said


def test_words_of_a_note_or_a_claim_cannot_steer_a_terminal(tmp_path):
    jobs.begin(tmp_path, JOB, {})
    evil = "\x1b[2J" + "x" * 5000
    note = {"why": evil, "again": False, "host": evil}
    (tmp_path / "00001.error").write_text(json.dumps(note))
    claim = {"host": evil, "process": 1, "birth": evil, "since": evil}
    (tmp_path / "00002.claim-0").write_text(json.dumps(claim))
    said = "\n".join(describe(jobs.read_state(tmp_path)))
    assert "\x1b" not in said
    assert len(said) < 2000


def test_a_manifest_of_countless_shards_takes_no_time(tmp_path):
    large = JOB.model_copy(update={"signals": 2**62, "shard": 1})
    (tmp_path / "manifest.json").write_text(Manifest(job=large).model_dump_json())
    for name in ("99999999999999999999.json", "1.json", "0000\u0661.json"):
        (tmp_path / name).write_text("{}")
    assert jobs.read_state(tmp_path).left == 2**62
    assert not jobs.is_begun(tmp_path, jobs.read_manifest(tmp_path))
    jobs.remove(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # of no shard


def test_times_as_people_say_them():
    assert describe_seconds(5.0) == "about 5 seconds"
    assert describe_seconds(600.0) == "about 10.0 minutes"
    assert describe_seconds(9000.0) == "about 2.5 hours"
    assert describe_seconds(864000.0) == "about 10.0 days"
