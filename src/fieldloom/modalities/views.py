"""Posed images of an object or a scene: an observation is the colour of a ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from fieldloom import atomic, export
from fieldloom.errors import InputError
from fieldloom.geometry.cameras import (
    Up,
    enter_frame,
    is_up,
    orbit,
    pixel_rays,
    rays,
    resize_intrinsics,
)
from fieldloom.modalities.modality import (
    LONGEST,
    Extent,
    Modality,
    Range,
    Resolution,
    find_device,
    index_of,
    random_bytes,
    sizes_of,
    spread,
)
from fieldloom.types import RAY, Batch, Cameras, Coords, Data, Signal, Values, as_unit_floats


class Views(Modality):
    """Data (batch, view, channel, height, width) in [0, 1], with a camera each.

    size:   of an image, (height, width) or one number for both.
    channels: of an image.
    longest: images are as the data's own, at most this many pixels on the longer side, and the data
            suggest their ``size``. None: ``size`` decides.
    held:   number of held-out views, the last ones of each signal: never trained on nor encoded;
            the evaluation compares with them.
    support: number of views of a signal that are encoded, while others are predicted; or its
            range, from which it is drawn for each batch in training (outside training it is the
            largest, evenly spaced among the views that are not held out). None: all views are
            encoded and predicted.
    query:  number of other views of a signal that are predicted, where there is a support.
    rays:   number of rays of a signal that are encoded (always the same ones); None: all.
    patch:  training sees a grid of this many evenly spaced rows and columns of one view of each
            signal, as a critic of images needs it. None: scattered rays.
    range:  of normalized values: ``signed`` is [-1, 1], ``unit`` [0, 1].
    radius, focal, elevation, up: of the orbit of default cameras: distance to its centre, focal
            length over image width, degrees, the upward axis or a direction. The data suggest them.
    orbit:  number of cameras of the orbit.
    centre: what the cameras of the orbit look at: x, y, z. None: the frame's centre, or the origin.
    frame:  where the field's coordinates stand in those of the cameras: centre x, y, z and scale,
            such that original = coordinates * scale + centre, as of ``Data.frame``. A single scene
            suggests it. None: they are the same.
    box:    in which the scene lies, in the field's coordinates: x, y, z of its lowest corner, and
            of its highest. A single scene suggests that of its file. None: unknown.

    Cameras come in and go out in the coordinates and the unit of the data, and so are ``radius``
    and ``centre``; rays are in the field's coordinates.
    """

    kind, unit = "views", "view"
    coord_dim, grid_dim = RAY, 2
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
        up: Up = 2,
        orbit: int = 8,
        centre: tuple[float, float, float] | None = None,
        frame: tuple[float, float, float, float] | None = None,
        longest: int | None = None,
        box: tuple[float, float, float, float, float, float] | None = None,
    ) -> None:
        self.size = size if isinstance(size, tuple) else (size, size)
        if not is_up(up) or not -90 <= elevation <= 90 or query < 1:
            raise InputError(
                f"modality: up = {up}, elevation = {elevation:g}, query = {query}: up is one of 0, "
                "1, 2, or a direction, the elevation from -90 to 90 degrees, and query at least 1."
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
        self.channels, self.longest = channels, longest
        if longest is not None and not 1 <= longest <= LONGEST:
            raise InputError(f"modality.longest = {longest}: from 1 to {LONGEST}.")
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
        self.around, self.frame = orbit, frame
        if frame is not None and frame[3] <= 0:
            raise InputError(f"modality.frame = {frame}: its scale, the last number, is above 0.")
        if box is not None and not all(a < b for a, b in zip(box[:3], box[3:], strict=True)):
            raise InputError(f"modality.box = {box}: its lowest corner, and then its highest.")
        self.box = box
        self.unit_length = 1.0 if frame is None else frame[3]
        self.centre = centre or (None if frame is None else frame[:3])
        super().__init__(range)

    def observe(
        self,
        data: Data | Tensor,
        points: int | None = None,
        generator: Generator | None = None,
        together: bool = False,
        keep_grid: bool = False,
    ) -> Batch:
        """Data as rays (origin | direction) and their colours.

        points: number of random rays of each signal, from all its views that are not held out; only
            these are read. None: all.
        together: whether every signal has the same pixels.
        keep_grid: whether the context has all rays of its views in any case.

        With a support, rays of its views are the context, and rays of the query views the target.
        """
        seen = self.select_seen(Data.of(data))
        if self.most:
            return self._divide(seen, points, generator, together, keep_grid)
        if self.patch is None:
            signal = self._signal(seen, points, generator, together)
        else:
            signal = self._patches(seen, self.patch, generator)
        return Batch(signal, signal)

    def tiles(self, data: Data, most: int) -> dict[int, Tensor]:
        if len(data) > 1:
            return super().tiles(data, most)
        indices = spread(data.shape[1], most)
        views = as_unit_floats(data.tensor[0][indices]).expand(-1, 3, -1, -1)
        return dict(zip(indices, views, strict=True))

    def encoding(self, data: Data | Tensor) -> Signal:
        """The signal that is encoded: ``rays`` rays of the views that are not held out."""
        data = Data.of(data)
        if self.most and self.rays is None:
            return self.support(data, self.most)
        generator = Generator().manual_seed(0)  # the same pixels always
        return self._signal(self.select_seen(data), self.rays, generator, together=True)

    def support(self, data: Data, count: int) -> Signal:
        """All rays of ``count`` evenly spaced views among those that are not held out.

        Raises InputError for more views than there are.
        """
        seen = self.select_seen(data)
        kept = seen.shape[1]
        if not 1 <= count <= kept:
            raise InputError(f"support = {count}: from 1 to {kept}, as many as are not held out.")
        which = torch.arange(count) * kept // count
        return self._signal(select_views(seen, which), None, None, together=True)

    def select_seen(self, data: Data) -> Data:
        """The views that are not held out.

        Raises InputError where there are none, and for data that are not views with cameras.
        """
        self.check_data(data)
        return select_views(data, slice(self.count_seen(data)))

    def check_data(self, data: Data) -> None:
        """Raise InputError for data that are no views, or have no cameras."""
        if data.cameras is None:
            raise InputError("modality 'views' needs a camera for each view: c2w and intrinsics.")
        if len(data.shape) != 5 or data.shape[2] != self.channels:
            raise InputError(
                f"data of the shape {data.shape} with cameras {tuple(data.cameras.c2w.shape)} is "
                f"not (batch, views, {self.channels}, height, width) with (batch, views, 4, 4)."
            )

    def select_held_out(self, data: Data) -> Data:
        """The views that are held out: none, where ``held`` is 0."""
        return select_views(data, slice(self.count_seen(data), None))

    def one_view(self, data: Data) -> Data:
        first = self.count_seen(data) if self.held else 0
        return select_views(data, slice(first, first + 1))

    def count_seen(self, data: Data) -> int:
        """The number of views that are not held out. Raises InputError where there are none."""
        kept = data.shape[1] - self.held
        if kept < 1:
            raise InputError(
                f"modality.held = {self.held}: the data have {data.shape[1]} views, and at least "
                "one must be left to see."
            )
        return kept

    def _divide(
        self,
        data: Data,
        points: int | None,
        generator: Generator | None,
        together: bool,
        keep_grid: bool,
    ) -> Batch:
        """A support and a query of each signal, drawn from its views without replacement."""
        batch, kept = data.shape[:2]
        if kept < self.most + self.query:
            raise InputError(
                f"modality: support = {self.most} and query = {self.query} are more than the "
                f"{kept} views that are not held out."
            )
        count = int(torch.randint(self.least, self.most + 1, (), generator=generator))
        order = torch.rand(batch, kept, generator=generator).argsort(1)
        parts = []
        for which, some in (
            (order[:, :count], None if keep_grid else points),
            (order[:, count : count + self.query], points),
        ):
            parts.append(self._signal(select_own_views(data, which), some, generator, together))
        return Batch(*parts)

    def _signal(
        self, data: Data, points: int | None, generator: Generator | None, together: bool
    ) -> Signal:
        """Rays of these views: all of them, or ``points`` random ones."""
        values, c2w, intrinsics = self._seen_from(data)
        batch, views, _, height, width = values.shape
        index, label, total = index_of(data), data.label, views * height * width
        if points is None or points >= total:
            coords = rays(c2w, intrinsics, height, width).flatten(1, 2)
            seen = self.normalize(values.movedim(2, -1).flatten(1, 3))
            return Signal(coords, seen, index, (views, height, width), label=label)
        shape, place = (1 if together else batch, points), find_device(generator, values)
        drawn = torch.randint(total, shape, generator=generator, device=place)
        drawn = drawn.expand(batch, -1).to(values.device)
        view, pixel = drawn // (height * width), drawn % (height * width)
        v, u = pixel // width, pixel % width
        row = torch.arange(batch, device=values.device).unsqueeze(1)
        coords = pixel_rays(c2w[row, view], intrinsics[row, view], u + 0.5, v + 0.5)
        return Signal(coords, self.normalize(values[row, view, :, v, u]), index, label=label)

    def _patches(self, data: Data, patch: int, generator: Generator | None) -> Signal:
        """A grid of pixels of one random view each, with random step and origin (GRAF's patches).

        Source: arXiv:2007.02442, section 3.2. The step is between the image size over the patch
        size and half of that, and the same for the batch. Positions are rounded to whole pixels.
        """
        values, c2w, intrinsics = self._seen_from(data)
        batch, views, _, height, width = values.shape
        device = values.device
        largest = (min(height, width) - 1) / (patch - 1)
        smallest = max(largest / 2, 1.0)  # below 1 a pixel would be seen twice
        step = largest - (largest - smallest) * float(torch.rand((), generator=generator))
        extent = step * (patch - 1)
        place = find_device(generator, values)
        start = torch.rand(2, batch, generator=generator, device=place)
        steps = step * torch.arange(patch, device=place)
        v = (start[0, :, None] * (height - 1 - extent) + steps).round().long().to(device)
        u = (start[1, :, None] * (width - 1 - extent) + steps).round().long().to(device)
        v, u = v.repeat_interleave(patch, 1), u.repeat(1, patch)
        view = torch.randint(views, (batch, 1), generator=generator, device=place).to(device)
        row = torch.arange(batch, device=device).unsqueeze(1)
        coords = pixel_rays(c2w[row, view], intrinsics[row, view], u + 0.5, v + 0.5)
        seen = self.normalize(values[row, view, :, v, u])
        return Signal(coords, seen, index_of(data), (patch, patch), label=data.label)

    def rows(
        self,
        resolution: Resolution | None = None,
        window: Extent | None = None,
        frame: float | None = None,
    ) -> tuple[tuple[int, ...], Callable[[slice], Coords]]:
        """Raises InputError: views are drawn one after another, and not in strips."""
        raise InputError("strips are of grids: this run's data are none.")

    def cameras(self, count: int | None = None) -> Cameras:
        """An orbit of ``count`` views around ``centre``, for images of the training size."""
        height, width = self.size
        around = count or self.around
        f = self.focal * width
        intrinsics = torch.tensor([f, f, width / 2, height / 2]).expand(around, 4)
        c2w = orbit(around, self.radius, self.elevation, self.up)
        if self.centre is not None:
            c2w = c2w.double()  # far from the origin float32 lacks the digits
            c2w[:, :3, 3] += c2w.new_tensor(self.centre)
        return Cameras(c2w, intrinsics)

    def random_data(self, count: int, generator: Generator | None = None) -> Data:
        """Random images from as many views of an orbit as training and evaluation need."""
        cameras = self.cameras(max(self.around, self.held + self.most + self.query))
        shape = (count, cameras.count, self.channels, *self.size)
        own = lambda x: x.expand(count, *x.shape)
        return Data(
            random_bytes(shape, generator), Cameras(own(cameras.c2w), own(cameras.intrinsics))
        )

    def grid(self, resolution: Resolution | None = None, cameras: Cameras | None = None) -> Coords:
        """Rays of all pixels of cameras: (1 | batch, views * height * width, 6).

        cameras: with intrinsics of images of the training size; None: an orbit.
        """
        height, width = self.shape(resolution)
        cameras = self.cameras() if cameras is None else cameras
        sized = resize_intrinsics(cameras.intrinsics, self.size, (height, width))
        return self._rays(Cameras(cameras.c2w, sized), height, width)

    def coords_of(self, data: Data) -> Coords:
        """Rays of all pixels of these data's own cameras: (batch, views * height * width, 6)."""
        if data.cameras is None:
            raise InputError("modality 'views' needs a camera for each view: c2w and intrinsics.")
        return self._rays(data.cameras, *data.shape[-2:])

    def place(self, cameras: Cameras) -> Cameras:
        """Cameras of the data's coordinates in those of the field, float32."""
        c2w = cameras.c2w if self.frame is None else enter_frame(cameras.c2w, self.frame)
        return Cameras(c2w.float(), cameras.intrinsics.float())

    def _rays(self, cameras: Cameras, height: int, width: int) -> Coords:
        own = self.place(cameras)
        found = rays(own.c2w, own.intrinsics, height, width).flatten(-3, -2)
        return found if found.ndim == 3 else found.unsqueeze(0)

    def _seen_from(self, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        """The values of views, and beside them their cameras in the field's coordinates."""
        assert data.cameras is not None  # ``select_seen`` has looked
        own = self.place(data.cameras).to(data.tensor.device)
        return data.tensor, own.c2w, own.intrinsics

    def as_observed(self, values: Values, data: Data) -> Data:
        made = self.denormalize(values).unflatten(1, (-1, *data.shape[-2:]))
        return replace(data, values=made.movedim(-1, 2))

    def shape(self, resolution: Resolution | None = None) -> tuple[int, int]:
        """(height, width) at a resolution: None is the training size."""
        if resolution is None:
            return self.size
        height, width = sizes_of(resolution, 2)
        return height, width

    def assemble(
        self,
        values: Values,
        resolution: Resolution | None = None,
        cameras: Cameras | None = None,
    ) -> Data:
        """Colours (batch, views * pixels, channel) -> data (batch, view, channel, height, width).

        cameras: as in ``grid``; the data get them, with intrinsics in pixels of this resolution.
        """
        height, width = self.shape(resolution)
        made = self.denormalize(values).unflatten(1, (-1, height, width)).movedim(-1, 2)
        if cameras is None:
            return Data(made)
        own = lambda x: x.expand(len(made), *(x.shape[1:] if cameras.batched else x.shape))
        sized = resize_intrinsics(cameras.intrinsics, self.size, (height, width))
        return Data(made, Cameras(own(cameras.c2w), own(sized)))

    def save(self, data: Data, path: str | Path) -> Path:
        """Write the views of a datum side by side as PNG, or as the frames of a GIF or MP4."""
        path, (datum,) = atomic.as_path(path), data.tensor
        path = path if path.suffix in self.formats else path.with_suffix(".png")
        return export.frames([export.pixels(view) for view in datum], path)

    def to_image(self, datum: Tensor) -> Tensor:
        """The first view: (3, height, width) in [0, 1]."""
        return datum[0].expand(3, -1, -1)

    def images(self, data: Tensor) -> Tensor:
        return data[:, 0]


def select_views(data: Data, which: slice | Tensor) -> Data:
    """The same views of all data."""
    values, cameras = data.tensor, data.cameras
    own = lambda x: x[:, which if isinstance(which, slice) else which.to(x.device)]
    sized = None if cameras is None else Cameras(own(cameras.c2w), own(cameras.intrinsics))
    return replace(data, values=own(values), cameras=sized)


def select_own_views(data: Data, which: Tensor) -> Data:
    """Individual views of each datum. which: their indices (batch, views)."""
    assert data.cameras is not None  # ``Views.select_seen`` has looked
    row = torch.arange(len(data)).unsqueeze(1)
    own = lambda x: x[row.to(x.device), which.to(x.device)]
    cameras = Cameras(own(data.cameras.c2w), own(data.cameras.intrinsics))
    return replace(data, values=own(data.tensor), cameras=cameras)
