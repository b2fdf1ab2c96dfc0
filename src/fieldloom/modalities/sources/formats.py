"""Opening image files safely: the formats that are read, their limit on pixels, their frames."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from fieldloom.errors import InputError, name_argument, shorten
from fieldloom.modalities.sources.files import PIXELS, Refused, check_size

FORMATS: dict[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PSD": (".psd",),
    "ICO": (".ico",),
    "ICNS": (".icns",),
    "CUR": (".cur",),
    "DDS": (".dds",),
    "QOI": (".qoi",),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    "MSP": (".msp",),
    "PIXAR": (".pxr",),
    "FLI": (".fli", ".flc"),
    "FTEX": (".ftc", ".ftu"),
    "BLP": (".blp",),
    "GBR": (".gbr",),
    "PCD": (".pcd",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),  # without a magic number: the last that is tried
}
"""The formats that are read, in the order in which they are tried -> the suffixes of their files.

Pillow decodes all of them itself, within the size that is checked here. Not among them are
EPS and PS, which run a program; WMF, EMF, GRIB, BUFR, HDF5 and MPEG, which need a handler of
someone else's; FITS, whose scale, offset and sign Pillow ignores, so that values would be wrong;
SPIDER, IMT, MCIDAS, IPTC and XV's thumbnails, whose files can hardly be told from others; IM, which
Pillow gives up; FPX and MIC, which need a further package.
"""
SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}

Encoded = Path | bytes | NDArray[np.uint8]
"""The file of an image, or its bytes."""

NEW_SUBFILE_TYPE, TILE_WIDTH, TILE_HEIGHT = 254, 322, 323
"""Tags of TIFF 6.0; bit 0 of the first marks a page as a smaller version of another."""
BITS_PER_SAMPLE, COMPRESSION, PLANES = 258, 259, 284
"""Tags of TIFF 6.0, the last one PlanarConfiguration: 2 where each colour has a plane."""
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"))
"""What stands after the first 4 bytes of a phone's HEIC, whatever its suffix."""

_guard = Lock()
_limits: list[int | None] = []
_kept = Image.MAX_IMAGE_PIXELS


@contextmanager
def _limit_pillow(limit: int | None) -> Iterator[None]:
    """A context with this limit of Pillow's, which belongs to the whole process.

    Pillow refuses more than twice of it. It holds for the images that are inside of others (ICO);
    of several such contexts at once the largest limit holds.
    """
    global _kept
    with _guard:
        if not _limits:
            _kept = Image.MAX_IMAGE_PIXELS
        _limits.append(limit)
        Image.MAX_IMAGE_PIXELS = None if None in _limits else limit
    try:
        yield
    finally:
        with _guard:
            _limits.remove(limit)
            Image.MAX_IMAGE_PIXELS = None if None in _limits else _limits[0] if _limits else _kept


@contextmanager
def open_image(file: Encoded, name: str, large: bool = False) -> Iterator[Image.Image]:
    """An open image of at most ``PIXELS`` unless ``large``; its pixels are not decoded yet.

    Of several frames it is the first, of a TIFF the first page that is no thumbnail, of an icon
    the largest.

    Raises InputError, which names ``name``, for files that are not images or are broken, also where
    that is noticed only in the with block; Refused before anything is allocated.
    """
    try:
        stream = file.open("rb") if isinstance(file, Path) else io.BytesIO(bytes(file))
        length = stream.seek(0, io.SEEK_END)
        limit = None if large else PIXELS
        with stream, _limit_pillow(limit), _identify(stream) as image:
            _skip_thumbnails(image)
            tags = getattr(image, "tag_v2", {})  # a TIFF is decoded by tiles of any size
            if tags.get(PLANES) == 2 and tags.get(COMPRESSION, 1) == 1:
                _check_planes(tags.get(BITS_PER_SAMPLE, (1,)))
            sizes = image.size, (tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0))
            width, height = max(sizes, key=math.prod)
            what = f"{name} ({length:,} bytes, {height} x {width})"
            check_size(what, height * width, "pixels", PIXELS, large)
            yield image
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Refused(
            f"{name} ({length:,} bytes) holds an image that is too large: {shorten(str(error))} "
            f"{name_argument('large', True)} reads it."
        ) from None
    except Exception as error:  # Pillow fails in many ways on a broken file
        raise InputError(f"{name} is no image that can be read: {shorten(str(error))}.") from None


def _identify(stream: Any) -> ImageFile.ImageFile:
    """The image in a stream, as ``Image.open`` finds it, but of any size.

    Raises ValueError where it is of no known format, or of a kind that Pillow does not read.
    """
    Image.init()
    stream.seek(0)
    head, reason = stream.read(16), "it is of no known format"
    if not head:
        raise ValueError("it is empty")
    if head[4:12] in HEIC:
        reason = "it is HEIC, which is not read: save it as JPEG or PNG"
    for kind in FORMATS:
        factory, accept = Image.OPEN.get(kind, (None, None))
        try:
            accepted: Any = factory is not None and (not accept or accept(head))
            if isinstance(accepted, str):  # known, and this Pillow was built without it
                reason = accepted
            elif accepted and factory is not None:
                stream.seek(0)
                return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            if kind == "TIFF":  # which has a magic number, and more kinds than Pillow reads
                reason = f"it is a TIFF of a kind that is not read ({error})"
    raise ValueError(reason)


def _check_planes(bits: tuple[int, ...]) -> None:
    """Raise ValueError for planes of colours of 16 bits, whose bytes Pillow takes for pixels."""
    if len(bits) > 1 and max(bits) > 8:
        raise ValueError("its colours are planes of 16 bits: save it with its channels last")


def _skip_thumbnails(image: Image.Image) -> None:
    """Go to a TIFF's first page that is not a smaller version of another, if there is one."""
    page, tags = 0, getattr(image, "tag_v2", None)
    while tags is not None and int(tags.get(NEW_SUBFILE_TYPE, 0)) & 1:
        try:
            image.seek(page := page + 1)
        except EOFError:
            image.seek(0)
            break


def count_frames(image: Image.Image) -> int:
    """The number of an image's frames or pages; the layers of a PSD are parts of one."""
    return 1 if image.format == "PSD" else getattr(image, "n_frames", 1)


def holds_more(image: Image.Image) -> bool:
    """Whether a file holds further frames, pages or sizes beside the open one."""
    if image.format in ("ICO", "ICNS"):
        return len(image.info["sizes"]) > 1
    if image.format == "PSD":
        return False
    try:
        if image.tell():  # thumbnails came before it
            return count_frames(image) > image.tell() + 1
        return bool(getattr(image, "is_animated", False))  # without looking at all of them
    except Exception:  # the next frame is broken: this one is not
        return False
