"""Small systems that several tests share, and what makes every test give one answer."""

import gc
import os
import random
import shutil
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

import fieldloom
from commands import CommandLine
from fieldloom import recipe
from fieldloom.training import train
from fieldloom.types import Cameras, Data

# ``make test`` has a process for each core: one thread each, and the programs that tests start too.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
hypothesis.settings.register_profile("the same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("the same")


def seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


def pytest_addoption(parser):
    group = parser.getgroup("fuzz", "hostile input, see tests/fuzz")
    group.addoption("--fuzz-seconds", type=float, help="of all kinds; default: a fixed few cases")
    group.addoption("--fuzz-seed", type=int, default=0, help="which cases")
    group.addoption("--fuzz-case", metavar="KIND:NUMBER", help="this one alone")


def pytest_collection_finish():
    """What was imported and collected stays: the garbage collector need not look it through."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    seed()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """What several tests share is the same whichever of them asks first."""
    if fixturedef.scope != "function":
        seed()


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDLOOM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def cli() -> CommandLine:
    """The command line: ``cli("sample", run, status=2).stderr``."""
    return CommandLine()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """A finished run of mnif:tiny; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(recipe.load("mnif:tiny"), str(folder))
    return folder


@pytest.fixture
def own_run(tiny_run, tmp_path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("FIELDLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def scenes() -> tuple[fieldloom.System, Data]:
    """A light field of 8 x 8 with one view held out; two objects of five views, with cameras."""
    system = fieldloom.build(
        "laginr",
        "tiny",
        source={"name": "multiview"},
        modality={"name": "views", "size": 8, "support": [1, 3], "query": 1, "held": 1},
        renderer="plucker",
        field={"features": 12},
        prior="none",
    )
    orbit = system.modality.cameras(5)
    cameras = Cameras(orbit.c2w.expand(2, -1, -1, -1), orbit.intrinsics.expand(2, -1, -1))
    return system, Data(torch.rand(2, 5, 3, 8, 8), cameras)
