"""What a drawer is, and its options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fieldloom.errors import InputError, is_command, name_argument, quote, unknown
from fieldloom.modalities.modality import Extent, Resolution
from fieldloom.progress import BRIEF, Progress
from fieldloom.system import System
from fieldloom.types import Cameras, Code, Data


@dataclass(frozen=True)
class Crop:
    """A part of an image, as fractions of its width and height: x to the right, y down.

    Raises InputError for what lies outside the image, where nothing was trained (``System.strips``
    draws it), and where not left < right and top < bottom.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    def __post_init__(self) -> None:
        sides = (self.left, self.top, self.right, self.bottom)
        numbers = all(isinstance(x, int | float) and 0 <= x <= 1 for x in sides)
        if not numbers or not (self.left < self.right and self.top < self.bottom):
            raise InputError(
                f"crop = {quote(sides)}: left, top, right, bottom, fractions of width and height "
                "from 0 to 1 with left < right and top < bottom."
            )

    def extent(self, axes: int) -> Extent:
        """(first, last) of each axis: of rows and columns, and before them of all the time."""
        image = ((self.top, self.bottom), (self.left, self.right))
        return image if axes == 2 else ((0.0, 1.0), *image)


WHOLE = Crop()
ALONG = ("orbit", "input", "train", "held")
"""Where views are drawn from: all around, or from the input's own cameras, in the file's order: all
of them, those trained on, those held out."""


@dataclass(frozen=True)
class Options:
    """Options of drawing.

    resolution: of images and video the longer side, in square pixels, or (rows, columns); of
                other data as of ``System.decode``. None: as trained.
    crop:       of images and video, the part that is drawn.
    frame:      of video, the image at this fraction of its time.
    frames:     of shapes and views, the number of views all around.
    held:       of views, those held out, each next to its original, instead of an orbit.
    depth:      of views, depths instead of colours.
    cameras:    of views, one of ``ALONG``, or cameras in the data's coordinates, with intrinsics of
                images of the training size.

    Raises InputError for a frame or a number of frames that is none, for other cameras, and for a
    number of frames beside cameras that are not an orbit, each of which is drawn.
    """

    resolution: Resolution | None = None
    crop: Crop | None = None
    frame: float | None = None
    frames: int = 36
    held: bool = False
    depth: bool = False
    cameras: str | Cameras = "orbit"

    def __post_init__(self) -> None:
        fraction = self.frame is None or isinstance(self.frame, int | float)
        if not fraction or (self.frame is not None and not 0 <= self.frame <= 1):
            raise InputError(f"frame = {quote(self.frame)}: a fraction of the time, from 0 to 1.")
        if not isinstance(self.frames, int) or self.frames < 1:
            raise InputError(f"frames = {quote(self.frames)}: a whole number, at least 1.")
        if not isinstance(self.cameras, Cameras) and self.cameras not in ALONG:
            raise unknown("cameras", str(self.cameras), ALONG)
        if self.held and self.cameras not in ("orbit", "held"):
            raise InputError(
                f"{name_argument('held')} draws the views held out: leave "
                f"{name_argument('cameras')} out."
            )
        if self.frames != Options.frames and (self.held or self.cameras != "orbit"):
            what = name_argument("held") if self.held else name_argument("cameras", self.along)
            raise InputError(
                f"{name_argument('frames', self.frames)} cannot be used with {what}, which draws "
                "each of its views."
            )

    @property
    def along(self) -> str:
        """One of ``ALONG``, or ``given``."""
        return self.cameras if isinstance(self.cameras, str) else "given"


class Drawn(NamedTuple):
    """A drawn file. sides: of shapes and scenes, the number of views in it."""

    path: Path
    sides: int | None = None


class Drawer:
    """Draws data of one kind into files.

    name: the default name of the file. needs_data: whether ``draw`` needs what the code was found
    from. Raises InputError for options that this kind of data does not have.
    """

    name: str
    needs_data = False

    def __init__(self, system: System, options: Options) -> None:
        self.system, self.options = system, options

    def check(self, path: Path) -> None:
        """Raise InputError, before a code is found, for a format or a size that cannot be drawn."""
        raise NotImplementedError

    def draw(self, code: Code, path: Path, data: Data | None = None) -> Drawn:
        """Draw the datum of a code (1, tokens, width). data: what the code was found from."""
        raise NotImplementedError


VIEW_OPTIONS = ("held", "depth", "cameras")
"""Options that only views have."""


def name_window() -> str:
    """What the caller calls the part of an image that is drawn."""
    return name_argument("window") if is_command() else "crop"


def refuse_views(options: Options) -> None:
    """Raise InputError for options that only views have."""
    if options.held or options.depth or options.cameras != "orbit":
        raise InputError(
            f"{', '.join(map(name_argument, VIEW_OPTIONS))} are for scenes: this run is of none."
        )


def refuse_turns(options: Options) -> None:
    """Raise InputError for the number of views around a datum that has none."""
    if options.frames != Options.frames:
        raise InputError(
            f"{name_argument('frames', options.frames)} is for turns around shapes and scenes, and "
            "this run is of neither."
        )


def refuse_parts(options: Options) -> None:
    """Raise InputError for options that only images and video have."""
    if options.crop is not None or options.frame is not None:
        raise InputError(
            f"{name_window()} and {name_argument('frame')} are for images and video: this run is "
            "of neither."
        )


def report_strips(strips: Iterator[tuple[int, Tensor]], rows: int) -> Iterator[tuple[int, Tensor]]:
    """Pass strips on, and show their progress."""
    with Progress("drawing", rows, unit="rows", least=BRIEF) as progress:
        for first, strip in strips:
            yield first, strip
            progress.update(first + strip.shape[1])
