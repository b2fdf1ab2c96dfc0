"""Audio files: read as they are or resized; broken or hostile ones get one sentence."""

import av
import numpy as np
import pytest
import soundfile
import torch

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, spec_of
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
    refused("tells of 68,719,476,735 samples.*large=True", READERS["audio"], path)
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
    soundfile.write(path, wave() * 2, 1000, "FLOAT")
    loud = SOURCES["audio"](Grid(axes=1, channels=2), path)
    assert (loud.data.tensor.min(), loud.data.tensor.max()) == (0, 1)
    beyond = int((np.abs(wave() * 2) > 1).sum())
    assert loud.summary.taken["clipped"] == f"{beyond:,} samples beyond the range clipped"


def test_sounds_that_are_none(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"a\.wav' is no audio that can be read"):
        SOURCES["audio"](SOUND, str(tmp_path / "a.wav"))
    soundfile.write(tmp_path / "b.wav", wave(), 1000)
    with pytest.raises(InputError, match="has 2 channels, and the modality 3"):
        SOURCES["audio"](Grid(axes=1, channels=3), str(tmp_path / "b.wav"))
    with pytest.raises(InputError, match="one axis"):
        SOURCES["audio"](IMAGE, str(tmp_path / "b.wav"))


# -- streams, whose header tells no length


def without_length(content: bytes) -> bytes:
    """A FLAC stream with 0 samples in its STREAMINFO (RFC 9639, 8.2)."""
    told = int.from_bytes(content[18:26], "big")
    return content[:18] + (told >> 36 << 36).to_bytes(8, "big") + content[26:]


