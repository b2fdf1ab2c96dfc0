"""The index of a large set of images: what was seen of each file, made once and kept in the cache.

For each image it holds a digest of its stamp (of a file: its path, size and time), one of its
content; its size as a file and as an image; and the facts of the survey. A later start looks again
only at images whose stamp has changed, and at those that could not be read. What was looked at is
kept, too, where the making of an index is interrupted, and processes that make the same one at the
same time take over what the others have seen. A damaged index is made again.

An image takes 74 bytes, in memory and in the file.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fieldloom import atomic
from fieldloom.errors import InputError, quote_path
from fieldloom.modalities.sources.cache import WHOLE, cache_folder, digest_stream
from fieldloom.modalities.sources.decoding import one_large_at_a_time, upright_size
from fieldloom.modalities.sources.files import Refused
from fieldloom.modalities.sources.formats import Encoded, open_image
from fieldloom.modalities.sources.numbers import DARK, Range, check_range
from fieldloom.modalities.sources.pixels import Pixels, Scales, scale_of
from fieldloom.modalities.sources.survey import describe_images, examine
from fieldloom.process import count_cores
from fieldloom.progress import BRIEF, Progress

KINDS = ("bool", "uint8", "uint16", "integer", "float", "colours", "words")
"""The kinds of pixels, by their numbers in a row."""
ROW = np.dtype(
    [
        ("key", "S16"),  # a digest of the image's stamp
        ("content", "S16"),  # a digest of its bytes
        ("low", "<f8"),  # its least and its largest number; NaN where it was not decoded
        ("high", "<f8"),
        ("bytes", "<i8"),
        ("height", "<i4"),  # upright
        ("width", "<i4"),
        ("top", "<i4"),  # the fields of ``Pixels``; -1: None
        ("kind", "u1"),
        ("stretched", "?"),
        ("unsigned", "?"),
        ("grey", "?"),
        ("more", "?"),
        ("readable", "?"),
    ]
)
FORMAT = "1"
"""The version of index files: it has to change where other facts are kept, or in another way."""

CHUNK = 512
"""Images that are looked at between two looks at the clock."""
SAVED, SHARE = 20.0, 20
"""Seconds between two writings of an index that is being made, and at least so many times as long
as a writing takes."""
SAMPLE = 1000
"""Images of 8 bits that are decoded, if all are dark, before the set is called dark."""

Rows = NDArray[Any]
"""Rows of an index: an array (n,) of ``ROW``."""


@dataclass(frozen=True)
class Index:
    """What was seen of the images of a set. rows: one an image; faults: of unreadable ones."""

    rows: Rows
    faults: Mapping[int, InputError]

    def scales(self, given: Range) -> Scales:
        """The scale of each kind of numbers. given: ``source.range``.

        Raises InputError for numbers without a certain range, or outside the given one.
        """
        rows, found = self._readable(), {}
        for pixels, own in group_by_pixels(rows).items():
            low, high = own["low"], own["high"]
            known = ~np.isnan(low)
            extent = (low[known].min(), high[known].max()) if known.any() else (0.0, 255.0)
            scale = scale_of(pixels, float(extent[0]), float(extent[1]), given)
            if not known.all() and extent[1] < DARK:
                scale = replace(scale, words=f"{scale.words} ({known.sum():,} looked at)")
            found[pixels] = scale
        return found

    def describe(self, scales: Scales, channels: int) -> dict[str, str]:
        """What is said of the set, as ``Survey.describe`` says it."""
        rows = self._readable()
        counts = len(rows), int(rows["grey"].sum()), int(rows["more"].sum())
        return describe_images(scales, *counts, channels)

    def sizes(self) -> set[tuple[int, int]]:
        """The sizes (height, width) that occur."""
        rows = self._readable()
        pairs = np.unique(rows["height"].astype(np.int64) << 32 | rows["width"])
        return {(int(x) >> 32, int(x) & 0xFFFFFFFF) for x in pairs}

    def contents(self) -> NDArray[np.uint8]:
        """The digest of each image's bytes: (n, 16)."""
        column = np.ascontiguousarray(self.rows["content"])
        return column.view(np.uint8).reshape(len(column), -1)

    def _readable(self) -> Rows:
        return self.rows[self.rows["readable"]]


def group_by_pixels(rows: Rows) -> dict[Pixels, Rows]:
    """The rows of each kind of pixels."""
    fields = ["kind", "top", "stretched", "unsigned"]
    kinds = np.unique(rows[fields])
    same = lambda one: np.logical_and.reduce([rows[name] == one[name] for name in fields])
    return {pixels_of_row(one): rows[same(one)] for one in kinds}


def pixels_of_row(row: Any) -> Pixels:
    """The kind of pixels that a row tells of."""
    top = int(row["top"])
    kind: Any = KINDS[int(row["kind"])]
    return Pixels(kind, None if top < 0 else top, bool(row["stretched"]), bool(row["unsigned"]))


