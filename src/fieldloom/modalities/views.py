"""Posed pictures of an object or a scene: an observation is the colour of a ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from fieldloom import export
from fieldloom.errors import InputError
from fieldloom.geometry.cameras import orbit, pixel_rays, rays, resize_intrinsics
from fieldloom.modalities.modality import LONGEST, Cameras, Range, Ranged, Resolution, sizes_of
from fieldloom.types import RAY, Batch, Coords, Signal, Values


def check_cameras(cameras: Cameras) -> Cameras:
    """The cameras, if they are such. Raises InputError."""
    parts = (
        [cameras.get(key) for key in ("c2w", "intrinsics")] if isinstance(cameras, Mapping) else []
    )
    if len(parts) != 2 or not all(isinstance(x, Tensor) and x.is_floating_point() for x in parts):
        raise InputError("cameras are a dict of two tensors: c2w and intrinsics.")
    c2w, intrinsics = (tuple(x.shape) for x in parts if x is not None)
    right = len(c2w) in (3, 4) and c2w[-2:] == (4, 4) and intrinsics == (*c2w[:-2], 4)
    if not right or 0 in c2w:
        raise InputError(
            f"cameras of the shapes {c2w} and {intrinsics} are not (views, 4, 4) and (views, 4), "
            "nor the same with a batch in front."
        )
    return cameras


class Views(Ranged):
    """Data (batch, view, channel, height, width) in [0, 1], with a camera each.

    size:   of a picture, (height, width) or one number for both.
    held:   the last so many views of each signal are kept apart: never trained on, never encoded
            from; the evaluation compares with them.
    support: so many views of a signal are encoded, others are predicted; or the least and the most
            of them, their number drawn for each batch in training, and the most encoded from, at
            even distances among those not held out. None: all are encoded, and the same predicted.
    query:  so many other views of a signal are predicted, where there is a support.
    rays:   encoded from so many rays a signal (always the same ones); None: from all.
    patch:  training sees so many rows and columns of one view of each signal, at even distances,
            instead of scattered rays: what a critic of pictures needs. None: scattered rays.
    range:  what [0, 1] becomes inside: ``signed`` is [-1, 1], ``unit`` leaves it.
    radius, focal, elevation, up: of the orbit that views are rendered from where no cameras are
            given: distance to the origin, focal length over width, degrees, the upright axis. Taken
            from the data where a recipe is silent.
    orbit:  number of its views.
    """

    coord_dim = RAY
    formats = export.FRAMES

    def __init__(
        self,
        size: int | tuple[int, int] = 64,
        channels: int = 3,
        range: Range = "signed",
        held: int = 0,
        support: int | tuple[int, int] | None = None,
        query: int = 1,
        rays: int | None = None,
        patch: int | None = None,
        radius: float = 1.5,
        focal: float = 1.25,
        elevation: float = 25.0,
        up: int = 2,
        orbit: int = 8,
    ) -> None:
        self.size = size if isinstance(size, tuple) else (size, size)
        if up not in (0, 1, 2) or not -90 <= elevation <= 90 or query < 1:
            raise InputError(
                f"modality: up = {up}, elevation = {elevation:g}, query = {query}: up is one of 0, "
                "1, 2, the elevation from -90 to 90 degrees, and query at least 1."
            )
        if (
            not 1 <= min(self.size) <= max(self.size) <= LONGEST
            or channels < 1
            or held < 0
            or orbit < 1
            or radius <= 0
            or focal <= 0
        ):
            raise InputError(
                f"modality: size = {size}, held = {held}, radius = {radius}, focal = {focal}, "
                f"orbit = {orbit}: none negative, and no size above {LONGEST}."
            )
        self.channels, self.value_dim = channels, channels
        if rays is not None and rays < 1:
            raise InputError(f"modality.rays = {rays}: at least 1.")
        if patch is not None and not 2 <= patch <= min(self.size):
            raise InputError(f"modality.patch = {patch}: from 2 to {min(self.size)} (the size).")
        self.held, self.rays, self.patch = held, rays, patch
        self.least, self.most = support if isinstance(support, tuple) else (support or 0,) * 2
        if support is not None and (not 1 <= self.least <= self.most or patch):
            raise InputError(
                f"modality: support = {support}, query = {query}, patch = {patch}: at least one "
                "view each, and no patch."
            )
        self.query = query
        self.axes = (self.most, *self.size) if self.most else ()
        self.radius, self.focal, self.elevation, self.up = radius, focal, elevation, up
        self.around = orbit
        super().__init__(range)

    def observe(
        self,
        data: Tensor,
        index: Tensor | None = None,
        label: Tensor | None = None,
        points: int | None = None,
        generator: Generator | None = None,
        together: bool = False,
        whole: bool = False,
        c2w: Tensor | None = None,
        intrinsics: Tensor | None = None,
        **meta: Any,
    ) -> Batch:
        """Data, float in [0, 1] or uint8, as rays (origin | direction) and their colours.

        points: so many rays of each signal, drawn from all pixels of all its views that are not
        held out; only these are read. None: all. together: the same pixels of every signal. With a
        support: rays of its views are the context, all of them where ``whole``, rays of the query
        views the target.
        """
        seen = self._seen(data, c2w, intrinsics)
        if self.most:
            return self._divided(*seen, points, generator, index, label, together, whole)
        if self.patch is None:
            signal = self._signal(*seen, points, generator, index, together)
        else:
            signal = self._patches(*seen, self.patch, generator, index)
        signal = replace(signal, label=label)
        return Batch(signal, signal)

    def encoding(self, data: Tensor, **meta: Any) -> Signal:
        """What a code is found from: ``rays`` rays of the views that are not held out."""
        if self.most and self.rays is None:
            return self.support(data, meta.get("c2w"), meta.get("intrinsics"), self.most)
        generator = Generator().manual_seed(0)  # the same pixels always
        data, c2w, intrinsics = self._seen(data, meta.get("c2w"), meta.get("intrinsics"))
        return self._signal(data, c2w, intrinsics, self.rays, generator, None, together=True)

    def support(
        self, data: Tensor, c2w: Tensor | None, intrinsics: Tensor | None, count: int
    ) -> Signal:
        """All rays of ``count`` views at even distances among those that are not held out."""
        seen = self._seen(data, c2w, intrinsics)
        kept = seen[0].shape[1]
        if not 1 <= count <= kept:
            raise InputError(f"support = {count}: from 1 to {kept}, as many as are not held out.")
        places = torch.arange(count) * kept // count
        data, c2w, intrinsics = (x[:, places.to(x.device)] for x in seen)
        return self._signal(data, c2w, intrinsics, None, None, None, together=True)

    def _divided(
        self,
        data: Tensor,
        c2w: Tensor,
        intrinsics: Tensor,
        points: int | None,
        generator: Generator | None,
        index: Tensor | None,
        label: Tensor | None,
        together: bool,
        whole: bool,
    ) -> Batch:
        """A support and a query of each signal, drawn from its views without replacement."""
        batch, kept = data.shape[:2]
        if kept < self.most + self.query:
            raise InputError(
                f"modality: support = {self.most} and query = {self.query} are more than the "
                f"{kept} views that are not held out."
            )
        count = int(torch.randint(self.least, self.most + 1, (), generator=generator))
        order = torch.rand(batch, kept, generator=generator).argsort(1).to(data.device)
        row = torch.arange(batch, device=data.device).unsqueeze(1)
        parts = []
        for places, some in (
            (order[:, :count], None if whole else points),
            (order[:, count : count + self.query], points),
        ):
            own = data[row, places], c2w[row, places], intrinsics[row, places]
            signal = self._signal(*own, some, generator, index, together)
            parts.append(replace(signal, label=label))
        return Batch(*parts)

    def _seen(
        self, data: Tensor, c2w: Tensor | None, intrinsics: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if c2w is None or intrinsics is None:
            raise InputError("modality 'views' needs a camera for each view: c2w and intrinsics.")
        check_cameras({"c2w": c2w, "intrinsics": intrinsics})
        if data.ndim != 5 or data.shape[2] != self.channels or c2w.shape[:-2] != data.shape[:2]:
            raise InputError(
                f"data of the shape {tuple(data.shape)} with cameras {tuple(c2w.shape)} is not "
                f"(batch, views, {self.channels}, height, width) with (batch, views, 4, 4)."
            )
        kept = data.shape[1] - self.held
        if kept < 1:
            raise InputError(
                f"modality.held = {self.held}: the data have {data.shape[1]} views, and at least "
                "one must be left to see."
            )
        return data[:, :kept], c2w[:, :kept], intrinsics[:, :kept]

    def _signal(
        self,
        data: Tensor,
        c2w: Tensor,
        intrinsics: Tensor,
        points: int | None,
        generator: Generator | None,
        index: Tensor | None,
        together: bool,
    ) -> Signal:
        batch, views, _, height, width = data.shape
        if index is None:
            index = torch.arange(batch, device=data.device)
        total = views * height * width
        if points is None or points >= total:
            coords = rays(c2w, intrinsics, height, width).flatten(1, 2)
            values = data.movedim(2, -1).flatten(1, 3)
            return Signal(coords.float(), self.normalize(values), index, (views, height, width))
        place = torch.randint(total, (1 if together else batch, points), generator=generator)
        place = place.expand(batch, -1).to(data.device)
        view, pixel = place // (height * width), place % (height * width)
        v, u = pixel // width, pixel % width
        row = torch.arange(batch, device=data.device).unsqueeze(1)
        coords = pixel_rays(c2w[row, view], intrinsics[row, view], u + 0.5, v + 0.5)
        return Signal(coords.float(), self.normalize(data[row, view, :, v, u]), index)

    def _patches(
        self,
        data: Tensor,
        c2w: Tensor,
        intrinsics: Tensor,
        patch: int,
        generator: Generator | None,
        index: Tensor | None,
    ) -> Signal:
        """A grid of pixels of one view each; its step and its place are drawn (GRAF's patches).

        Places are rounded to whole pixels.

        Source: arXiv:2007.02442, section 3.2. The step goes from the view's size over the patch's
        down to half of that, and is the same for the batch.
        """
        batch, views, _, height, width = data.shape
        largest = (min(height, width) - 1) / (patch - 1)
        smallest = max(largest / 2, 1.0)  # below 1 a pixel would be seen twice
        step = largest - (largest - smallest) * float(torch.rand((), generator=generator))
        reach = step * (patch - 1)
        start = torch.rand(2, batch, generator=generator)
        steps = step * torch.arange(patch)
        v = (start[0, :, None] * (height - 1 - reach) + steps).round().long().to(data.device)
        u = (start[1, :, None] * (width - 1 - reach) + steps).round().long().to(data.device)
        v, u = v.repeat_interleave(patch, 1), u.repeat(1, patch)
        view = torch.randint(views, (batch, 1), generator=generator).to(data.device)
        row = torch.arange(batch, device=data.device).unsqueeze(1)
        coords = pixel_rays(c2w[row, view], intrinsics[row, view], u + 0.5, v + 0.5)
        if index is None:
            index = torch.arange(batch, device=data.device)
        values = self.normalize(data[row, view, :, v, u])
        return Signal(coords.float(), values, index, (patch, patch))

    def cameras(self, count: int | None = None) -> dict[str, Tensor]:
        """An orbit around the origin of ``count`` views, for pictures of the training size."""
        height, width = self.size
        around = count or self.around
        c2w = orbit(around, self.radius, self.elevation, self.up).float()
        f = self.focal * width
        return {
            "c2w": c2w,
            "intrinsics": torch.tensor([f, f, width / 2, height / 2]).expand(around, 4),
        }

    def grid(self, resolution: Resolution | None = None, cameras: Cameras | None = None) -> Coords:
        """Rays of all pixels of cameras: (1 | batch, views * height * width, 6).

        cameras: theirs belong to pictures of the training size; None: an orbit.
        """
        height, width = self.shape(resolution)
        cameras = self.cameras() if cameras is None else check_cameras(cameras)
        sized = resize_intrinsics(cameras["intrinsics"], self.size, (height, width))
        found = rays(cameras["c2w"], sized, height, width).flatten(-3, -2)
        return (found if found.ndim == 3 else found.unsqueeze(0)).float()

    def shape(self, resolution: Resolution | None = None) -> tuple[int, int]:
        """(height, width) at a resolution: None is the training size."""
        if resolution is None:
            return self.size
        height, width = sizes_of(resolution, 2)
        return height, width

    def assemble(self, values: Values, resolution: Resolution | None = None) -> Tensor:
        """Colours (batch, views * pixels, channel) -> (batch, view, channel, height, width)."""
        height, width = self.shape(resolution)
        return self.denormalize(values).unflatten(1, (-1, height, width)).movedim(-1, 2)

    def save(self, data: Tensor, path: str | Path, **meta: Any) -> Path:
        """The views of a datum: side by side as a PNG, or one after another as GIF or MP4."""
        path = export.named(path)
        named = path if path.suffix in self.formats else path.with_suffix(".png")
        return export.frames([export.pixels(view) for view in data], named)

    def picture(self, datum: Tensor) -> Tensor:
        """The first view: (3, height, width) in [0, 1]."""
        return datum[0].expand(3, -1, -1)
