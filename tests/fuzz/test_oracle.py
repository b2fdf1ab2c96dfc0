"""The oracle sees what it is there for."""

import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from fieldloom import cli

from . import oracle


def says(*lines, status=2):
    def main():
        for line in lines:
            print(line, file=sys.stderr)
        raise SystemExit(status)

    return main


def reach():
    socket.create_connection(("127.0.0.1", 9))


def endless():
    while True:
        pass


WRONG = {
    "without one sentence": says("error: a.", "error: b."),
    "without one": says(),
    "its status is 3": says("error: a.", status=3),
    "a traceback": says("Traceback (most recent call last):"),
    "unexpected": says("error: this is a fault of fieldloom, not of the input: x.", status=1),
    "it prints '\\x1b'": says("error: \x1b[31m."),
    "a line of": says("error: " + "x" * 700),
    "all is well, yet": says("error: x.", status=0),
    "KeyError escapes": lambda: {}["x"],
    "outside of its folder": lambda: Path("../beside/x").write_bytes(b""),
    "EXECUTED": lambda: os.system("touch called"),
    "not its own": lambda: Path("run/recipe.toml").write_bytes(b""),
    "reaches for the network": reach,
    "took more than": endless,
    "MemoryError escapes": lambda: np.empty(3 << 30, np.uint8),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_seen(wrong, tmp_path, monkeypatch):
    (tmp_path / "case" / "run").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    monkeypatch.setattr(oracle, "SECONDS", 0.3)
    monkeypatch.setattr(cli, "main", WRONG[wrong])
    found = oracle.judge(["info", "run"], tmp_path / "case", tmp_path / "beside")
    assert found is not None
    assert wrong in found[0]


def test_a_good_answer_is_let_pass(tmp_path, monkeypatch):
    (tmp_path / "beside").mkdir()
    monkeypatch.setattr(
        cli, "main", says("warning: a.", "reading meshes: 1 of 1 meshes in 2 s", "error: b.")
    )
    assert oracle.judge(["info", "run"], tmp_path, tmp_path / "beside") is None
