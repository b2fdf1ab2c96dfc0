"""The images of a set before they are decoded."""

import numpy as np
import pytest
from PIL import Image

from fieldloom.modalities import Grid
from fieldloom.modalities.sources.images import read_folder


@pytest.mark.parametrize(
    ("channels", "said", "pixel"),
    [(3, "3 grey, as RGB", [76, 76, 76]), (1, "2 in colour, made grey", [76])],
)
def test_grey_and_colour_are_said(channels, said, pixel, tmp_path):
    """Red is 76 in grey; a palette of greys is grey, one of colours is not."""
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    red.save(tmp_path / "a.png")
    red.convert("P").save(tmp_path / "b.png")
    red.convert("L").save(tmp_path / "c.png")
    red.convert("LA").save(tmp_path / "d.png")
    grey = Image.fromarray(np.full((8, 8), 76, np.uint8))
    grey.convert("P").save(tmp_path / "e.png")
    found = read_folder(Grid(size=8, channels=channels), str(tmp_path), split=(1.0, 0.0))
    assert found.summary.taken["colour"] == said
    assert found.data.tensor[2, :, 0, 0].tolist() == pixel


def test_all_alike_have_no_number(tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 9).save(tmp_path / "b.png")
    said = read_folder(Grid(size=8), str(tmp_path), split=(1.0, 0.0)).summary.describe()
    dark = "largest value 9 of 255: source.range = [0, 9] makes it white"
    assert f"2 images, 8 x 8, {dark}, grey, as RGB" in said
    assert read_folder(Grid(size=8, channels=1), str(tmp_path)).summary.taken.get("colour") is None
