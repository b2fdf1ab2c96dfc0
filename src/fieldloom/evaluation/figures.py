"""What an evaluation is asked for, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from fieldloom import memory
from fieldloom.metrics.clouds import PROTOCOLS
from fieldloom.settings import SHAPES, Evaluation
from fieldloom.types import Code

if TYPE_CHECKING:
    from fieldloom.system import System


class Figure(NamedTuple):
    """A number, what it was measured on, and how."""

    name: str
    value: float
    of: str
    how: str = ""


class Shown(NamedTuple):
    """Pictures (n, 1 | 3, height, width) in [0, 1], side by side in a file of a report."""

    file: str
    caption: str
    pictures: Tensor


@dataclass(frozen=True)
class Result:
    """Figures, and the data that the pictures of a report show, in the modality's shape.

    shown: pictures as they are. originals and reconstructions are empty where they are too large
    to be held. nearest: for each sample the place in the training set of its nearest datum;
    distances to it.
    """

    figures: list[Figure]
    originals: Tensor
    reconstructions: Tensor
    codes: Code
    samples: Tensor | None = None
    sample_codes: Tensor | None = None
    sample_labels: Tensor | None = None
    nearest: Tensor | None = None
    distances: Tensor | None = None
    shown: Sequence[Shown] = ()


def check_room(how: Evaluation, system: System, count: int) -> None:
    """Raise InputError where what ``count`` samples are judged by would not fit this machine."""
    numbers = math.prod(system.family.code_shape)
    if set(SHAPES) & set(how.metrics):
        points = how.points or PROTOCOLS[how.protocol].points
        numbers += 6 * points  # float64
    datum = math.prod(system.modality.shape(how.resolution)) * system.modality.value_dim
    held = (count * numbers + datum) * memory.FLOAT
    given = f"samples = {count}, points = {how.points}, resolution = {how.resolution}"
    memory.check("evaluate", held, system.permit, given=given)
