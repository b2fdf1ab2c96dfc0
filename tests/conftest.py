"""Small systems that several tests share."""

from pathlib import Path

import pytest
import torch

from fieldloom import recipe
from fieldloom.engine.train import train


def pytest_addoption(parser):
    group = parser.getgroup("fuzz", "hostile input, see tests/fuzz")
    group.addoption("--fuzz-seconds", type=float, help="of all kinds; default: a fixed few cases")
    group.addoption("--fuzz-seed", type=int, default=0, help="which cases")
    group.addoption("--fuzz-case", metavar="KIND:NUMBER", help="this one alone")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


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
