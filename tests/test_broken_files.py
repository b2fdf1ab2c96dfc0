"""Files of data that are broken, hostile or beyond a limit: one sentence, and nothing happens.

Tables of a situation and a reader. What a command line makes of such files is in ``fuzz``.
"""

import io
import json
import logging
import os
import shutil
import socket
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fieldloom.codes import nef
from fieldloom.conditioners import FlatWeights
from fieldloom.errors import InputError
from fieldloom.family import Family
from fieldloom.fields import Siren
from fieldloom.geometry.mesh import as_mesh
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import (
    SOURCES,
    cache,
    files,
    meshfiles,
    spec_of,
)
from fieldloom.modalities.sources import (
    audio as sounds,
)
from fieldloom.modalities.sources import (
    images as pictures,
)
from fieldloom.modalities.sources import (
    video as films,
)
from fieldloom.modalities.sources.files import Archive, load_array, read_npz, resolve_inside
from fieldloom.modalities.sources.source import divide
from fieldloom.modalities.views import Views
from fieldloom.permit import Permit
from fuzz import good

LARGE, NETWORK = Permit(large=True), Permit(network=True)
IMAGE, SMALL, FILM, SOUND = Grid(), Grid(size=8), Grid(axes=3), Grid(axes=1, channels=1)
SHAPE = Grid(axes=3, size=12, channels=1)
VIEWS = Views(size=8)

READERS = {
    "folder": partial(SOURCES["folder"], SMALL),
    "image": partial(SOURCES["image"], IMAGE),
    "packed": partial(SOURCES["packed"], SMALL),
    "array": partial(SOURCES["array"], SMALL),
    "video": partial(SOURCES["video"], FILM),
    "audio": partial(SOURCES["audio"], SOUND),
    "voxels": partial(SOURCES["voxels"], SHAPE),
    "meshes": partial(SOURCES["meshes"], SHAPE),
    "multiview": partial(SOURCES["multiview"], VIEWS),
    "transforms": partial(SOURCES["transforms"], VIEWS),
    "srn": partial(SOURCES["srn"], VIEWS),
    "huggingface": partial(SOURCES["huggingface"], SMALL),
}


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FIELDLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refused(words: str, read, *given, **named) -> str:
    """What an InputError says, which must be one printable line of bounded length."""
    with pytest.raises(InputError, match=words) as found:
        read(*given, **named)
    told = str(found.value)
    assert told.isprintable(), told
    assert len(told) < 1000, told
    assert told.endswith("."), told
    return told


@contextmanager
def little_memory(most: float) -> Iterator[None]:
    """NumPy's and Python's own."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tree(root: Path, found: dict[str, bytes]) -> Path:
    for name, content in found.items():
        write(root / name, content)
    return root


# -- pictures


def png(height: int, width: int) -> bytes:
    """The header of a picture, which needs no more to say how large it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    head = chunk(b"IHDR", size + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def with_picture(reader: str, root: Path, content: bytes, suffix: str = "png") -> str:
    """What a reader of pictures is given, whose first picture has this content."""
    if reader in ("folder", "image"):
        return str(write(root / f"a.{suffix}", content))
    if reader == "video":
        return str(write(root / "frames" / f"0.{suffix}", content).parent)
    if reader == "packed":
        np.savez(root / "p.npz", **good.together([content] * 2))
        return str(root / "p.npz")
    if reader == "multiview":
        arrays = good.packed_views(draw())
        rest = [good.picture(draw(), "png", 8)] * (len(arrays["offsets"]) - 2)
        np.savez(root / "v.npz", **(arrays | good.together([content, *rest])))
        return str(root / "v.npz")
    if reader == "huggingface":
        datasets = pytest.importorskip("datasets")
        kind = datasets.Features({"image": datasets.Image()})
        rows = {"image": [{"bytes": content, "path": None}] * 2}
        datasets.Dataset.from_dict(rows, features=kind).save_to_disk(str(root / "set"))
        return str(root / "set")
    make, name = {"transforms": (good.scene, "v0.png"), "srn": (good.srn, "rgb/0.png")}[reader]
    return str(tree(root / "scene", make(draw()) | {name: content}))


OF_PICTURES = [
    "folder", "image", "video", "packed", "multiview", "transforms", "srn", "huggingface",
]  # fmt: skip


@pytest.mark.parametrize("reader", OF_PICTURES)
def test_a_picture_that_unpacks_to_gigabytes(reader, tmp_path):
    path = with_picture(reader, tmp_path, png(30_000, 40_000))
    told = refused("30000 x 40000", READERS[reader], path)
    assert "tells of 1,200,000,000 pixels" in told
    assert "more than 268,435,456 are refused" in told
    assert "bytes, 30000" in told
    assert "--large (in Python large=True)" in told


@pytest.mark.parametrize("reader", OF_PICTURES)
def test_the_limit_on_pixels_is_lifted(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "PIXELS", 50)
    path = with_picture(reader, tmp_path, good.picture(draw(), "png", 8))
    refused("tells of 64 pixels, and more than 50 are refused", READERS[reader], path)
    assert READERS[reader](path, permit=LARGE).data.tensor.numel()


BROKEN_PICTURES = {
    "nothing": lambda whole: b"",
    "text": lambda whole: b"no picture",
    "cut": lambda whole: whole[: len(whole) // 2],
    "a program": lambda whole: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n" + whole,
    "flipped": lambda whole: whole[:50] + bytes([whole[50] ^ 255]) + whole[51:],
}


@pytest.mark.parametrize("reader", OF_PICTURES)
@pytest.mark.parametrize("fault", BROKEN_PICTURES)
def test_broken_pictures(reader, fault, tmp_path):
    content = BROKEN_PICTURES[fault](good.picture(draw(), "png", 8))
    told = refused("can", READERS[reader], with_picture(reader, tmp_path, content))
    assert "no image that can be read" in told or "1 of 6 images cannot be read" in told


def test_pillows_limit_is_set_aside_by_many_threads_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    name = write(tmp_path / "a.png", good.picture(draw(), "png", 40))

    def read(_: int) -> tuple[int, int]:
        with pictures.open_image(name, "a") as image:
            return image.convert("L").size

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(200))) == {(40, 40)}
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(InputError), pictures.open_image(b"no picture", "b"):
        pass
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_tile_that_is_larger_than_its_picture(tmp_path):
    """What a TIFF decodes to is its tile, whatever its picture's size."""
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 40_000, 323: 40_000, 324: 0}
    told = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    content = b"II*\0" + struct.pack("<IH", 8, len(told)) + b"".join(told) + bytes(4)
    refused("40000 x 40000", READERS["folder"], str(write(tmp_path / "a.tif", content)))


