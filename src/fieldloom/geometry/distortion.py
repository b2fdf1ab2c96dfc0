"""Lens distortion: where a lens shows what a pinhole camera would show elsewhere.

Points of the plane at depth 1 are OpenCV's (x right, y down), pixels are those of ``cameras``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.geometry.cameras import Size

WIDEST = math.radians(70)
"""The largest angle from the axis that a pinhole camera keeps: its pixels grow as tan does."""
ZOOMS = (0.05, 8.0)
"""Focal lengths of the pinhole camera that are tried, relative to the lens's."""
LATTICE = 65
"""Points along each side of an image where a lens is examined."""


@dataclass(frozen=True)
class Lens:
    """Coefficients of a distorting lens, as OpenCV and COLMAP name them.

    radial:     k1 ... k6 of the rational model (Brown's where k4 ... k6 are 0), or k1 ... k4 of the
                fisheye; those that are left out are 0.
    tangential: p1, p2; a fisheye has none.
    fisheye:    whether the radius is a polynomial of the angle from the axis (Kannala and Brandt,
                doi:10.1109/TPAMI.2006.153), rather than of its tangent.
    """

    radial: tuple[float, ...] = ()
    tangential: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    @property
    def straight(self) -> bool:
        """Whether it is no lens, but a pinhole."""
        return not (self.fisheye or any(self.radial) or any(self.tangential))


def distort(
    x: Float[Tensor, ...], y: Float[Tensor, ...], lens: Lens
) -> tuple[Float[Tensor, ...], Float[Tensor, ...]]:
    """Where a lens shows points (x, y) of the plane at depth 1, on the same plane.

    Brown's model, with q = 1 + k4 r^2 + k5 r^4 + k6 r^6:
    x' = x (1 + k1 r^2 + k2 r^4 + k3 r^6) / q + 2 p1 x y + p2 (r^2 + 2 x^2),
    y' = y (1 + k1 r^2 + k2 r^4 + k3 r^6) / q + p1 (r^2 + 2 y^2) + 2 p2 x y.
    Fisheye, with a = atan(r): (x', y') = (x, y) a (1 + k1 a^2 + k2 a^4 + k3 a^6 + k4 a^8) / r.
    Source: OpenCV's calib3d and fisheye modules, whose models COLMAP's are.
    """
    square = x * x + y * y
    if lens.fisheye:
        radius = square.sqrt()
        angle = radius.atan()
        bent = angle * _polynomial(angle * angle, lens.radial)
        factor = torch.where(radius > 0, bent / radius, 1.0)
        return x * factor, y * factor
    factor = _polynomial(square, lens.radial[:3]) / _polynomial(square, lens.radial[3:])
    p1, p2 = lens.tangential
    return (
        x * factor + 2 * p1 * x * y + p2 * (square + 2 * x * x),
        y * factor + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
    )


def _polynomial(square: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """1 + k1 s + k2 s^2 + ..., by Horner's rule."""
    total = torch.zeros_like(square)
    for k in reversed(coefficients):
        total = (total + k) * square
    return 1 + total


def find_in_lens(
    u: Float[Tensor, ...],
    v: Float[Tensor, ...],
    pinhole: Float[Tensor, 4],
    intrinsics: Float[Tensor, 4],
    lens: Lens,
) -> tuple[Float[Tensor, ...], Float[Tensor, ...]]:
    """The pixels where a lens shows what a pinhole camera shows at the pixels u, v.

    pinhole, intrinsics: fx, fy, cx, cy of the pinhole camera and of the lens.
    """
    x, y = (u - pinhole[2]) / pinhole[0], (v - pinhole[3]) / pinhole[1]
    x, y = distort(x, y, lens)
    return x * intrinsics[0] + intrinsics[2], y * intrinsics[1] + intrinsics[3]


def fit_pinhole(
    intrinsics: Float[Tensor, 4], lens: Lens, size: tuple[float, float], name: str
) -> tuple[Float[Tensor, 4], float]:
    """The widest pinhole camera all of whose pixels a lens shows, and the share of the image kept.

    It has the principal point and the size (height, width) of the lens's image, and another focal
    length. It sees nothing beyond ``WIDEST``, nor where the lens shows points twice. Raises
    InputError where no such camera sees an eighth of the image's width. name: of the image.
    """
    height, width = size
    v, u = torch.meshgrid(
        *(torch.linspace(0, x, LATTICE, dtype=torch.float64) for x in size), indexing="ij"
    )
    intrinsics = intrinsics.double()

    def zoom(factor: float) -> Tensor:
        return intrinsics * intrinsics.new_tensor([factor, factor, 1, 1])

    def shows_all(factor: float) -> bool:
        pinhole = zoom(factor)
        x, y = find_in_lens(u, v, pinhole, intrinsics, lens)
        inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
        # The area of each cell is positive where the lens shows each point once.
        right, down = torch.stack([x, y]).diff(dim=2)[:, :-1], torch.stack([x, y]).diff(dim=1)
        area = right[0] * down[1, :, :-1] - right[1] * down[0, :, :-1]
        far = torch.hypot((u - pinhole[2]) / pinhole[0], (v - pinhole[3]) / pinhole[1])
        return bool(inside.all() and (area > 0).all() and far.max() <= math.tan(WIDEST))

    low, high = ZOOMS
    if not shows_all(high):
        raise InputError(
            f"the lens of {name} cannot be undone: its coefficients fold the image, or its "
            "principal point lies outside."
        )
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if shows_all(middle) else (middle, high)
    x, y = find_in_lens(u, v, zoom(high), intrinsics, lens)
    around = lambda a: torch.cat([a[0], a[1:, -1], a[-1].flip(0)[1:], a[1:-1, 0].flip(0)])
    x, y = around(x), around(y)
    area = (x * y.roll(-1) - x.roll(-1) * y).sum().abs() / 2
    return zoom(high), float(area / (height * width))


def sample_lens(
    image: Float[Tensor, "channels height width"],
    size: Size,
    full: tuple[float, float],
    pinhole: Float[Tensor, 4],
    intrinsics: Float[Tensor, 4],
    lens: Lens,
    most: int = 1 << 20,
) -> Float[Tensor, "channels rows columns"]:
    """The image of a pinhole camera, of another size, from that of a lens.

    full: (height, width) that both cameras are of. A pixel is the mean of as many samples as the
    image has pixels there, so that nothing is resampled twice. most: samples taken at a time.
    """
    (rows, columns), (height, width) = size, full
    down, across = (math.ceil(n / m) for n, m in zip(image.shape[1:], size, strict=True))
    how = "bicubic" if down == across == 1 else "bilinear"
    pinhole, intrinsics = pinhole.float(), intrinsics.float()
    u = (torch.arange(columns * across) + 0.5) * (width / (columns * across))
    bands, step = [], max(1, most // (down * across * columns))
    for first in range(0, rows, step):
        last = min(rows, first + step)
        v = (torch.arange(first * down, last * down) + 0.5) * (height / (rows * down))
        x, y = find_in_lens(u.expand(len(v), -1), v.unsqueeze(1), pinhole, intrinsics, lens)
        grid = torch.stack([x * (2 / width) - 1, y * (2 / height) - 1], -1)
        seen = torch.nn.functional.grid_sample(
            image.unsqueeze(0), grid.unsqueeze(0), how, "border", align_corners=False
        )[0]
        bands.append(seen.unflatten(2, (columns, across)).unflatten(1, (-1, down)).mean((2, 4)))
    return torch.cat(bands, 1)
