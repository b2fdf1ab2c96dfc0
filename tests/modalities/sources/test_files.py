"""Archives, arrays and paths that are broken, hostile or beyond a limit: one sentence each."""

import io
import os
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.modalities.sources import files, spec_of
from fieldloom.modalities.sources.files import Archive, load_array, read_npz
from fieldloom.modalities.sources.source import divide
from fieldloom.permit import Permit
from fuzz import good
from refusals import READERS, draw, little_memory, npz, refused, write

LARGE, NETWORK = Permit(large=True), Permit(network=True)


# -- arrays


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
    ("array", {"x": np.full((2, 8, 8, 3), np.nan)}, "not finite"),
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
        assert "large=True" in told
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


def test_ranges_that_are_none(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3)))
    for range in ((1.0, 0.0), (np.nan, 1.0), (-np.inf, np.inf)):
        refused("range = .*finite", READERS["array"], str(tmp_path / "a.npy"), range=range)


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
    refused("is a folder, and this source reads one file", READERS[reader], str(tmp_path))


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
