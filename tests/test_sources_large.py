"""One picture, film or sound: decoded once, mapped from a file, and read where it is asked for."""

import hashlib
import struct
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fieldloom import export
from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, cache, spec_of
from fieldloom.modalities.sources.cache import cache_folder, memory_map, memory_map_by_parts
from fieldloom.modalities.sources.source import Source, _pieces, make_source
from fieldloom.modalities.sources.video import Frames
from fieldloom.preparation import prepare
from fieldloom.training import train
from fieldloom.types import Data
from shared import shared

IMAGE, FILM, SOUND = Grid(), Grid(axes=3), Grid(axes=1, channels=1)


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch) -> Path:
    """The cache of each test."""
    monkeypatch.setenv("FIELDLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


# -- the cache


class Decoder:
    """Three blocks of an array; counts how often it was asked."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.asked = array, 0

    def __call__(self):
        self.asked += 1
        yield from np.array_split(self.array, 3)


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "file.bin").write_bytes(b"content")
    return tmp_path / "file.bin"


def test_a_file_is_decoded_once(file, cached):
    decode = Decoder(noise(13, 4, 3))
    for _ in range(2):
        found = memory_map([file], {"size": (13, 4)}, decode)
        np.testing.assert_array_equal(found, decode.array)
    assert decode.asked == 1
    (kept,) = cached.iterdir()
    assert kept.name.startswith("file-")
    np.testing.assert_array_equal(np.load(kept), decode.array)
    memory_map([file], {"size": (13, 5)}, decode)
    assert decode.asked == 2
    file.write_bytes(b"longer content")
    memory_map([file], {"size": (13, 4)}, decode)
    assert decode.asked == 3


def test_a_mapped_array_can_be_a_tensor_but_the_file_never_changes(file, cached, recwarn):
    decode = Decoder(noise(6, 2))
    torch.from_numpy(memory_map([file], {}, decode)).zero_()
    assert not recwarn.list
    np.testing.assert_array_equal(memory_map([file], {}, decode), decode.array)
    assert decode.asked == 1


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_broken_cache_is_decoded_again(file, cached, keep):
    decode = Decoder(noise(6, 2))
    memory_map([file], {}, decode)
    (kept,) = cached.iterdir()
    kept.write_bytes(kept.read_bytes()[:keep])
    np.testing.assert_array_equal(memory_map([file], {}, decode), decode.array)
    assert decode.asked == 2


def test_a_cache_that_cannot_be_written(file, monkeypatch):
    monkeypatch.setenv("FIELDLOOM_CACHE", str(file / "cache"))  # below a file is no folder
    decode = Decoder(noise(6, 2))
    with pytest.warns(UserWarning, match=r"cannot be written .*'file.bin' is held in memory"):
        found = memory_map([file], {}, decode)
    np.testing.assert_array_equal(found, decode.array)


def test_parts_are_kept_where_the_whole_is_not(file, cached, monkeypatch):
    """A disk that is full of parts: hours of work stay, and are not done again."""
    array, asked = noise(4, 2), []
    write = cache._write

    def part(i):
        def decode():
            asked.append(i)
            yield array[2 * i : 2 * i + 2]

        return [file], decode

    def full(to, blocks):
        blocks = list(blocks)
        if len(blocks) > 1:
            raise OSError(28, "No space left on device")
        write(to, blocks)

    monkeypatch.setattr(cache, "_write", full)
    for _ in range(2):
        with pytest.warns(UserWarning, match="No space left"):
            found = memory_map_by_parts([file], {}, [part(0), part(1)])
        np.testing.assert_array_equal(found, array)
    assert asked == [0, 1]


def test_parts_without_a_cache_are_held(file, monkeypatch):
    monkeypatch.setenv("FIELDLOOM_CACHE", str(file / "cache"))
    array = noise(6, 2)
    parts = [([file], lambda i=i: iter([array[i : i + 2]])) for i in (0, 2, 4)]
    with pytest.warns(UserWarning, match="cannot be written"):
        found = memory_map_by_parts([file], {}, parts)
    np.testing.assert_array_equal(found, array)


def test_decoding_that_fails_leaves_nothing(file, cached):
    def decode():
        yield noise(2, 2)
        raise InputError("broken in the middle")

    with pytest.raises(InputError, match="broken in the middle"):
        memory_map([file], {}, decode)
    assert list(cached.iterdir()) == []


def test_what_is_stopped_goes_on_with_its_part(file, cached):
    array, asked = noise(8, 3), []

    def part(number, broken):
        def decode():
            asked.append(number)
            if number == broken:
                raise KeyboardInterrupt
            if number != 1:  # one part is empty
                yield array[2 * number : 2 * number + 2]

        return [file], decode

    parts = lambda broken: [part(number, broken) for number in range(4)]
    with pytest.raises(KeyboardInterrupt):
        memory_map_by_parts([file], {"a": 1}, parts(2))
    assert len(list(cached.iterdir())) == 2
    found = memory_map_by_parts([file], {"a": 1}, parts(None))
    np.testing.assert_array_equal(found, np.delete(array, [2, 3], 0))
    assert asked == [0, 1, 2, 2, 3]
    assert len(list(cached.iterdir())) == 1
    np.testing.assert_array_equal(memory_map_by_parts([file], {"a": 1}, parts(0)), found)
    assert asked == [0, 1, 2, 2, 3]


def test_several_at_a_time(file):
    """Each is at its first block before any goes on: every one writes, and every one is whole."""
    array, together = noise(9, 5), threading.Barrier(3, timeout=20)
    found: list[np.ndarray] = []

    def decode():
        together.wait()
        yield from np.array_split(array, 3)

    threads = [
        threading.Thread(target=lambda: found.append(memory_map([file], {}, decode)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for one in found:
        np.testing.assert_array_equal(one, array)


def test_where_the_cache_lies(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("FIELDLOOM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fieldloom"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "fieldloom"


# -- sources


def test_one_place_is_taken_without_a_copy():
    source = make_source(torch.from_numpy(noise(4, 3, 5, 5)), None, (4, 0), shuffle=False)
    for place in (2, -1):
        one = source.take(torch.tensor([place])).tensor
        assert one.data_ptr() == source.data.tensor[place].data_ptr()
        assert torch.equal(one, source.data.tensor[[place]])
    some = torch.tensor([3, 0, 3])
    assert torch.equal(source.take(some).tensor, source.data.tensor[some])
    assert source.take(some).tensor.dtype == torch.uint8
    torch.testing.assert_close(source.read(some).tensor, source.data.tensor[some] / 255)


def test_fingerprints_stay_what_they_were():
    """A stream of pieces gives the digest of the whole, row-major."""
    data, labels = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 0, 1])
    frame = torch.rand(4, 4)
    whole = Data(data.transpose(2, 3), frame=frame, label=labels)
    source = Source(whole, ("a", "b"), labels[:3], labels[3:])
    parts = [data.transpose(2, 3), labels, labels, frame]
    whole = b"".join(x.numpy().tobytes() for x in parts)
    digest = hashlib.blake2b(whole, digest_size=8).hexdigest()
    assert source.facts()["fingerprint"] == digest
    array = np.moveaxis(noise(6, 7, 3), -1, 0)
    pieces = list(_pieces(array, limit=10))
    assert b"".join(pieces) == array.tobytes()
    assert max(len(piece) for piece in pieces) <= 10
    assert [len(piece) for piece in _pieces(noise(6, 7), limit=10)] == [42]  # lies together: whole


def test_a_pictures_own_size(tmp_path, cached):
    array = noise(300, 70, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    source = SOURCES["image"](IMAGE, str(tmp_path / "a.png"))
    assert source.data.shape == (1, 3, 300, 70)
    assert source.data.tensor.stride()[1] == 1  # channel last, as it is mapped
    np.testing.assert_array_equal(source.data.tensor[0].permute(1, 2, 0), array)
    assert source.suggests == {"modality": {"size": [300, 70]}}
    assert (len(source.train), len(source.test), source.filter) == (1, 0, "none")
    again = SOURCES["image"](Grid(size=(300, 70)), str(tmp_path / "a.png"))
    assert again.facts() == source.facts()
    assert len(list(cached.iterdir())) == 1
    grey = SOURCES["image"](Grid(channels=1), str(tmp_path / "a.png"))
    np.testing.assert_array_equal(grey.data.tensor[0, 0], Image.fromarray(array).convert("L"))


def test_a_picture_in_a_given_size_is_that_of_a_folder(tmp_path):
    Image.fromarray(noise(30, 50, 3)).save(tmp_path / "a.png")
    for size, filter in [(16, "bicubic"), ((8, 40), "box")]:
        given = Grid(size=size), str(tmp_path / "a.png")
        one = SOURCES["image"](*given, filter=filter)
        assert torch.equal(one.data.tensor, SOURCES["folder"](*given, filter=filter).data.tensor)
        assert one.filter == filter


def test_a_picture_of_any_mode(tmp_path):
    array = noise(20, 30, 3)
    turned = Image.fromarray(array)
    turned.getexif()[0x0112] = 6  # by a quarter
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    source = SOURCES["image"](IMAGE, str(tmp_path / "turned.png"))
    np.testing.assert_array_equal(source.data.tensor[0].permute(1, 2, 0), np.rot90(array, -1))
    Image.fromarray(array).convert("RGBA").save(tmp_path / "alpha.png")
    source = SOURCES["image"](IMAGE, str(tmp_path / "alpha.png"))
    np.testing.assert_array_equal(source.data.tensor[0].permute(1, 2, 0), array)
    Image.fromarray(array[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    source = SOURCES["image"](Grid(channels=1), str(tmp_path / "deep.png"))
    np.testing.assert_array_equal(source.data.tensor[0, 0], array[..., 0])


def test_a_picture_beyond_pillows_limit(tmp_path, monkeypatch):
    Image.fromarray(noise(30, 50, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert SOURCES["folder"](Grid(size=16), str(tmp_path / "a.png")).data.shape == (1, 3, 16, 16)
    assert SOURCES["image"](IMAGE, str(tmp_path / "a.png")).data.shape == (1, 3, 30, 50)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pictures_that_are_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(InputError, match=r"a\.png' is no image that can be read"):
        SOURCES["image"](IMAGE, str(tmp_path / "a.png"))
    with pytest.raises(InputError, match="two axes"):
        SOURCES["image"](FILM, str(tmp_path / "a.png"))
    Image.fromarray(noise(300, 70, 3)).save(tmp_path / "b.png")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"b\.png' is no image that can be read"):
        SOURCES["image"](IMAGE, str(tmp_path / "b.png"))
    assert Image.MAX_IMAGE_PIXELS is not None


def lossless(path: Path, frames: np.ndarray, rate: int = 10) -> Path:
    """Frames uint8 (T, H, W, 3) as FFV1 in Matroska, to the bit."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_a_film_to_the_bit(tmp_path, cached):
    frames = noise(7, 6, 10, 3)
    path = lossless(tmp_path / "a.mkv", frames)
    source = SOURCES["video"](FILM, str(path))
    assert source.data.shape == (1, 3, 7, 6, 10)
    np.testing.assert_array_equal(source.data.tensor[0].permute(1, 2, 3, 0), frames)
    assert source.suggests == {"modality": {"size": [7, 6, 10], "rate": 10.0}}
    again = SOURCES["video"](Grid(axes=3, size=(7, 6, 10)), str(path))
    assert again.facts() == source.facts()
    assert len(list(cached.iterdir())) == 1
    part = SOURCES["video"](FILM, str(path), Frames(start=1, stop=6, step=2))
    np.testing.assert_array_equal(part.data.tensor[0].permute(1, 2, 3, 0), frames[1:6:2])
    assert part.suggests == {"modality": {"size": [3, 6, 10], "rate": 5.0}}
    grey = SOURCES["video"](Grid(axes=3, channels=1), str(path))
    np.testing.assert_array_equal(
        grey.data.tensor[0, 0, 2], Image.fromarray(frames[2]).convert("L")
    )


def test_a_film_in_a_given_size(tmp_path):
    frames = noise(6, 8, 12, 3)
    path = lossless(tmp_path / "a.mkv", frames)
    source = SOURCES["video"](Grid(axes=3, size=(3, 4, 4)), str(path))
    assert source.data.shape == (1, 3, 3, 4, 4)
    assert source.filter == "bicubic"
    assert source.suggests == {"modality": {"size": [3, 4, 4], "rate": 5.0}}
    Image.fromarray(frames[3]).save(tmp_path / "a.png")  # the second of three shares: 2 and 3
    still = SOURCES["folder"](Grid(size=4), str(tmp_path / "a.png"))
    assert torch.equal(source.data.tensor[0, :, 1], still.data.tensor[0])
    with pytest.raises(InputError, match="asks for 7 frames, and .* has 6"):
        SOURCES["video"](Grid(axes=3, size=(7, 4, 4)), str(path))


def test_a_folder_of_frames_is_a_film(tmp_path):
    frames = noise(4, 6, 5, 3)
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i:03d}.png")
    source = SOURCES["video"](FILM, str(folder), Frames(stop=3))
    np.testing.assert_array_equal(source.data.tensor[0].permute(1, 2, 3, 0), frames[:3])
    assert source.suggests == {"modality": {"size": [3, 6, 5]}}
    Image.fromarray(frames[3]).save(folder / "001.png")  # one frame is another
    changed = SOURCES["video"](FILM, str(folder), Frames(stop=3))
    np.testing.assert_array_equal(changed.data.tensor[0, :, 1].permute(1, 2, 0), frames[3])


