"""Images are written as they were drawn."""

import numpy as np
import torch
from PIL import Image

from fieldloom import export
from fieldloom.drawing.files import remove_earlier


def test_pictures_are_what_was_drawn(tmp_path):
    image = torch.rand(3, 6, 9)
    path = export.png(image, tmp_path / "a.png")
    read = np.asarray(Image.open(path)).transpose(2, 0, 1) / 255
    assert np.abs(read - image.numpy()).max() <= 0.5 / 255 + 1e-6
    assert export.sheet(torch.rand(5, 1, 6, 9), 3).shape == (2 * 8 + 2, 3 * 11 + 2, 3)
    assert not list(tmp_path.glob(".*"))


def test_only_files_of_earlier_data_are_removed(tmp_path):
    own, others = ["0000.png", "0012.png", "12345.png"], ["20240501.png", "0003.jpg", "a.png"]
    for name in own + others:
        (tmp_path / name).touch()
    remove_earlier(tmp_path, (".png", ".npy"))
    assert {file.name for file in tmp_path.iterdir()} == set(others)