def test_of_many_pictures_a_few_are_named_with_the_first_fault(tmp_path):
    for i in range(100):
        write(tmp_path / f"{i:03d}.png", good.picture(draw(), "png") if i > 6 else b"none")
    with pytest.warns(UserWarning, match="skipped 7 .*000.png.*004.png' and 2 more; .*000.png'"):
        assert len(READERS["folder"](str(tmp_path)).data) == 93
    write(tmp_path / "050.png", png(30_000, 40_000))
    refused("050.png.*--large", READERS["folder"], str(tmp_path))


# -- arrays


def npz(path: Path, **arrays) -> str:
    np.savez_compressed(path, **{key: np.asarray(x) for key, x in arrays.items()})
    return str(path)


PICTURES = {"data": np.zeros(20, np.uint8), "offsets": [0, 10, 20]}
CELLS = {"bits": np.zeros((2, 216), np.uint8), "shape": [12, 12, 12]}
MESHES = good.packed_meshes()
ARRAYS = [
    ("packed", PICTURES | {"offsets": [0, 20, 10]}, "'offsets' .* must grow"),
    ("packed", PICTURES | {"offsets": [-5, 10, 20]}, "'offsets' .* must grow"),
    ("packed", PICTURES | {"offsets": [0, 10, 21]}, "at most 20, the number of bytes"),
    ("packed", PICTURES | {"offsets": np.array([0, 2**64 - 1], np.uint64)}, "must grow"),
    ("packed", PICTURES | {"offsets": [0]}, "holds no images"),
    ("packed", PICTURES | {"offsets": []}, "holds 'float64', where integers are right"),
    ("packed", PICTURES | {"offsets": 3}, r"has the shape \(\): its axes must be 1"),
    ("packed", PICTURES | {"offsets": [0.0, 10.0]}, "holds 'float64', where integers"),
    ("packed", PICTURES | {"data": np.zeros(20)}, "holds 'float64', where bytes are right"),
    ("packed", PICTURES | {"data": np.zeros((2, 10), np.uint8)}, "its axes must be 1"),
    ("packed", PICTURES | {"data": ["a"]}, "holds 'str32', where bytes are right"),
    ("packed", {"data": PICTURES["data"]}, "has no array 'offsets'; it has data"),
    ("array", {"x_train": np.zeros((2, 8, 8, 3)), "x_test": 3}, "'x_test' .* at least 1"),
    ("array", {"x_train": np.zeros((2, 8, 8)), "x_test": np.zeros((2, 8, 9))}, "differ in noth"),
    ("array", {"x_train": np.zeros((0, 8, 8)), "x_test": np.zeros((0, 8, 8))}, "holds no data"),
    ("array", {"x": np.zeros((3, 0, 8, 3))}, r"shape \(3, 0, 8, 3\) holds no data"),
    ("array", {"x": np.zeros(5)}, "does not hold 2-axis data"),
    ("array", {"x": 5.0}, "its axes must be at least 1"),
    ("array", {"x": np.zeros((2, 8, 8, 3), complex)}, "'complex128', where numbers are right"),
    ("array", {"x": np.zeros((2, 8), "M8[s]")}, "where numbers are right"),
    ("array", {"x": np.zeros((2, 8), [("a", "f4")])}, "where numbers are right"),
    ("array", {"x": np.full((2, 8, 8, 3), np.nan)}, r"must lie in \[0, 1\]"),
    ("array", {}, "has the arrays none; name one"),
    ("voxels", CELLS | {"shape": [12, 12]}, r"no packed rows of cells \[12, 12\]"),
    ("voxels", CELLS | {"shape": [-12, -12, 12]}, "no packed rows"),
    ("voxels", CELLS | {"shape": [2**40] * 3}, "no packed rows"),
    ("voxels", CELLS | {"shape": 12}, "its axes must be 1"),
    ("voxels", CELLS | {"shape": ["a", "b", "c"]}, "where integers are right"),
    ("voxels", CELLS | {"bits": np.zeros((2, 216))}, "where bytes are right"),
    ("voxels", {"x": 3.0}, "at least 1"),
    ("voxels", {"x": np.zeros((0, 12, 12, 12))}, r"voxels of the shape \(0, 12"),
    ("meshes", MESHES | {"verts": np.zeros(3)}, "its axes must be 2"),
    ("meshes", MESHES | {"verts": 3.0}, "its axes must be 2"),
    ("meshes", MESHES | {"faces": np.zeros((2, 3))}, "where integers are right"),
    ("meshes", MESHES | {"faces": np.zeros((24, 2), int)}, "2 of 2 meshes .* three columns"),
    ("meshes", MESHES | {"vert_offsets": [0, 16, 8]}, "'vert_offsets' .* must grow"),
    ("meshes", MESHES | {"face_offsets": [0, 12, 99]}, "number of faces"),
    ("meshes", MESHES | {"vert_offsets": [0, 16]}, "2 vert_offsets and 3 face_offsets"),
    ("meshes", MESHES | {"category": [0]}, "has 1 'category' for 2 meshes"),
    ("meshes", MESHES | {"category": [0, np.nan]}, "'category' of NaN"),
    ("meshes", MESHES | {"verts": np.full((16, 3), 1e200)}, "beyond 1e"),
    ("multiview", {"c2w": np.eye(4)}, "its axes must be 3 or 4"),
    ("multiview", {"c2w": np.zeros((6, 3, 3, 4))}, "poses of the shape"),
    ("multiview", {"c2w": [["a"]]}, "where numbers are right"),
    ("multiview", {"focal": "wide"}, "where numbers are right"),
    ("multiview", {"focal": [1.0, 2.0]}, "'focal' .* must be one number"),
    ("multiview", {"height": np.nan}, "height = nan, width = 8: from 1 on"),
    ("multiview", {"width": np.inf}, "width = inf: from 1 on"),
    ("multiview", {"height": -8}, "height = -8"),
    ("multiview", {"offsets": np.arange(19)[::-1]}, "'offsets' .* must grow"),
    ("multiview", {"near": 1.0, "far": np.nan}, "near = 1, far = nan"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "arrays", "words"), ARRAYS)
def test_arrays_of_another_kind(reader, arrays, words, tmp_path):
    if reader == "multiview":
        arrays = good.packed_views(draw()) | arrays
    refused(words, READERS[reader], npz(tmp_path / "a.npz", **arrays))


LABELS = [
    ("packed", good.packed_pictures(draw()), "has . 'label' for 6 images"),
    ("array", {"x": np.zeros((6, 8, 8, 3), np.uint8)}, "has . 'label' for 6 data"),
    ("voxels", good.balls(draw()), "has . 'label' for 9 shapes"),
    ("multiview", good.packed_views(draw()), "has . 'label' for 6 objects"),
]


