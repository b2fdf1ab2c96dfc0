"""Arrays as data."""

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from media import gradient

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
