"""Grids as files: images, audio, video."""

import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fieldloom import export
from fieldloom.errors import InputError
from fieldloom.modalities import MODALITIES, Grid, Voxels
from fieldloom.types import Data


def test_formats():
    formats = {name: MODALITIES[name]().formats for name in ("image", "audio", "video", "sphere")}
    assert formats == {
        "image": (".png", ".npy"),
        "audio": (".wav", ".npy"),
        "video": (".mp4", ".gif", ".npy"),
        "sphere": (".png", ".npy"),
    }
    assert Grid(axes=3, channels=2).formats == (".npy",)
    assert Voxels().formats[0] == ".glb"
    assert ".mp4" not in Voxels().formats


@pytest.mark.parametrize("channels", [1, 2])
def test_sounds_are_written_as_they_are(tmp_path, channels):
    one = Grid(axes=1, size=100, channels=channels, rate=8000.0)
    data = torch.rand(channels, 100)
    path = one.save(Data(data[None]), tmp_path / "a")
    assert path == tmp_path / "a.wav"
    read, rate = soundfile.read(path, always_2d=True)
    assert rate == 8000
    np.testing.assert_allclose((read.T + 1) / 2, data, atol=0.51 / 65536)
    assert (
        soundfile.info(one.save(Data((data.repeat(1, 3))[None]), tmp_path / "b.wav")).samplerate
        == 24000
    )
    loud = one.save(Data((data * 0 + 7)[None]), tmp_path / "loud.wav")
    assert soundfile.read(loud)[0].min() == pytest.approx(1, abs=1e-4)
    kept = np.load(one.save(Data(data[None]), tmp_path / "a.npy"))
    np.testing.assert_array_equal(kept, data)
    unknown = Grid(axes=1, size=100, channels=channels).save(Data(data[None]), tmp_path / "c.wav")
    assert soundfile.info(unknown).samplerate == 44100


def moving(frames=6, height=16, width=24, channels=3) -> torch.Tensor:
    """A film (channel, frames, height, width) of a bright bar that goes to the right."""
    data = torch.zeros(channels, frames, height, width)
    for i in range(frames):
        data[:, i, :, 4 * i : 4 * i + 4] = 1
    return data


@pytest.mark.parametrize("channels", [1, 3])
def test_films_are_written_as_they_are(tmp_path, channels):
    data = moving(channels=channels)
    one = Grid(axes=3, size=(6, 16, 24), channels=channels, rate=30000 / 1001)
    path = one.save(Data(data[None]), tmp_path / "a")
    assert path == tmp_path / "a.mp4"
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        read = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    true = data.expand(3, -1, -1, -1).movedim(0, -1).numpy() * 255
    assert np.abs(read - true).mean() < 8
    slow = one.save(
        Data((data[:, :3])[None]), tmp_path / "half.mp4"
    )  # half of the frames in the same time
    with av.open(str(slow)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(14.985, rel=1e-3)
    animated = Image.open(one.save(Data(data[None]), tmp_path / "a.gif"))
    assert (animated.n_frames, animated.info["duration"]) == (6, 30)
    assert np.load(one.save(Data(data[None]), tmp_path / "a.npy")).shape == data.shape
    with av.open(
        str(Grid(axes=3, size=6).save(Data((moving())[None]), tmp_path / "b.mp4"))
    ) as container:
        assert container.streams.video[0].average_rate == 12


def test_films_are_written_one_frame_at_a_time(tmp_path):
    made: list[weakref.ref] = []

    def frames():
        for i in range(40):
            frame = np.full((15, 17, 3), i, np.uint8)
            made.append(weakref.ref(frame))
            assert sum(one() is not None for one in made) <= 4
            yield frame

    export.mp4(frames(), tmp_path / "a.mp4", 2.5)
    assert len(made) == 40
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.average_rate) == (16, 18, Fraction(5, 2))
        assert sum(1 for _ in container.decode(video=0)) == 40
    with pytest.raises(InputError, match="at least one frame"):
        export.mp4([], tmp_path / "a.mp4")
    with pytest.raises(InputError, match="at least one frame"):
        export.gif(iter([]), tmp_path / "a.gif")


def test_pictures_of_data():
    sound = torch.full((2, 1000), 0.5)
    sound[1, 500:] = 0.0
    sound[0, 500:] = 1.0
    drawn = Grid(axes=1, size=1000, channels=2).to_image(sound)
    assert drawn.shape == (3, 128, 512)
    dark = drawn[0] < 0.5
    assert dark.any(0).all()  # each column shows something
    assert dark[:, :250].sum(0).tolist() == [1] * 250  # a line in the middle
    assert dark[63:65, :250].any(0).all()
    assert dark[:, 260:].all()  # from the top to the bottom
    rising = Grid(axes=1, size=4, channels=1).to_image(torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    assert rising[0, -1, 0] < 0.5 < rising[0, 0, 0]  # fewer samples than columns, 1 is above
    assert rising[0, 0, -1] < 0.5 < rising[0, -1, -1]
    film = moving()
    assert torch.equal(Grid(axes=3, size=6).to_image(film), film[:, 3])
    assert Grid(axes=3, size=6, channels=2).to_image(film[:2]) is None
