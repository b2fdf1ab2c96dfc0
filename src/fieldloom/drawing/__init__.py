"""From codes to files that people look at or listen to; one table names the drawers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fieldloom.drawing.contact import draw_contact_sheet
from fieldloom.drawing.drawer import WHOLE, Crop, Drawer, Drawn, Options
from fieldloom.drawing.files import (
    check_file_format,
    needs_files,
    write_animation,
    write_data,
    write_sheet,
)
from fieldloom.drawing.fits import draw_grid_fit, draw_scene_fit
from fieldloom.drawing.grids import Grids
from fieldloom.drawing.scenes import Orbit, Turntable
from fieldloom.drawing.shapes import draw_shape_fit
from fieldloom.errors import unknown
from fieldloom.modalities.sources import Source
from fieldloom.system import System

Fit = Callable[[System, Source, Path], list[str]]

DRAWERS: Mapping[str, tuple[type[Drawer], Fit]] = {
    "images": (Grids, draw_grid_fit),
    "video": (Grids, draw_grid_fit),
    "audio": (Grids, draw_grid_fit),
    "grids": (Grids, draw_grid_fit),
    "shapes": (Turntable, draw_shape_fit),
    "views": (Orbit, draw_scene_fit),
}
"""A modality's ``kind`` -> the drawer of such data, and the function that draws a fit."""

__all__ = ["DRAWERS", "WHOLE", "Crop", "Drawer", "Drawn", "Options", "check_file_format",
           "draw_contact_sheet", "draw_fit", "drawer_of", "needs_files", "write_animation",
           "write_data", "write_sheet"]  # fmt: skip


def drawer_of(system: System, options: Options = Options()) -> Drawer:  # noqa: B008 (frozen)
    """The drawer of a system's data.

    Raises InputError for a kind of data without a drawer, and for options that it does not have.
    """
    return _entry(system)[0](system, options)


def draw_fit(system: System, source: Source, folder: str | Path) -> list[str]:
    """Draw the fit of a run without codes: ``fitted.png``, and a file in the data's usual format.

    source: the run's own. Large data are drawn at a lower resolution. Returns lines for the user:
    the files, their resolution, the PSNR.
    """
    return _entry(system)[1](system, source, Path(folder))


def _entry(system: System) -> tuple[type[Drawer], Fit]:
    kind = system.modality.kind
    if kind not in DRAWERS:
        raise unknown("kind of data", kind, DRAWERS)
    return DRAWERS[kind]
