"""Reading fonts: outlines of all kinds, and files that are broken or hostile."""

import struct

import numpy as np
import pytest
from fontTools.ttLib import TTCollection, TTFont

from fieldloom.errors import InputError
from fieldloom.geometry.coverage import resolve
from fieldloom.geometry.outlines import area
from fieldloom.modalities.sources import fonts
from fieldloom.modalities.sources.fonts import bundled_fonts, read_fonts
from fonts_by_hand import BARS, UNIT, write_font


def covered(pieces) -> float:
    return -area(resolve(pieces, np.zeros(len(pieces), int))[0])


def arch(pen):
    """A closed contour of quadratic curves without a point on it: 4 arcs of a round box."""
    pen.qCurveTo((0, 0), (0, 800), (800, 800), (800, 0), None)
    pen.closePath()


def test_lines_and_curves_of_truetype(tmp_path):
    path = write_font(tmp_path / "a.ttf", {"a": BARS["a"], "o": arch})
    (font,) = read_fonts(path, "abo")
    assert font.name == "Boxes"
    assert set(font.outlines) == {"a", "o"}
    assert covered(font.outlines["a"].pieces) == pytest.approx(0.1 * 0.7)
    # Each arc cuts a third of a triangle off its corner: 4 (400 x 400 / 2) / 3.
    assert covered(font.outlines["o"].pieces) == pytest.approx(0.64 - 4 * 0.08 / 3)


def test_cubic_curves_are_those_of_quadratic_ones(tmp_path):
    def curve(pen):
        pen.moveTo((0, 0))
        pen.curveTo((0, 400), (200, 600), (600, 600))
        pen.curveTo((600, 400), (400, 0), (0, 0))
        pen.closePath()

    path = write_font(tmp_path / "a.otf", {"a": BARS["a"], "s": curve}, cubic=True)
    (font,) = read_fonts(path, "as")
    assert covered(font.outlines["a"].pieces) == pytest.approx(0.07)
    expected = [[0, 0], [0, 0.4], [0.2, 0.6], [0.6, 0.6]]
    np.testing.assert_allclose(font.outlines["s"].pieces[0], expected)


def composite(path, parts):
    """A font whose glyph of ``b`` is composed of glyphs: (name, x) each."""
    from fontTools.ttLib.tables._g_l_y_f import Glyph, GlyphComponent

    write_font(path, {"a": BARS["a"], "b": BARS["b"]})
    with TTFont(path) as font:
        glyph = Glyph()
        glyph.numberOfContours, glyph.components = -1, []
        for name, x in parts:
            part = GlyphComponent()
            part.glyphName, part.x, part.y, part.flags = name, x, 0, 0x0002
            glyph.components.append(part)
        font["glyf"].glyphs["u0062"] = glyph
        font["maxp"].recalc = lambda font: None
        font.recalcBBoxes = False
        glyph.xMin = glyph.yMin = glyph.xMax = glyph.yMax = 0
        font.save(path.with_suffix(".2.ttf"))
    return path.with_suffix(".2.ttf")


def test_composite_glyphs_are_resolved(tmp_path):
    path = composite(tmp_path / "a.ttf", [("u0061", 0), ("u0061", 50), ("u0061", 300)])
    (font,) = read_fonts(path, "b")
    assert len(font.outlines["b"].pieces) == 12
    assert covered(font.outlines["b"].pieces) == pytest.approx((0.15 + 0.1) * 0.7)  # two overlap


def test_a_composite_of_itself_is_refused(tmp_path):
    path = composite(tmp_path / "a.ttf", [("u0062", 0), ("u0062", 0)])
    with pytest.raises(InputError, match=r"a\.2\.ttf"):
        read_fonts(path, "b")


def test_collections_have_several_fonts(tmp_path):
    files = [write_font(tmp_path / f"{i}.ttf", BARS, name=f"Font {i}") for i in range(3)]
    collection = TTCollection()
    collection.fonts = [TTFont(file) for file in files]
    collection.save(tmp_path / "all.ttc")
    assert [f.name for f in read_fonts(tmp_path / "all.ttc", "a")] == ["Font 0", "Font 1", "Font 2"]


