"""Own voxels: packed, arrays, binvox files, and what is wrong with them."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.grid import Placement
from fieldloom.modalities.sources import SOURCES
from fieldloom.modalities.sources.voxels import read_voxels
from fieldloom.permit import Permit
from fuzz import good
from refusals import READERS, draw, little_memory, npz, refused, write
from shared import shared
from solids import grid

LARGE, NETWORK = Permit(large=True), Permit(network=True)


# -- voxels, meshes


def binvox(dim: str = "2 2 2", runs: bytes = b"\x01\x08", more: str = "") -> bytes:
    return f"#binvox 1\ndim {dim}\n{more}data\n".encode() + runs


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            binvox("1600 1600 1600", bytes([0, 250]) * 16_384_000),
            "4,096,000,000 cells, .*large=True",
        ),
        (binvox("-2 -2 -2"), "8 cells do not fill"),
        (binvox("inf 2 2"), "not a readable binvox file"),
        (binvox("nan 2 2"), "not a readable binvox file"),
        (binvox("0 0 0", b""), "0 cells do not fill"),
        (binvox("2 2"), "do not fill"),
        (binvox("two 2 2"), "could not convert"),
        (binvox(more="scale nan\n"), "has the side nan"),
        (binvox(more="scale 0\n"), "has the side 0"),
        (binvox(more="translate 0 inf 0\n"), "begins at"),
        (binvox(more="translate 0\n"), "begins at"),
        (binvox().replace(b"#", b"\xff"), "not a readable binvox file"),
        (b"#binvox 1\n", "not a readable binvox file"),
    ],
)
def test_hostile_binvox_files(content, words, tmp_path):
    read = partial(SOURCES["voxels"], Grid(axes=3, size=2, channels=1))
    path = str(write(tmp_path / "a.binvox", content))
    with little_memory(3 * len(content) + 1e6):
        refused(words, read, path)


def test_the_limit_on_cells_is_lifted(tmp_path, monkeypatch):
    monkeypatch.setattr("fieldloom.modalities.sources.voxels.CELLS", 1000)
    for path in (
        str(write(tmp_path / "a.binvox", good.binvox())),
        npz(tmp_path / "a.npz", **good.balls(draw())),
    ):
        refused("tells of 1,728 cells.* more than 1,000 are refused", READERS["voxels"], path)
        assert READERS["voxels"](path, permit=LARGE).data.shape[1:] == (1, 12, 12, 12)


def random_voxels(count=5, size=8) -> np.ndarray:
    return np.random.default_rng(0).random((count, size, size, size)) > 0.7


def write_binvox(path, bits, corner=(0, 0, 0), side=1.0):
    """Cell by cell: y runs fastest, then z, then x; runs of at most 255."""
    n = len(bits)
    cells = [int(bits[x, y, z]) for x in range(n) for z in range(n) for y in range(n)]
    pairs = []
    for value, run in itertools.groupby(cells):
        left = len(list(run))
        while left:
            pairs += [value, min(left, 255)]
            left -= pairs[-1]
    head = f"#binvox 1\ndim {n} {n} {n}\ntranslate {corner[0]} {corner[1]} {corner[2]}\n"
    path.write_bytes(f"{head}scale {side}\ndata\n".encode() + bytes(pairs))


def test_voxels_in_every_packing(tmp_path):
    bits = random_voxels()
    expected = torch.from_numpy(bits)[:, None]
    rows = np.packbits(bits.reshape(len(bits), -1), axis=1)
    kinds = np.array(["b", "a", "b", "a", "c"])
    np.savez(tmp_path / "bits.npz", bits=rows, shape=np.array([8, 8, 8]), kind=kinds)
    np.savez(tmp_path / "one.npz", grids=bits, kind=kinds)
    np.save(tmp_path / "bool.npy", bits)
    np.save(tmp_path / "ones.npy", bits.astype(np.uint8))
    np.save(tmp_path / "bytes.npy", bits[:, None].astype(np.uint8) * 255)
    for name in ("bits.npz", "one.npz", "bool.npy", "ones.npy", "bytes.npy"):
        label = "kind" if name.endswith("npz") else None
        source = read_voxels(grid(), str(tmp_path / name), label=label, shuffle=False)
        assert source.data.tensor.dtype == torch.uint8
        assert torch.equal(source.data.tensor, expected.to(torch.uint8) * 255)
        assert source.names == (() if label is None else ("a", "b", "c"))
        assert source.data.extras().keys() <= {"label"}
    soft = np.random.default_rng(1).random((5, 8, 8, 8))
    np.save(tmp_path / "soft.npy", soft)
    read = read_voxels(grid(), str(tmp_path / "soft.npy"))
    assert read.data.tensor.dtype == torch.float32
    torch.testing.assert_close(read.data.tensor[:, 0], torch.from_numpy(soft).float())
    few = read_voxels(grid(), str(tmp_path / "bits.npz"), label="kind", limit=2, split=(1, 1))
    assert (few.data.shape[0], few.names) == (2, ("a", "b"))
    odd = np.random.default_rng(2).random((3, 3, 3, 3)) > 0.5  # 27 cells do not fill bytes
    rows = np.packbits(odd.reshape(3, -1), axis=1)
    np.savez(tmp_path / "odd.npz", bits=rows, shape=np.array([3, 3, 3]))
    read = read_voxels(grid(3), str(tmp_path / "odd.npz"))
    assert torch.equal(read.data.tensor[:, 0] > 0, torch.from_numpy(odd))


def test_voxels_are_pooled_by_their_largest_part(tmp_path):
    bits = random_voxels(2, 8)
    np.save(tmp_path / "v.npy", bits)
    read = read_voxels(grid((4, 2, 8)), str(tmp_path / "v.npy"), split=(1, 1)).data.tensor
    for x, y, z in itertools.product(range(4), range(2), range(8)):
        part = bits[:, 2 * x : 2 * x + 2, 4 * y : 4 * y + 4, z]
        assert ((read[:, 0, x, y, z] == 255).numpy() == part.any((1, 2))).all()


def test_voxels_that_are_none(tmp_path):
    np.save(tmp_path / "v.npy", random_voxels())
    for size in (5, 16):
        with pytest.raises(InputError, match=r"\(5, 8, 8, 8\) where the modality has"):
            read_voxels(grid(size), str(tmp_path / "v.npy"))
    np.save(tmp_path / "large.npy", np.full((2, 8, 8, 8), 3.0))
    np.save(tmp_path / "nan.npy", np.full((2, 8, 8, 8), np.nan))
    for name, fault in {
        "large": "are all 3, and their range is not certain",
        "nan": "not finite",
    }.items():
        with pytest.raises(InputError, match=fault):
            read_voxels(grid(), str(tmp_path / f"{name}.npy"))
    np.savez(tmp_path / "bits.npz", bits=np.zeros((2, 9), np.uint8), shape=np.array([8, 8, 8]))
    with pytest.raises(InputError, match="no packed rows"):
        read_voxels(grid(), str(tmp_path / "bits.npz"))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(InputError, match="has the arrays a, b; name one"):
        read_voxels(grid(), str(tmp_path / "two.npz"))
    with pytest.raises(InputError, match="does not exist"):
        read_voxels(grid(), str(tmp_path / "nowhere.npz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no voxels"):
        read_voxels(grid(), str(tmp_path / "empty"))
    with pytest.raises(InputError, match="three axes and 1 channel"):
        read_voxels(Grid(size=8, channels=1), str(tmp_path / "v.npy"))


def test_binvox_files(tmp_path):
    bits = random_voxels(2)
    bits[0] = False
    bits[0, 1, 2, 3] = True  # 511 cells off: more than one run
    for name, cells in zip(("chair", "desk"), bits, strict=True):
        (tmp_path / name).mkdir()
        write_binvox(tmp_path / name / "m.binvox", cells, corner=(-3, 1, 10), side=4.0)
    source = read_voxels(grid(), str(tmp_path), split=(1, 1))
    assert torch.equal(source.data.tensor[:, 0] > 0, torch.from_numpy(bits))
    assert source.names == ("chair", "desk")
    # The cells' places lead to their centres in the file's cube, wherever the modality has them.
    centre = torch.tensor([-3, 1, 10]) + (torch.tensor([1, 2, 3]) + 0.5) * 0.5
    cell = 1 * 64 + 2 * 8 + 3
    for place in ("centre", "corner", "right"):
        modality = grid(coords=Placement(place=place))
        one = read_voxels(modality, str(tmp_path / "chair" / "m.binvox"))
        assert (len(one.train), len(one.test), one.names) == (1, 0, ())
        frame = one.data.frame[0]
        found = modality.grid()[0, cell].double() * frame[3] + frame[:3]
        torch.testing.assert_close(found, centre.double(), atol=1e-5, rtol=0)
    trimesh = pytest.importorskip("trimesh")
    other = trimesh.load(tmp_path / "desk" / "m.binvox")
    assert (other.matrix == bits[1]).all()


def test_binvox_files_that_are_none(tmp_path):
    write_binvox(tmp_path / "short.binvox", random_voxels(1)[0])
    whole = (tmp_path / "short.binvox").read_bytes()
    for content, fault in [
        (whole[:-20], "do not fill"),
        (whole[1:], "does not begin"),
        (whole.replace(b"dim 8 8 8", b"dim 8 8 9"), "do not fill"),
        (b"", "does not begin"),
    ]:
        (tmp_path / "short.binvox").write_bytes(content)
        with pytest.raises(InputError, match=f"short.binvox' is not a readable binvox.*{fault}"):
            read_voxels(grid(), str(tmp_path / "short.binvox"))


@pytest.mark.parametrize(("name", "size"), [("voxels_chair_32", 32), ("voxels_shapenet10_64", 32)])
def test_the_voxels_of_the_shared_folder(name, size):
    source = read_voxels(grid(size), str(shared("data", f"{name}.npz")), limit=20)
    assert source.data.shape == (20, 1, size, size, size)
    assert 0.01 < (source.data.tensor == 255).float().mean() < 0.3