@pytest.mark.parametrize(("reader", "arrays", "words"), LABELS)
@pytest.mark.parametrize("limit", [None, 2])
def test_labels_of_another_number_or_kind(reader, arrays, words, limit, tmp_path):
    read = partial(READERS[reader], limit=limit, label="label", split=(1.0, 0.0))
    for labels, said in (
        (["a", "b"], words),
        (3, "'label' .* its axes must be at least 1"),
        (np.zeros(6, "M8[s]"), "'label' .* where labels are right"),
    ):
        refused(said, read, npz(tmp_path / "a.npz", **(arrays | {"label": labels})))


def test_pickles_are_never_read(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "called"),)

    objects = np.array([Payload(), None], dtype=object)
    np.savez(tmp_path / "a.npz", x_train=objects, x_test=objects, data=objects, offsets=objects)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    for reader, name in (("array", "a.npz"), ("packed", "a.npz"), ("voxels", "a.npy")):
        refused(
            "not a readable array: it holds Python objects", READERS[reader], str(tmp_path / name)
        )
    assert not (tmp_path / "called").exists()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """That of an array, whatever follows."""
    file = io.BytesIO()
    told = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, told)
    return file.getvalue()


WHOLE = npy(np.zeros((2, 8, 8, 3), np.uint8))
STORED = zipped(x=WHOLE)
FLIPPED = STORED.replace(b"\x00" * 60, b"\x00" * 59 + b"\x01", 1)
TORN = [
    ("a.npz", b"", "not a readable .npz or .npy file"),
    ("a.npz", b"PK nothing", "not a readable .npz or .npy file"),
    ("a.npz", STORED[:-30], "not a readable .npz or .npy file"),
    ("a.npz", FLIPPED, "array 'x' of .* not a readable array: Bad CRC-32"),
    ("a.npz", zipped(x=b"text"), "array 'x' of .* not a readable array: .*magic"),
    ("a.npz", zipped(x=WHOLE[:40]), "array 'x' of .* not a readable array"),
    ("a.npz", zipped(x=WHOLE[:-9]), "do not fill its 503 bytes"),
    ("a.npz", zipped(x=WHOLE + b"more"), "do not fill its 516 bytes"),
    ("a.npz", zipped(x=header((-2, 8))), "the shape .*-2"),
    ("a.npz", zipped(x=WHOLE.replace(b"'|u1'", b"'|uZ'")), "not a readable array"),
    ("a.npz", zipped(x=WHOLE.replace(b"\x01\x00", b"\x03\x00", 1)), "not a readable array"),
    ("a.npz", zipped(x=header((9**99, 9**99))), "more than 10.18 bytes"),
    ("a.npy", b"", "not a readable .npz or .npy file"),
    ("a.npy", WHOLE[:3], "not a readable .npz or .npy file"),
    ("a.npy", WHOLE[:9], "not a readable array"),
    ("a.npy", WHOLE[:-9], "do not fill its 503 bytes"),
]


@pytest.mark.parametrize("reader", ["array", "voxels"])
@pytest.mark.parametrize(("name", "content", "words"), TORN)
def test_torn_containers(reader, name, content, words, tmp_path):
    refused(words, READERS[reader], str(write(tmp_path / name, content)))


def test_one_flipped_byte_of_a_compressed_array(tmp_path):
    whole = Path(npz(tmp_path / "a.npz", x=draw().random((4, 8, 8, 3)))).read_bytes()
    seen = set()
    for place in range(0, len(whole), 97):
        content = whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :]
        try:
            READERS["array"](str(write(tmp_path / "b.npz", content)), split=(1.0, 0.0))
        except InputError as error:
            seen.add(str(error).partition(" is not a ")[2][:13])
    assert {"readable arra"} <= seen <= {"readable arra", "readable .npz"}


def test_an_archive_holds_only_what_it_names_as_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train", b"no array")
        archive.writestr("x.npy", WHOLE)
    assert read_npz(tmp_path / "a.npz") == Archive(tmp_path / "a.npz", ("x",))
    assert len(READERS["array"](str(tmp_path / "a.npz"), split=(1.0, 0.0)).data) == 2
    write(tmp_path / "b.npz", WHOLE)  # an array under the other name
    assert len(READERS["array"](str(tmp_path / "b.npz"), split=(1.0, 0.0)).data) == 2
    refused("holds one array, not a packed file", READERS["packed"], str(tmp_path / "b.npz"))
    assert spec_of(str(tmp_path / "b.npz"))["name"] == "array"


def test_bytes_in_another_order_and_long_floats_are_numbers(tmp_path):
    values = draw().random((2, 3, 8, 8))
    for kind in (">f4", ">f8", "<f2", "g"):
        np.save(tmp_path / "a.npy", values.astype(kind))
        read = READERS["array"](str(tmp_path / "a.npy"), split=(1.0, 0.0)).data.tensor
        torch.testing.assert_close(read, torch.from_numpy(values).float(), atol=1e-3, rtol=0)


def test_arrays_that_unpack_to_more_than_they_are(tmp_path, monkeypatch):
    """A file of a kilobyte, whose header tells of 100 GB: nothing of it is allocated."""
    for content, name in (
        (zipped(x=header((25_000_000_000,), "<f4")), "a.npz"),
        (header((25_000_000_000,), "<f4"), "a.npy"),
    ):
        path = str(write(tmp_path / name, content))
        with little_memory(1e6):
            told = refused("tells of 100,000,000,000 bytes", READERS["array"], path)
        assert "2,147,483,648 are refused" in told
        assert "--large" in told
        refused("do not fill its", READERS["array"], path, permit=LARGE)
    monkeypatch.setattr(files, "BYTES", 1000)
    path = npz(tmp_path / "b.npz", x=np.zeros((9, 8, 8, 3), np.uint8))
    refused("tells of 1,728 bytes", READERS["array"], path)
    assert READERS["array"](path, permit=LARGE).data.shape == (9, 3, 8, 8)
    np.save(tmp_path / "c.npy", np.zeros((9, 8, 8, 3), np.uint8))  # as large as its file: no bomb
    assert READERS["array"](str(tmp_path / "c.npy")).data.shape == (9, 3, 8, 8)


@pytest.mark.parametrize(
    "split",
    [(np.nan, 0.1), (0.5, np.nan), (np.inf, 0), (10**400, 0.5), (-0.5, 1.0), (1e308, 1e308)],
)
def test_splits_that_are_none(split):
    refused("source.split = .* does not fit 10 signals", divide, 10, split, False)


