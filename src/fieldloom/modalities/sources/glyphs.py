"""Letters, digits and signs of fonts, drawn from their outlines with exact area coverage.

Ink is 1, and the ground 0. All glyphs stand in one frame by the em of their fonts: its height holds
them all, so that ``p`` hangs below the line and ``x`` is lower than ``X``; each is centred between
its sides. The true data at any resolution come from the same outlines (``Source.truth``).
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fieldloom.errors import InputError, quote, quote_path, unknown
from fieldloom.geometry.coverage import Array, resolve
from fieldloom.geometry.outlines import Outline, area
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.cache import memory_map
from fieldloom.modalities.sources.decoding import check_image_modality
from fieldloom.modalities.sources.files import Refused, check_skipped, find_path
from fieldloom.modalities.sources.folders import find_files
from fieldloom.modalities.sources.fonts import SUFFIXES, Font, bundled_fonts, read_fonts
from fieldloom.modalities.sources.glyph_drawing import (
    IMAGES,
    SCALE,
    SHEAR,
    SHIFT,
    TURN,
    VERSION,
    WEIGHT,
    Drawing,
    Glyph,
    find_frame,
)
from fieldloom.modalities.sources.images import DECODED
from fieldloom.modalities.sources.source import (
    Attribute,
    Limit,
    Source,
    Split,
    choose,
    divide,
    make_source,
)
from fieldloom.modalities.sources.summary import Summary, count_things, list_names
from fieldloom.permit import NOTHING, Permit

SETS = {
    "letters": string.ascii_uppercase + string.ascii_lowercase,
    "uppercase": string.ascii_uppercase,
    "lowercase": string.ascii_lowercase,
    "digits": string.digits,
    "signs": string.punctuation,
}
"""Named sets of characters, all of ASCII."""

GRAIN = 1 << 16
"""Outlines are the same where they are so to this fraction of the em."""

Strength = Annotated[float, Field(ge=0, le=4)]
HoldOut = Literal["random", "characters", "fonts"]


def read_glyphs(
    modality: Grid,
    path: str | None = None,
    characters: str | tuple[str, ...] = "letters",
    fonts: tuple[str, ...] = (),
    copies: Annotated[int, Field(ge=1, le=1 << 20)] = 8,
    affine: Strength = 1.0,
    weight: Strength = 1.0,
    margin: Annotated[float, Field(ge=0, lt=0.5)] = 0.06,
    hold_out: HoldOut = "random",
    test: tuple[str, ...] = (),
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    permit: Permit = NOTHING,
) -> Source:
    """Characters of fonts; classes are characters, the attribute ``font`` tells the font.

    path: a font, or a folder of them; None: the DejaVu fonts that come with matplotlib.
    characters: ``letters``, ``uppercase``, ``lowercase``, ``digits``, ``signs``, or any characters;
        or several of these.
    fonts: the full names of those that are used; (): all that have some of the characters.
    copies: of each glyph, the first as it is, the others changed a little.
    affine, weight: the strength of the changes: 1 is up to 5 degrees, a shear of 0.1, 8 % of size,
        0.03 em of place, and sides that move by up to 0.015 em; 0 is none.
    margin: the least free fraction of the image on each side of the glyphs that are not changed.
    hold_out: of what the test part has ``split``'s fraction, or number: of glyphs, of characters,
        or of fonts. All copies of a glyph are in one part, and glyphs that are drawn just as one of
        the test part are in none.
    test: names of the characters or fonts that are the test part, instead of ``split``.
    """
    check_image_modality(modality)
    asked = choose_characters(characters)
    files, there, passed_over = _find_fonts(path, asked, permit.large)
    found, others = _choose_fonts(there, fonts)
    asked, taken = _keep_drawn(asked, characters, found, path)
    glyphs = _place(found, asked)
    size, total = (modality.size[0], modality.size[1]), len(glyphs) * copies
    which = choose(limit or total, total, [glyph.character for glyph in glyphs] * copies)
    drawing = Drawing(
        glyphs,
        [font.name for font in found],
        asked,
        find_frame(glyphs, size, margin),
        size,
        modality.channels,
        modality.placement.axis,
        (affine, weight),
        torch.tensor(which),
    )
    kept = [glyphs[i % len(glyphs)] for i in which]
    train, test_part, words = _divide(drawing, kept, hold_out, test, split, shuffle)
    taken |= _describe(drawing, path) | words
    options = {
        "version": VERSION, "characters": "".join(asked), "fonts": [f.name for f in found],
        "copies": copies, "affine": affine, "weight": weight, "margin": margin,
        "size": list(size), "limit": limit, "changes": [TURN, SHEAR, SCALE, SHIFT, WEIGHT],
    }  # fmt: skip
    values: Tensor | Drawing = drawing
    if math.prod(drawing.shape) <= DECODED:
        values = drawing.spread(torch.from_numpy(memory_map(files, options, drawing.blocks)))
    source = make_source(
        values,
        [glyph.character for glyph in kept],
        (1.0, 0.0),
        shuffle=False,
        suggests={"modality": {"size": list(size)}} if modality.native else {},
        summary=Summary(
            "glyph",
            taken=taken,
            passed_over=passed_over | others,
            unit="font" if path is None else "file",
        ),
        classes=asked,
    )
    font = Attribute(tuple(drawing.names), torch.tensor([glyph.font for glyph in kept]))
    return replace(
        source,
        train=train,
        test=test_part,
        attributes={"font": font},
        truth=drawing.truth,
    )


NOT_DRAWN, TOO_LARGE = "without these characters", "far larger than the others"
"""Reasons to pass over a font: those of mathematics draw other things in the letters' places."""
LARGE = 2.0
"""Fonts that reach further than this multiple of the median are passed over."""


