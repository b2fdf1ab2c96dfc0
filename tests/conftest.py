"""Small systems that several tests share, and what makes every test give one answer."""

import os
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from fieldloom import recipe
from fieldloom.training import train

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
def tiny_run(tmp_path_factory) -> Path:
    """A finished run of mnif:tiny; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(recipe.load("mnif:tiny"), str(folder))
    return folder