def test_bounds_that_are_none(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3)))
    for bounds in ((1.0, 0.0), (np.nan, 1.0), (-np.inf, np.inf)):
        refused("bounds = .*finite", READERS["array"], str(tmp_path / "a.npy"), bounds=bounds)


# -- paths


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "path",
    ["", "nowhere", "x" * 5000, "a\0b", "~no-such-user/a", "a\x1b[31m\n\u202eb", "/dev/null"],
)
def test_paths_that_are_none(reader, path):
    refused("source.path = '", READERS[reader], path)


@pytest.mark.parametrize("reader", ["image", "packed", "array", "audio", "multiview"])
def test_a_folder_where_a_file_is_right(reader, tmp_path):
    refused("is no file: this source reads one", READERS[reader], str(tmp_path))


def test_a_folder_that_is_called_as_a_file(tmp_path):
    for name in ("a.npz", "a.npy", "a.json", "a.png"):
        write(tmp_path / name / "b.png", good.picture(draw(), "png"))
        assert spec_of(str(tmp_path / name))["name"] in ("folder", "array", "transforms")
        assert len(READERS["folder"](str(tmp_path / name)).data) == 1


def test_names_with_control_characters_are_shown_printable(tmp_path):
    for name in (
        "a\x1b[31m\r.png",
        "b\n.png",
        "\u202egnp.png",
        b"c\xff.png".decode("utf8", "surrogateescape"),
    ):
        path = tmp_path / "set" / name
        write(path, b"none")
        refused("no image that can be read", READERS["image"], str(path))
        path.unlink()


# -- voxels, meshes


def binvox(dim: str = "2 2 2", runs: bytes = b"\x01\x08", more: str = "") -> bytes:
    return f"#binvox 1\ndim {dim}\n{more}data\n".encode() + runs


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (binvox("1600 1600 1600", bytes([0, 250]) * 16_384_000), "4,096,000,000 cells, .*--large"),
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
def test_binvox_files_that_are_none(content, words, tmp_path):
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


STL = bytes(80) + (10**9).to_bytes(4, "little") + bytes(100)
PLY = "ply\nformat {}\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
FACES = "element face {}\nproperty list uchar int vertex_indices\nend_header\n"


def glb(**told) -> bytes:
    text = json.dumps({"asset": {"version": "2.0"}} | told).encode()
    text += b" " * (-len(text) % 4)
    head = (len(text) + 20).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return b"glTF\x02\0\0\0" + head + b"JSON" + text


ACCESSOR = {"count": 10**12, "type": "VEC3", "componentType": 5126}
SHARED = {"bufferView": 0, "count": 10**6, "type": "MAT4", "componentType": 5126}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.stl", STL, "tells of 1,000,000,000 triangles, and has 184 bytes"),
        ("a.stl", b"solid a\nfacet normal x y z\nvertex 1 2\nvertex b\nendsolid a", "no.* mesh"),
        ("a.stl", b"solid a\nendsolid a\n", "no faces|readable mesh"),
        ("a.ply", (PLY.format("binary_little_endian 1.0", 10**9) + FACES.format(1)).encode(),
         "tells of 1,000,000,001 elements, and has at most 1"),
        ("a.ply", (PLY.format("ascii 1.0", 3) + FACES.format(1) + "0 0 0\n1 0 0\n0 1 0").encode(),
         "tells of 4 elements, and has at most 3"),
        ("a.off", b"OFF\n8 12 0\n0 0 0\n1 0 0\n", "tells of 20 vertices and faces, in 3 lines"),
        ("a.off", b"OFF\n1000000000000 12 0\n", "tells of 1,000,000,000,012"),
        ("a.off", b"OFF\none two\n", "readable mesh"),
        ("a.glb", glb(accessors=[ACCESSOR], bufferViews=[]), "3,000,000,000,000 numbers.*--large"),
        ("a.glb", glb(accessors=[SHARED] * 100), "1,600,000,000 numbers"),
        ("a.glb", glb(accessors=[{"count": -1, "type": "VEC3"}]), "readable mesh"),
        ("a.glb", glb(accessors=3), "readable mesh"),
        ("a.glb", glb(buffers=[{"uri": "../secret.bin", "byteLength": 3}]), "another file"),
        ("a.glb", glb()[:-5], "cut off"),
        ("a.glb", b"glTF\x02\0\0\0" + b"\xff" * 12 + b"[" * 5000, "readable mesh"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 1000000000\n", "readable mesh"),
        ("a.obj", b"v 0 0 0\nv 1e200 0 0\nv 0 1 0\nf 1 2 3\n", "beyond 1e"),
        ("a.obj", b"v 0 0\nv 1 0\nf 1 2 3\n", "no faces|readable mesh|three columns"),
    ],
)  # fmt: skip
def test_mesh_files_that_are_none(name, content, words, tmp_path, caplog, capfd):
    path = str(write(tmp_path / name, content))
    with little_memory(3e7), caplog.at_level(logging.DEBUG):
        refused(words, READERS["meshes"], path)
    assert not [record for record in caplog.records if record.name.startswith("trimesh")]
    assert "Traceback" not in capfd.readouterr().err
    assert logging.getLogger("trimesh").level == logging.NOTSET


def test_parts_that_stand_in_many_places_are_counted(tmp_path, monkeypatch):
    trimesh = pytest.importorskip("trimesh")
    scene, ball = trimesh.Scene(), trimesh.creation.icosphere()
    for i in range(5):
        moved = trimesh.transformations.translation_matrix([2 * i, 0, 0])
        scene.add_geometry(ball, geom_name="ball", node_name=f"{i}", transform=moved)
    path = str(write(tmp_path / "a.glb", scene.export(file_type="glb")))
    monkeypatch.setattr(meshfiles, "TRIANGLES", 50)
    refused("tells of 6,400 triangles, and more than", READERS["meshes"], path)
    assert READERS["meshes"](path, permit=LARGE).data.tensor.any()


def test_meshes_open_no_file_beside_them(tmp_path, monkeypatch):
    """Materials and textures that they name lie anywhere."""
    trimesh = pytest.importorskip("trimesh")
    write(tmp_path / "beside.mtl", b"newmtl a\nmap_Kd beside.png\n")
    write(tmp_path / "beside.png", good.picture(draw(), "png"))
    box, data, asked = trimesh.creation.box(), [], []
    resolve = lambda self, name: asked.append(name) or (tmp_path / name).read_bytes()
    monkeypatch.setattr(trimesh.resolvers.FilePathResolver, "get", resolve)
    obj = box.export(file_type="obj").encode()
    ply = box.export(file_type="ply", encoding="ascii")
    for name, content in (
        ("a.obj", b"mtllib beside.mtl\nusemtl a\n" + obj),
        ("a.ply", ply.replace(b"\ncomment", b"\ncomment TextureFile beside.png\ncomment", 1)),
    ):
        assert b"beside" in content
        path = write(tmp_path / name, content)
        data.append(READERS["meshes"](str(path)).data.tensor)
        assert not asked
        trimesh.load(path)
        assert asked  # what trimesh itself would do
        asked.clear()
    assert torch.equal(*data)