def choose_characters(asked: str | Sequence[str]) -> str:
    """The characters, each once, of named sets (``SETS``) and of other texts.

    Raises InputError where there are none, and for white space, which nothing draws.
    """
    parts = (asked,) if isinstance(asked, str) else asked
    found = "".join(dict.fromkeys("".join(SETS.get(part, part) for part in parts)))
    if not found or not all(c.isprintable() and not c.isspace() for c in found):
        raise InputError(
            f"source.characters = {quote(asked)}: {', '.join(SETS)}, or the characters themselves, "
            "at least one, without spaces."
        )
    return found


def _find_fonts(
    path: str | None, characters: str, large: bool
) -> tuple[list[Path], list[Font], dict[str, Sequence[str]]]:
    """The files of fonts that can be read, their fonts, and what is passed over."""
    if path is None:
        files = bundled_fonts()
        return files, [font for file in files for font in read_fonts(file, characters)], {}
    folder = find_files(find_path(path), path, SUFFIXES, "fonts")
    read, faults = dict[int, list[Font]](), dict[int, InputError]()
    for i, file in enumerate(folder.files):
        try:
            read[i] = read_fonts(file, characters, large)
        except Refused:
            raise
        except InputError as error:
            faults[i] = error
    check_skipped(folder.names, faults, "fonts")
    folder = folder.keep_readable(list(read))
    fonts = [font for some in read.values() for font in some]
    return list(folder.files), fonts, dict(folder.passed_over)


def _choose_fonts(
    there: Sequence[Font], names: Sequence[str]
) -> tuple[list[Font], dict[str, Sequence[str]]]:
    """The fonts of these names, or all that suit; the names of the others, by the reason.

    Fonts of the same name are told apart by numbers. Raises InputError for names not there.
    """
    seen = dict[str, int]()
    told = []
    for font in there:
        seen[font.name] = count = seen.get(font.name, 0) + 1
        told.append(font if count == 1 else font._replace(name=f"{font.name} ({count})"))
    by_name = {font.name: font for font in told}
    for name in names:
        if name not in by_name:
            raise unknown("font", name, by_name)
    chosen = [by_name[name] for name in dict.fromkeys(names)] or told
    drawn = [font for font in chosen if font.outlines]
    spans = [_span(font) for font in drawn]
    largest = math.inf if names or not drawn else LARGE * float(np.median(spans))
    suit = [font for font, span in zip(drawn, spans, strict=True) if span <= largest]
    empty = [font.name for font in chosen if not font.outlines]
    large = [font.name for font, span in zip(drawn, spans, strict=True) if span > largest]
    return suit, {NOT_DRAWN: empty, TOO_LARGE: large}


def _span(font: Font) -> float:
    """The height or width, whichever is more, that holds all glyphs of a font, in em."""
    points = np.concatenate([outline.pieces.reshape(-1, 2) for outline in font.outlines.values()])
    return float(np.ptp(points, 0).max())


def _keep_drawn(
    characters: str, asked: str | Sequence[str], fonts: Sequence[Font], path: str | None
) -> tuple[str, dict[str, str]]:
    """The characters that some font draws, and what is said of the others.

    Raises InputError where none is drawn, or not one that is asked for by itself, and not by the
    name of a set.
    """
    drawn = {c for font in fonts for c in font.outlines}
    missing = [c for c in characters if c not in drawn]
    parts = (asked,) if isinstance(asked, str) else asked
    named = {c for part in parts if part in SETS for c in SETS[part]}
    refused = [c for c in missing if c not in named] or (missing if not drawn else [])
    if refused:
        where = "matplotlib's DejaVu fonts" if path is None else quote_path(path)
        raise InputError(
            f"source.characters: no font that is read of {where} draws {list_names(refused)}."
        )
    said = {"lacking": f"{len(missing):,} characters in no font ({list_names(missing)})"}
    return "".join(c for c in characters if c in drawn), said if missing else {}


