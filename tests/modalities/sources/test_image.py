"""One image: its own size or a given one, any mode, beyond the limits of Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from media import noise

IMAGE = Grid()
FILM = Grid(axes=3)


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
