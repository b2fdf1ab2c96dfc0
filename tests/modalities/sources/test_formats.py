"""Formats of images: every one is read right, within its limit, and of several frames the first."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES
from fieldloom.modalities.sources.formats import FORMATS, SUFFIXES, open_image
from fieldloom.permit import Permit
from refusals import refused, write

SIZE = 16
RGB = Grid(size=SIZE)
RED, BLUE = (255, 0, 0), (0, 0, 255)
WHITE, BLACK = (255,) * 3, (0,) * 3


def flag(left=RED, right=BLUE, size=SIZE) -> Image.Image:
    """One colour on the left, another on the right."""
    image = Image.new("RGB", (size, size), left)
    image.paste(right, (size // 2, 0, size, size))
    return image


def save(image: Image.Image, kind: str, **how) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def dib(mask: bool) -> bytes:
    """A bitmap of 24 bits as cursors hold it: twice as high, with a mask."""
    pixels = save(flag(), "DIB")
    head = pixels[:8] + struct.pack("<i", 2 * SIZE) + pixels[12:]
    return head + (bytes(SIZE * 4) if mask else b"")


def psd() -> bytes:
    planes = np.asarray(flag()).transpose(2, 0, 1).tobytes()
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, SIZE, SIZE, 8, 3)
    return head + struct.pack(">IIIH", 0, 0, 0, 0) + planes


def xpm() -> bytes:
    row = f'"{"r" * (SIZE // 2)}{"b" * (SIZE // 2)}",\n'
    head = f'/* XPM */\nstatic char *a[] = {{\n"{SIZE} {SIZE} 2 1",\n'
    return f'{head}"r c #FF0000",\n"b c #0000FF",\n{row * SIZE}}};\n'.encode()


def sun() -> bytes:
    head = struct.pack(">8I", 0x59A66A95, SIZE, SIZE, 24, 0, 1, 0, 0)
    return head + np.asarray(flag())[..., ::-1].tobytes()


def gbr(size=SIZE) -> bytes:
    head = struct.pack(">5I4sI", 28, 2, size, size, 4, b"GIMP", 1)
    return head + flag().convert("RGBA").tobytes()


def pixar() -> bytes:
    head = bytearray(1024)
    head[:4] = b"\200\350\000\000"
    struct.pack_into("<2H", head, 416, SIZE, SIZE)
    struct.pack_into("<2H", head, 424, 14, 2)
    return bytes(head) + flag().tobytes()


def ftex(size=SIZE) -> bytes:
    pixels = flag().tobytes()
    head = b"FTEX" + struct.pack("<7i", 1, size, size, 1, 1, 1, 32)
    return head + struct.pack("<i", len(pixels)) + pixels


def fli() -> bytes:
    """One frame: a palette of two colours, then the pixels as they are."""
    colours = struct.pack("<IHHBB", 6 + 4 + 6, 4, 1, 0, 2) + bytes([*RED, *BLUE])
    pixels = bytes([0] * (SIZE // 2) + [1] * (SIZE // 2)) * SIZE
    chunks = colours + struct.pack("<IH", 6 + len(pixels), 16) + pixels
    frame = struct.pack("<IHH8x", 16 + len(chunks), 0xF1FA, 2) + chunks
    head = struct.pack("<IHHHHHHI", 128 + len(frame), 0xAF12, 1, SIZE, SIZE, 8, 3, 0)
    return head.ljust(128, b"\0") + frame


MADE = {
    "CUR": lambda: b"\0\0\2\0\1\0" + struct.pack("<4B2H2I", 16, 16, 0, 0, 0, 0, 0, 22) + dib(True),
    "PSD": psd,
    "XPM": xpm,
    "SUN": sun,
    "GBR": gbr,
    "PIXAR": pixar,
    "FTEX": ftex,
    "FLI": fli,
    "BLP": lambda: save(flag().convert("P", palette=Image.Palette.ADAPTIVE), "BLP"),
    "DCX": lambda: struct.pack("<3I", 0x3ADE68B1, 12, 0) + save(flag(), "PCX"),
}
"""Formats that Pillow reads, and does not write by itself."""
BILEVEL = ("XBM", "MSP")
NOT_MADE = ("PCD",)
"""What is tested by itself."""


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - set(NOT_MADE)))
def test_a_picture_of_every_format(kind, tmp_path):
    left, right = (WHITE, BLACK) if kind in BILEVEL else (RED, BLUE)
    if kind in MADE:
        content = MADE[kind]()
    else:
        mode = "1" if kind in BILEVEL else "RGB"
        how = {"ICO": {"sizes": [(SIZE, SIZE)]}, "JPEG": {"subsampling": 0}}.get(kind, {})
        content = save(flag(left, right).convert(mode), kind, **how)
    for suffix in FORMATS[kind]:
        root = tmp_path / suffix
        write(root / f"a{suffix.upper()}", content)
        pixels = SOURCES["folder"](RGB, str(root)).data.tensor[0].int()
        np.testing.assert_allclose(pixels[:, 2, 3], left, atol=6)
        np.testing.assert_allclose(pixels[:, 13, 12], right, atol=6)


def test_a_photo_cd(tmp_path):
    """It holds more than it shows: 512 x 768 of 16 times as many."""
    content = bytearray(96 * 2048 + 768 * 512 * 3 // 2)
    content[2048:2052] = b"PCD_"
    content[96 * 2048 :] = bytes([156]) * (len(content) - 96 * 2048)
    values = SOURCES["image"](Grid(), str(write(tmp_path / "a.pcd", content))).data.tensor
    assert values.shape == (1, 3, 512, 768)
    assert values.float().std((2, 3)).max() == 0
    assert values.max() > 100


@pytest.mark.parametrize("kind", ["EPS", "WMF", "FITS", "IM", "GRIB", "HDF5", "BUFR", "SPIDER"])
def test_formats_that_are_not_read(kind, tmp_path):
    heads = {
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
        "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + struct.pack("<4hH", 0, 0, 8, 8, 72),
        "FITS": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
        "IM": b"Image type: L\r\nImage size (x*y): 8*8\r\n\x1a" + bytes(64),
        "GRIB": b"GRIB\0\0\0\1",
        "HDF5": b"\x89HDF\r\n\x1a\n",
        "BUFR": b"BUFR\0\0\0\1",
        "SPIDER": np.float32(
            [1, 8, 0, 0, 1, *[0] * 6, 8, 1, *[0] * 8, 108, 108, *[0] * 4]
        ).tobytes(),
    }
    assert kind not in FORMATS
    path = str(write(tmp_path / "a.png", heads[kind].ljust(400, b"\0")))
    refused("is no image that can be read", SOURCES["folder"], RGB, path)
    assert not SUFFIXES & {".eps", ".ps", ".wmf", ".emf", ".fits", ".h5", ".pdf", ".mpg"}


# -- sizes


def huge() -> bytes:
    """A PNG that says it is 30,000 x 40,000."""
    whole = save(flag(), "PNG")
    head = whole[12:16] + struct.pack(">2I", 30_000, 40_000) + whole[24:29]
    return whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]


def ico(inner: bytes) -> bytes:
    return b"\0\0\1\0\1\0" + struct.pack("<4B2H2I", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def icns(inner: bytes) -> bytes:
    block = b"ic07" + struct.pack(">I", 8 + len(inner)) + inner
    return b"icns" + struct.pack(">I", 8 + len(block)) + block


def bmp_inside() -> bytes:
    content = dib(True)
    return content[:4] + struct.pack("<2i", 40_000, 60_000) + content[12:]


def jpeg_in_blp() -> bytes:
    inner = bytearray(save(flag(), "JPEG"))
    at = inner.index(b"\xff\xc0") + 5
    inner[at : at + 4] = struct.pack(">2H", 60_000, 60_000)
    head = b"BLP1" + struct.pack("<iI2I2i", 0, 0, SIZE, SIZE, 0, 0)
    place = len(head) + 128 + 4
    table = struct.pack("<16I", place, *[0] * 15) + struct.pack("<16I", len(inner), *[0] * 15)
    return head + table + struct.pack("<I", 0) + bytes(inner)


INSIDE = {
    "ico": lambda: ico(huge()),
    "ico of a bitmap": lambda: ico(bmp_inside()),
    "icns": lambda: icns(huge()),
    "blp": jpeg_in_blp,
    "gbr": lambda: gbr(40_000),
    "ftc": lambda: ftex(40_000),
}


@pytest.mark.parametrize("kind", INSIDE)
def test_pictures_inside_of_files_have_the_same_limit(kind, tmp_path):
    path = str(write(tmp_path / f"a.{kind.split()[0]}", INSIDE[kind]()))
    refused("large=True", SOURCES["folder"], RGB, path)
    refused("large=True", SOURCES["image"], Grid(), path)
    assert Image.MAX_IMAGE_PIXELS is not None


def test_icons_whose_picture_is_larger_than_they_say(tmp_path):
    content = ico(save(flag(size=64), "PNG"))
    with pytest.warns(UserWarning, match="not the expected size"):
        source = SOURCES["folder"](RGB, str(write(tmp_path / "a.ico", content)))
    assert source.data.tensor[0, :, 2, 3].tolist() == list(RED)


def test_a_format_that_this_pillow_was_built_without(tmp_path, monkeypatch):
    content = save(flag(), "AVIF")
    factory, _ = Image.OPEN["AVIF"]
    accept = lambda head: "AVIF support not installed" if b"ftypavif" in head else False
    monkeypatch.setitem(Image.OPEN, "AVIF", (factory, accept))
    path = str(write(tmp_path / "a.avif", content))
    refused("no image that can be read: AVIF support not installed", SOURCES["folder"], RGB, path)


# -- frames


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_of_several_frames_the_first_is_taken(kind, tmp_path):
    how = {"WEBP": {"lossless": True}, "GIF": {}, "MPO": {"quality": 95}}.get(kind, {})
    other = [flag(BLUE, RED), flag(WHITE, BLACK)]
    content = save(flag(), kind, save_all=True, append_images=other, **how)
    suffix = FORMATS[kind][0]
    write(tmp_path / f"a{suffix}", content)
    write(tmp_path / "b.png", save(flag(), "PNG"))
    source = SOURCES["folder"](RGB, str(tmp_path), split=(1.0, 0.0))
    np.testing.assert_allclose(source.data.tensor[0, :, 2, 3].int(), RED, atol=6)
    assert source.summary.taken["first"] == "the first of several frames in 1 file"
    one = SOURCES["image"](Grid(), str(tmp_path / f"a{suffix}"))
    np.testing.assert_allclose(one.data.tensor[0, :, 2, 3].int(), RED, atol=6)
    assert "first" in one.summary.taken
    assert "first" not in SOURCES["image"](Grid(), str(tmp_path / "b.png")).summary.taken


def test_of_an_icon_the_largest_is_taken(tmp_path):
    sizes = [(8, 8), (32, 32), (16, 16)]
    for kind, how in {"ICO": {"sizes": sizes}, "ICNS": {}}.items():
        path = str(write(tmp_path / f"a{FORMATS[kind][0]}", save(flag(size=32), kind, **how)))
        source = SOURCES["image"](Grid(), path)
        assert source.data.shape[2:] == ((32, 32) if kind == "ICO" else (1024, 1024))
        assert source.summary.taken["first"] == "the first of several frames in 1 file"


def test_pages_of_a_tiff_that_are_thumbnails(tmp_path):
    for pages, size, colour in (
        ([flag(BLUE, RED, 8), flag()], SIZE, RED),
        ([flag(BLUE, RED, 8)], 8, BLUE),
    ):
        for i, page in enumerate(pages):
            page.encoderinfo = {"tiffinfo": {254: int(i == 0)}}
        stream = io.BytesIO()
        pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:], tiffinfo={254: 1})
        with open_image(stream.getvalue(), "a") as image:
            assert image.size == (size, size)
            assert image.convert("RGB").getpixel((1, 1)) == colour


def test_what_is_said_of_sizes(tmp_path):
    for i, (height, width) in enumerate([(20, 20), (40, 30), (16, 16)]):
        write(tmp_path / f"{i}.png", save(flag().resize((width, height)), "PNG"))
    taken = SOURCES["folder"](RGB, str(tmp_path)).summary.taken
    assert taken["resized"] == "cropped and resized from 20 x 20 ... 40 x 30 (bicubic)"
    one = SOURCES["folder"](RGB, str(tmp_path / "0.png"), filter="box").summary.taken
    assert one["resized"] == "resized from 20 x 20 (box)"
    assert "resized" not in SOURCES["folder"](RGB, str(tmp_path / "2.png")).summary.taken
    assert "resized" in SOURCES["image"](RGB, str(tmp_path / "0.png")).summary.taken


def test_the_limit_is_lifted_for_pictures_inside(tmp_path, monkeypatch):
    monkeypatch.setattr("fieldloom.modalities.sources.formats.PIXELS", 50)
    path = str(write(tmp_path / "a.ico", ico(save(flag(size=16), "PNG"))))
    refused("large=True", SOURCES["folder"], RGB, path)
    source = SOURCES["folder"](RGB, path, permit=Permit(large=True))
    assert source.data.tensor[0, :, 2, 3].tolist() == list(RED)


def tiff(bits: int, signs: int, planes: int, samples: int, pixels: bytes) -> bytes:
    """An uncompressed TIFF of 2 x 1 pixels of these bits, signs (1: none, 2: with, 3: floats)."""
    entries = {256: 2, 257: 1, 258: bits, 259: 1, 262: 2 if samples == 3 else 1, 277: samples}
    entries |= {278: 1, 284: planes, 339: signs}
    each = 2 * bits // 8 * (samples if planes == 1 else 1)
    strips = len(pixels) // each
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    lists = {258: [bits] * samples, 339: [signs] * samples}
    extra, fields, after = b"", [], start
    places = [0] * strips
    lists |= {273: places, 279: [each] * strips}
    sizes = {tag: 4 * len(values) for tag, values in lists.items() if len(values) > 1}
    first = start + sum(sizes.values())
    places[:] = [first + i * each for i in range(strips)]
    for tag in sorted({*entries, 273, 279}):
        values = lists.get(tag, [entries.get(tag, 0)])
        packed = struct.pack(f"<{len(values)}I", *values)
        fields.append(struct.pack("<HHI", tag, 4, len(values)))
        fields[-1] += packed if len(values) == 1 else struct.pack("<I", after)
        extra, after = (extra + packed, after + len(packed)) if len(values) > 1 else (extra, after)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(fields))
        + b"".join(fields)
        + bytes(4)
        + extra
        + (pixels)
    )


def test_unsigned_numbers_of_32_bits(tmp_path):
    content = tiff(32, 1, 1, 1, struct.pack("<2I", 0, 4_000_000_000))
    path = str(write(tmp_path / "a.tif", content))
    source = SOURCES["image"](Grid(channels=1), path, range=(0.0, 4e9))
    assert source.data.tensor.flatten().tolist() == [0, 255]
    refused(
        "and their range is not certain.*such as .0, 4000000000.",
        SOURCES["image"],
        Grid(channels=1),
        path,
    )


def test_planes_of_16_bits_are_refused(tmp_path):
    """Pillow takes each of their bytes for a pixel."""
    path = tmp_path / "a.tif"
    wide = tiff(16, 1, 2, 3, struct.pack("<6H", 65535, 0, 0, 0, 0, 65535))
    refused("its colours are planes of 16 bits", SOURCES["image"], Grid(), str(write(path, wide)))
    write(path, tiff(8, 1, 2, 3, bytes([255, 0, 0, 0, 0, 255])))
    assert SOURCES["image"](Grid(), str(path)).data.tensor[0, :, 0].T.tolist() == [
        list(RED),
        list(BLUE),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "it is HEIC, which is not read"),
        (tiff(64, 3, 1, 1, bytes(16)), "it is a TIFF of a kind that is not read"),
        (b"<html>", "it is of no known format"),
    ],
)
def test_why_a_file_is_no_image(content, words, tmp_path):
    refused(words, SOURCES["image"], Grid(), str(write(tmp_path / "a.jpg", content)))
