"""Shapes and scenes from all around, and the views of a scene that are held out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import cast

import torch

from fieldloom import export
from fieldloom.drawing.drawer import Drawer, Drawn, Options, refuse_parts, refuse_views
from fieldloom.errors import InputError
from fieldloom.modalities import Views, Voxels
from fieldloom.progress import during
from fieldloom.system import System
from fieldloom.types import Code, Data


class Turntable(Drawer):
    """Draws the surface of a shape from all around."""

    name = "orbit.gif"

    def __init__(self, system: System, options: Options) -> None:
        super().__init__(system, options)
        refuse_views(options)
        refuse_parts(options)

    def check(self, path: Path) -> None:
        export.check_frames(path)
        if self.options.frames < 2:
            raise InputError(f"--frames {self.options.frames}: a turn has at least 2.")

    def draw(self, code: Code, path: Path, data: Data | None = None) -> Drawn:
        values = self.system.values_of(code)
        with during("finding the surface"):
            datum = self.system.modality.sample(values, self.options.resolution)
            surface = self.system.modality.mesh(datum)
        if surface is None:
            warnings.warn(
                "this code decodes to a shape without a surface: a cross is drawn.", stacklevel=2
            )
        with during(f"drawing {self.options.frames} views"):
            images = cast(Voxels, self.system.modality).turn(datum, self.options.frames)
        return Drawn(export.frames([export.pixels(x) for x in images], path), len(images))


class Orbit(Drawer):
    """Draws views of a scene: from all around, or those held out.

    Depths are images from ``near`` (black) to ``far`` (white), or, in a file ``.npy``, numbers in
    the unit of the data's cameras: float32 (views, height, width).
    """

    def __init__(self, system: System, options: Options) -> None:
        super().__init__(system, options)
        refuse_parts(options)
        self.modality = cast(Views, system.modality)
        self.name = "held.png" if options.held else "orbit.gif"

    def check(self, path: Path) -> None:
        if not (self.options.depth and path.suffix == ".npy"):
            export.check_frames(path)
        if self.options.held and not self.modality.held:
            raise InputError("--held: this run held no views out (modality.held is 0).")

    def draw(self, code: Code, path: Path, data: Data | None = None) -> Drawn:
        options, true = self.options, None
        cameras = self.modality.cameras(options.frames)
        if options.held:
            if data is None:
                raise InputError("--held: a sample has no views that were held out.")
            true = self.modality.select_held_out(data)
            assert true.cameras is not None  # views have cameras
            cameras = true.cameras
        if options.depth and path.suffix == ".npy":
            (depth,) = self.system.metric_depth(code, options.resolution, cameras).tensor
            return Drawn(export.npy(depth[:, 0], path), len(depth))
        draw = self.system.depth if options.depth else self.system.decode
        images = draw(code, options.resolution, cameras).tensor[0]
        if true is not None and not options.depth and options.resolution is None:
            images = torch.cat([true.as_float().tensor[0], images], 3)
        return Drawn(export.frames([export.pixels(x) for x in images], path), len(images))
