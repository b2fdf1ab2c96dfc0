"""Grids in parts: windows, rows, some of the points; and their files: stills, sounds, films."""

import math
import weakref
from fractions import Fraction
from itertools import product

import av
import numpy as np
import pytest
import soundfile
import tifffile
import torch
from PIL import Image

from fieldloom import export
from fieldloom.errors import InputError
from fieldloom.modalities import MODALITIES, Grid, Voxels, grid
from fieldloom.modalities.grid import Placement
from fieldloom.types import Data, Signal
from given import data_of

PLACES = ["centre", "corner", "left", "right"]
GRIDS = {
    "audio": Grid(axes=1, size=13, channels=1),
    "image": Grid(axes=2, size=(6, 9)),
    "video": Grid(axes=3, size=(4, 5, 6)),
    "sphere": Grid(axes=2, size=(8, 12), sphere=True, channels=1),
    "poles": Grid(axes=2, size=(7, 12), sphere=True, channels=1, coords=Placement("corner")),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- parts of a grid


@pytest.mark.parametrize("name", GRIDS)
def test_rows_are_those_of_the_whole_grid(name):
    one = GRIDS[name]
    window = tuple((0.125, 0.875) for _ in one.size)
    for resolution, part in [(None, None), (11, None), (11, window)]:
        shape = one.shape(resolution)
        whole = one.grid(resolution, window=part).unflatten(1, shape)
        for rows in (slice(0, 3), slice(2, 3), slice(3, None), slice(None)):
            some = one.grid(resolution, window=part, rows=rows)
            assert torch.equal(some, whole[:, rows].flatten(1, -2)), (resolution, rows)


@pytest.mark.parametrize("place", PLACES)
def test_windows_are_where_the_whole_grid_has_them(place):
    """Windows that begin and end between samples of the whole grid, to the bit."""
    corner = place == "corner"  # steps of 1/8 and 1/4; otherwise of 1/16 and 1/8
    counts, first, part = ((9, 5), (2, 2), (5, 2)) if corner else ((16, 8), (4, 4), (4, 2))
    one = Grid(size=counts, coords=Placement(place, -3.0, 2.0))
    found = one.grid(part, window=((0.25, 0.75 if corner else 0.5), (0.5, 0.75)))
    whole = one.grid().unflatten(1, counts)
    expected = whole[:, first[0] : first[0] + part[0], first[1] : first[1] + part[1]]
    assert torch.equal(found, expected.flatten(1, 2))


def test_a_window_against_its_formula():
    one = Grid(axes=3, size=4, coords=Placement("centre", 0.0, 2.0))
    window = ((-0.5, 1.5), (0.3, 0.4), (0, 1))
    shape = (2, 3, 5)
    found = one.grid(shape, window=window)[0]
    slow = [
        [2 * (a + (b - a) * (k + 0.5) / n) for k, n, (a, b) in zip(at, shape, window, strict=True)]
        for at in product(*map(range, shape))
    ]
    torch.testing.assert_close(found, torch.tensor(slow))
    assert found[:, 0].unique().tolist() == [0.0, 2.0]  # -0.5 + 2 * 0.25, -0.5 + 2 * 0.75, twice


def test_windows_of_the_sphere():
    one = MODALITIES["sphere"](size=(8, 16))
    whole = one.grid().unflatten(1, (8, 16))
    north = one.grid((4, 16), window=((0.0, 0.5), (0.0, 1.0))).unflatten(1, (4, 16))
    torch.testing.assert_close(north, whole[:, :4], rtol=0, atol=1e-7)
    around = one.grid(window=((0, 1), (0.5, 1.5))).unflatten(1, (8, 16))  # over the far meridian
    torch.testing.assert_close(around, whole.roll(8, 2), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="latitude ends at the poles"):
        one.grid(window=((-0.1, 0.5), (0, 1)))


@pytest.mark.parametrize("window", [((0, 1),), ((0, 1), (0.5, 0.5)), ((0, 1), (math.nan, 1.0))])
def test_windows_that_are_none(window):
    with pytest.raises(InputError, match=r"window .*\(first, last\) for each of 2 axes"):
        Grid(size=4).grid(window=window)


def test_a_size_that_the_source_says():
    assert Grid().native
    assert Grid().size == (64, 64)
    assert not Grid(size=64).native
    assert MODALITIES["video"]().native
    assert not Voxels().native
    with pytest.raises(InputError, match=r"modality\.rate = 0"):
        Grid(rate=0.0)


# -- some of the points


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", ["float", "bytes", "channel last"])
def test_points_are_drawn_as_a_subset_of_the_signal(name, together, kind):
    """The same points as of old: those of ``Signal.subset`` from the same generator."""
    one = GRIDS[name]
    data = torch.rand(3, one.channels, *one.size)
    if kind == "bytes":
        data = (data * 255).byte()
    if kind == "channel last":
        data = data.movedim(1, -1).contiguous().movedim(-1, 1)
    whole = one.observe(data).target
    slow = whole.subset(7, seeded(), together)
    fast = one.observe(data, points=7, generator=seeded(), together=together).target
    assert torch.equal(fast.coords, slow.coords)
    assert torch.equal(fast.values, slow.values)
    assert fast.grid is None
    everything = one.observe(data, points=math.prod(one.size)).target
    assert torch.equal(everything.values, whole.values)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("together", [False, True])
def test_points_of_a_large_grid_are_points_of_it(name, together, monkeypatch):
    monkeypatch.setattr(grid, "FEW", 5)
    one = GRIDS[name]
    count = math.prod(one.size)
    data = torch.arange(2 * one.channels * count).view(2, one.channels, *one.size) / 1e4
    whole = one.observe(data).target
    part = one.observe(data, points=count - 1, generator=seeded(), together=together).target
    for i in (0, 1):
        all_values, values = whole.values[i, :, 0].contiguous(), part.values[i, :, 0].contiguous()
        place = torch.searchsorted(all_values, values)
        assert torch.equal(whole.values[i, place], part.values[i])
        assert torch.equal(whole.coords[i, place], part.coords[i])
        assert len(place.unique()) < count - 1  # with replacement
    assert torch.equal(part.coords[0], part.coords[1]) == together


def test_labels_and_places_go_with_the_points():
    given = dict(index=torch.tensor([5, 2]), label=torch.tensor([1, 0]))
    signal = Grid(size=4).observe(data_of(torch.rand(2, 3, 4, 4), **given), points=3).target
    assert isinstance(signal, Signal)
    assert signal.index.tolist() == [5, 2]
    assert signal.label.tolist() == [1, 0]


# -- files


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


# -- pictures that nobody holds


def strips(picture, rows):
    for first in range(0, len(picture), rows):
        yield first, picture[first : first + rows]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (33, 70), (64, 32), (50, 16)])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_streamed_pictures_are_the_plain_ones(tmp_path, channels, size, rows):
    picture = np.random.default_rng(0).integers(0, 256, (*size, channels)).astype(np.uint8)
    picture[: size[0] // 2] = np.arange(size[1] * channels).reshape(size[1], channels)
    png = export.png_from_strips(strips(picture, rows), picture.shape, tmp_path / "a.png")
    tif = export.tiff(strips(picture, rows), picture.shape, tmp_path / "a.tif", tile=32)
    for path in (png, tif):
        read = Image.open(path)
        assert read.mode == ("L" if channels == 1 else "RGB")
        np.testing.assert_array_equal(np.asarray(read).reshape(picture.shape), picture)
    with tifffile.TiffFile(tif) as file:
        assert file.pages[0].is_tiled
        assert file.pages[0].tile == (32, 32)


@pytest.mark.parametrize("write", [export.png_from_strips, export.tiff])
def test_strips_that_do_not_make_up_the_picture(tmp_path, write):
    picture = np.zeros((40, 20, 3), np.uint8)
    (tmp_path / "a").write_bytes(b"before")
    wrong = {
        "end at row 30": strips(picture[:30], 10),
        "from row 10 on is not the next one, from row 0 on": (
            (x + 10, y) for x, y in strips(picture, 10)
        ),
        r"\(10, 10, 3\) from row 0 on is not": strips(picture[:, :10], 10),
        "from row 40 on is not the next one": strips(np.zeros((50, 20, 3), np.uint8), 10),
    }
    for message, given in wrong.items():
        with pytest.raises(InputError, match=message):
            write(given, picture.shape, tmp_path / "a")
    with pytest.raises(InputError, match="1 or 3"):
        write(strips(picture, 10), (40, 20, 2), tmp_path / "a")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_the_tiles_of_a_tiff(tmp_path):
    with pytest.raises(InputError, match="multiple of 16"):
        export.tiff([], (16, 16, 3), tmp_path / "a.tif", tile=20)
