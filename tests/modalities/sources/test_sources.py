"""Which source reads what a path holds."""

import numpy as np
import pytest

from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, spec_of
from media import pack
from shared import shared


def test_what_a_path_holds(tmp_path):
    pack(tmp_path / "p.npz")
    np.save(tmp_path / "a.npy", np.zeros((2, 16, 16), np.uint8))
    assert spec_of(str(tmp_path))["name"] == "folder"
    assert spec_of(str(tmp_path / "p.npz"))["name"] == "packed"
    assert spec_of(str(tmp_path / "a.npy"))["name"] == "array"


@pytest.mark.parametrize("name", ["faces64", "portraits256"])
def test_the_packed_files_of_the_shared_folder(name):
    source = SOURCES["packed"](Grid(size=64), str(shared("data", f"{name}.npz")), limit=20)
    assert source.data.shape == (20, 3, 64, 64)
    assert source.data.tensor.float().std() > 20


FILM = Grid(axes=3)
SOUND = Grid(axes=1, channels=1)


# -- sources


def test_what_a_path_of_one_datum_holds(tmp_path):
    for name in ("a.png", "a.gif", "a.mp4", "a.webm", "a.wav", "a.flac"):
        (tmp_path / name).write_bytes(b"")
    held = lambda name, *own: spec_of(str(tmp_path / name), *own)["name"]
    assert held("a.png") == held("a.png", "folder") == held("a.gif", "audio") == "folder"
    assert held("a.mp4") == held("a.webm", "image") == "video"
    assert held("a.wav") == held("a.flac", "video") == "audio"
    assert held("a.png", "image") == "image"
    assert held("a.gif", "video") == held("", "video") == "video"
    assert held("", "image") == "folder"
    assert spec_of(str(tmp_path / "a.mp4")) == {"name": "video", "path": str(tmp_path / "a.mp4")}
    assert "split" in spec_of(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "name", "modality", "shape", "rate"),
    [
        ("video", "video_carphone.mp4", FILM, (1, 3, 120, 144, 176), 30000 / 1001),
        ("audio", "audio_bach.wav", SOUND, (1, 1, 308207), 44100.0),
    ],
)
def test_the_files_of_the_shared_folder(kind, name, modality, shape, rate):
    path = str(shared("data", name))
    assert spec_of(path)["name"] == kind
    source = SOURCES[kind](modality, path)
    assert source.data.shape == shape
    assert source.suggests["modality"]["rate"] == pytest.approx(rate)
    assert source.read(source.train).tensor.std() > 0.05
