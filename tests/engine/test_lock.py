"""One writer at a time."""

import json
import os
import socket
import subprocess
import sys

import pytest

from fieldloom import recipe
from fieldloom.engine import lock
from fieldloom.engine.lock import hold_lock
from fieldloom.errors import FieldloomError, InputError
from fieldloom.training import train

TINY = recipe.load("mnif:tiny")

HOLD = """
import sys, time
from pathlib import Path
from fieldloom.engine.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_writer_at_a_time(tmp_path):
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is being written by process {other.pid} on"):
            train(TINY, str(folder))
        assert [x.name for x in folder.iterdir()] == [".lock"]
    finally:
        other.kill()
        other.wait()
    train(TINY, str(folder), "field")  # the lock of a dead process is taken over
    assert not (folder / ".lock").exists()


def test_a_lock_of_another_host_is_for_the_user_to_judge(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text('{"host": "elsewhere", "process": 3, "start": "2026-01-01"}')
    with (
        pytest.raises(InputError, match=r"process 3 on elsewhere, since 2026-01-01: if that no"),
        hold_lock(tmp_path),
    ):
        raise AssertionError
    for content in ("", "nonsense", "[]", f'{{"host": "{socket.gethostname()}", "process": 1}}'):
        (tmp_path / ".lock").write_text(content)
        with hold_lock(tmp_path):
            told = json.loads((tmp_path / ".lock").read_text())
            assert told["process"] == os.getpid()
            with (
                pytest.raises(InputError, match="is being written by process"),
                hold_lock(tmp_path),
            ):
                raise AssertionError
        assert not (tmp_path / ".lock").exists()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """Only the text can tell there: of a process of this host whether it lives."""
    fail = lambda *rest: (_ for _ in ()).throw(OSError(38, "Function not implemented"))
    monkeypatch.setattr(lock.fcntl, "flock", fail)
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    told = {"host": socket.gethostname(), "process": dead.pid, "start": "2026-01-01"}
    (tmp_path / ".lock").write_text(json.dumps(told))
    with (
        hold_lock(tmp_path),
        pytest.raises(InputError, match=f"by process {os.getpid()} on"),
        hold_lock(tmp_path),
    ):
        raise AssertionError


def test_a_lock_is_not_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / lock.NAME).symlink_to(victim)
    with pytest.raises(FieldloomError, match="cannot be written"), hold_lock(tmp_path / "run"):
        raise AssertionError
    assert victim.read_text() == "mine"