def changed(tmp_path, change):
    path = write_font(tmp_path / "a.ttf", BARS)
    with TTFont(path) as font:
        change(font)
        font.save(tmp_path / "b.ttf")
    return tmp_path / "b.ttf"


def test_a_font_of_bitmaps_is_named(tmp_path):
    def drop(font):
        del font["glyf"], font["loca"]

    with pytest.raises(InputError, match="has no outlines, but bitmaps"):
        read_fonts(changed(tmp_path, drop), "a")


@pytest.mark.parametrize("unit", [0, 1, 20000])
def test_units_out_of_range(tmp_path, unit):
    def change(font):
        font["head"].unitsPerEm = unit

    with pytest.raises(InputError, match=f"{unit} units of its em"):
        read_fonts(changed(tmp_path, change), "a")


def test_a_font_of_last_resort_draws_nothing(tmp_path):
    def change(font):
        for table in font["cmap"].tables:
            table.cmap = dict.fromkeys(table.cmap, "u0061")

    path = changed(tmp_path, change)
    assert not read_fonts(path, "abc")[0].outlines
    assert set(read_fonts(path, "c")[0].outlines) == {"c"}


def test_a_glyph_of_too_many_curves(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "STEPS", 3)
    path = write_font(tmp_path / "a.ttf", BARS)
    with pytest.raises(InputError, match="a glyph of more than 3 curves"):
        read_fonts(path, "a")


@pytest.mark.parametrize("kind", [4, 12])
def test_a_map_of_too_many_characters(tmp_path, kind):
    """A few bytes that claim ranges of billions, which would all be listed."""
    path = write_font(tmp_path / "a.ttf", BARS)
    if kind == 12:
        groups = struct.pack(">III", 0, 0xFFFFFFF0, 1)
        table = struct.pack(">HHHHIHHIII", 0, 1, 3, 10, 12, 12, 0, 28, 0, 1) + groups
    else:
        many = 1000
        body = struct.pack(">HHHH", 2 * many, 0, 0, 0) + b"\xff\xff" * many + b"\0\0"
        body += b"\0\0" * many * 3
        table = struct.pack(">HHHHIHHH", 0, 1, 3, 1, 12, 4, len(body) + 6, 0) + body
    with TTFont(path) as font:
        font["cmap"].compile = lambda font: table
        font.save(tmp_path / "b.ttf")
    with pytest.raises(InputError, match="maps more than 4,194,304 characters"):
        read_fonts(tmp_path / "b.ttf", "a")


def test_every_cut_of_a_font_is_one_sentence(tmp_path):
    whole = write_font(tmp_path / "a.ttf", BARS).read_bytes()
    for end in range(0, len(whole), 211):
        (tmp_path / "cut.ttf").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"cut\.ttf'[^\n]*$"):
            read_fonts(tmp_path / "cut.ttf", "abcdef")


def test_points_far_away(tmp_path):
    path = write_font(tmp_path / "a.ttf", {"a": [(0, 0, 30000, 700)]})
    assert read_fonts(path, "a")[0].outlines["a"].pieces.max() == 30000 / UNIT
    with TTFont(path) as font:
        font["head"].unitsPerEm = 16
        font.save(tmp_path / "b.ttf")
    with pytest.raises(InputError, match="beyond 100 em"):
        read_fonts(tmp_path / "b.ttf", "a")


def test_the_fonts_of_matplotlib():
    files = bundled_fonts()
    assert "DejaVuSans.ttf" in [file.name for file in files]
    (font,) = read_fonts(next(f for f in files if f.name == "DejaVuSans.ttf"), "oX ")
    assert (font.name, set(font.outlines)) == ("DejaVu Sans", {"o", "X"})


@pytest.mark.parametrize("head", [b"wOFF", b"wOF2"])
def test_a_web_font_is_not_unpacked_whatever_its_name(tmp_path, head):
    """Two megabytes of one may unpack to gigabytes."""
    (tmp_path / "a.ttf").write_bytes(head + bytes(100))
    with pytest.raises(InputError, match=r"a\.ttf' is a web font, whatever its name says"):
        read_fonts(tmp_path / "a.ttf", "a")
