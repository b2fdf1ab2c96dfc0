"""Video files: read frame by frame to the bit; broken or hostile ones get one sentence."""

import shutil
import struct
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
from fieldloom.modalities.sources import SOURCES
from fieldloom.modalities.sources import video as films
from fieldloom.modalities.sources.video import Frames
from fieldloom.permit import Permit
from fuzz import good
from media import noise
from refusals import READERS, draw, refused, write

LARGE, NETWORK = Permit(large=True), Permit(network=True)


# -- films and sounds


def test_films_beyond_the_limits(tmp_path, monkeypatch, cached):
    path = str(write(tmp_path / "a.mp4", good.film(draw(), "mp4")))
    for module, name, most, words in (
        (films, "PIXELS", 200, "frames of 16 x 16.* 256 pixels in a frame, and more than 200"),
        (films, "VIDEO", 600, "tells of 768 pixels in its frames, and more than 600"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, most)
            refused(words, READERS["video"], path)
            assert READERS["video"](path, permit=LARGE).data.shape == (1, 3, 3, 16, 16)
            shutil.rmtree(cached)  # what was decoded once is not decoded again
    for start, stop, step in ((10**30, None, 1), (0, 10**30, 1), (0, None, 10**30)):
        refused("source.frames", films.Frames, start, stop, step)


def test_films_that_are_cut_off(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for frame in draw().integers(0, 256, (9, 16, 16, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    whole = path.read_bytes()
    assert READERS["video"](str(path)).data.shape[2] == 9
    for share in (0.1, 0.5, 0.8, 0.98):
        write(path, whole[: int(share * len(whole))])
        refused("no video|cut off or damaged", READERS["video"], str(path))
    for content in (b"", b"\0" * 5000, whole[:4]):
        refused("no video that can be read", READERS["video"], str(write(path, content)))


def test_films_name_no_other_file(tmp_path, monkeypatch):
    """FFmpeg would follow lists of files, and addresses."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.mp4", good.film(draw(), "mp4"))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    for text in (
        "ffconcat version 1.0\nfile good.mp4\n",
        playlist.format("good.mp4"),
        playlist.format("http://127.0.0.1:9/good.ts"),
    ):
        path = str(write(tmp_path / "a.mp4", text.encode()))
        refused("no video that can be read", READERS["video"], path)


IMAGE = Grid()
FILM = Grid(axes=3)


# -- sources


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
