"""Small fonts for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.ttGlyphPen import TTGlyphPen

UNIT = 1000
"""Units of the em."""

Box = tuple[int, int, int, int]
"""left, bottom, right, top."""


def draw_boxes(pen: Any, boxes: Sequence[Box]) -> None:
    for left, bottom, right, top in boxes:
        pen.moveTo((left, bottom))
        for point in ((left, top), (right, top), (right, bottom)):
            pen.lineTo(point)
        pen.closePath()


def write_font(
    path: Path, drawings: Mapping[str, Any], name: str = "Boxes", cubic: bool = False
) -> Path:
    """A TrueType font, or one of cubic curves. drawings: of characters, a list of boxes each, or a
    function that draws with a pen."""
    glyphs = {".notdef": [], **{f"u{ord(c):04x}": drawn for c, drawn in drawings.items()}}
    build = FontBuilder(UNIT, isTTF=not cubic)
    build.setupGlyphOrder(list(glyphs))
    build.setupCharacterMap({ord(c): f"u{ord(c):04x}" for c in drawings})
    made = {}
    for key, drawn in glyphs.items():
        pen = T2CharStringPen(UNIT, None) if cubic else TTGlyphPen(None)
        drawn(pen) if callable(drawn) else draw_boxes(pen, drawn)
        made[key] = pen.getCharString() if cubic else pen.glyph()
    if cubic:
        build.setupCFF(name.replace(" ", ""), {}, made, {})
    else:
        build.setupGlyf(made)
    build.setupHorizontalMetrics(dict.fromkeys(glyphs, (UNIT, 0)))
    build.setupHorizontalHeader(ascent=800, descent=-200)
    build.setupNameTable({"familyName": name, "fullName": name, "styleName": "Regular"})
    build.setupOS2()
    build.setupPost()
    build.save(path)
    return path


BARS: Mapping[str, Sequence[Box]] = {
    c: [(100, 0, 200 + 80 * i, 700 - 60 * i)] for i, c in enumerate("abcdef")
}
"""A box for each of six characters, all of them different."""