def test_films_of_other_kinds(tmp_path):
    frames = np.repeat(noise(5, 1, 1, 3), 16, 1).repeat(16, 2)
    export.gif(frames, tmp_path / "a.gif", 0.1)
    export.mp4(frames, tmp_path / "a.mp4", 7.5)
    for name, rate in [("a.gif", 10.0), ("a.mp4", 7.5)]:
        source = SOURCES["video"](FILM, str(tmp_path / name))
        close = source.data.tensor[0].permute(1, 2, 3, 0).numpy().astype(int) - frames
        assert np.abs(close).mean() < 8, name
        assert source.suggests["modality"]["rate"] == pytest.approx(rate), name


def test_a_film_that_was_held_upright(tmp_path):
    """The matrix of a telephone's film turns it clockwise by a quarter."""
    frames = np.zeros((2, 16, 32, 3), np.uint8)
    frames[:, :, :16] = 255  # bright on the left, and so above
    content = export.mp4(frames, tmp_path / "a.mp4").read_bytes()
    one = 1 << 16
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 16 * one, 0, 1 << 30)
    at = content.index(plain, content.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(content[:at] + turned + content[at + len(plain) :])
    data = SOURCES["video"](FILM, str(tmp_path / "a.mp4")).data.tensor[0, 0, 0].float()
    assert data.shape == (32, 16)
    assert data[:14].mean() > 240
    assert data[18:].mean() < 15


def test_films_that_are_none(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"a\.mp4' is no video that can be read"):
        SOURCES["video"](FILM, str(tmp_path / "a.mp4"))
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    with pytest.raises(InputError, match="has no images"):
        SOURCES["video"](FILM, str(tmp_path / "a.wav"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        SOURCES["video"](FILM, str(tmp_path / "empty"))
    path = str(lossless(tmp_path / "b.mkv", noise(2, 4, 4, 3)))
    with pytest.raises(InputError, match="ends before frame 2"):
        SOURCES["video"](FILM, path, Frames(start=2))
    with pytest.raises(InputError, match="three axes"):
        SOURCES["video"](IMAGE, path)
    for wrong in [{"start": -1}, {"start": 3, "stop": 3}, {"step": 0}]:
        with pytest.raises(InputError, match=r"source\.frames"):
            Frames(**wrong)


def wave(count=800, channels=2) -> np.ndarray:
    """Smooth sounds (count, channels) in [-1, 1] with a whole number of periods."""
    steps = np.arange(count)[:, None] / count
    return 0.9 * np.sin(2 * np.pi * steps * np.arange(3, 3 + channels))


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


def test_what_a_path_holds(tmp_path):
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


# -- in a run

RECIPE = {
    "modality": "image",
    "field": {"name": "siren", "width": 8, "depth": 3, "frequency": 30.0},
    "train": {"field": {"steps": 3, "batch": 1, "points": 50}},
}


def test_a_run_takes_the_size_of_its_picture(tmp_path, cached):
    Image.fromarray(noise(30, 40, 3)).save(tmp_path / "a.png")
    recipe = RECIPE | {"source": {"name": "image", "path": str(tmp_path / "a.png")}}
    system = train(recipe, str(tmp_path / "run"), device="cpu")
    assert system.recipe["modality"] == {"name": "image", "size": [30, 40]}
    assert system.predict(system.family.conditioner.origin(1)).shape == (1, 3, 30, 40)
    again, _ = prepare(system.recipe, torch.device("cpu"))  # as --resume does
    assert again == system.recipe
    assert len(list(cached.iterdir())) == 1
    given = recipe | {"modality": {"name": "image", "size": 16}}
    resolved, source = prepare(given, torch.device("cpu"))
    assert resolved["modality"]["size"] == 16
    assert source.data.shape == (1, 3, 16, 16)


def test_a_run_of_a_sound_knows_its_rate(tmp_path):
    soundfile.write(tmp_path / "a.wav", wave(channels=1), 1000)
    source = {"name": "audio", "path": str(tmp_path / "a.wav"), "seconds": 0.5}
    recipe, _ = prepare(RECIPE | {"modality": "audio", "source": source}, torch.device("cpu"))
    assert recipe["modality"] == {"name": "audio", "size": [500], "rate": 1000.0}


def test_a_run_reads_only_the_points_that_it_asks_for(tmp_path, monkeypatch):
    """The data reach the modality as they are stored: bytes, mapped, never copied."""
    Image.fromarray(noise(30, 40, 3)).save(tmp_path / "a.png")
    seen, observe = [], Grid.observe

    def watched(self, data, *rest, **named):
        seen.append(data)
        return observe(self, data, *rest, **named)

    monkeypatch.setattr(Grid, "observe", watched)
    source = {"name": "image", "path": str(tmp_path / "a.png")}
    train(RECIPE | {"source": source}, str(tmp_path / "run"), device="cpu")
    assert len(seen) == 3
    assert {data.tensor.dtype for data in seen} == {torch.uint8}
    assert len({data.tensor.data_ptr() for data in seen}) == 1


MEMORY = """
import resource, sys
import numpy as np, torch
from fieldloom.modalities import Grid
data = torch.from_numpy(np.load(sys.argv[1], mmap_mode="c")).permute(2, 0, 1)[None]
image = Grid(size=(4000, 6000))
image.observe(data[..., :2000, :50], points=9)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
signal = image.observe(data, points=65536).target
assert signal.values.shape == (1, 65536, 3)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts KiB on Linux only")
def test_few_points_of_a_large_picture_take_little_memory(tmp_path):
    """Far below a copy in float (288 MB): the points, and at most the pages of the file (72 MB)."""
    path = tmp_path / "large.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (4000, 6000, 3))[::100] = 7
    command = [sys.executable, "-c", MEMORY, str(path)]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown * 1024 < 72e6 + 30e6


def test_arrays_keep_their_own_size_where_the_modality_says_none(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 9, 14), np.uint8)
    np.save(tmp_path / "a.npy", noise)
    source = SOURCES["array"](Grid(axes=2), str(tmp_path / "a.npy"))
    assert source.suggests == {"modality": {"size": [9, 14]}}
    np.testing.assert_array_equal(source.data.tensor.numpy(), noise)
    resized = SOURCES["array"](Grid(axes=2, size=(4, 6)), str(tmp_path / "a.npy"))
    assert resized.data.shape == (2, 3, 4, 6)
    assert not resized.suggests
