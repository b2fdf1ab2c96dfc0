"""Pictures of any size and mode: folders, packed files, bundled ones.

They are centre-cropped and resized, with an antialiasing filter, to what the modality asks for.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fieldloom.errors import InputError, quote_path, shorten, unknown
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.files import (
    PIXELS,
    Refused,
    check_size,
    check_skipped,
    ends_of,
    existing,
    existing_file,
    labels_of,
    member,
    read_npz,
)
from fieldloom.modalities.sources.source import Filter, Limit, Source, Split, source_of
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import track

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM",
           "AVIF", "JPEG2000", "QOI", "PCX", "SGI", "TGA")  # fmt: skip
"""What Pillow may take a file for: formats that it decodes itself, with their size in the header.
Others run programs (EPS), or hold pictures of another size than they tell (ICO)."""
ORIENTATION = 0x0112
"""EXIF's tag for how a picture is turned."""
TILE_WIDTH, TILE_HEIGHT = 322, 323
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientations -> what sets a picture upright; from 5 on height and width swap."""
ALONE = 1 << 24
"""Pixels from which pictures are decoded one at a time, however many threads there are."""

Encoded = Path | bytes | NDArray[np.uint8]
"""A picture's file, or its bytes."""

_guard, _alone = Lock(), Lock()
_open, _kept = 0, Image.MAX_IMAGE_PIXELS


@contextmanager
def _pillows_limit_aside() -> Iterator[None]:
    """Pillow's limit on pixels, one for the process, is set aside while any picture is open."""
    global _open, _kept
    with _guard:
        if not _open:
            _kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _open += 1
    try:
        yield
    finally:
        with _guard:
            _open -= 1
            if not _open:
                Image.MAX_IMAGE_PIXELS = _kept


@contextmanager
def opened(file: Encoded, name: str, large: bool = False) -> Iterator[Image.Image]:
    """A picture of at most ``PIXELS``, if not ``large``, whose pixels are not decoded yet.

    Raises InputError, which names ``name``, for what is no picture or is broken, also where that
    is seen only in the with block; Refused before anything is allocated.
    """
    Image.init()
    formats = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        stream = file.open("rb") if isinstance(file, Path) else io.BytesIO(bytes(file))
        with stream, _pillows_limit_aside(), Image.open(stream, formats=formats) as image:
            tags = getattr(image, "tag_v2", {})  # a TIFF is decoded by tiles of any size
            sizes = image.size, (tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0))
            width, height = max(sizes, key=math.prod)
            length = stream.seek(0, io.SEEK_END)
            what = f"{name} ({length:,} bytes, {height} x {width})"
            check_size(what, height * width, "pixels", PIXELS, large)
            yield image
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow fails in many ways on a broken file
        unidentified = isinstance(error, UnidentifiedImageError)
        said = "it is of no known format" if unidentified else shorten(str(error))
        raise InputError(f"{name} is no picture that can be read: {said}.") from None


def in_turn(image: Image.Image) -> AbstractContextManager[object]:
    """Where threads decode pictures: large ones hold memory one at a time."""
    return _alone if image.width * image.height > ALONE else nullcontext()


def picture(
    image: Image.Image,
    modality: Grid,
    filter: Filter = "bicubic",
    size: tuple[int, ...] | None = None,
) -> NDArray[np.uint8]:
    """Any picture -> uint8 (channel, height, width): turned by EXIF, on white, cropped, resized.

    size: None takes the modality's.
    """
    height, width = size or modality.size
    array = np.asarray(fitted(plain(image, modality.channels), (height, width), filter))
    return array[None] if modality.channels == 1 else array.transpose(2, 0, 1)


