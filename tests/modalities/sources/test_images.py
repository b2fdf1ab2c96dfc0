"""Folders and packed files of images, of any size and mode; broken and hostile images."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom.errors import InputError
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, formats, images, spec_of
from fieldloom.modalities.sources.decoding import decode_image
from fieldloom.modalities.sources.images import read_packed
from fieldloom.permit import Permit
from fuzz import good
from media import gradient, pack
from refusals import READERS, SMALL, draw, refused, tree, write

LARGE, NETWORK = Permit(large=True), Permit(network=True)


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
    assert "large=true reads it" in told.lower()


@pytest.mark.parametrize("reader", OF_PICTURES)
def test_the_limit_on_pixels_is_lifted(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "PIXELS", 50)
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
        with formats.open_image(name, "a") as image:
            return image.convert("L").size

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(200))) == {(40, 40)}
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(InputError), formats.open_image(b"no picture", "b"):
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
    with pytest.warns(
        UserWarning, match="skipped 7 unreadable images, the first: .*000.png' is no"
    ):
        source = READERS["folder"](str(tmp_path))
    assert len(source.data) == 93
    assert "7 unreadable (000.png, 001.png" in source.summary.describe()
    write(tmp_path / "050.png", png(30_000, 40_000))
    refused("050.png.*large=True", READERS["folder"], str(tmp_path))


# -- the network


def test_pictures_of_scikit_image_come_from_its_folder(offline, monkeypatch):
    from skimage import data

    for name in images.BUNDLED:
        SOURCES["skimage"](Grid(size=16), (name,))
    same = [name for name in images.BUNDLED if name not in ("horse", "shepp_logan_phantom")]
    for name in same:
        image = Image.fromarray(getattr(data, name)())
        made = decode_image(image, Grid(size=16))
        read = SOURCES["skimage"](Grid(size=16), (name,)).data.tensor[0]
        np.testing.assert_array_equal(read, made, err_msg=name)
    for name in ("download_all", "binary_blobs", "data_dir", "__class__", "_fetchers", "file_hash"):
        refused("unknown image of scikit-image", SOURCES["skimage"], SMALL, (name,))
    refused("is empty", SOURCES["skimage"], SMALL, ())
    asked = []
    eagle = lambda: asked.append("eagle") or np.zeros((9, 9), np.uint8)
    monkeypatch.setattr(data, "eagle", eagle, raising=False)
    refused("would download 'eagle': network=True", SOURCES["skimage"], SMALL, ("eagle",))
    assert not asked
    assert SOURCES["skimage"](SMALL, ("eagle",), permit=NETWORK).data.shape == (1, 3, 8, 8)
    assert asked == ["eagle"]


RGB = Grid(size=16)


@pytest.fixture
def pictures(tmp_path):
    for i, suffix in enumerate(["png", "jpg", "webp", "bmp", "gif", "tiff"] * 2):
        Image.fromarray(np.roll(gradient(20 + i, 31 - i), i, 0)).save(
            tmp_path / f"{i:02d}.{suffix}"
        )
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_of_any_pictures(pictures):
    source = SOURCES["folder"](RGB, str(pictures), split=(0.75, 0.25))
    assert source.data.shape == (12, 3, 16, 16)
    assert source.data.tensor.dtype == torch.uint8
    assert (len(source.train), len(source.test)) == (9, 3)
    read = source.read(source.train).tensor
    assert read.dtype == torch.float32
    assert 0 <= read.min() <= read.max() <= 1
    assert source.facts()["classes"] == 0
    assert source.facts()["filter"] == "bicubic"


def test_sub_folders_are_classes(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(gradient()).save(tmp_path / name / f"{i}.png")
    source = SOURCES["folder"](RGB, str(tmp_path))
    assert source.names == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_packed_images_are_no_folder(tmp_path):
    pack(tmp_path / "a.npz")
    file = np.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **{f"train_{name}": file[name] for name in file})
    for name in ("a", "b"):
        path = str(tmp_path / f"{name}.npz")
        assert spec_of(path)["name"] == "packed"
        with pytest.raises(InputError, match='no folder of images: source={"name": "packed"}'):
            SOURCES["folder"](Grid(size=16), path)


def test_what_is_passed_over_in_a_packed_file_is_no_file(tmp_path):
    pack(tmp_path / "a.npz", 12)
    file = dict(np.load(tmp_path / "a.npz"))
    file["data"][file["offsets"][3] :][:8] = 0  # the signature of image 3
    np.savez(tmp_path / "a.npz", **file)
    with pytest.warns(UserWarning, match="skipped 1 unreadable images: image 3 of"):
        source = SOURCES["packed"](Grid(size=16), str(tmp_path / "a.npz"))
    assert len(source.data) == 11
    assert source.summary.describe().endswith("; 1 image passed over: 1 unreadable (image 3)")


def test_unreadable_pictures_are_named_and_skipped(pictures):
    (pictures / "broken.png").write_bytes(b"\x89PNG not really")
    with pytest.warns(UserWarning, match="skipped 1 unreadable images: .*broken.png"):
        source = SOURCES["folder"](RGB, str(pictures))
    assert len(source.data) == 12
    whole = (pictures / "00.png").read_bytes()
    for i in range(2):
        (pictures / f"truncated{i}.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="3 of 15 images cannot be read"):
        SOURCES["folder"](RGB, str(pictures))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        SOURCES["folder"](RGB, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no images"):
        SOURCES["folder"](RGB, str(tmp_path))
    np.save(tmp_path / "a.npy", np.zeros((3, 16, 16), np.uint8))
    with pytest.raises(InputError, match='source={"name": "array"}'):
        SOURCES["folder"](RGB, str(tmp_path / "a.npy"))


def test_one_picture_is_a_source(pictures):
    source = SOURCES["folder"](RGB, str(pictures / "00.png"))
    assert (len(source.train), len(source.test)) == (1, 0)


def test_packed_pictures(tmp_path):
    pack(tmp_path / "p.npz", kind=np.array(["a", "b", "a", "b", "c"]))
    source = SOURCES["packed"](
        RGB, str(tmp_path / "p.npz"), label="kind", split=(4, 1), shuffle=False
    )
    assert source.names == ("a", "b", "c")
    assert source.train.tolist() == [0, 1, 2, 3]
    expected = np.roll(gradient(16, 16), 3, 0).transpose(2, 0, 1)
    assert (source.data.tensor[3].numpy() == expected).all()
    with pytest.raises(InputError, match="has no array 'colour'; it has data, offsets, kind"):
        SOURCES["packed"](RGB, str(tmp_path / "p.npz"), label="colour")


def test_bundled_sets():
    digits = SOURCES["digits"](Grid(size=8, channels=1))
    assert digits.data.shape == (1797, 1, 8, 8)
    assert (len(digits.train), len(digits.test), len(digits.names)) == (1438, 359, 10)
    assert not set(digits.train.tolist()) & set(digits.test.tolist())
    pictures = SOURCES["skimage"](RGB, ("astronaut", "coffee"))
    assert pictures.data.shape == (2, 3, 16, 16)
    with pytest.raises(
        InputError, match="unknown image of scikit-image 'astronaught'; did you mean 'astronaut'"
    ):
        SOURCES["skimage"](RGB, ("astronaught",))


def test_packed_images_of_several_parts_are_named(tmp_path):
    pack(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as held:
        both = {f"{part}_{key}": held[key] for part in ("train", "test") for key in held}
    np.savez(tmp_path / "b.npz", **both)
    path = str(tmp_path / "b.npz")
    assert spec_of(path)["name"] == "packed"
    with pytest.raises(InputError, match=r"source.prefix = '': .* of 'train_', 'test_'"):
        read_packed(Grid(size=16), path)
    with pytest.raises(InputError, match="source.prefix = 'val_'"):
        read_packed(Grid(size=16), path, prefix="val_")
    found = read_packed(Grid(size=16), path, prefix="test_")
    assert torch.equal(
        found.data.tensor, read_packed(Grid(size=16), str(tmp_path / "a.npz")).data.tensor
    )
