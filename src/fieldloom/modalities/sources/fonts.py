"""Fonts: which files are read, and the outlines that they have of characters.

TrueType and OpenType files and collections are read (.ttf, .otf, .ttc, .otc), of variable fonts the
default instance. Web fonts (.woff, .woff2) are not: they are packed, and have to be converted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fontTools.pens.basePen import BasePen
from numpy.typing import NDArray

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.geometry.outlines import Outline, join_contours
from fieldloom.modalities.sources.files import check_size

SUFFIXES = frozenset((".ttf", ".otf", ".ttc", ".otc"))
"""Files of fonts."""
BYTES = 1 << 28
"""The largest font file."""
PACKED = (b"wOFF", b"wOF2")
"""How files of web fonts begin."""
FACES = 1 << 10
"""The most fonts of a collection."""
STEPS = 1 << 16
"""The most curves and components of a glyph."""
MAPPED = 1 << 22
"""The most entries of a font's tables of characters: Unicode has 1,114,112 places."""
FAR = 100.0
"""How far from its origin a glyph's points may lie, in units of the em."""
OUTLINES = ("glyf", "CFF ", "CFF2")
"""Tables of outlines."""


Point = tuple[int | float, int | float]
Curve = tuple[Point, Point | None, Point | None, Point]
"""Start, controls and end; lines have no controls."""


class Font(NamedTuple):
    """A font. name: its full name. outlines: of those of the characters that it draws."""

    name: str
    outlines: Mapping[str, Outline]


def bundled_fonts() -> list[Path]:
    """The DejaVu fonts that come with matplotlib, found without importing it."""
    package = find_spec("matplotlib")
    places = [Path(place) for place in (package and package.submodule_search_locations) or ()]
    found = [f for place in places for f in place.glob("mpl-data/fonts/ttf/DejaVu*.ttf")]
    if not found:
        raise InputError("source.path: matplotlib's fonts are not there; name a font, or a folder.")
    return sorted(found)


def read_fonts(file: Path, characters: Sequence[str], large: bool = False) -> list[Font]:
    """The fonts of a file, with their outlines of these characters.

    Raises InputError for a file that cannot be read, or has no outlines.
    """
    from fontTools.ttLib import TTFont

    what = quote_path(file)
    try:
        size, head = file.stat().st_size, _head(file)
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror or error}.") from None
    check_size(what, size, "bytes", BYTES, large)
    if head[:4] in PACKED:  # a few bytes may unpack to gigabytes
        raise InputError(f"{what} is a web font, whatever its name says: unpack it first.")
    faces = min(int.from_bytes(head[8:12], "big"), FACES) if head[:4] == b"ttcf" else 1
    found = []
    try:
        with _quiet():
            for number in range(faces):
                with TTFont(file, fontNumber=number, lazy=True) as font:
                    found.append(_read_font(font, file, number, characters))
    except InputError:
        raise
    except Exception as error:  # fontTools fails in many ways on a broken font
        reason = shorten(f"{type(error).__name__}: {error}".rstrip(": "))
        raise InputError(f"{what} is no font that can be read: {reason}.") from None
    if not found:
        raise InputError(f"{what} is a collection without fonts.")
    return found


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(12)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without fontTools' messages, which are of tables that nothing here reads."""
    log = logging.getLogger("fontTools")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _read_font(font: Any, file: Path, number: int, characters: Sequence[str]) -> Font:
    if not any(table in font for table in OUTLINES):
        raise InputError(f"{quote_path(file)} has no outlines, but bitmaps or other pictures.")
    unit = font["head"].unitsPerEm
    if not 16 <= unit <= 1 << 14:
        raise InputError(
            f"{quote_path(file)}: {unit} units of its em, where 16 to 16,384 are right."
        )
    if _count_mapped(font.reader["cmap"]) > MAPPED:  # fontTools would list them all
        raise InputError(f"{quote_path(file)} maps more than {MAPPED:,} characters.")
    places, glyphs = font.getBestCmap() or {}, font.getGlyphSet()
    names = {c: places[ord(c)] for c in characters if ord(c) in places}
    # A font of last resort draws all characters alike.
    if len(names) > 1 and len(set(names.values())) == 1:
        names = {}
    drawn = {c: _trace(glyphs, name, unit, file) for c, name in names.items()}
    outlines = {c: outline for c, outline in drawn.items() if len(outline.pieces)}
    return Font(_name(font, file, number), outlines)