def plain(image: Image.Image, channels: int) -> Image.Image:
    """Any picture as 8-bit grey (1 channel) or RGB (3): turned by EXIF, on white."""
    image.load()  # TIFF turns itself
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey, 32-bit integers, floats
        raw = np.asarray(image, np.float64)
        top = 65535 if image.mode.startswith("I") else (1 if raw.max(initial=0) <= 1 else 255)
        image = Image.fromarray(np.clip(np.rint(raw / top * 255), 0, 255).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def seen_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of a picture as it is to be seen."""
    swapped = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    return image.size if swapped else (image.height, image.width)


def fitted(image: Image.Image, size: tuple[int, int], filter: Filter) -> Image.Image:
    """A picture of (height, width) = ``size``: centre-cropped and resized where it has another."""
    wanted = (size[1], size[0])
    if image.size == wanted:
        return image
    return ImageOps.fit(image, wanted, Image.Resampling[filter.upper()])


def check_pictures(modality: Grid) -> None:
    if len(modality.size) != 2 or modality.channels not in (1, 3):
        raise InputError(
            "this source reads pictures: the modality needs two axes and 1 or 3 channels."
        )


def pictures_of(
    names: Sequence[str],
    read: Callable[[int], Encoded],
    modality: Grid,
    filter: Filter,
    large: bool,
) -> tuple[Tensor, list[int]]:
    """Pictures opened in parallel: uint8 (n, channel, height, width), and the indices of those
    read.

    names: of each, for messages; read: its file, or its bytes, by its place.
    Unreadable ones are named in one warning, and skipped. Raises InputError where they are too
    many, or one is too large.
    """
    check_pictures(modality)

    def one(place: int) -> NDArray[np.uint8] | InputError:
        try:
            with opened(read(place), names[place], large) as image, in_turn(image):
                return picture(image, modality, filter)
        except Refused:
            raise
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool:
        tried = pool.map(one, range(len(names)))
        found = list(track(tried, "reading pictures", len(names), "pictures"))
    check_skipped(
        names, {i: x for i, x in enumerate(found) if isinstance(x, InputError)}, "pictures"
    )
    good = {i: x for i, x in enumerate(found) if not isinstance(x, InputError)}
    return torch.from_numpy(np.stack(list(good.values()))), list(good)


def read_folder(
    modality: Grid,
    path: str,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
    permit: Permit = NOTHING,
) -> Source:
    """A folder of pictures, or one picture; sub-folders are classes if all pictures lie in one."""
    root = existing(path)
    if root.suffix in (".npz", ".npy") and root.is_file():
        kind = "packed" if "offsets" in read_npz(root) else "array"
        raise InputError(
            f"source.path = {quote_path(path)} is no folder of pictures: --set source.name={kind}."
        )
    files = (
        [root]
        if root.is_file()
        else sorted(f for f in root.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    )[:limit]
    if not files:
        raise InputError(
            f"source.path = {quote_path(path)} holds no pictures ({', '.join(sorted(SUFFIXES))})."
        )
    names = [quote_path(file) for file in files]
    data, good = pictures_of(names, files.__getitem__, modality, filter, permit.large)
    if len(data) == 1:
        split = (1.0, 0.0)
    classes = [
        files[i].relative_to(root).parts[:-1] for i in good
    ]  # its sub-folders, outermost first
    labels = [c[0] for c in classes] if all(classes) and len({c[0] for c in classes}) > 1 else None
    return source_of(data, labels, split, shuffle, filter=filter)


def read_packed(
    modality: Grid,
    path: str,
    prefix: str = "",
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    filter: Filter = "bicubic",
    permit: Permit = NOTHING,
) -> Source:
    """Encoded pictures back to back in an ``.npz``: ``data`` (bytes) and ``offsets`` (n + 1).

    prefix: of the two arrays' names (``train_``); label: the array of labels, one a picture.
    """
    file = read_npz(existing_file(path))
    data = member(file, f"{prefix}data", "bytes", axes=(1,), large=permit.large)
    ends = ends_of(file, f"{prefix}offsets", len(data), "bytes")
    labels = None if label is None else labels_of(file, label, len(ends) - 1, "pictures")
    count = min(len(ends) - 1, limit or len(ends))
    if not count:
        raise InputError(f"{quote_path(path)} holds no pictures: its offsets are one more.")
    names = [f"picture {i} of {quote_path(path)}" for i in range(count)]
    part = lambda i: data[ends[i] : ends[i + 1]]
    pictures, good = pictures_of(names, part, modality, filter, permit.large)
    chosen = None if labels is None else [labels[i] for i in good]
    return source_of(pictures, chosen, split, shuffle, filter=filter)


BUNDLED = {
    "astronaut": "astronaut.png", "brick": "brick.png", "camera": "camera.png",
    "cat": "chelsea.png", "cell": "cell.png", "checkerboard": "chessboard_GRAY.png",
    "chelsea": "chelsea.png", "clock": "clock_motion.png", "coffee": "coffee.png",
    "coins": "coins.png", "colorwheel": "color.png", "grass": "grass.png", "gravel": "gravel.png",
    "horse": "horse.png", "hubble_deep_field": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png", "logo": "logo.png", "microaneurysms": "microaneurysms.png",
    "moon": "moon.png", "page": "page.png", "retina": "retina.jpg", "rocket": "rocket.jpg",
    "shepp_logan_phantom": "phantom.png", "text": "text.png",
}  # fmt: skip
"""scikit-image's name of a picture -> its file, which lies in the installed package."""
FETCHED = ("eagle", "human_mitosis", "skin")
"""Pictures that scikit-image downloads."""


def read_bundled(
    modality: Grid,
    pictures: tuple[str, ...] = ("astronaut", "chelsea", "coffee", "rocket"),
    split: Split = (1.0, 0.0),
    filter: Filter = "bicubic",
    permit: Permit = NOTHING,
) -> Source:
    """Pictures that come with scikit-image, by their names there.

    ``eagle``, ``human_mitosis`` and ``skin`` are fetched by it, which the user must allow.
    """
    if not pictures:
        raise InputError("source.pictures is empty: name at least one of scikit-image's.")
    files = [_bundle(name, permit) for name in pictures]
    data, _ = pictures_of(pictures, files.__getitem__, modality, filter, permit.large)
    return source_of(data, None, split, shuffle=False, filter=filter)


def _bundle(name: str, permit: Permit) -> Encoded:
    from skimage import data as bundle

    if name in BUNDLED:
        return Path(bundle.__file__).parent / BUNDLED[name]
    if name not in FETCHED:
        raise unknown("picture of scikit-image", name, [*BUNDLED, *FETCHED])
    if not permit.network:
        raise InputError(
            f"source.pictures: scikit-image would fetch '{name}': --network (in Python "
            "network=True) allows it."
        )
    try:
        fetched = Image.fromarray(getattr(bundle, name)())
    except Exception as error:  # the network fails in many ways
        raise InputError(
            f"source.pictures: '{name}' cannot be fetched: {shorten(str(error))}."
        ) from None
    content = io.BytesIO()
    fetched.save(content, "PNG")
    return content.getvalue()
