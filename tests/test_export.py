"""Images that are written strip by strip."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from fieldloom import export
from fieldloom.errors import InputError


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


def test_meshes_that_cannot_be_written(tmp_path):
    corners, face = np.eye(3), np.array([[0, 1, 2]])
    for vertices, faces, words in [
        (corners, face[:0], "at least one face"),
        (corners * np.nan, face, "finite vertices"),
        (corners, face + 1, "from 0 to 2"),
    ]:
        with pytest.raises(InputError, match=words):
            export.mesh(vertices, faces, tmp_path / "a.stl")
    assert not list(tmp_path.iterdir())


def test_stl_files_are_binary_where_that_keeps_their_digits(tmp_path):
    corners, face = np.eye(3), np.array([[0, 1, 2]])
    near = export.mesh(corners, face, tmp_path / "near.stl").read_bytes()
    assert len(near) == 84 + 50
    far = export.mesh(corners + 4e6, face, tmp_path / "far.stl").read_text()
    assert "vertex 4000001.000000000 4000000.000000000 4000000.000000000\n" in far
