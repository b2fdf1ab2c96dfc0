"""Drawing glyphs from their outlines: where they stand, how copies differ, what pixels cover.

Ink is 1, and the ground 0. All glyphs stand in one frame by the em of their fonts: its height holds
them all, so that ``p`` hangs below the line and ``x`` is lower than ``X``; each is centred between
its sides.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom.geometry.coverage import Array, cover, resolve
from fieldloom.geometry.outlines import Outline, change_weight
from fieldloom.modalities.modality import Resolution, sizes_of

TURN, SHEAR, SCALE, SHIFT, WEIGHT = math.radians(5), 0.1, 0.08, 0.03, 0.015
"""The largest changes of a copy of strength 1: radians, ratios, and units of the em."""
PIXELS, IMAGES = 1 << 20, 256
"""Pixels, and images, that are drawn at a time."""
VERSION = 1
"""Of the drawing: it has to change where the same outlines give other pixels."""


class Glyph(NamedTuple):
    """A character of a font: their numbers, and its outline, centred at x = 0.

    box: its lower left and its upper right corner, (2, 2). oriented: whether all its contours have
    the inside on the same side, so that their weight can be changed.
    """

    font: int
    character: int
    outline: Outline
    box: Array
    oriented: bool


@dataclass(frozen=True)
class Drawing:
    """How glyphs are drawn: datum i is copy i // n of glyph i mod n. It is also ``Lazy`` values.

    frame:    x, y of the lower left and of the upper right corner of an image of ``size``, in em.
    centres:  coordinates of the samples of each axis at any number of them, see ``Placement``.
    names:    of the fonts; characters: of the classes.
    strength: of the changes of copies: of affine ones, and of the weight.
    which:    indices of the data that are used.
    """

    glyphs: Sequence[Glyph]
    names: Sequence[str]
    characters: Sequence[str]
    frame: Array
    size: tuple[int, int]
    channels: int
    centres: Callable[[int], Tensor]
    strength: tuple[float, float]
    which: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.which), self.channels, *self.size)

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8

    def read(self, which: slice | Tensor) -> Tensor:
        """The data of these indices as 8 bits: uint8 (n, channel, height, width)."""
        blocks = [to_bytes(block) for block in self._draw(self.which[which], self.size)]
        found = np.concatenate([np.zeros((0, *self.size), np.uint8), *blocks])
        return self.spread(torch.from_numpy(found))

    def truth(self, indices: Tensor, resolution: Resolution) -> Tensor:
        """The true data at a resolution: (n, channel, height, width) float32 in [0, 1]."""
        height, width = sizes_of(resolution, 2)
        blocks = list(self._draw(self.which[indices.cpu()], (height, width)))
        found = np.concatenate([np.zeros((0, height, width)), *blocks])
        return self.spread(torch.from_numpy(found).float())

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """All data as 8 bits: (n, height, width) each."""
        return (to_bytes(block) for block in self._draw(self.which, self.size))

    def spread(self, grey: Tensor) -> Tensor:
        """Images (n, height, width) with the channels of the data."""
        return grey[:, None].expand(-1, self.channels, -1, -1)

    def _draw(self, which: Tensor, size: tuple[int, int]) -> Iterator[Array]:
        """The coverage of pixels by the data of these indices: (n, height, width) each."""
        step = max(1, min(IMAGES, PIXELS // math.prod(size)))
        low, high = self._window(size)
        scale = np.array(size[::-1]) / (high - low) * [1, -1]
        for first in range(0, len(which), step):
            pieces, image = self.outline(which[first : first + step])
            count = len(which[first : first + step])
            # Rows go down where y goes up: pieces are turned, to keep the inside to their right.
            yield cover(((pieces - [low[0], high[1]]) * scale)[:, ::-1], image, count, size)

    def _window(self, size: tuple[int, int]) -> tuple[Array, Array]:
        """The corners of the pixels at a resolution, in em: those of the frame, where samples stand
        at the centres of cells; other samples stay the centres of their pixels.
        """
        corners = []
        for k, (own, other) in enumerate(zip(self.size[::-1], size[::-1], strict=True)):
            here, there = self.centres(own).numpy(), self.centres(other).numpy()
            pitch = (self.frame[1, k] - self.frame[0, k]) / own
            unit = pitch / (here[1] - here[0]) if own > 1 else 0.0
            half = (there[1] - there[0]) * unit / 2 if other > 1 and own > 1 else pitch * own / 2
            ends = np.array([there[0], there[-1]]) - here[0]
            ends = ends * unit + [pitch / 2 - half, pitch / 2 + half]
            if k:  # rows count from the top
                corners.append(self.frame[1, k] - ends[::-1])
            else:
                corners.append(self.frame[0, k] + ends)
        return np.array([c[0] for c in corners]), np.array([c[1] for c in corners])

    def outline(self, which: Tensor) -> tuple[Array, NDArray[np.int64]]:
        """The boundaries (``resolve``) of data, in em: pieces, and the datum of each."""
        numbers = [divmod(i, len(self.glyphs)) for i in which.tolist()]
        glyphs = [self.glyphs[glyph] for _, glyph in numbers]
        changes = [self.change(glyph, copy) for copy, glyph in numbers]
        heavier = [change.weight != 0 for change in changes]
        outlines = [
            change_weight(glyph.outline, change.weight) if change.weight else glyph.outline.pieces
            for glyph, change in zip(glyphs, changes, strict=True)
        ]
        image = np.repeat(np.arange(len(outlines)), [len(pieces) for pieces in outlines])
        pieces = np.concatenate([np.zeros((0, 4, 2)), *outlines])
        pieces = self._move(pieces, image, glyphs, changes)
        again = np.array(heavier, bool)[image]
        plain = resolve(pieces[~again], image[~again])
        heavy = resolve(pieces[again], image[again], "positive")
        return np.concatenate([plain[0], heavy[0]]), np.concatenate([plain[1], heavy[1]])

    def _move(
        self,
        pieces: Array,
        image: NDArray[np.int64],
        glyphs: Sequence[Glyph],
        changes: Sequence[Change],
    ) -> Array:
        """Pieces under the affine changes of their images, about the middle of each glyph."""
        if not len(pieces):
            return pieces
        middle = np.array([glyph.box.mean(0) for glyph in glyphs])
        matrix = np.array([change.matrix for change in changes])[image][:, None]
        away = pieces - middle[image][:, None]
        moved = matrix[..., 0] * away[..., :1] + matrix[..., 1] * away[..., 1:]
        moved += (middle + [change.shift for change in changes])[image][:, None]
        begins = np.searchsorted(image, np.arange(len(glyphs)))  # no outline is empty
        low = np.minimum.reduceat(moved.min(1), begins)
        high = np.maximum.reduceat(moved.max(1), begins)
        # Copies stay within the image: those that a change moves across its edge are moved back,
        # and those that it makes larger than the image are made smaller.
        extent = self.frame[1] - self.frame[0]
        fit = np.minimum(1, (extent / np.maximum(high - low, 1e-12)).min(1))[:, None]
        centre, half = (low + high) / 2, (high - low) / 2 * fit
        place = np.clip(centre, self.frame[0] + half, self.frame[1] - half)
        plain = np.array([change.plain for change in changes])[:, None]
        fit, place = np.where(plain, 1, fit), np.where(plain, centre, place)
        return (moved - centre[image][:, None]) * fit[image][:, None] + place[image][:, None]

    def change(self, glyph: int, copy: int) -> Change:
        """The change of a copy: always the same one for a font, a character and a copy's number."""
        if copy == 0:
            return Change(np.eye(2), np.zeros(2), 0.0, True)
        one = self.glyphs[glyph]
        name = f"{self.names[one.font]}\0{self.characters[one.character]}\0{copy}"
        drawn = np.frombuffer(hashlib.blake2b(name.encode(errors="replace")).digest(), "<u8")
        turn, shear, wide, tall, *shift, weight = drawn[:7].astype(np.float64) / 2**63 - 1
        affine, heavier = self.strength
        heavier = heavier if one.oriented else 0.0
        turn *= affine * TURN
        rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        scales = np.diag(np.exp([affine * SCALE * wide, affine * SCALE * tall]))
        matrix = np.array(rotation) @ [[1, affine * SHEAR * shear], [0, 1]] @ scales
        return Change(matrix, affine * SHIFT * np.array(shift), float(heavier * WEIGHT * weight))


class Change(NamedTuple):
    """What a copy of a glyph changes: an affine map about its middle, a shift, its weight (em)."""

    matrix: Array
    shift: Array
    weight: float
    plain: bool = False


def to_bytes(coverage: Array) -> NDArray[np.uint8]:
    """Coverage in 8 bits. Halves, which straight stems often cover, go up on every machine, whose
    sums may differ in their last digits."""
    return np.floor(coverage * 255 + (0.5 + 1e-7)).astype(np.uint8)


def find_frame(glyphs: Sequence[Glyph], size: tuple[int, int], margin: float) -> Array:
    """The lower left and the upper right corner of an image (height, width) in em: (2, 2).

    It holds all glyphs, where it stands, with a margin, a fraction of the image, on each side.
    """
    low, high = np.array([glyph.box for glyph in glyphs]).transpose(1, 0, 2)
    low, high = low.min(0), high.max(0)
    pixel = max((high - low) / size[::-1]) / (1 - 2 * margin)
    middle, half = (low + high) / 2, pixel * np.array(size[::-1]) / 2
    return np.stack([middle - half, middle + half])