def _count_mapped(table: bytes) -> int:
    """The entries that ranges of a ``cmap`` table claim, of its formats 4, 12 and 13.

    Source: the OpenType specification 1.9.1, "cmap".
    """
    number = lambda at, size: int.from_bytes(table[at : at + size], "big")
    count = 0
    for start in {number(8 + 8 * i, 4) for i in range(number(2, 2))}:
        kind = number(start, 2)
        if kind == 4:
            size = number(start + 6, 2)
            ends = np.frombuffer(table[start + 14 : start + 14 + size], ">u2").astype(int)
            starts = np.frombuffer(table[start + 16 + size : start + 16 + 2 * size], ">u2")
        elif kind in (12, 13):
            groups = table[start + 16 : start + 16 + 12 * number(start + 12, 4)]
            starts, ends, _ = np.frombuffer(groups, ">u4").reshape(-1, 3).T.astype(int)
        else:
            continue
        count += int(np.maximum(ends - starts + 1, 0).sum())
    return count


def _name(font: Any, file: Path, number: int) -> str:
    try:
        found = font["name"].getDebugName(4) or font["name"].getBestFullName()
    except Exception:  # a broken table of names alone
        found = None
    return shorten(found or "", 60) or shorten(f"{file.stem} {number}" if number else file.stem, 60)


class Pen(BasePen):
    """Gathers the contours of a glyph: quadratic curves come as cubic ones, with implied points,
    and composite glyphs as their parts.

    Raises InputError for more than ``STEPS`` of curves and components.
    """

    def __init__(self, glyphs: Any, what: str) -> None:
        super().__init__(glyphs)
        self.what, self.steps = what, 0
        self.contours: list[list[Curve]] = []

    def _count(self) -> None:
        self.steps += 1
        if self.steps > STEPS:
            raise InputError(f"{self.what}: a glyph of more than {STEPS:,} curves.")

    def addComponent(self, glyphName: str, transformation: Any) -> None:
        self._count()
        super().addComponent(glyphName, transformation)

    def _moveTo(self, pt: Point) -> None:
        self.contours.append([])
        self.start = pt

    def _lineTo(self, pt: Point) -> None:
        self._curveToOne(None, None, pt)

    def _curveToOne(self, pt1: Point | None, pt2: Point | None, pt3: Point) -> None:
        self._count()
        self.contours[-1].append((self._getCurrentPoint(), pt1, pt2, pt3))

    def _closePath(self) -> None:
        if self._getCurrentPoint() != self.start:
            self._lineTo(self.start)

    def _endPath(self) -> None:
        self._closePath()


def _trace(glyphs: Any, name: str, unit: int, file: Path) -> Outline:
    """The outline of a glyph in units of the em."""
    pen = Pen(glyphs, quote_path(file))
    glyphs[name].draw(pen)
    return join_contours([_pieces(contour, unit, file) for contour in pen.contours])


def _pieces(contour: Sequence[Curve], unit: int, file: Path) -> NDArray[np.float64]:
    """Curves (start, control, control, end) as an array (n, 4, 2); lines have no controls."""
    ends = np.array([(one[0], one[3]) for one in contour], np.float64).reshape(-1, 2, 2)
    inner = np.array(
        [one[1:3] if one[1] is not None else (one[0], one[3]) for one in contour], np.float64
    ).reshape(-1, 2, 2)
    lines = np.array([one[1] is None for one in contour], bool)
    thirds = (ends[:, (0, 1)] * 2 + ends[:, (1, 0)]) / 3
    inner = np.where(lines[:, None, None], thirds, inner)
    found = np.concatenate([ends[:, :1], inner, ends[:, 1:]], 1) / unit
    if not (np.abs(found) <= FAR).all():  # NaN is not
        raise InputError(f"{quote_path(file)}: a glyph's points lie beyond {FAR:g} em.")
    return found
