"""Which numbers are black and white: by type and content of a whole set, or as the user says."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, formats, images
from fieldloom.modalities.sources.numbers import decide_scale
from fieldloom.modalities.views import Views
from fuzz import good
from refusals import READERS, draw, refused, tree, write

GREY = Grid(size=8, channels=1)
FILMS = Grid(axes=3, size=(2, 8, 8), channels=1)
SHAPE = Grid(axes=3, size=4, channels=1)
WHITE = "source.range = [0, {}] makes it white"


@pytest.mark.parametrize(
    ("kind", "low", "high", "given", "scale"),
    [
        ("uint8", 0, 200, None, (0, 255, "")),
        ("uint8", 0, 0, None, (0, 255, "")),
        ("uint8", 0, 16, None, (0, 255, "")),
        ("uint8", 0, 2, None, (0, 255, f"largest value 2 of 255: {WHITE.format(2)}")),
        ("uint8", 0, 15, None, (0, 255, f"largest value 15 of 255: {WHITE.format(15)}")),
        ("uint8", 0, 1, None, (0, 1, "uint8 numbers of 0 and 1 alone")),
        ("uint8", 0, 1, (0.0, 255.0), (0, 255, "numbers from 0 to 255 (source.range)")),
        ("bool", 0, 1, (0.0, 255.0), (0, 1, "")),
        ("float", 0, 0.2, None, (0, 1, "")),
        ("float", 0, 0, None, (0, 1, "")),
        ("float", 0, 128, None, (0, 255, "numbers from 0 to 255")),
        ("float", 0, 65535, None, (0, 65535, "numbers from 0 to 65,535")),
        ("integer", 0, 1, None, (0, 1, "integer numbers of 0 and 1 alone")),
        ("integer", 0, 40000, None, (0, 65535, "numbers from 0 to 65,535")),
        ("uint16", 0, 16384, None, (0, 65535, "numbers from 0 to 65,535")),
        ("uint16", 5, 4000, (0.0, 4095.0), (0, 4095, "numbers from 0 to 4,095 (source.range)")),
        ("float", -1, 1, (-1.0, 1.0), (-1, 1, "numbers from -1 to 1 (source.range)")),
        ("float", 0, 0.1000001, (0.0, 0.1), (0, 0.1, "numbers from 0 to 0.1 (source.range)")),
    ],
)  # fmt: skip
def test_certain_ranges(kind, low, high, given, scale):
    found = decide_scale(kind, float(low), float(high), given)
    assert (found.low, found.high, found.words) == scale


@pytest.mark.parametrize(
    ("kind", "low", "high", "given", "words"),
    [
        ("float", 0, 1.02, None, r"go from 0 to 1.02, .*not certain.*\[0, 1.02\] or \[0, 255\]"),
        ("float", 0, 1.0201, None, r"\[0, 1.03\] or \[0, 255\]"),
        ("float", 0, 100, None, r"\[0, 100\] or \[0, 255\]"),
        ("float", 180.25, 340.25, None, r"\[180, 341\] or \[0, 4095\]"),
        ("integer", 0, 100, None, r"\[0, 255\] or \[0, 4095\]"),
        ("uint16", 0, 4000, None, r"to 4,000, .*\[0, 4095\] or \[0, 65535\]"),
        ("uint16", 0, 16383, None, r"such as \[0, 65535\]"),
        ("integer", 0, 30000, None, r"such as \[0, 65535\]"),
        ("integer", 0, 70000, None, r"such as \[0, 70000\]"),
        ("float", -0.5, 0.5, None, r"below 0 no range is certain.*\[-1, 1\] or \[-0.5, 0.5\]"),
        ("integer", -20, 35, None, r"such as \[-20, 35\]"),
        ("uint16", 7, 7, None, r"are all 7, .*\[0, 255\]"),
        ("uint8", 3, 200, (0.0, 100.0), r"range = \[0.0, 100.0\]: the numbers go from 3 to 200"),
        ("uint8", 3, 200, (5.0, 255.0), r"go from 3 to 200"),
    ],
)
def test_ranges_that_are_not_certain(kind, low, high, given, words):
    refused(words, decide_scale, kind, float(low), float(high), given)


# -- one table of situations x readers: a picture of known numbers, at a known pixel

HIGH, LOW = (2, 5), (0, 0)
"""The places of the largest number, and of half of it; elsewhere is 0."""


def numbers(dtype: type, top: float) -> np.ndarray:
    array = np.zeros((8, 8), dtype)
    array[HIGH], array[LOW] = top, top / 2
    return array


def encode(array: np.ndarray, suffix: str) -> bytes:
    stream = io.BytesIO()
    kind = {"pgm": "PPM", "tif": "TIFF"}.get(suffix, suffix.upper())
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def pgm(top: int) -> bytes:
    return f"P5 8 8 {top}\n".encode() + numbers(np.uint16, top).astype(">u2").tobytes()


SITUATIONS = {
    "float TIFF to 1": (encode(numbers(np.float32, 1), "tif"), "tif", None),
    "float TIFF to 255": (encode(numbers(np.float32, 255), "tif"), "tif", None),
    "float TIFF to 65535": (encode(numbers(np.float32, 65535), "tif"), "tif", None),
    "float TIFF to 1.02": (encode(numbers(np.float32, 1.02), "tif"), "tif", (0.0, 1.02)),
    "int32 TIFF to 65535": (encode(numbers(np.int32, 65535), "tif"), "tif", None),
    "int32 TIFF to 100000": (encode(numbers(np.int32, 100000), "tif"), "tif", (0.0, 1e5)),
    "16-bit PNG": (encode(numbers(np.uint16, 65535), "png"), "png", None),
    "12 bits in a PNG of 16": (encode(numbers(np.uint16, 4095), "png"), "png", (0.0, 4095.0)),
    "12 bits in a TIFF of 16": (encode(numbers(np.uint16, 4095), "tif"), "tif", (0.0, 4095.0)),
    "PGM to 4095": (pgm(4095), "pgm", None),
    "PGM to 4095, as given": (pgm(4095), "pgm", (0.0, 4095.0)),
    "8-bit PNG": (encode(numbers(np.uint8, 255), "png"), "png", None),
    "8-bit PNG of 0 and 1": (encode(numbers(np.uint8, 2).clip(0, 1), "png"), "png", None),
    "8-bit PNG to 100": (encode(numbers(np.uint8, 100), "png"), "png", (0.0, 100.0)),
    "bilevel PNG": (encode(numbers(np.uint8, 2) > 1, "png"), "png", (0.0, 255.0)),
}  # fmt: skip


def read_one(reader: str, root: Path, content: bytes, suffix: str, given) -> np.ndarray:
    """The grey picture that a reader makes of a file of 8 x 8, in [0, 1]."""
    asked = {} if given is None else {"range": given}
    if reader == "folder":
        write(root / "in" / f"a.{suffix}", content)
        source = SOURCES["folder"](GREY, str(root / "in"), **asked)
    elif reader == "image":
        file = write(root / f"a.{suffix}", content)
        source = SOURCES["image"](Grid(channels=1), str(file), **asked)
    elif reader == "video":
        for i in range(2):
            write(root / "frames" / f"{i}.{suffix}", content)
        source = SOURCES["video"](FILMS, str(root / "frames"), **asked)
    elif reader == "packed":
        np.savez(root / "p.npz", **good.together([content] * 2))
        source = SOURCES["packed"](GREY, str(root / "p.npz"), **asked)
    else:
        datasets = pytest.importorskip("datasets")
        kind = datasets.Features({"image": datasets.Image()})
        rows = {"image": [{"bytes": content, "path": None}] * 2}
        datasets.Dataset.from_dict(rows, features=kind).save_to_disk(str(root / "set"))
        source = SOURCES["huggingface"](GREY, str(root / "set"), **asked)
    values = source.read(source.train[:1]).tensor[0, 0]
    return (values[0] if values.dim() == 3 else values).numpy()


@pytest.mark.parametrize("reader", ["folder", "image", "video", "packed", "huggingface"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_picture_of_any_numbers(reader, situation, tmp_path):
    content, suffix, given = SITUATIONS[situation]
    found = read_one(reader, tmp_path, content, suffix, given)
    half = {"8-bit PNG of 0 and 1": 1, "bilevel PNG": 0}.get(situation, 0.5)
    assert found[HIGH] == 1
    assert found[LOW] == pytest.approx(half, abs=0.01)
    assert found.sum() == found[HIGH] + found[LOW]


@pytest.mark.parametrize("reader", ["folder", "image", "video", "packed"])
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (numbers(np.float32, 1.02), "images of floats go from 0 to 1.02"),
        (numbers(np.uint16, 4000), r"16-bit images go from 0 to 4,000, .* \[0, 4095\]"),
        (numbers(np.int32, 70000), "images of integers go from 0 to 70,000"),
        (numbers(np.float32, 1) - 0.5, r"go from -0.5 to 0.5, and below 0"),
        (numbers(np.float32, np.nan), "not finite"),
    ],
)
def test_numbers_without_a_certain_range(reader, array, words, tmp_path):
    refused(words, read_one, reader, tmp_path, encode(array, "tif"), "tif", None)


@pytest.mark.parametrize("reader", ["folder", "image", "video", "packed"])
def test_numbers_outside_a_given_range(reader, tmp_path):
    content = encode(numbers(np.uint8, 200), "png")
    words = r"source.range = \[0.0, 100.0\]: the numbers of 8-bit images go from 0 to 200"
    refused(words, read_one, reader, tmp_path, content, "png", (0.0, 100.0))


def test_a_set_is_read_alike(tmp_path, monkeypatch):
    """The scale is that of the whole set, also where images are decoded on reading."""
    Image.fromarray(numbers(np.uint16, 65535)).save(tmp_path / "a.png")
    Image.fromarray(numbers(np.uint16, 6553)).save(tmp_path / "b.png")
    Image.fromarray(numbers(np.uint8, 255)).save(tmp_path / "c.png")
    read = lambda: SOURCES["folder"](GREY, str(tmp_path), split=(1.0, 0.0), shuffle=False)
    source = read()
    assert source.data.tensor[:, 0, *HIGH].tolist() == [255, 25, 255]
    assert source.summary.taken["range"] == "numbers from 0 to 65,535 in 16-bit images"
    monkeypatch.setattr(images, "DECODED", 0)
    lazy = read().data.values
    assert isinstance(lazy, images.LazyImages)
    assert torch.equal(lazy.read(slice(None)), source.data.tensor)


def test_what_is_said_of_numbers(tmp_path):
    said = {}
    for name, (content, suffix, given) in SITUATIONS.items():
        root = tmp_path / name
        write(root / f"a.{suffix}", content)
        asked = {} if given is None else {"range": given}
        source = SOURCES["folder"](GREY, str(root), **asked)
        said[name] = source.summary.taken.get("range")
    assert said["8-bit PNG"] is said["float TIFF to 1"] is said["bilevel PNG"] is None
    assert said["16-bit PNG"] == said["int32 TIFF to 65535"] == "numbers from 0 to 65,535"
    assert said["PGM to 4095"] == "numbers from 0 to 4,095 (as the files say)"
    assert said["12 bits in a PNG of 16"] == "numbers from 0 to 4,095 (source.range)"
    assert said["8-bit PNG of 0 and 1"] == "uint8 numbers of 0 and 1 alone"


def test_labels_of_classes_are_said_to_be_dark(tmp_path):
    """Of the whole set: one bright image, or the range that the sentence names, ends it."""
    for i in range(6):
        labels = np.random.default_rng(i).integers(0, 3, (8, 8), np.uint8)
        Image.fromarray(labels).save(tmp_path / f"{i}.png")
    read = lambda **more: SOURCES["folder"](GREY, str(tmp_path), **more)
    dark, white = read(), read(range=(0.0, 2.0))
    assert dark.summary.taken["range"] == f"largest value 2 of 255: {WHITE.format(2)}"
    assert dark.data.tensor.max() == 2
    assert white.data.tensor.max() in (1.0, 255)
    Image.fromarray(numbers(np.uint8, 200)).save(tmp_path / "9.png")
    assert "range" not in read().summary.taken


def test_one_picture_that_is_not_finite_among_many(tmp_path):
    for i in range(20):
        Image.fromarray(numbers(np.float32, 1)).save(tmp_path / f"{i:02d}.tif")
    Image.fromarray(numbers(np.float32, np.inf)).save(tmp_path / "07.tif")
    with pytest.warns(UserWarning, match=r"07.tif' .* not finite"):
        source = SOURCES["folder"](GREY, str(tmp_path))
    assert len(source.data) == 19
    assert [Path(x.strip("'")).name for x in source.summary.passed_over["unreadable"]] == ["07.tif"]


def test_numbers_of_ones_in_files_that_are_not_numbers(tmp_path):
    """A palette's colours and a lossy format's noise keep their range, unlike colours of 0, 1."""
    ones = np.ones((8, 8, 3), np.uint8)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 1, 1, 1])
    palette.save(tmp_path / "p.png")
    Image.fromarray(ones).save(tmp_path / "j.jpg")
    Image.fromarray(ones).save(tmp_path / "c.png")
    for name, value in {"p.png": 1, "j.jpg": 1, "c.png": 255}.items():
        source = SOURCES["folder"](Grid(size=8), str(tmp_path / name))
        assert (source.data.tensor == value).all(), name


def tiff(bits: int, channels: int, data: bytes) -> bytes:
    """A TIFF of 8 x 8, which begins at byte 200."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: 2 if channels == 3 else 1, 273: 200}
    tags |= {277: channels, 278: 8, 279: len(data)}
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, value in tags.items():
        count = channels if tag == 258 else 1
        head += struct.pack("<HHII", tag, 3, count, 150 if count > 1 else value)
    head = (head + bytes(4)).ljust(150, b"\0") + struct.pack("<3H", bits, bits, bits)
    return head.ljust(200, b"\0") + data


