"""Options of the command line are parsed."""

import pytest

from fieldloom.cli.options import parse_crop
from fieldloom.drawing import WHOLE, Crop
from fieldloom.drawing.grids import shape_of
from fieldloom.errors import InputError
from fieldloom.modalities import MODALITIES


def test_windows_are_parsed():
    assert parse_crop("0.1,0.2,0.3,1") == Crop(0.1, 0.2, 0.3, 1.0)
    assert parse_crop(None) is None
    for wrong in ("", "1,2,3", "0,0,1,1,1", "a,b,c,d", "0,0,inf,1", "1,0,0,1", "0,1,1,0"):
        with pytest.raises(InputError, match="--window"):
            parse_crop(wrong)


def test_one_number_keeps_pixels_square():
    picture, film = MODALITIES["image"](size=(20, 60)), MODALITIES["video"](size=(7, 20, 60))
    assert shape_of(picture, None) == (20, 60)
    assert shape_of(picture, 120) == (40, 120)
    narrow = Crop(0.0, 0.0, 0.1, 1.0)  # 20 x 6 of its pixels
    assert shape_of(picture, 100, narrow) == (100, 30)
    assert shape_of(picture, None, narrow) == (60, 18)
    assert shape_of(film, 120) == (7, 40, 120)
    assert shape_of(film, 120, WHOLE, True) == (40, 120)
    assert shape_of(film, (3, 4, 5)) == (3, 4, 5)
    assert shape_of(film, (4, 5)) == (7, 4, 5)
    with pytest.raises(InputError, match="rows and columns"):
        shape_of(film, (3, 4, 5), WHOLE, True)
