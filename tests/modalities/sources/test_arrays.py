"""Arrays as data."""

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fuzz import good
from media import gradient
from refusals import READERS, draw, refused

RGB, GREY = Grid(size=16), Grid(size=16, channels=1)


def test_arrays(tmp_path):
    images = np.stack([np.roll(gradient(16, 16), i, 0) for i in range(6)])
    for array in (images, images.transpose(0, 3, 1, 2), images.astype(np.float64) / 255):
        np.save(tmp_path / "a.npy", array)
        read = SOURCES["array"](RGB, str(tmp_path / "a.npy"), split=(1.0, 0.0), shuffle=False)
        torch.testing.assert_close(
            read.read(read.train).tensor,
            torch.from_numpy(images.transpose(0, 3, 1, 2) / 255).float(),
        )
    np.savez(tmp_path / "s.npz", x_train=images[:4, ..., 0], x_test=images[4:, ..., 0],
             y_train=np.arange(4) % 2, y_test=np.arange(2))  # fmt: skip
    source = SOURCES["array"](GREY, str(tmp_path / "s.npz"))
    assert (len(source.train), len(source.test), source.names) == (4, 2, ("0", "1"))
    assert SOURCES["array"](Grid(size=8, channels=3), str(tmp_path / "s.npz")).data.shape[1:] == (
        3,
        8,
        8,
    )
    np.save(tmp_path / "v.npy", np.random.default_rng(0).random((3, 4, 5, 6)) > 0.5)
    voxels = SOURCES["array"](Grid(axes=3, size=(4, 5, 6), channels=1), str(tmp_path / "v.npy"))
    assert voxels.data.shape == (3, 1, 4, 5, 6)


def test_arrays_that_are_none(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="not a readable"):
        SOURCES["array"](RGB, str(tmp_path / "bad.npz"))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputError, match="not a readable"):
        SOURCES["array"](RGB, str(tmp_path / "objects.npy"))
    np.save(tmp_path / "large.npy", np.full((2, 16, 16, 3), 7.0))
    with pytest.raises(InputError, match=r"all 7, .*source.range.* \[0, 255\]"):
        SOURCES["array"](RGB, str(tmp_path / "large.npy"))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(InputError, match="has the arrays a, b; name one"):
        SOURCES["array"](RGB, str(tmp_path / "two.npz"))


# -- axes

COLOUR, PLAIN = Grid(channels=3), Grid(channels=1)
FILM, SOLID = Grid(axes=3, channels=3), Grid(axes=3, channels=1)
SOUND, STEREO = Grid(axes=1, channels=1), Grid(axes=1, channels=2)