def test_colours_of_16_bits(tmp_path):
    """Pillow reads their upper 8 bits; where these are low the range is not certain."""

    def read(top: int, **given):
        content = tiff(16, 3, np.full((8, 8, 3), top, "<u2").tobytes())
        path = write(tmp_path / "a.tif", content)
        return SOURCES["folder"](Grid(size=8), str(path), **given).data.tensor.unique().tolist()

    assert read(65535) == [255]
    assert read(257 * 100) == [100]
    assert read(4095, range=(0.0, 4095.0)) == [255]  # the last of 16 levels
    assert read(4095, range=(0.0, 65535.0)) == [15]
    refused(r"16-bit colours .*3,840, .*\[0, 4095\]", read, 4095)


def test_a_tiff_of_12_bits(tmp_path):
    """Its file says that 4,095 is white."""
    content = tiff(12, 1, b"\x80\x0f\xff" * 32)  # 0x800, 0xfff
    source = SOURCES["folder"](GREY, str(write(tmp_path / "a.tif", content)))
    assert source.data.tensor[0, 0, 3, :2].tolist() == [128, 255]
    assert source.summary.taken["range"] == "numbers from 0 to 4,095 (as the files say)"


def test_alpha_and_colour_spaces_in_a_given_range(tmp_path):
    """The range is that of colours, before they are put on white."""
    half = np.full((8, 8, 4), 50, np.uint8)
    half[..., 3] = 0
    half[2, 5, 3] = 255
    Image.fromarray(half).save(tmp_path / "a.png")
    source = SOURCES["folder"](Grid(size=8), str(tmp_path / "a.png"), range=(0.0, 100.0))
    assert source.data.tensor[0, :, 2, 5].tolist() == [128] * 3
    assert source.data.tensor[0, :, 0, 0].tolist() == [255] * 3


