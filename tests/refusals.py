"""Readers of data by name, and what a refused file must say."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fieldloom.modalities.views import Views

IMAGE = Grid()
SMALL = Grid(size=8)
FILM = Grid(axes=3)
SOUND = Grid(axes=1, channels=1)
SHAPE = Grid(axes=3, size=12, channels=1)
VIEWS = Views(size=8)

READERS = {
    "folder": partial(SOURCES["folder"], SMALL),
    "image": partial(SOURCES["image"], IMAGE),
    "packed": partial(SOURCES["packed"], SMALL),
    "tar": partial(SOURCES["tar"], SMALL),
    "array": partial(SOURCES["array"], SMALL),
    "video": partial(SOURCES["video"], FILM),
    "audio": partial(SOURCES["audio"], SOUND),
    "voxels": partial(SOURCES["voxels"], SHAPE),
    "meshes": partial(SOURCES["meshes"], SHAPE),
    "multiview": partial(SOURCES["multiview"], VIEWS),
    "transforms": partial(SOURCES["transforms"], VIEWS),
    "srn": partial(SOURCES["srn"], VIEWS),
    "nsvf": partial(SOURCES["nsvf"], VIEWS),
    "colmap": partial(SOURCES["colmap"], VIEWS),
    "huggingface": partial(SOURCES["huggingface"], SMALL),
}


def refused(words: str, read, *given, **named) -> str:
    """What an InputError says, which must be one printable line of bounded length."""
    with pytest.raises(InputError, match=words) as found:
        read(*given, **named)
    told = str(found.value)
    assert told.isprintable(), told
    assert len(told) < 1000, told
    assert told.endswith("."), told
    return told


@contextmanager
def little_memory(most: float) -> Iterator[None]:
    """NumPy's and Python's own."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tree(root: Path, found: dict[str, bytes]) -> Path:
    for name, content in found.items():
        write(root / name, content)
    return root


def npz(path: Path, **arrays) -> str:
    np.savez_compressed(path, **{key: np.asarray(x) for key, x in arrays.items()})
    return str(path)