def index_images(
    names: Sequence[str],
    read: Callable[[int], Encoded],
    large: bool,
    given: Range = None,
    stamps: Sequence[str] | None = None,
    place: str = "",
) -> Index:
    """The index of a set: that of the cache, brought up to date, or a new one.

    names, read, large, given, stamps, place: as ``load_images`` has them. Without stamps and a
    place the index is made anew, and not kept.

    Headers are read, and images of deep numbers are decoded; so are those whose file seems to end
    too early, those of a given range, and those of 8 bits until one is not dark: all of a set of
    zeros and ones, or else at most ``SAMPLE``. Raises Refused where an image is too large.
    """
    check_range(given)
    rows = np.zeros(len(names), ROW)
    path = path_of_index(place) if stamps is not None and place else None
    if stamps is not None:
        rows["key"] = np.fromiter(map(digest, stamps), "S16", len(names))
        if len(np.unique(rows["key"])) < len(names):  # stamps of several files are the same
            told = map("\0".join, zip(names, stamps, strict=True))
            rows["key"] = np.fromiter(map(digest, told), "S16", len(names))
    making = Making(rows, np.zeros(len(names), bool), path)
    making.take_over()
    failed = making.held & ~rows["readable"]
    left = ~making.held | failed | needs_numbers(rows, given)
    faults: dict[int, InputError] = {}

    def look(number: int) -> None:
        row, name = rows[number : number + 1], names[number]
        with collected(faults, number):
            fill_row(row, read(number), name, large, given, bool(failed[number]))

    def measure(number: int) -> None:
        rows["readable"][number] = False
        with collected(faults, number):
            low, high = extent_of(read(number), names[number], large)
            rows["low"][number], rows["high"][number] = low, high
            rows["readable"][number] = True

    making.look_at(left, look)
    for part in dark_ones(rows):
        making.look_at(part, measure)
    making.write()
    return Index(rows, dict(sorted(faults.items())))


@contextmanager
def collected(faults: dict[int, InputError], number: int) -> Iterator[None]:
    """A context in which what is wrong with an image is kept, but for what is refused."""
    try:
        yield
    except Refused:
        raise
    except InputError as error:
        faults[number] = error


@dataclass
class Making:
    """An index that is being made. rows: (n,); held: which of them are filled; path: its file."""

    rows: Rows
    held: NDArray[np.bool_]
    path: Path | None
    changed: bool = False

    def take_over(self) -> NDArray[np.bool_]:
        """Fill the rows that the index in the cache has by their keys. Returns which."""
        kept, own = None if self.path is None else read_index(self.path), self.rows["key"]
        if kept is None or not len(kept):
            return np.zeros(len(own), bool)
        place = np.arange(len(own))
        if not np.array_equal(kept["key"], own):
            order = np.argsort(kept["key"])
            near = np.searchsorted(kept["key"], own, sorter=order)
            place = order[near.clip(max=len(kept) - 1)]
        found = (kept["key"][place] == own) & ~self.held
        self.rows[found] = kept[place[found]]
        self.held |= found
        return found

    def look_at(self, left: NDArray[np.bool_], look: Callable[[int], None]) -> None:
        """Look at the images of a mask (n,), in parallel.

        The index is written from time to time. Each process begins elsewhere, and leaves out what
        another one has written meanwhile.
        """
        todo, next_time = np.flatnonzero(left), time.monotonic() + SAVED
        if not len(todo):
            return
        if self.path is not None:
            todo = np.roll(todo, -(os.getpid() * CHUNK % len(todo)))
        self.changed = True
        with (
            Progress("looking at images", len(todo), unit="images", least=BRIEF) as progress,
            ThreadPoolExecutor(count_cores()) as pool,
        ):
            try:
                for first in range(0, len(todo), CHUNK):
                    chunk = [i for i in todo[first : first + CHUNK].tolist() if left[i]]
                    for done, (i, _) in enumerate(zip(chunk, pool.map(look, chunk), strict=True)):
                        left[i], self.held[i] = False, True
                        progress.update(first + done)
                    progress.update(min(first + CHUNK, len(todo)))
                    began = time.monotonic()
                    if began > next_time:
                        left &= ~(self.take_over() & self.rows["readable"])
                        self.write()
                        self.changed, ended = True, time.monotonic()
                        next_time = ended + max(SAVED, SHARE * (ended - began))
            except BaseException:  # what was looked at is kept
                pool.shutdown(cancel_futures=True)
                self.write()
                raise

    def write(self) -> None:
        """Write what is held, where it is new."""
        if self.path is not None and self.changed:
            write_index(self.path, self.rows[self.held])
        self.changed = False