@pytest.mark.parametrize(
    ("vertices", "faces", "words"),
    [
        (np.float64(0), np.int64(0), "has vertices"),
        (np.zeros((3, 3)), np.int64(3), "has vertices"),
        ([[0, 0, 0], [1, 1]], [[0, 1, 2]], "rows of different lengths"),
        ([["a", "b", "c"]], [[0, 0, 0]], "vertices are numbers"),
        ([[None] * 3], [[0, 0, 0]], "vertices are numbers"),
        (np.full((3, 3), 1e200), [[0, 1, 2]], "beyond"),
        (np.eye(3), np.array([[0, 1, 2**64 - 1]], np.uint64), "faces with corners"),
    ],
)
def test_arrays_that_are_no_mesh(vertices, faces, words):
    refused(words, as_mesh, vertices, faces, "it")


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples", 10**12), ("surface", 2**40), ("seed", -1), ("spread", np.inf), ("extent", np.nan),
     ("truncation", np.inf), ("samples", 10**400)],
)  # fmt: skip
def test_numbers_of_samples_that_are_none(name, value, tmp_path):
    path = npz(tmp_path / "a.npz", **MESHES)
    refused(f"source.{name} = .* is not right", READERS["meshes"], path, **{name: value})


# -- scenes


def scene(root: Path, **changes) -> str:
    """A good scene, whose ``transforms.json`` is changed; ``frame`` in its first frame."""
    found = good.scene(draw())
    told = json.loads(found["transforms.json"])
    told["frames"][0] |= changes.pop("frame", {})
    text = json.dumps(told | changes).replace('"<huge>"', "1" + "0" * 400)
    return str(tree(root, found | {"transforms.json": text.encode()}))


EYE = np.eye(4).tolist()
SCENES = [
    (
        {"frame": {"fl_x": "<huge>"}},
        "frame 0 of .*transforms.json' has fl_x = 10+.*no finite number",
    ),
    ({"w": "<huge>"}, "transforms.json' has w = 10+.* no finite number"),
    ({"fl_x": float("nan")}, "has fl_x = nan, which is no finite number"),
    ({"fl_x": float("inf")}, "has fl_x = inf, which is no finite number"),
    ({"fl_x": True}, "has fl_x = True, which is no finite number"),
    ({"fl_x": [40.0]}, r"has fl_x = \[40.0\], which is no finite number"),
    ({"k1": "none"}, "has k1 = 'none', which is no finite number"),
    ({"near": {"a": 1}}, "has near = .* no finite number"),
    ({"camera_model": 3}, "has camera_model = 3, which is no name"),
    ({"camera_model": "[/nope]" * 99}, "camera_model = .* undistort"),
    ({"is_fisheye": "no"}, "has is_fisheye = 'no', which is no true or false"),
    ({"frames": {}}, "has no list 'frames'"),
    ({"frames": None}, "has no list 'frames'"),
    ({"frames": [3]}, "frame 0 of .* has no 'file_path'"),
    ({"frames": [None]}, "frame 0 of .* has no 'file_path'"),
    ({"frame": {"file_path": None}}, "frame 0 of .* has no 'file_path'"),
    ({"frame": {"transform_matrix": [EYE]}}, "frame 0 of .* no 'transform_matrix' of 4 x 4"),
    ({"frame": {"transform_matrix": {"a": EYE}}}, "no 'transform_matrix'"),
    ({"frame": {"transform_matrix": [[*row[:3], "<huge>"] for row in EYE]}}, "no 'transform_mat"),
    ({"frame": {"transform_matrix": [[*row[:3], "0"] for row in EYE]}}, "no 'transform_matrix'"),
    ({"frame": {"transform_matrix": [[float("nan")] * 4] * 4}}, "no 'transform_matrix'"),
    ({"frame": {"file_path": "x" * 5000}}, "lacks 1 of the files of its 3 frames"),
    ({"frame": {"file_path": "a\0b"}}, "lacks 1 of the files"),
    ({"frame": {"file_path": "\x1b[31m"}}, "lacks 1 of the files"),
    ({"frame": {"file_path": "../v0.png"}}, "names '../v0.png', which lies outside its folder"),
    ({"frame": {"file_path": "a/../../v0"}}, "which lies outside its folder"),
    ({"frame": {"file_path": ""}}, "which lies outside its folder"),
    ({"frame": {"file_path": "/etc/passwd"}}, "names '/etc/passwd', which lies outside"),
]


@pytest.mark.parametrize(("changes", "words"), SCENES)
def test_scenes_that_are_wrong(changes, words, tmp_path):
    write(tmp_path / "v0.png", good.picture(draw(), "png", 8))  # where the names lead
    refused(words, READERS["transforms"], scene(tmp_path / "scene", **changes))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"{}", b"3"])
def test_files_that_are_no_scene(text, tmp_path):
    path = scene(tmp_path)
    write(tmp_path / "transforms.json", text)
    refused("no JSON that can be read|has no list 'frames'", READERS["transforms"], path)


def test_names_are_followed_within_their_folder(tmp_path):
    """Also where a picture is a link to one elsewhere: that the user made, not the file."""
    for name in ("v0.png", "./v0.png", "a/../v0", str(tmp_path / "scene" / "v0.png")):
        path = scene(tmp_path / "scene", frame={"file_path": name})
        assert READERS["transforms"](path).data.shape[1] == 3
    (tmp_path / "scene" / "v0.png").rename(tmp_path / "moved.png")
    (tmp_path / "scene" / "v0.png").symlink_to(tmp_path / "moved.png")
    assert resolve_inside(Path("a/b.json"), "c/../d.png") == Path("a/d.png")
    refused("outside", resolve_inside, Path("b.json"), "..")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("pose/0.txt", "1e400 " * 16, "no file of numbers .*finite"),
        ("pose/0.txt", "nan " * 16, "no file of numbers .*finite"),
        ("pose/0.txt", "", "has 0 numbers"),
        ("pose/0.txt", "\xff", "no file of numbers"),
        ("intrinsics.txt", "", "must begin with"),
        ("intrinsics.txt", "1e999 4 4 0\n8 8", "no file of numbers"),
        ("intrinsics.txt", "10 4 4 0\n0 8", "must begin with"),
        ("intrinsics.txt", "8 8", "must begin with"),
    ],
)
def test_objects_that_are_wrong(name, text, words, tmp_path):
    path = tree(tmp_path / "car", good.srn(draw()) | {name: text.encode("latin1")})
    refused(words, READERS["srn"], str(path))


