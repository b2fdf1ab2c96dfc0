"""Shapes and scenes from all around, and scenes from their own cameras."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import cast

import torch

from fieldloom import export
from fieldloom.drawing.drawer import Drawer, Drawn, Options, refuse_parts, refuse_views
from fieldloom.errors import InputError, name_argument
from fieldloom.geometry.cameras import Size, resize_intrinsics
from fieldloom.modalities import Views, Voxels
from fieldloom.modalities.sources.scenes import order_of_file
from fieldloom.modalities.views import select_views
from fieldloom.progress import BRIEF, during, track
from fieldloom.system import System
from fieldloom.types import Cameras, Code, Data


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
            raise InputError(
                f"{name_argument('frames', self.options.frames)}: a turn has at least 2."
            )

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
    """Draws views of a scene: from all around, or from the input's own cameras.

    Depths are images from ``near`` (black) to ``far`` (white), or, in a file ``.npy``, numbers in
    the unit of the data's cameras: float32 (views, height, width). A file ``.json`` gets the
    cameras alone, as ``export.cameras`` writes them.
    """

    def __init__(self, system: System, options: Options) -> None:
        super().__init__(system, options)
        refuse_parts(options)
        self.modality = cast(Views, system.modality)
        own = {"orbit": "orbit.gif", "given": "views.gif"}
        self.name = "held.png" if options.held else own.get(options.along, f"{options.along}.mp4")
        self.needs_data = options.held or options.along in ("input", "train", "held")

    def check(self, path: Path) -> None:
        numbers = ".npy" if self.options.depth else ".json"
        if path.suffix != numbers:
            export.check_frames(path)
        if (self.options.held or self.options.along == "held") and not self.modality.held:
            raise InputError("this run held no views out (modality.held is 0).")

    def draw(self, code: Code, path: Path, data: Data | None = None) -> Drawn:
        options, true = self.options, self._choose_views(data)
        cameras = self._choose_cameras(true)
        size = self._choose_size(cameras)
        if path.suffix == ".json":
            sized = resize_intrinsics(cameras.intrinsics, self.modality.size, size)
            return Drawn(export.cameras(Cameras(cameras.c2w, sized), size, path))
        if options.depth and path.suffix == ".npy":
            draw = self.system.metric_depth
        else:
            draw = self.system.depth if options.depth else self.system.decode
        each = [cameras.views(slice(i, i + 1)) for i in range(cameras.count)]
        shown = track(each, "drawing", cameras.count, "views", BRIEF)
        images = [draw(code, size, one).tensor[0, 0] for one in shown]
        if draw == self.system.metric_depth:
            return Drawn(export.npy(torch.cat(images), path), len(images))
        if options.held and not options.depth and size == self.modality.size:
            assert true is not None  # ``_choose_views`` has looked
            pairs = zip(true.as_float().tensor[0], images, strict=True)
            images = [torch.cat(pair, 2) for pair in pairs]
        return Drawn(export.frames([export.pixels(x) for x in images], path), len(images))

    def _choose_views(self, data: Data | None) -> Data | None:
        """The views of a datum that are drawn, in the order of their file; None: no such views."""
        along = "held" if self.options.held else self.options.along
        if not self.needs_data:
            return None
        if data is None:
            raise InputError(f"cameras = '{along}': a code alone has no views of its own.")
        if along == "held":
            return self.modality.select_held_out(data)
        if along == "train":
            return self.modality.select_seen(data)
        self.modality.check_data(data)
        every = self.system.settings.source.get("hold_out")
        order = order_of_file(data.shape[1], self.modality.held, every)
        return select_views(data, torch.tensor(order))

    def _choose_cameras(self, views: Data | None) -> Cameras:
        if views is not None:
            assert views.cameras is not None  # views have cameras
            return Cameras(views.cameras.c2w[0], views.cameras.intrinsics[0])
        given = self.options.cameras
        return given if isinstance(given, Cameras) else self.modality.cameras(self.options.frames)

    def _choose_size(self, cameras: Cameras) -> Size:
        """(height, width): one number of the resolution is the longer side, in square pixels."""
        resolution, own = self.options.resolution, self.modality.size
        if resolution is None or isinstance(resolution, tuple | list):
            return self.modality.shape(resolution)
        longest = max(self.modality.shape(resolution))
        focal = cameras.intrinsics.reshape(-1, 4).mean(0)
        height, width = own[0] / float(focal[1]), own[1] / float(focal[0])
        scale = longest / max(height, width)
        return max(1, round(scale * height)), max(1, round(scale * width))
