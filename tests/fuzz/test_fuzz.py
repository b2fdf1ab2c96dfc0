"""Whatever a file or an argument holds: one sentence, no code run, nothing outside touched."""

from __future__ import annotations

import shlex
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from . import oracle
from .found import FOUND
from .good import Good, make
from .kinds import KINDS

CASES = 25
"""Of each kind, where no time is given."""


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> Good:
    return make(tmp_path_factory.mktemp("good"))


@pytest.fixture
def beside(tmp_path) -> Path:
    """Files that no case may touch, and code that none may run."""
    folder = tmp_path / "beside"
    folder.mkdir()
    for name in ("codes.safetensors", "manifest.json", "00000.safetensors", "recipe.toml"):
        (folder / name).write_bytes(b"must stay")
    return folder


EVIL = "open('called', 'w').close()\nclass Evil: pass\n"


def tried(
    write: Callable[[Path], list[str]], folder: Path, beside: Path
) -> tuple[list[str], tuple[str, str] | None]:
    """The command of a case that was written into a new folder, and what is wrong with its answer."""
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL)
    words = write(folder)
    return words, oracle.judge(words, folder, beside)


def numbers(config: pytest.Config, kind: str) -> Iterator[int]:
    """The cases of a kind that are to be tried."""
    chosen, seconds = config.getoption("--fuzz-case"), config.getoption("--fuzz-seconds")
    if chosen is not None:
        own, _, number = chosen.partition(":")
        yield from [int(number)] if own == kind else []
        return
    share = (seconds or oracle.STUCK) / len(KINDS)
    end, number = time.monotonic() + share, 0
    while time.monotonic() < end and (seconds is not None or number < CASES):
        yield number
        number += 1


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_input_gets_one_sentence(kind, good, beside, tmp_path, request):
    seed = request.config.getoption("--fuzz-seed")
    found: dict[str, list[str]] = {}
    done = 0
    for number in numbers(request.config, kind):
        draw = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        folder = tmp_path / f"{number}"
        words, wrong = tried(lambda where, d=draw: KINDS[kind](good, where, d), folder, beside)
        done += 1
        if wrong is None:
            shutil.rmtree(folder)
            continue
        told = shlex.join(word if len(word) < 200 else f"{word[:60]}..." for word in words)
        again = f"--fuzz-seed {seed} --fuzz-case {kind}:{number}"
        found.setdefault(wrong[1], []).append(f"{wrong[0]}\n    {again}: {told[:400]!a}")
    lines = [f"{len(cases)} x {where}: {cases[0]}" for where, cases in found.items()]
    failed = sum(map(len, found.values()))
    assert not found, f"{failed} of {done} cases of {kind}, as in\n" + "\n".join(lines)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_answered(name, good, beside, tmp_path):
    words, wrong = tried(lambda where: FOUND[name](good, where), tmp_path / "case", beside)
    assert wrong is None, f"{shlex.join(words)[:400]!a}: {wrong[0]}"