def digest(text: str) -> bytes:
    """A digest of 16 bytes."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def needs_numbers(rows: Rows, given: Range) -> NDArray[np.bool_]:
    """Whether images have to be decoded for a given range, and have not been."""
    kinds = np.isin(rows["kind"], [KINDS.index("uint8"), KINDS.index("colours")])
    return kinds & np.isnan(rows["low"]) & (given is not None)


def fill_row(
    row: Rows, file: Encoded, name: str, large: bool, given: Range, decode: bool = False
) -> None:
    """Look at one image, and fill its row (1,). decode: all of it, since it could not be read.

    Raises InputError where it cannot be read.
    """
    row["readable"] = False
    file, content, size, cut = open_content(file)
    row["content"], row["bytes"] = content, size
    with open_image(file, name, large) as image, one_large_at_a_time(image):
        height, width = shown_size(image)
        facts = examine(image, given, {Pixels("uint8")})
        if decode or cut:
            image.load()
    unknown = given is None and facts.pixels.kind in ("uint8", "colours")
    row["low"] = np.nan if unknown else facts.low
    row["high"] = np.nan if unknown else facts.high
    row["height"], row["width"] = height, width
    kind, top, row["stretched"], row["unsigned"] = facts.pixels
    row["kind"], row["top"] = KINDS.index(kind), -1 if top is None else top
    row["grey"], row["more"], row["readable"] = facts.grey, facts.more, True


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(height, width), upright, as far as it is known before the pixels are decoded."""
    late = image.format == "PNG" and not image.info.keys() & {"exif", "Raw profile type exif"}
    return (image.height, image.width) if late else upright_size(image)


def open_content(file: Encoded) -> tuple[Encoded, bytes, int, bool]:
    """An image's file, or its bytes where it is small; a digest of them, their number, and whether
    they seem to end too early."""
    try:
        stream = file.open("rb") if isinstance(file, Path) else io.BytesIO(bytes(file))
        with stream:
            size = stream.seek(0, os.SEEK_END)
            seen = bytes.fromhex(digest_stream(stream, size))
            stream.seek(0)
            whole = stream.read() if size <= WHOLE else stream.read(16)
            stream.seek(max(0, size - TAIL))
            cut = ends_early(whole[:16], stream.read(TAIL), size)
    except OSError:  # whatever opens it says so
        return file, b"", 0, False
    return whole if size <= WHOLE else file, seen, size, cut


TAIL = 4096
"""Bytes at the end of a file in which its format's last mark is looked for."""


def ends_early(head: bytes, tail: bytes, size: int) -> bool:
    """Whether the end of a JPEG, PNG, WebP or GIF is missing, or lies further from the file's end.

    Of what was cut off while it was copied the header is whole.
    """
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if head.startswith(b"GIF8"):
        return not tail.endswith(b";")
    riff = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return riff and int.from_bytes(head[4:8], "little") + 8 > size


def extent_of(file: Encoded, name: str, large: bool) -> tuple[float, float]:
    """The least and the largest number of an image of 8 bits, which is decoded."""
    with open_image(file, name, large) as image, one_large_at_a_time(image):
        facts = examine(image, None, set())
    return facts.low, facts.high


def dark_ones(rows: Rows) -> Iterator[NDArray[np.bool_]]:
    """Masks of images that have to be decoded, a few at a time, to know how dark a set is.

    Those of 8 bits, until one is not dark; where one has a number beyond 1, so that the scale is
    certain, at most ``SAMPLE``.
    """
    size = 1
    while True:
        own = rows["readable"] & (rows["kind"] == KINDS.index("uint8"))
        left = np.flatnonzero(own & np.isnan(rows["high"]))
        known = rows["high"][own & ~np.isnan(rows["high"])]
        largest = known.max(initial=0.0)
        if not len(left) or largest >= DARK or (largest > 1 and len(known) >= SAMPLE):
            return
        mask = np.zeros(len(rows), bool)
        mask[left[:size]] = True
        yield mask
        size = min(2 * size, SAMPLE)


def path_of_index(place: str) -> Path:
    """The file of the index of a place."""
    return cache_folder() / f"index-{digest(place).hex()}.safetensors"


def read_index(path: Path) -> Rows | None:
    """The rows of an index; None where there is none, or it is damaged."""
    try:
        with safe_open(path, "np") as held:
            told, content = held.metadata() or {}, held.get_tensor("rows")
    except (OSError, SafetensorError):
        return None
    right = content.dtype == np.uint8 and content.shape[1:] == (ROW.itemsize,)
    if not right or told.get("format") != FORMAT or told.get("digest") != digest_rows(content):
        return None
    return content.reshape(-1).view(ROW)


def write_index(path: Path, rows: Rows) -> None:
    """Write rows as an index, atomically; a warning says where it cannot be kept."""
    content = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), ROW.itemsize)
    told = {"format": FORMAT, "digest": digest_rows(content)}
    try:
        atomic.remove_partial(path.parent)
        atomic.write_bytes(save({"rows": content}, told), path)
    except OSError as error:
        warnings.warn(
            f"the cache {quote_path(path.parent)} cannot be written ({error.strerror or error}): "
            "the next start looks at all images again; set FIELDLOOM_CACHE to another folder.",
            stacklevel=2,
        )


def digest_rows(content: NDArray[np.uint8]) -> str:
    """A digest of the bytes of rows."""
    return hashlib.blake2b(np.ascontiguousarray(content).data, digest_size=16).hexdigest()