def test_white_is_zero_and_transparent_numbers(tmp_path):
    array = numbers(np.uint16, 65535)
    Image.fromarray(array).save(tmp_path / "a.tif", tiffinfo={262: 0})
    found = SOURCES["folder"](GREY, str(tmp_path / "a.tif")).data.tensor[0, 0]
    assert (found[HIGH], found[1, 1]) == (0, 255)
    Image.fromarray(array).save(tmp_path / "b.png", transparency=0)
    found = SOURCES["folder"](GREY, str(tmp_path / "b.png")).data.tensor[0, 0]
    assert (found[LOW], found[1, 1]) == (127, 255) or (found[LOW], found[1, 1]) == (128, 255)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_views_of_deep_numbers(dtype, tmp_path):
    top = 1 if dtype == np.float32 else 65535
    files = good.scene(draw())
    suffix = "tif" if dtype == np.float32 else "png"
    content = encode(numbers(dtype, top), suffix)
    root = tree(tmp_path / "s", {k: content if k.endswith(".png") else x for k, x in files.items()})
    found = SOURCES["transforms"](Views(size=8), str(root)).data.tensor[0, 0]
    assert found[:, *HIGH].tolist() == [255] * 3
    assert found[0, 1, 1] == 0


def test_frames_of_one_file_are_read_alike(tmp_path):
    """Pages of a TIFF have the scale of the whole film; a PSD is one frame, not its layers."""
    film = Grid(axes=3, channels=1)
    pages = [Image.fromarray(numbers(np.uint16, top)) for top in (65535, 6553)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    source = SOURCES["video"](film, str(tmp_path / "a.tif"))
    assert source.data.tensor[0, 0, :, *HIGH].tolist() == [255, 25]
    assert source.summary.taken["range"] == "numbers from 0 to 65,535"
    again = SOURCES["video"](film, str(tmp_path / "a.tif"), range=(0.0, 131070.0))
    assert again.data.tensor[0, 0, :, *HIGH].tolist() == [128, 13]
    planes = np.arange(192, dtype=np.uint8)
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 8, 8, 8, 3) + bytes(14)
    write(tmp_path / "a.psd", head + planes.tobytes())
    source = SOURCES["video"](Grid(axes=3), str(tmp_path / "a.psd"))
    np.testing.assert_array_equal(source.data.tensor.flatten(), planes)
    film = write(tmp_path / "a.mp4", good.film(draw(), "mp4"))
    refused(
        "source.range is for images", SOURCES["video"], Grid(axes=3), str(film), range=(0.0, 1.0)
    )


