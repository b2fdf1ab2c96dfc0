"""Pictures of a field while it is trained: a look at what its weights make already."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from fieldloom import export
from fieldloom.atomic import write_bytes
from fieldloom.engine.loop import Training
from fieldloom.errors import shorten
from fieldloom.modalities.modality import spread
from fieldloom.modalities.sources import Source
from fieldloom.progress import announce
from fieldloom.system import System
from fieldloom.thumbnail import WORK, cost_of_point, draw_thumbnail
from fieldloom.types import Code, Data

FIRST, APART, PART = 30.0, 180.0, 0.02
"""Seconds until the first picture, and between others; the part of the time that they may take."""

SIGNALS, NUMBERS = 9, 1 << 26
"""Data of a set that are drawn, at most, and the numbers of all of them."""


class Previews:
    """Draws a stage ``field`` into a file, now and then, at the end of a step.

    Weights, their gradients and torch's generators stay as they are. Data with codes are drawn
    as their reconstructions, or as samples where nothing is encoded; data that cannot be shown, or
    that take too long to encode, are not drawn. Where drawing fails, one warning says so, and no
    more is drawn.
    """

    def __init__(self, system: System, source: Source, training: Training, path: Path) -> None:
        self.system, self.training, self.path = system, training, path
        self.due: float | None = time.monotonic() + FIRST
        self.data: Data | None = None
        self.places = spread(len(source.train), SIGNALS)
        if system.family.has_code and system.encodes:
            self._read_data(source)

    def _read_data(self, source: Source) -> None:
        """Read the data that are drawn: now, since a thread reads them while they are trained on.

        There are none where a single one is too large, or takes too long to encode.
        """
        system, numbers = self.system, math.prod(source.data.shape[1:])
        if numbers > NUMBERS // SIGNALS:
            self.due = None
            return
        one = system.modality.encoding(source.read(source.train[:1])).coords.shape[1]
        each = system.encoder.point_evaluations(one) * cost_of_point(system)
        self.places = spread(len(source.train), min(SIGNALS, max(1, 4 * WORK // each)))
        self.data = source.read(source.train[self.places])
        if each > 16 * WORK:
            self.due = None

    def look(self) -> None:
        """Draw the picture if it is due."""
        began = time.monotonic()
        if self.due is None or began < self.due:
            return
        try:
            with self.training.as_finished():
                picture = self.draw()
            self.due = None
            if picture is None:
                return
            first = not self.path.exists()
            write_bytes(export.png_bytes(picture), self.path)
        except Exception as error:  # whatever is wrong with a picture, the training is not
            self.due = None
            reason = shorten(f"{type(error).__name__}: {error}")
            warnings.warn(f"no preview, and training goes on without: {reason}", stacklevel=2)
            return
        now = time.monotonic()
        self.due = now + max(APART, (now - began) / PART)
        if first:
            announce(f"preview after step {self.training.step}: {self.path}")

    def draw(self) -> NDArray[np.uint8] | None:
        """The picture of the present weights: uint8 (height, width, 3), or None."""
        codes = self.codes()
        return export.join_images([self.image(code) for code in codes.split(1)])

    def codes(self) -> Code:
        """The codes that are drawn: of training data, of samples, or the only one."""
        system, prior = self.system, self.system.prior
        if not system.family.has_code:
            return system.family.conditioner.origin(1).detach()
        if self.data is None:
            assert prior is not None  # a family with codes and without an encoder is sampled from
            return prior.sample(len(self.places), None, generator=Generator().manual_seed(0))
        places = torch.tensor(self.places, device=system.device)
        stored = system.encoder.stored_codes(places, system.family)
        return system.encode(self.data) if stored is None else stored.detach()

    def image(self, code: Code) -> Tensor | None:
        """The picture of one code: (3, height, width) in [0, 1]."""
        return draw_thumbnail(self.system, code, WORK // len(self.places))