# -- films and sounds


def test_films_beyond_the_limits(tmp_path, monkeypatch, cached):
    path = str(write(tmp_path / "a.mp4", good.film(draw(), "mp4")))
    for module, name, most, words in (
        (films, "PIXELS", 200, "frames of 16 x 16.* 256 pixels in a frame, and more than 200"),
        (films, "VIDEO", 600, "tells of 768 pixels in its frames, and more than 600"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, most)
            refused(words, READERS["video"], path)
            assert READERS["video"](path, permit=LARGE).data.shape == (1, 3, 3, 16, 16)
            shutil.rmtree(cached)  # what was decoded once is not decoded again
    for start, stop, step in ((10**30, None, 1), (0, 10**30, 1), (0, None, 10**30)):
        refused("source.frames", films.Frames, start, stop, step)


def test_films_that_are_cut_off(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for frame in draw().integers(0, 256, (9, 16, 16, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    whole = path.read_bytes()
    assert READERS["video"](str(path)).data.shape[2] == 9
    for share in (0.1, 0.5, 0.8, 0.98):
        write(path, whole[: int(share * len(whole))])
        refused("no video|cut off or damaged", READERS["video"], str(path))
    for content in (b"", b"\0" * 5000, whole[:4]):
        refused("no video that can be read", READERS["video"], str(write(path, content)))


def test_films_name_no_other_file(tmp_path, monkeypatch):
    """FFmpeg would follow lists of files, and addresses."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.mp4", good.film(draw(), "mp4"))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    for text in (
        "ffconcat version 1.0\nfile good.mp4\n",
        playlist.format("good.mp4"),
        playlist.format("http://127.0.0.1:9/good.ts"),
    ):
        path = str(write(tmp_path / "a.mp4", text.encode()))
        refused("no video that can be read", READERS["video"], path)


def test_sounds_beyond_the_limit(tmp_path, monkeypatch):
    content = bytearray(good.sound("FLAC"))
    told = int.from_bytes(content[18:26], "big")
    content[18:26] = (told >> 36 << 36 | (1 << 36) - 1).to_bytes(8, "big")  # of 2^36 samples
    path = str(write(tmp_path / "a.flac", bytes(content)))
    refused("tells of 68,719,476,735 samples.*--large", READERS["audio"], path)
    monkeypatch.setattr(sounds, "SAMPLES", 100)
    path = str(write(tmp_path / "b.flac", good.sound("FLAC")))
    refused("tells of 400 samples, and more than 100", READERS["audio"], path)
    assert READERS["audio"](path, permit=LARGE).data.shape == (1, 1, 400)
    assert READERS["audio"](path, seconds=0.02).data.shape == (1, 1, 80)


def test_sounds_that_are_cut_off_or_none(tmp_path):
    for kind in ("WAV", "FLAC", "AIFF"):
        whole = good.sound(kind)
        path = write(tmp_path / f"a.{kind.lower()}", whole[: len(whole) * 3 // 5])
        refused("is cut off|no audio that can be read", READERS["audio"], str(path))
    for name in ("a.wav", "a.mp3", "a.raw"):
        refused("no audio that can", READERS["audio"], str(write(tmp_path / name, b"no" * 99)))
    soundfile.write(tmp_path / "b.wav", np.zeros((0, 1)), 8000)
    refused("holds no samples", READERS["audio"], str(tmp_path / "b.wav"))
    soundfile.write(tmp_path / "c.wav", np.full((9, 1), np.nan), 8000, "FLOAT")
    refused("NaN or infinite", READERS["audio"], str(tmp_path / "c.wav"))
    soundfile.write(tmp_path / "d.wav", np.zeros((9, 1)), 8000)
    for wrong in ({"offset": np.nan}, {"offset": np.inf}, {"seconds": np.nan}):
        refused("source.offset = ", READERS["audio"], str(tmp_path / "d.wav"), **wrong)
    refused("lasts 0.001125 s", READERS["audio"], str(tmp_path / "d.wav"), offset=1e308)
    streamed = bytearray((tmp_path / "d.wav").read_bytes())  # its length was not known beforehand
    at = streamed.index(b"data")
    streamed[at + 4 : at + 8] = b"\xff" * 4
    path = write(tmp_path / "e.wav", bytes(streamed))
    assert READERS["audio"](str(path)).data.shape == (1, 1, 9)


# -- the network


@pytest.fixture
def offline(monkeypatch):
    """Whatever reaches out fails the test."""

    def reach(*given, **named):
        pytest.fail(f"reaches for the network: {given[1:]}")

    monkeypatch.setattr(socket.socket, "connect", reach)
    monkeypatch.setattr(socket, "getaddrinfo", reach)


def test_pictures_of_scikit_image_come_from_its_folder(offline, monkeypatch):
    from skimage import data

    for name in pictures.BUNDLED:
        SOURCES["skimage"](Grid(size=16), (name,))
    same = [name for name in pictures.BUNDLED if name not in ("horse", "shepp_logan_phantom")]
    for name in same:
        image = Image.fromarray(getattr(data, name)())
        made = pictures.decode_image(image, Grid(size=16))
        read = SOURCES["skimage"](Grid(size=16), (name,)).data.tensor[0]
        np.testing.assert_array_equal(read, made, err_msg=name)
    for name in ("download_all", "binary_blobs", "data_dir", "__class__", "_fetchers", "file_hash"):
        refused("unknown image of scikit-image", SOURCES["skimage"], SMALL, (name,))
    refused("is empty", SOURCES["skimage"], SMALL, ())
    asked = []
    eagle = lambda: asked.append("eagle") or np.zeros((9, 9), np.uint8)
    monkeypatch.setattr(data, "eagle", eagle, raising=False)
    refused("would fetch 'eagle': --network", SOURCES["skimage"], SMALL, ("eagle",))
    assert not asked
    assert SOURCES["skimage"](SMALL, ("eagle",), permit=NETWORK).data.shape == (1, 3, 8, 8)
    assert asked == ["eagle"]


def saved(root: Path, rows: list, kind=None) -> str:
    """A data set of Hugging Face with such rows."""
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    pair = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": kind or pair})
    datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(str(root))
    return str(root)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("mnist", "not in the local cache: --network"),
        ("user/mnist", "not in the local cache: --network"),
        ("hf://datasets/user/mnist", "no name of a data set; of an address --network"),
        ("buckets/a/b/c", "no name of a data set"),
        ("https://localhost/a", "no name of a data set"),
        ("pandas", "no name of a data set"),
        ("json", "no name of a data set"),
    ],
)
def test_data_sets_are_not_fetched_unasked(path, words, offline, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    monkeypatch.chdir(tmp_path)
    before = datasets.config.HF_HUB_OFFLINE
    refused(words, READERS["huggingface"], path)
    assert before == datasets.config.HF_HUB_OFFLINE


def test_rows_are_not_followed_out_of_their_data_set(offline, tmp_path):
    outside = write(tmp_path / "outside.png", good.picture(draw(), "png"))
    for i, (where, words) in enumerate([
        (str(outside), "row 0 of .* lies at .*outside.png', outside the data set's folder"),
        ("../outside.png", "outside the data set's folder"),
        ("https://localhost/a.png", "row 0 of .* is fetched from 'https://localhost/a.png': --net"),
        ("zip://a.png::https://localhost/a.zip", "is fetched from"),
        (None, "holds no image"),
    ]):  # fmt: skip
        rows = [{"bytes": None, "path": where}] * 30
        refused(words, READERS["huggingface"], saved(tmp_path / f"{i}", rows))
    rows = [{"bytes": None, "path": str(tmp_path / "own" / "a.png")}]
    path = saved(tmp_path / "own", rows)
    write(tmp_path / "own" / "a.png", outside.read_bytes())
    assert len(READERS["huggingface"](path).data) == 1


def test_data_sets_that_are_wrong(offline, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    rows = [{"bytes": good.picture(draw(), "png"), "path": None}] * 3
    path = saved(tmp_path / "a", rows)
    saved(tmp_path / "b", rows)
    refused("no column 'x'", READERS["huggingface"], path, key="x")
    refused("must hold integers or texts", READERS["huggingface"], path, label="image")
    numbers = saved(tmp_path / "c", [1, 2], datasets.Value("int64"))
    refused("the column 'image' of .* holds no images", READERS["huggingface"], numbers)
    refused("has no rows|no data set that", READERS["huggingface"], saved(tmp_path / "d", []))
    state = json.loads((tmp_path / "a" / "state.json").read_text())
    for told, words in (
        (state | {"_data_files": [{"filename": "../b/data-00000-of-00001.arrow"}]}, "outside"),
        (state | {"_data_files": [{"filename": 3}]}, "no file of a saved data set"),
        ([], "no file of a saved data set"),
        ({}, "no file of a saved data set"),
    ):
        write(tmp_path / "a" / "state.json", json.dumps(told).encode())
        refused(words, READERS["huggingface"], path)
    write(tmp_path / "a" / "state.json", json.dumps(state).encode())
    whole = (table := next(tmp_path.glob("a/*.arrow"))).read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:30] + b"\xff" * 30 + whole[60:]):
        table.unlink()  # never what a mapping reads
        refused("source.path|cannot be read|no picture", READERS["huggingface"], str(table.parent))
        write(table, content)
        refused("source.path|cannot be read|no picture", READERS["huggingface"], str(table.parent))


def test_a_card_names_no_files_elsewhere(offline, tmp_path):
    pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    for kind in ("cat", "dog"):
        write(tmp_path / "set" / kind / "a.png", good.picture(draw(), "png"))
    card = "---\nlicense_link: https://a.b\nconfigs:\n- config_name: a\n  data_files: {}\n---\n"
    for name, words in (
        ("https://localhost/a.csv", "README.md' names 'https://localhost/a.csv': --network"),
        ("../../a.csv", "which lies outside its folder"),
        ("[{split: train, path: /etc/*}]", "which lies outside its folder"),
    ):
        write(tmp_path / "set" / "README.md", card.format(name).encode())
        refused(words, READERS["huggingface"], str(tmp_path / "set"))
    write(tmp_path / "set" / "README.md", b"---\nlicense_link: https://example.com\n---\n")
    read = partial(READERS["huggingface"], split=(1.0, 0.0), label="label")
    assert read(str(tmp_path / "set")).names == ("0", "1")


# -- HDF5


@pytest.fixture
def fields(tmp_path) -> tuple[Path, Family]:
    pytest.importorskip("h5py", reason="the extra 'hdf5' is not installed")
    field = Siren(2, 3, width=4, depth=3)
    own = Family(field, FlatWeights(field.slots, width=7))
    codes = own.conditioner.pack({n: torch.randn(6, *s.shape) for n, s in field.slots.items()})
    return nef.write(tmp_path / "a.hdf5", own, codes, {"labels": torch.arange(6)}), own


def test_links_and_data_elsewhere_are_not_followed(fields, tmp_path):
    import h5py

    path, own = fields
    with h5py.File(path, "r+") as file, h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["secret"] = np.arange(6)
        file["soft"], file["out"] = (
            h5py.SoftLink("/labels"),
            h5py.ExternalLink("other.hdf5", "secret"),
        )
        file["gone"] = h5py.ExternalLink("nowhere.hdf5", "secret")
        layout = h5py.VirtualLayout((6,), "i8")
        layout[:] = h5py.VirtualSource("other.hdf5", "secret", (6,))
        file.create_virtual_dataset("virtual", layout)
        write(tmp_path / "raw", bytes(48))
        file.create_dataset("raw", (6,), "i8", external=[("raw", 0, 48)])
        file["empty"] = h5py.Empty("f4")
    _, beside = nef.read(path, own)
    assert set(beside) == {"labels"}
    with h5py.File(path, "r+") as file:
        file.move("params", "elsewhere")
        file["params"] = h5py.SoftLink("/elsewhere")
    refused("it has no dataset 'params' of its own", nef.read, path, own)


@pytest.mark.parametrize(
    ("key", "make", "words"),
    [
        ("params", lambda f, k: f.create_dataset(k, (2**20, 2**20), "f4", chunks=(8, 8)),
         "tells of 4,398,046,5.* bytes.*--large"),
        ("params", lambda f, k: f.create_dataset(k, (0, 47), "f4"), "a row a field"),
        ("params", lambda f, k: f.create_dataset(k, (), "f4"), "no matrix"),
        ("params", lambda f, k: f.create_dataset(k, data="text"), "no matrix"),
        ("params", lambda f, k: f.create_group(k), "no dataset 'params'"),
        ("param_config", lambda f, k: f.create_dataset(k, data=["[3]"]), "no HDF5 file of fields"),
        ("param_config", lambda f, k: f.create_dataset(k, data=["{"]), "no HDF5 file of fields"),
        ("param_config", lambda f, k: f.create_dataset(k, data=["[" * 9999]), "no HDF5 file of f"),
        ("param_config", lambda f, k: f.create_dataset(k, data=['[["a", [-1]]]']), "no HDF5 file"),
        ("param_config", lambda f, k: f.create_dataset(k, data=['[["a", 3]]']), "no HDF5 file"),
        ("param_config", lambda f, k: f.create_dataset(k, data=["[]"]), "holds other fields"),
        ("param_config", lambda f, k: f.create_dataset(k, data=3), "no HDF5 file of fields"),
        ("param_config", lambda f, k: f.create_dataset(k, (0,), "S3"), "no HDF5 file of fields"),
    ],
)  # fmt: skip
def test_files_of_fields_that_are_wrong(fields, key, make, words):
    import h5py

    path, own = fields
    with h5py.File(path, "r+") as file:
        del file[key]
        make(file, key)
    refused(words, nef.read, path, own)


def test_a_heap_that_hdf5_would_walk_for_ever(fields):
    path, own = fields
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    free = heap + 16 + 16 + -(-int.from_bytes(whole[heap + 24 : heap + 32], "little") // 8) * 8
    assert whole[free : free + 2] == b"\0\0"
    write(path, whole[: free + 8] + bytes(8) + whole[free + 16 :])
    refused("a heap of its texts has no end", nef.read, path, own)
    place = whole.index((heap).to_bytes(8, "little")) - 4  # a length, and where the text lies
    write(path, whole[:place] + b"\xff" * 4 + whole[place + 4 :])
    refused("its text is longer than the file", nef.read, path, own)


def test_torn_files_of_fields(fields, tmp_path):
    path, own = fields
    whole = path.read_bytes()
    refused("no HDF5 file", nef.read, tmp_path, own)
    for content in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        refused("no HDF5 file of fields", nef.read, write(tmp_path / "b.hdf5", content), own)


# -- the cache


def test_the_cache_knows_content_not_places_and_times(tmp_path, cached):
    first, second = (good.picture(np.random.default_rng(i), "png") for i in range(2))
    second = second + bytes(max(0, len(first) - len(second)))  # the same number of bytes
    first = first + bytes(len(second) - len(first))
    path = write(tmp_path / "a.png", first)
    before, shown = path.stat(), READERS["image"](str(path)).data.tensor.clone()
    write(path, second)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    replaced = READERS["image"](str(path)).data.tensor
    assert not torch.equal(replaced, shown)
    assert len(list(cached.iterdir())) == 2
    moved = write(tmp_path / "elsewhere" / "b.png", first)
    assert torch.equal(READERS["image"](str(moved)).data.tensor, shown)
    assert len(list(cached.iterdir())) == 2


def test_of_large_files_blocks_and_the_time_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "WHOLE", 1000)
    monkeypatch.setattr(cache, "BLOCK", 10)
    content = bytearray(draw().bytes(5000))
    path = write(tmp_path / "a.bin", bytes(content))
    os.utime(path, ns=(0, 0))
    known = {cache._content(path)}
    for place in (0, 9, 4990, 4999):  # of the first block, and of the last
        changed = content.copy()
        changed[place] ^= 1
        write(path, bytes(changed))
        os.utime(path, ns=(0, 0))
        known.add(cache._content(path))
    write(path, bytes(content))
    os.utime(path, ns=(0, 1))
    known.add(cache._content(path))
    assert len(known) == 6


@pytest.mark.parametrize("place", [0, 40, 150, -1, -40, -70])
def test_a_damaged_cache_is_made_anew(place, tmp_path, cached):
    path = write(tmp_path / "a.png", good.picture(draw(), "png"))
    shown = READERS["image"](str(path)).data.tensor.clone()
    (kept,) = cached.iterdir()
    content = bytearray(kept.read_bytes())
    content[place] ^= 1
    kept.write_bytes(content)
    assert torch.equal(READERS["image"](str(path)).data.tensor, shown)
    assert kept.read_bytes() != bytes(content)


def test_a_cached_array_of_another_file_is_not_taken(tmp_path, cached):
    paths = [
        write(tmp_path / f"{i}.png", good.picture(np.random.default_rng(i), "png")) for i in (0, 1)
    ]
    shown = [READERS["image"](str(path)).data.tensor.clone() for path in paths]
    kept = sorted(cached.iterdir())
    kept[0].write_bytes(kept[1].read_bytes())
    for path, data in zip(paths, shown, strict=True):
        assert torch.equal(READERS["image"](str(path)).data.tensor, data)


def test_names_in_the_cache_are_plain(tmp_path, cached):
    for i, name in enumerate(("..", "a b\x1b[31m/c", "é" * 100, "-")):
        path = write(
            tmp_path / f"{i}" / f"{name}.png", good.picture(np.random.default_rng(i), "png")
        )
        READERS["image"](str(path))
    kept = [file.name for file in cached.iterdir()]
    assert len(kept) == 4
    assert all(name.isprintable() and len(name.encode()) < 140 and " " not in name for name in kept)
    assert not [name for name in kept if name.startswith(".")]


# -- anything


def test_bytes_changed_anywhere(tmp_path):
    """Whatever a file holds, its reader answers."""
    seeds = np.random.default_rng(1)
    cases = {f"a.{kind}": ("folder", good.picture(draw(), kind)) for kind in good.PICTURES}
    cases |= {f"f.{kind}": ("video", good.film(draw(), kind)) for kind in ("mp4", "avi")}
    cases |= {f"s.{kind.lower()}": ("audio", good.sound(kind)) for kind in ("WAV", "FLAC", "OGG")}
    cases |= {"v.binvox": ("voxels", good.binvox())}
    for reader, arrays in (
        ("packed", good.packed_pictures(draw())),
        ("multiview", good.packed_views(draw())),
    ):
        cases[f"{reader}.npz"] = reader, Path(npz(tmp_path / "x.npz", **arrays)).read_bytes()
    answered = 0
    for _ in range(15):
        for name, (reader, whole) in cases.items():
            content = bytearray(whole)
            for place in seeds.integers(0, len(whole), seeds.integers(1, 5)):
                content[place] = seeds.integers(256)
            content = content[
                : len(content) if seeds.random() < 0.7 else seeds.integers(len(content))
            ]
            try:
                READERS[reader](str(write(tmp_path / name, bytes(content))))
            except InputError as error:
                answered += str(error).isprintable()
    assert answered > 50


def test_one_array_is_read_without_the_others(tmp_path):
    path = npz(tmp_path / "a.npz", x=np.arange(6), broken=np.array([{}], dtype=object))
    assert load_array(read_npz(Path(path)), "x", "integers").tolist() == list(range(6))