def samples(path, channels=1, **own):
    """The samples (n, channel) in [-1, 1] of a file."""
    read = SOURCES["audio"](Grid(axes=1, channels=channels), str(path), **own)
    return read.data.tensor[0].T.numpy() * 2 - 1


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_streamed_flac_is_read_to_its_end(tmp_path, monkeypatch, subtype):
    path = tmp_path / "a.flac"
    soundfile.write(path, wave(20_000), 4000, subtype)
    right = samples(path, 2)
    assert right.shape == (20_000, 2)
    streamed = write(tmp_path / "b.flac", without_length(path.read_bytes()))
    np.testing.assert_array_equal(samples(streamed, 2), right)
    np.testing.assert_array_equal(samples(streamed, 2, offset=1.5), right[6000:])
    np.testing.assert_array_equal(samples(streamed, 2, offset=1.0, seconds=0.5), right[4000:6000])
    refused("lasts 5 seconds", READERS["audio"], str(streamed), offset=5.0)
    source = READERS["audio"](str(streamed))
    assert source.summary.taken["end"] == "its header tells no length"
    assert source.suggests == {"modality": {"size": [20_000], "rate": 4000.0}}
    cut = write(tmp_path / "c.flac", streamed.read_bytes()[: streamed.stat().st_size // 2])
    refused("is cut off or damaged after .* s: source.seconds", READERS["audio"], str(cut))
    np.testing.assert_array_equal(samples(cut, 2, seconds=1.0), right[:4000])
    monkeypatch.setattr(sounds, "SAMPLES", 9_000)
    refused("tells of 16,384 samples, and more than 9,000", READERS["audio"], str(streamed))
    assert len(samples(streamed, 2, seconds=1.0)) == 4000
    assert len(samples(streamed, 2, permit=LARGE)) == 20_000


def test_an_ogg_that_is_cut_is_read_to_its_last_page(tmp_path):
    path = tmp_path / "a.ogg"
    sound = wave(480_000) / 4 + np.random.default_rng(0).normal(0, 0.05, (480_000, 2))
    soundfile.write(path, sound, 48_000)
    right, content = samples(path, 2), path.read_bytes()
    cut = write(tmp_path / "b.ogg", content[: len(content) * 3 // 5])
    read = samples(cut, 2)
    assert 200_000 < len(read) < 300_000
    np.testing.assert_allclose(read, right[: len(read)], atol=1e-5)
    assert READERS["audio"](str(cut)).summary.taken["end"] == "cut off after its last whole page"
    assert "end" not in READERS["audio"](str(path)).summary.taken


def test_headers_that_were_never_finished(tmp_path):
    """A WAV of 0 bytes, as a recorder leaves it that lost its power, and a streamed CAF."""
    soundfile.write(tmp_path / "a.wav", wave(), 8000)
    soundfile.write(tmp_path / "a.caf", wave(), 8000)
    right = samples(tmp_path / "a.wav", 2)
    for name, length in (("a.wav", b"\0" * 4), ("a.caf", b"\xff" * 8)):
        content = (tmp_path / name).read_bytes()
        at = content.index(b"data") + 4
        path = write(tmp_path / name, content[:at] + length + content[at + len(length) :])
        np.testing.assert_array_equal(samples(path, 2), right)


# -- formats


@pytest.mark.parametrize(
    ("suffix", "format", "tolerance"),
    [("rf64", "RF64", 4e-5), ("w64", "W64", 4e-5), ("caf", "CAF", 4e-5), ("au", "AU", 4e-5),
     ("snd", "AU", 4e-5), ("aif", "AIFF", 4e-5), ("aifc", "AIFF", 4e-5), ("voc", "VOC", 4e-5),
     ("mp3", "MP3", 0.1), ("opus", "OGG", 0.1), ("oga", "OGG", 0.1)],
)  # fmt: skip
def test_every_suffix_is_read(tmp_path, suffix, format, tolerance):
    path = tmp_path / f"a.{suffix.upper()}"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(9600) / 48_000)
    soundfile.write(path, tone, 48_000, "OPUS" if suffix == "opus" else None, format=format)
    assert spec_of(str(path)) == {"name": "audio", "path": str(path)}
    read = samples(path)[:, 0]
    assert len(read) == 9600
    np.testing.assert_allclose(read[960:-960], tone[960:-960], atol=tolerance)


@pytest.mark.parametrize(
    ("name", "kind", "codec"),
    [("a.m4a", "ipod", "aac"), ("a.mka", "matroska", "flac"), ("a.mp4", "mp4", "aac")],
)
def test_sounds_that_ffmpeg_reads(tmp_path, name, kind, codec):
    path, form = str(tmp_path / name), "fltp" if codec == "aac" else "s16"
    wanted = wave(8000, 1)[:, 0] / 2
    with av.open(path, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=8000, layout="mono")
        for start in range(0, 8000, 1000):
            part = wanted[None, start : start + 1000].astype(np.float32)
            part = part if form == "fltp" else np.rint(part * 32768).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part, format=form, layout="mono")
            frame.sample_rate, frame.pts = 8000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    read = samples(path)[:, 0]
    assert len(read) == 8000
    np.testing.assert_allclose(read[:7000], wanted[:7000], atol=0.03)
    part = samples(path, offset=0.25, seconds=0.5)[:, 0]
    np.testing.assert_array_equal(part, read[2000:6000])


# -- what numbers mean


def test_floats_of_another_scale_need_a_range(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, wave(channels=1) * 32767, 8000, "FLOAT")
    told = refused("floats from -29,490.3 to 29,490.3", READERS["audio"], path)
    assert "source.range" in told
    np.testing.assert_allclose(
        samples(path, range=(-32767.0, 32767.0)), wave(channels=1), atol=1e-6
    )
    louder = READERS["audio"](path, range=(-1.0, 1.0))
    assert set(louder.data.tensor.unique().tolist()) == {0, 0.5, 1}
    for wrong in ((1.0, 1.0), (2.0, -2.0), (0.0, np.inf)):
        refused("source.range = ", READERS["audio"], path, range=wrong)


@pytest.mark.parametrize(
    ("subtype", "full"), [("PCM_16", 2**15), ("PCM_24", 2**23), ("PCM_U8", 128)]
)
def test_a_range_of_integers_is_in_their_numbers(tmp_path, subtype, full):
    path = str(tmp_path / "a.wav")
    stored = np.array([0.0, 0.25, -0.25, 0.5])  # of full scale
    soundfile.write(path, stored, 8000, subtype)
    source = READERS["audio"](path, range=(-full / 4, full / 4))
    np.testing.assert_allclose(source.data.tensor[0, 0], [0.5, 1, 0, 1], atol=1e-6)
    assert source.summary.taken["clipped"] == "1 sample beyond the range clipped"
    assert source.summary.taken["range"] == (
        f"numbers from {-full / 4:,.6g} to {full / 4:,.6g} (source.range)"
    )
    plain = READERS["audio"](path)
    np.testing.assert_allclose(plain.data.tensor[0, 0], stored / 2 + 0.5, atol=1e-6)


def test_the_line_of_a_recording(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, wave(44_100 * 2) / 2, 44_100)
    read = lambda grid, **own: SOURCES["audio"](grid, path, **own).summary.describe()
    assert read(Grid(axes=1, channels=2)) == (
        "1 recording, 2 channels, 2 s at 44,100 per second, Signed 16 bit PCM"
    )
    assert read(Grid(axes=1, channels=1, size=8000), offset=0.5, seconds=1.0) == (
        "1 recording, mean of 2 channels, 1 s at 44,100 per second, 0.5 to 1.5 s of 2 s, "
        "Signed 16 bit PCM, resampled from 44,100 to 8,000 samples (Fourier)"
    )