@pytest.mark.parametrize(
    ("modality", "shape", "expected", "said"),
    [
        (COLOUR, (20, 30, 3), (1, 3, 20, 30), "one datum, channels last in 20 x 30 x 3"),
        (PLAIN, (20, 30, 3), (1, 1, 20, 30), "one datum, channels last in 20 x 30 x 3"),
        (COLOUR, (3, 20, 30), (1, 3, 20, 30), "one datum, channels first in 3 x 20 x 30"),
        (PLAIN, (3, 20, 30), (3, 1, 20, 30), "one channel each in 3 x 20 x 30"),
        (COLOUR, (4, 20, 30), (4, 3, 20, 30), "one channel each in 4 x 20 x 30"),
        (PLAIN, (20, 30), (1, 1, 20, 30), None),
        (COLOUR, (20, 30), (1, 3, 20, 30), None),
        (PLAIN, (20, 30, 1), (1, 1, 20, 30), "one datum, channels last in 20 x 30 x 1"),
        (COLOUR, (20, 30, 4), (1, 3, 20, 30), "one datum, channels last in 20 x 30 x 4"),
        (PLAIN, (7, 20, 30), (7, 1, 20, 30), None),
        (COLOUR, (7, 20, 30, 3), (7, 3, 20, 30), None),
        (COLOUR, (7, 3, 20, 30), (7, 3, 20, 30), None),
        (COLOUR, (7, 3, 20, 4), (7, 3, 20, 4), "channels first in 7 x 3 x 20 x 4"),
        (COLOUR, (7, 1, 20, 3), (7, 3, 1, 20), "channels last in 7 x 1 x 20 x 3"),
        (Grid(size=(20, 3), channels=1), (7, 20, 3), (7, 1, 20, 3), None),
        (Grid(size=(20, 3)), (7, 3, 20, 3), (7, 3, 20, 3), "channels first in 7 x 3 x 20 x 3"),
        (COLOUR, (2, 5, 20, 30, 3), (10, 3, 20, 30), None),
        (PLAIN, (2, 5, 6, 20, 30), (60, 1, 20, 30), None),
        (PLAIN, (2, 5, 20, 30, 3), (10, 1, 20, 30), None),
        (FILM, (6, 20, 30, 3), (1, 3, 6, 20, 30), "one datum, channels last in 6 x 20 x 30 x 3"),
        (SOLID, (6, 7, 8), (1, 1, 6, 7, 8), None),
        (SOLID, (9, 6, 7, 8), (9, 1, 6, 7, 8), None),
        (SOUND, (100,), (1, 1, 100), None),
        (SOUND, (2, 100), (2, 1, 100), None),
        (STEREO, (2, 100), (1, 2, 100), "one datum, channels first in 2 x 100"),
        (STEREO, (100, 2), (1, 2, 100), "one datum, channels last in 100 x 2"),
        (STEREO, (5, 2, 100), (5, 2, 100), None),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_axes(modality, shape, expected, said, dtype, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(shape, dtype))
    source = SOURCES["array"](modality, str(tmp_path / "a.npy"))
    assert source.data.shape == expected
    assert source.summary.taken.get("axes") == said


def test_a_colour_stands_where_its_axis_says(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    image[4, 7] = (255, 0, 51)
    for array in (image, image.transpose(2, 0, 1), image[None], image / 255):
        np.save(tmp_path / "a.npy", array)
        source = SOURCES["array"](COLOUR, str(tmp_path / "a.npy"))
        values = source.read(source.train).tensor
        assert values[0, :, 4, 7].tolist() == pytest.approx([1, 0, 0.2])
        assert values.sum() == pytest.approx(1.2)


def test_parts_of_unlike_numbers_have_no_common_range(tmp_path):
    bright = np.full((5, 16, 16), 200, np.uint8)
    np.savez(tmp_path / "a.npz", x_train=bright, x_test=(bright / 255).astype(np.float32))
    refused(
        "x_train holds uint8 and x_test float32", SOURCES["array"], RGB, str(tmp_path / "a.npz")
    )


def test_labels_and_parts_count_the_data(tmp_path):
    """Three grey images with three labels are no colour image, nor are parts of three."""
    grey = np.zeros((3, 16, 16), np.uint8)
    np.savez(tmp_path / "a.npz", x=grey, y=np.array(["a", "b", "a"]))
    source = SOURCES["array"](RGB, str(tmp_path / "a.npz"), label="y")
    assert (source.data.shape, source.names) == ((3, 3, 16, 16), ("a", "b"))
    np.savez(tmp_path / "s.npz", x_train=grey[:2], x_test=grey[2:])
    assert SOURCES["array"](RGB, str(tmp_path / "s.npz")).data.shape == (3, 3, 16, 16)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_alpha_is_over_white(dtype, tmp_path):
    top = 255 if dtype == np.uint8 else 1.0
    image = np.zeros((16, 16, 4), dtype)
    image[..., 0] = top
    image[4, 7, 3] = top
    np.save(tmp_path / "a.npy", image)
    source = SOURCES["array"](RGB, str(tmp_path / "a.npy"))
    values = source.read(source.train).tensor[0]
    assert values[:, 4, 7].tolist() == [1, 0, 0]
    assert values[:, 0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("filter", ["bicubic", "box"])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_are_resized_as_bytes_are(filter, channels, tmp_path):
    images = np.stack([np.roll(gradient(40, 30), i, 0) for i in range(2)])
    modality = Grid(size=16, channels=channels)
    read = []
    for array in (images, images / 255):
        np.save(tmp_path / "a.npy", array)
        source = SOURCES["array"](modality, str(tmp_path / "a.npy"), filter=filter)
        assert source.summary.taken["resized"] == f"cropped and resized from 30 x 40 ({filter})"
        read.append(source.read(torch.arange(2)).tensor)
    torch.testing.assert_close(*read, atol=1.5 / 255, rtol=0)
    assert 0 <= read[1].min() <= read[1].max() <= 1
    assert (read[1] * 255 - (read[1] * 255).round()).abs().max() > 0.1  # not rounded to bytes


def test_what_no_axis_can_be(tmp_path):
    for shape in ((5, 6, 20, 30), (2, 5, 6, 20, 30)):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        with pytest.raises(InputError, match=r"does not hold 2-axis data|where the modality has"):
            SOURCES["array"](COLOUR, str(tmp_path / "a.npy"))


# -- arrays of Python objects, which are pickles

LABELS, CELLS = {"y": np.arange(2)}, np.zeros((2, 12, 12, 12), np.uint8)
IMAGES = {"x": np.zeros((2, 8, 8), np.uint8)} | LABELS
PARTS = {f"{one}_{part}": IMAGES[one] for one in ("x", "y") for part in ("train", "test")}
VIEWS = good.packed_views(draw()) | {"y": np.arange(6)}
HOLDING = [
    ("array", IMAGES, {"key": "x", "label": "y"}),
    ("array", PARTS, {}),
    ("voxels", {"x": CELLS} | LABELS, {"key": "x", "label": "y"}),
    ("voxels", good.balls(draw()), {}),
    ("packed", good.packed_pictures(draw()), {"label": "label"}),
    ("multiview", VIEWS, {"label": "y"}),
    ("multiview", VIEWS | {"near": np.array(0.8), "far": np.array(2.4)}, {}),
    ("meshes", good.packed_meshes(), {}),
]
"""Readers of arrays, good arrays, and the keys that are asked for."""


@pytest.mark.parametrize(
    ("reader", "arrays", "asked", "name"),
    [
        pytest.param(*held, name, id=f"{held[0]}-{name}")
        for held in HOLDING
        for name in held[1]
        if not (name == "camera_radius" and "near" in held[1])
        and (name != "y" or "label" in held[2])
    ],
)
def test_arrays_of_objects_are_refused_by_every_key(reader, arrays, asked, name, tmp_path):
    """Reading them would run the code that is in them."""
    held = np.empty(np.shape(arrays[name]), object)
    np.savez(tmp_path / "a.npz", **(arrays | {name: held}))
    words = rf"the array '{name}' of .*a.npz' is not a readable array: it holds Python objects"
    refused(words, READERS[reader], str(tmp_path / "a.npz"), **asked)