@pytest.mark.parametrize("reader", ["transforms", "srn", "multiview"])
def test_views_of_12_bits_in_16(reader, tmp_path):
    content = encode(numbers(np.uint16, 4095), "png")
    if reader == "multiview":
        arrays = good.packed_views(draw())
        count = len(arrays["offsets"]) - 1
        np.savez(tmp_path / "v.npz", **(arrays | good.together([content] * count)))
        path = str(tmp_path / "v.npz")
    else:
        files = good.scene(draw()) if reader == "transforms" else good.srn(draw())
        changed = {k: content if k.endswith(".png") else x for k, x in files.items()}
        path = str(tree(tmp_path / "s", changed))
    refused(r"16-bit images go from 0 to 4,095, .*source.range", READERS[reader], path)
    source = READERS[reader](path, range=(0.0, 4095.0))
    assert source.data.tensor[0, 0, :, *HIGH].tolist() == [255] * 3
    assert source.data.tensor[0, 0, :, 1, 1].tolist() == [0] * 3
    assert source.summary.taken["range"] == "numbers from 0 to 4,095 (source.range)"


# -- arrays and voxels


@pytest.mark.parametrize(
    ("array", "given", "expected"),
    [
        (numbers(np.int64, 255), None, 1.0),
        (numbers(np.uint16, 4095), (0.0, 4095.0), 1.0),
        (numbers(np.uint8, 100), (0.0, 100.0), 1.0),
        (numbers(np.uint8, 100), None, 100 / 255),
        (numbers(np.float64, 200), None, 200 / 255),
        (numbers(np.float32, 1) * 2 - 1, (-1.0, 1.0), 1.0),
        (numbers(np.float64, 1 + 1e-12), None, 1.0),
        (numbers(np.uint8, 2) > 1, None, 1.0),
        ((numbers(np.uint8, 2) > 1).astype(np.uint8), None, 1.0),
    ],
)
def test_arrays_of_any_numbers(array, given, expected, tmp_path):
    np.save(tmp_path / "a.npy", np.stack([array] * 2))
    source = SOURCES["array"](GREY, str(tmp_path / "a.npy"), range=given)
    assert source.read(source.train).tensor[0, 0, *HIGH] == pytest.approx(expected)
    np.save(tmp_path / "v.npy", np.stack([array[:4, 4:]] * 4))
    source = SOURCES["voxels"](SHAPE, str(tmp_path / "v.npy"), range=given)
    assert source.data.shape == (1, 1, 4, 4, 4)
    assert source.read(source.train).tensor[0, 0, 3, 2, 1] == pytest.approx(expected)


@pytest.mark.parametrize("reader", ["array", "voxels"])
@pytest.mark.parametrize(
    ("top", "words"),
    [
        (1.02, "0 to 1.02, .*not certain"),
        (-1, "below 0"),
        (np.nan, "not finite.*datum 1"),
        (1e300, "not finite.*datum 1"),  # as float32
    ],
)
def test_arrays_without_a_certain_range(reader, top, words, tmp_path):
    array = np.zeros((2, 12, 12, 12) if reader == "voxels" else (2, 8, 8, 3))
    array[1, 2, 5, 1] = top
    np.save(tmp_path / "a.npy", array)
    refused(words, READERS[reader], str(tmp_path / "a.npy"))


def test_the_limit_on_pixels_of_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr("fieldloom.modalities.sources.arrays.PIXELS", 50)
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8), np.uint8))
    refused(
        "tells of 64 pixels, and more than 50 .*large=True",
        READERS["array"],
        str(tmp_path / "a.npy"),
    )
    assert formats.PIXELS == 1 << 28
