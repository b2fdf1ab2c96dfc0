"""Audio files: read as they are or resized; broken or hostile ones get one sentence."""

import numpy as np
import pytest
import soundfile
import torch

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fieldloom.modalities.sources import audio as sounds
from fieldloom.permit import Permit
from fuzz import good
from media import wave
from refusals import READERS, refused, write

LARGE, NETWORK = Permit(large=True), Permit(network=True)


# -- films and sounds


def test_sounds_beyond_the_limit(tmp_path, monkeypatch):
    content = bytearray(good.sound("FLAC"))
    told = int.from_bytes(content[18:26], "big")
    content[18:26] = (told >> 36 << 36 | (1 << 36) - 1).to_bytes(8, "big")  # of 2^36 samples
    path = str(write(tmp_path / "a.flac", bytes(content)))
    refused("tells of 68,719,476,735 samples.*--large", READERS["audio"], path)
    monkeypatch.setattr(sounds, "SAMPLES", 100)
    path = str(write(tmp_path / "b.flac", good.sound("FLAC")))
    refused("tells of 400 samples, and more than 100", READERS["audio"], path)
    assert READERS["audio"](path, permit=LARGE).data.shape == (1, 1, 400)
    assert READERS["audio"](path, seconds=0.02).data.shape == (1, 1, 80)


def test_sounds_that_are_cut_off_or_none(tmp_path):
    for kind in ("WAV", "FLAC", "AIFF"):
        whole = good.sound(kind)
        path = write(tmp_path / f"a.{kind.lower()}", whole[: len(whole) * 3 // 5])
        refused("is cut off|no audio that can be read", READERS["audio"], str(path))
    for name in ("a.wav", "a.mp3", "a.raw"):
        refused("no audio that can", READERS["audio"], str(write(tmp_path / name, b"no" * 99)))
    soundfile.write(tmp_path / "b.wav", np.zeros((0, 1)), 8000)
    refused("holds no samples", READERS["audio"], str(tmp_path / "b.wav"))
    soundfile.write(tmp_path / "c.wav", np.full((9, 1), np.nan), 8000, "FLOAT")
    refused("NaN or infinite", READERS["audio"], str(tmp_path / "c.wav"))
    soundfile.write(tmp_path / "d.wav", np.zeros((9, 1)), 8000)
    for wrong in ({"offset": np.nan}, {"offset": np.inf}, {"seconds": np.nan}):
        refused("source.offset = ", READERS["audio"], str(tmp_path / "d.wav"), **wrong)
    refused("lasts 0.001125 s", READERS["audio"], str(tmp_path / "d.wav"), offset=1e308)
    streamed = bytearray((tmp_path / "d.wav").read_bytes())  # its length was not known beforehand
    at = streamed.index(b"data")
    streamed[at + 4 : at + 8] = b"\xff" * 4
    path = write(tmp_path / "e.wav", bytes(streamed))
    assert READERS["audio"](str(path)).data.shape == (1, 1, 9)


IMAGE = Grid()
SOUND = Grid(axes=1, channels=1)


# -- sources


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [("wav", "FLOAT", 3e-7), ("wav", "PCM_16", 4e-5), ("flac", "PCM_24", 1e-6),
     ("ogg", "VORBIS", 0.1)],
)  # fmt: skip
def test_sounds_of_any_kind(tmp_path, suffix, subtype, tolerance):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, wave(), 8000, subtype)
    source = SOURCES["audio"](Grid(axes=1, channels=2), str(path))
    assert source.data.shape == (1, 2, 800)
    assert source.data.tensor.dtype == torch.float32
    np.testing.assert_allclose(source.data.tensor[0].T * 2 - 1, wave(), atol=tolerance)
    assert source.suggests == {"modality": {"size": [800], "rate": 8000.0}}
    assert source.facts()["filter"] == "none"
    mono = SOURCES["audio"](SOUND, str(path)).data.tensor[0, 0] * 2 - 1
    np.testing.assert_allclose(mono, wave().mean(1), atol=tolerance)


def test_a_part_of_a_sound(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, wave(channels=1), 1000, "FLOAT")
    read = lambda **own: SOURCES["audio"](SOUND, path, **own).data.tensor[0, 0].numpy() * 2 - 1
    part = lambda *ends: wave(channels=1)[slice(*ends), 0]
    np.testing.assert_allclose(read(offset=0.1, seconds=0.2), part(100, 300), atol=1e-6)
    np.testing.assert_allclose(read(offset=0.5), part(500, None), atol=1e-6)
    np.testing.assert_allclose(read(offset=0.5, seconds=9.0), part(500, None), atol=1e-6)
    with pytest.raises(InputError, match=r"offset = 0\.8: .* lasts 0\.8 seconds"):
        read(offset=0.8)
    for wrong in [{"offset": -0.1}, {"seconds": 0.0}]:
        with pytest.raises(InputError, match=r"source\.offset = .*source\.seconds"):
            read(**wrong)


def test_a_sound_in_a_given_size(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, wave(), 1000, "FLOAT")
    source = SOURCES["audio"](Grid(axes=1, channels=2, size=400), path)
    assert source.suggests == {"modality": {"size": [400], "rate": 500.0}}
    np.testing.assert_allclose(source.data.tensor[0].T * 2 - 1, wave()[::2], atol=1e-5)
    soundfile.write(path, wave() * 3, 1000, "FLOAT")
    loud = SOURCES["audio"](Grid(axes=1, channels=2), path).data.tensor
    assert (loud.min(), loud.max()) == (0, 1)


def test_sounds_that_are_none(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"a\.wav' is no audio that can be read"):
        SOURCES["audio"](SOUND, str(tmp_path / "a.wav"))
    soundfile.write(tmp_path / "b.wav", wave(), 1000)
    with pytest.raises(InputError, match="has 2 channels, and the modality 3"):
        SOURCES["audio"](Grid(axes=1, channels=3), str(tmp_path / "b.wav"))
    with pytest.raises(InputError, match="one axis"):
        SOURCES["audio"](IMAGE, str(tmp_path / "b.wav"))
