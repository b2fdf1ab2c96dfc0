"""One image of any mode as 8-bit grey or RGB: upright, on white, cropped, resized."""

import io

import numpy as np
from PIL import Image

from fieldloom.modalities import Grid
from fieldloom.modalities.sources.decoding import decode_image
from media import gradient

RGB, GREY = Grid(size=16), Grid(size=16, channels=1)


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
