"""Claims: one holder, dead workers of this host and of others, hostile files."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from fieldloom.executors import claims
from fieldloom.executors.work import read_failure
from fieldloom.process import birth


def test_one_of_many_takes_a_shard(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        taken = [x for x in pool.map(lambda _: claims.take(tmp_path, "00003"), range(64)) if x]
    assert [path.name for path in taken] == ["00003.claim-0"]
    (claim, lives), *_ = claims.read_holders(tmp_path).values()
    assert (claim.process, claim.birth, lives) == (os.getpid(), birth(os.getpid()), True)
    claims.release(taken[0])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_one_of_many_takes_over_from_a_dead_worker(tmp_path, ended):
    mine = claims.take(tmp_path, "00000")
    told = json.loads(mine.read_text())
    mine.write_text(json.dumps(told | {"process": ended}))
    with ThreadPoolExecutor(16) as pool:
        taken = [x for x in pool.map(lambda _: claims.take(tmp_path, "00000"), range(64)) if x]
    assert [path.name for path in taken] == ["00000.claim-1"]
    claims.release(taken[0])
    assert list(tmp_path.iterdir()) == []


def test_a_later_process_of_the_same_number_is_another(tmp_path):
    mine = claims.take(tmp_path, "00000")
    assert not claims.is_dead(mine)
    mine.write_text(json.dumps(json.loads(mine.read_text()) | {"birth": "1"}))
    assert claims.is_dead(mine)
    claims.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_worker_of_another_host_is_dead_after_the_lease(tmp_path):
    mine = claims.take(tmp_path, "00000")
    mine.write_text(json.dumps(json.loads(mine.read_text()) | {"host": "a node"}))
    assert claims.take(tmp_path, "00000") is None
    now = mine.stat().st_mtime
    os.utime(mine, (now, now - claims.LEASE - 60))
    assert claims.take(tmp_path, "00000").name == "00000.claim-1"


def test_a_worker_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with claims.claimed(tmp_path, "00000") as mine:
        assert mine
        path = tmp_path / "00000.claim-0"
        os.utime(path, (0, 0))
        for _ in range(500):
            if path.stat().st_mtime > 0:
                break
            claims.Event().wait(0.01)
        assert path.stat().st_mtime > 0
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"3", b'{"host": 3}', b"[" * 5000, b'{"host":"h","process":"x","birth":1,'
     b'"since":2}'],
)  # fmt: skip
def test_what_is_no_claim_names_no_one_and_ends_with_the_lease(tmp_path, content):
    path = tmp_path / "00000.claim-0"
    path.write_bytes(content)
    assert claims.read(path) is None
    assert claims.read_holders(tmp_path) == {}
    assert claims.take(tmp_path, "00000") is None
    os.utime(path, (0, 0))
    assert claims.take(tmp_path, "00000").name == "00000.claim-1"


def test_a_claim_that_is_a_link_leads_nowhere(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "00000.claim-0").symlink_to(outside)
    assert claims.take(folder, "00000") is None
    os.utime(outside, (0, 0))
    taken = claims.take(folder, "00000")
    claims.release(taken)
    assert outside.read_text() == "mine"
    assert list(folder.iterdir()) == []


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "00000.claim-0")
    os.mkfifo(tmp_path / "00000.error")
    assert claims.take(tmp_path, "00000") is None
    assert read_failure(tmp_path, 0) is None
