"""Whatever a file or an argument holds: one sentence, no code run, nothing outside touched."""

from __future__ import annotations

import shlex
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from . import damage, kinds, oracle
from .found import FOUND, OPEN
from .good import Good, make
from .kinds import KINDS

CASES = 8
"""Of each kind, where no time is given."""


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> Good:
    return make(tmp_path_factory.mktemp("good"))


@pytest.fixture
def beside(tmp_path, good) -> Path:
    """Files that no case may touch, and code that none may run."""
    folder = tmp_path / "beside"
    folder.mkdir()
    for name in ("codes.safetensors", "manifest.json", "00000.safetensors", "recipe.toml"):
        (folder / name).write_bytes(b"must stay")
    shard = good.runs["digits"] / "encoded" / "00000.safetensors"
    shutil.copyfile(shard, folder / "codes.safetensors")
    return folder


EVIL = "open('called', 'w').close()\nclass Evil: pass\n"


def tried(
    write: Callable[[Path], list[str]], folder: Path, beside: Path, stops: bool = False
) -> tuple[list[str], tuple[str, str] | None]:
    """The command of a case, written into a new folder; what is wrong with its answer."""
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL)
    words = write(folder)
    return words, oracle.judge(words, folder, beside, stops)


def numbers(config: pytest.Config, kind: str) -> Iterator[int]:
    """The cases of a kind that are to be tried."""
    chosen, seconds = config.getoption("--fuzz-case"), config.getoption("--fuzz-seconds")
    if chosen is not None:
        own, _, number = chosen.partition(":")
        yield from [int(number)] if own == kind else []
        return
    if seconds is None:
        yield from range(CASES)
        return
    end, number = time.monotonic() + seconds / len(KINDS), 0
    while time.monotonic() < end:
        yield number
        number += 1


def wholesome(good: Good) -> Iterator[tuple[str, str | None, dict[str, bytes], list[str]]]:
    """What becomes hostile, as it is: a name, a run, files, and a command that takes them."""
    for words in kinds.RUN:
        yield f"digits, {shlex.join(words)}", "digits", {}, words
    for run in ("shapes", "views", "weights", "sound"):
        yield f"{run}, info", run, {}, ["info", "run"]
        few = ["--frames", "2"] if run in ("shapes", "views") else []
        yield f"{run}, render", run, {}, ["render", "run", *few]
    for run in ("half-coded", "half-trained"):
        yield run, run, {}, ["train", "mnif:tiny", "--run", "run", "--resume"]
    yield "codes", "weights", {}, ["decode", "run", "run/codes.safetensors"]
    yield "hdf5", "weights", {"c.hdf5": good.files["codes.hdf5"]}, ["decode", "run", "c.hdf5"]
    encode = ["encode", "run", "--out", "o.safetensors", "--source"]
    packed = {"packed": "digits", "bits": "shapes", "cells": "shapes", "meshes": "shapes"}
    for name, run in (packed | {"views": "views"}).items():
        yield name, run, {"data.npz": damage.npz_of(good.arrays[name])}, [*encode, "data.npz"]
    for name in ("pictures", "split"):
        files = {"data.npz": damage.npz_of(good.arrays[name])}
        yield name, "digits", files, [*encode, "data.npz"]
        yield f"training on {name}", None, files, kinds.new("data.npz", "source.name=array")
    for name, content in good.files.items():
        files = {name: content}
        match name.partition(".")[0]:
            case "picture":
                yield name, "digits", files, [*encode, name]
                yield f"training on {name}", None, files, kinds.fitted("image", name)
            case "mesh" | "ascii" | "shape":
                yield name, "shapes", files, [*encode, name]
            case "sound":
                yield name, None, files, kinds.fitted("audio", name)
            case "film":
                yield name, None, files, kinds.fitted("video", name)
    for name, source in (("scene", "transforms"), ("object", "srn"), *kinds.LAYOUTS.items()):
        files = {f"data/{path}": content for path, content in good.folders[name].items()}
        yield name, "views", files, [*encode, "data"]
        yield f"training on a {name}", None, files, kinds.seen(source, "data")


@pytest.mark.slow
def test_good_input_is_taken(good, tmp_path):
    """So that refusals are of what was made hostile."""
    refused = {}
    for number, (name, run, files, words) in enumerate(wholesome(good)):
        case = tmp_path / f"{number}"
        case.mkdir()
        kinds.files(case, files)
        if run is not None:
            kinds.copied(good, case, run)
        answer = oracle.ask(words, case)
        if (wrong := oracle.fault(answer)) or answer.status:
            refused[name] = wrong or answer.err
    assert not refused, refused


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_input_gets_one_sentence(kind, good, beside, tmp_path, request):
    seed = request.config.getoption("--fuzz-seed")
    found: dict[str, list[str]] = {}
    done = 0
    for number in numbers(request.config, kind):
        draw = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        folder = tmp_path / f"{number}"
        write = partial(KINDS[kind], good, draw=draw)
        words, wrong = tried(write, folder, beside, kind in kinds.MAY_LAST)
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
def test_what_was_found_stays_answered(name, good, beside, tmp_path, request):
    if name in OPEN:
        request.applymarker(pytest.mark.xfail(strict=True, reason=OPEN[name]))
    words, wrong = tried(partial(FOUND[name], good), tmp_path / "case", beside)
    assert wrong is None, f"{shlex.join(words)[:400]!a}: {wrong[0]}"
