"""Own data: pictures of any size and mode, arrays, packed files, bundled sets, Hugging Face."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fieldloom import recipe
from fieldloom.errors import InputError
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources import SOURCES, divide, spec_of
from fieldloom.modalities.sources.images import decode_image
from fieldloom.registry import build
from shared import shared

RGB, GREY = Grid(size=16), Grid(size=16, channels=1)


def gradient(width=24, height=20) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def test_every_mode_of_picture():
    """RGB, grey, RGBA, LA, palette, CMYK, 1, 16, 32 bit, float: the same picture comes back."""
    rgb = Image.fromarray(gradient())
    grey = np.asarray(rgb.convert("L"))
    reference = decode_image(rgb, RGB)
    assert reference.shape == (3, 16, 16)
    adaptive = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    for image in (adaptive, *(rgb.convert(mode) for mode in ("RGBA", "CMYK", "YCbCr"))):
        close = decode_image(image, RGB).astype(int) - reference
        assert np.abs(close).mean() < 8, image.mode
    flat = decode_image(Image.fromarray(grey), GREY)
    assert flat.shape == (1, 16, 16)
    deep = [
        Image.fromarray(grey.astype(np.uint16) * 257),
        Image.fromarray(grey.astype(np.int32) * 257),
        Image.fromarray(grey.astype(np.float32) / 255),
        Image.fromarray(grey).convert("LA"),
    ]
    for image in deep:
        close = decode_image(image, GREY).astype(int) - flat
        assert np.abs(close).max() <= 1, image.mode
    assert decode_image(Image.fromarray(grey), RGB).shape == (3, 16, 16)
    assert decode_image(rgb.convert("1"), GREY).shape == (1, 16, 16)


def test_transparency_is_seen_on_white():
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (decode_image(clear, RGB) == 255).all()
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([255, 0, 0])
    palette.info["transparency"] = 0
    assert (decode_image(palette, RGB) == 255).all()


def test_exif_turns_and_the_centre_is_kept():
    array = np.zeros((16, 32, 3), np.uint8)
    array[:, 8:24] = 200  # the centre square of a wide picture
    assert (decode_image(Image.fromarray(array), RGB) == 200).all()
    array = np.zeros((16, 16, 3), np.uint8)
    array[:8] = 255  # bright above
    image = Image.fromarray(array)
    image.getexif()[0x0112] = 6  # turn clockwise by a quarter: bright on the right
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=image.getexif())
    turned = decode_image(Image.open(buffer), RGB)
    assert turned[0, :, 12:].mean() > 250
    assert turned[0, :, :4].mean() < 5


def test_resizing_does_not_alias():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert (
        np.abs(decode_image(Image.fromarray(stripes), RGB).astype(int) - 127)[:, :, 1:-1].max() <= 2
    )


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
    with pytest.raises(InputError, match=r"source\.name=array"):
        SOURCES["folder"](RGB, str(tmp_path / "a.npy"))


def test_one_picture_is_a_source(pictures):
    source = SOURCES["folder"](RGB, str(pictures / "00.png"))
    assert (len(source.train), len(source.test)) == (1, 0)


def pack(path, count=5, **more):
    blobs = []
    for i in range(count):
        buffer = io.BytesIO()
        Image.fromarray(np.roll(gradient(16, 16), i, 0)).save(buffer, "PNG")
        blobs.append(buffer.getvalue())
    offsets = np.cumsum([0] + [len(b) for b in blobs])
    data = np.frombuffer(b"".join(blobs), np.uint8)
    np.savez(path, data=data, offsets=offsets, **more)


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
    with pytest.raises(InputError, match=r"must lie in \[0, 1\]"):
        SOURCES["array"](RGB, str(tmp_path / "large.npy"))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(InputError, match="has the arrays a, b; name one"):
        SOURCES["array"](RGB, str(tmp_path / "two.npz"))


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


def test_hugging_face_from_a_folder(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    images = [Image.fromarray(np.roll(gradient(16, 16), i, 0)) for i in range(6)]
    table = datasets.Dataset.from_dict(
        {"image": images, "kind": [0, 1, 0, 1, 0, 1]},
        features=datasets.Features({"image": datasets.Image(), "kind": datasets.Value("int64")}),
    )
    table.save_to_disk(str(tmp_path / "set"))
    source = SOURCES["huggingface"](
        RGB, str(tmp_path / "set"), label="kind", split=(4, 2), shuffle=False
    )
    assert source.data.shape == (6, 3, 16, 16)
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert (
        source.data.tensor[2].numpy() == np.roll(gradient(16, 16), 2, 0).transpose(2, 0, 1)
    ).all()
    with pytest.raises(InputError, match="no column 'picture'"):
        SOURCES["huggingface"](RGB, str(tmp_path / "set"), key="picture")


def test_labels_that_are_pictures_are_not_decoded(tmp_path):
    """Decoding them could fetch an address, or open a file of any kind."""
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    rows = {"image": [Image.new("RGB", (8, 8))], "label": [Image.new("RGB", (8, 8))]}
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(InputError, match="must hold integers or texts"):
        SOURCES["huggingface"](RGB, str(tmp_path / "set"), label="label", split=(1.0, 0.0))


def test_splits():
    train, test = divide(10, (0.8, 0.2), shuffle=True)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(10))
    assert torch.equal(train, divide(10, (0.8, 0.2), shuffle=True)[0])
    assert divide(10, (7, 2), shuffle=False)[1].tolist() == [8, 9]  # a validation part between
    assert divide(10, (0.7, 0.2), shuffle=False)[1].tolist() == [7, 8]
    whole = divide(10, (10, 0), shuffle=False)
    assert [len(part) for part in whole] == [10, 0]
    assert len(divide(10, (1.0, 0.0), shuffle=False)[0]) == 10
    for split in [(0.0, 1.0), (8, 3), (11, 0)]:
        with pytest.raises(InputError, match="does not fit 10 signals"):
            divide(10, split, shuffle=False)


def test_what_a_path_holds(tmp_path):
    pack(tmp_path / "p.npz")
    np.save(tmp_path / "a.npy", np.zeros((2, 16, 16), np.uint8))
    assert spec_of(str(tmp_path))["name"] == "folder"
    assert spec_of(str(tmp_path / "p.npz"))["name"] == "packed"
    assert spec_of(str(tmp_path / "a.npy"))["name"] == "array"


@pytest.mark.parametrize("name", ["faces64", "portraits256"])
def test_the_packed_files_of_the_shared_folder(name):
    source = SOURCES["packed"](Grid(size=64), str(shared("data", f"{name}.npz")), limit=20)
    assert source.data.shape == (20, 3, 64, 64)
    assert source.data.tensor.float().std() > 20


def test_the_old_option_of_bundled_images_is_read():
    with pytest.warns(UserWarning, match="`source.pictures` is now `source.images`"):
        found = recipe.resolve({"source": {"name": "skimage", "pictures": ["cat"]}})
    source = build("source", found["source"], {"source": SOURCES}, modality=RGB)
    assert source.data.shape == (1, 3, 16, 16)