def _place(fonts: Sequence[Font], characters: str) -> list[Glyph]:
    """The glyphs of fonts, font by font, each centred at x = 0."""
    found = []
    for number, font in enumerate(fonts):
        for first in range(0, len(characters), IMAGES):
            some = characters[first : first + IMAGES]
            drawn = [c for c in some if c in font.outlines]
            try:
                boxes = _find_boxes([font.outlines[c] for c in drawn])
            except InputError as error:
                raise InputError(f"font {quote(font.name)} has {error}") from None
            for c, (box, oriented) in zip(drawn, boxes, strict=True):
                if box is None:
                    continue
                shift = np.array([box[:, 0].mean(), 0.0])
                pieces, contour = font.outlines[c]
                outline = Outline(pieces - shift, contour)
                found.append(Glyph(number, characters.index(c), outline, box - shift, oriented))
    return found


def _find_boxes(outlines: Sequence[Outline]) -> list[tuple[Array | None, bool]]:
    """The corners of what each outline covers, None of nothing; and whether it is ``oriented``."""
    if not outlines:
        return []
    pieces = np.concatenate([outline.pieces for outline in outlines])
    image = np.repeat(np.arange(len(outlines)), [len(outline.pieces) for outline in outlines])
    clockwise = np.array([area(outline.pieces) < 0 for outline in outlines])[image]
    turned = np.where(clockwise[:, None, None], pieces, pieces[:, ::-1])
    (inside, own), (right, other) = resolve(pieces, image), resolve(turned, image, "positive")
    found = list[tuple[Array | None, bool]]()
    for i in range(len(outlines)):
        boundary = inside[own == i]
        ends = boundary[:, (0, 3)].reshape(-1, 2)  # its pieces are monotone
        box = np.stack([ends.min(0), ends.max(0)]) if len(ends) else None
        same = math.isclose(area(boundary), area(right[other == i]), rel_tol=1e-9)
        found.append((box, same))
    return found


def _divide(
    drawing: Drawing,
    kept: Sequence[Glyph],
    hold_out: HoldOut,
    test: Sequence[str],
    split: Split,
    shuffle: bool,
) -> tuple[Tensor, Tensor, dict[str, str]]:
    """Indices of the training and of the test part of the glyphs of all data, and what is said."""
    names = {"random": (), "characters": drawing.characters, "fonts": drawing.names}[hold_out]
    for name in test:
        if hold_out == "random":
            raise InputError(
                "source.test names characters or fonts: set source.hold_out to one of these."
            )
        if name not in names:
            raise unknown(hold_out.removesuffix("s"), name, names)
    key_of: dict[str, Callable[[Glyph], tuple[int, ...]]] = {
        "random": lambda glyph: (glyph.font, glyph.character),
        "characters": lambda glyph: (glyph.character,),
        "fonts": lambda glyph: (glyph.font,),
    }
    keys = [key_of[hold_out](glyph) for glyph in kept]
    units = list(dict.fromkeys(keys))
    if test:
        held = {unit for unit in units if names[unit[0]] in test}
        learnt = set(units) - held
    else:
        learnt, held = (
            {units[i] for i in part.tolist()} for part in divide(len(units), split, shuffle)
        )
    shapes = {(glyph.font, glyph.character): _shape(glyph.outline) for glyph in kept}
    own = [shapes[glyph.font, glyph.character] for glyph in kept]
    tested = {shape for shape, key in zip(own, keys, strict=True) if key in held}
    among = [i for i, key in enumerate(keys) if key in learnt]
    train = [i for i in among if own[i] not in tested]
    last = [i for i, key in enumerate(keys) if key in held]
    if not train:
        what = f"source.test = {quote(list(test))}" if test else f"source.split = {quote(split)}"
        raise InputError(
            f"{what} leaves nothing to train on: glyphs that are drawn just as one of the test are "
            "not used."
        )
    words = {}
    if last:
        others = list_names([names[unit[0]] for unit in units if unit in held] if names else [])
        what = f"{hold_out} ({others})" if names else "glyphs"
        words["split"] = f"{len(train):,} to train on, {len(last):,} to test of other {what}"
    elif split[1] > 0:
        words["split"] = "too few to hold any out for the test"
    if same := len(among) - len(train):
        words["same"] = f"{same:,} unused, drawn just as one of the test"
    return torch.tensor(train), torch.tensor(last, dtype=torch.int64), words


def _shape(outline: Outline) -> bytes:
    """A key of an outline: equal where it is, wherever it stands, and wherever contours begin."""
    pieces = outline.pieces
    where = np.rint((pieces - pieces.min((0, 1))) * GRAIN).astype(np.int64).reshape(-1, 8)
    return where[np.lexsort(where.T)].tobytes()


def _describe(drawing: Drawing, path: str | None) -> dict[str, str]:
    """What is said of the fonts: which they are, and which glyphs they lack."""
    names = list_names(drawing.names)
    if path is None:
        names = "DejaVu, which come with matplotlib; Bitstream Vera licence"
    said = {"fonts": f"{count_things(len(drawing.names), 'font')} ({names})"}
    whole = len(drawing.names) * len(drawing.characters)
    if lacking := whole - len(drawing.glyphs):
        said["missing"] = f"{lacking:,} of {whole:,} glyphs are not in these fonts"
    return said
