"""Level sets of fields: marching cubes, and Newton steps onto the level set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.geometry.mesh import Mesh
from fieldloom.types import Function

CHUNK = 2**15  # points of one evaluation of the field


def isosurface(
    volume: Tensor | NDArray[Any],
    axes: tuple[ArrayLike, ArrayLike, ArrayLike],
    level: float = 0.5,
) -> Mesh | None:
    """The closed surface around the values of a volume (X, Y, Z) that are above ``level``.

    axes: the coordinates of the samples along each axis, ascending, not necessarily evenly spaced.
    Vertices are in these coordinates, and normals point outwards, to lower values. At the border
    the surface is closed half a step outside, where the cells of the outer samples end. Returns
    None where nothing is above the level.

    Raises InputError for axes that do not fit, and values that are not finite.
    """
    from skimage.measure import marching_cubes

    values = volume.detach().cpu().numpy() if isinstance(volume, Tensor) else volume
    values = values.astype(np.float64) - level  # the steps are float32: keep digits at the level
    ticks = [np.asarray(axis, np.float64) for axis in axes]
    if values.ndim != 3 or values.shape != tuple(len(p) for p in ticks) or min(values.shape) < 2:
        raise InputError(
            f"a volume of the shape {values.shape} with axes of {[len(p) for p in ticks]} samples "
            "has no surface: it needs three axes, of as many samples as it has and at least 2."
        )
    if not all((np.diff(p) > 0).all() for p in ticks):
        raise InputError("the axes of a volume must ascend: sort the samples by their coordinate.")
    if not np.isfinite(values).all():
        raise InputError("a volume with NaN or infinite values has no surface: look at the field.")
    if not (values > 0).any():
        return None
    padded = np.pad(values, 1, mode="edge")
    # A value and its negative cross the level half-way between, so that the cap is flat.
    shell = np.ones(padded.shape, bool)
    shell[1:-1, 1:-1, 1:-1] = False
    padded[shell] = -np.abs(padded[shell])
    scale = np.abs(padded).max()  # so that float32 neither overflows nor loses digits
    # "ascent" orients the faces so that normals point to lower values.
    vertices, faces, _, _ = marching_cubes(
        (padded / scale).astype(np.float32), 0.0, gradient_direction="ascent"
    )
    beyond = [np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]]) for p in ticks]
    columns = [np.interp(vertices[:, i], np.arange(len(p)), p) for i, p in enumerate(beyond)]
    return Mesh(np.stack(columns, 1), faces.astype(np.int64))


def sample_near_level(
    function: Function,
    axes: tuple[Tensor, Tensor, Tensor],
    slope: float,
    reach: float,
    most: float = 1.0,
) -> Tensor | None:
    """The values of a field on a grid (X, Y, Z), exact wherever its level set passes.

    For fields that are ``slope`` times a distance to their level set, up to the distance ``reach``
    at least, and constant beyond. Blocks of the grid are evaluated at their centres first: where
    these are further from the level set than the block reaches (and a third more, for what a
    learned field is wrong by), all the block has the centre's value.

    function: coordinates (1, n, 3), float32, to values less the level (1, n, 1). axes: the evenly
    spaced coordinates of the samples along each axis. most: the share of the blocks that may be
    evaluated at all their samples; where more would be, nothing is, and the result is None.
    """
    step = max(float(axis[1] - axis[0]) for axis in axes)
    side = MOST_SIDE
    while side > 1 and _half_diagonal(side, step) > reach:
        side //= 2
    if side == 1:
        return function(_corners(*axes)[None]).reshape([len(axis) for axis in axes])
    # the last block of an axis may reach beyond its end
    counts = [math.ceil(len(axis) / side) for axis in axes]
    middles = [
        axis[0] + (axis[1] - axis[0]) * (torch.arange(n) * side + (side - 1) / 2)
        for axis, n in zip(axes, counts, strict=True)
    ]
    coarse = function(_corners(*middles)[None]).reshape(-1)
    near = (coarse.abs() < slope * _half_diagonal(side, step)).nonzero()[:, 0]
    if len(near) > most * len(coarse):
        return None
    blocks = coarse[:, None].repeat(1, side**3)
    within = _corners(
        *[(axis[1] - axis[0]) * (torch.arange(side) - (side - 1) / 2) for axis in axes]
    )
    centres = _corners(*middles)[near]
    for some, places in zip(near.split(BLOCKS), centres.split(BLOCKS), strict=True):
        points = (places[:, None] + within).reshape(1, -1, 3)
        blocks[some] = function(points).reshape(len(some), -1)
    parted = blocks.reshape(*counts, side, side, side).permute(0, 3, 1, 4, 2, 5)
    whole = parted.reshape([n * side for n in counts])
    return whole[tuple(slice(len(axis)) for axis in axes)]


MOST_SIDE, BLOCKS = 8, 2**10
"""Samples along the side of a block; blocks that are evaluated at a time."""


def _half_diagonal(side: int, step: float) -> float:
    """How far a block and the samples next to it reach from its centre, and a third more."""
    return 4 / 3 * math.sqrt(3) * (side + 1) / 2 * step


def _corners(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """All combinations of coordinates, the last fastest: (x * y * z, 3), float32."""
    return torch.cartesian_prod(x.float(), y.float(), z.float())


def project_to_level(
    mesh: Mesh,
    function: Function,
    level: float,
    steps: int = 3,
    max_step: float = math.inf,
    dtype: torch.dtype = torch.float32,
) -> Mesh:
    """The mesh with its vertices moved onto the level set of a field, by Newton steps.

    x <- x - (f(x) - level) g / |g|^2, with g the gradient at x. A vertex stops where a step would
    increase |f(x) - level|.

    function: coordinates (1, n, 3), of ``dtype``, to values (1, n, 1).
    max_step: the longest step, in the mesh's unit.
    """
    placed = [
        _newton(part, function, level, steps, max_step)
        for part in torch.from_numpy(mesh.vertices).to(dtype).split(CHUNK)
    ]
    return Mesh(torch.cat(placed).double().numpy(), mesh.faces)


def _newton(
    points: Tensor, function: Function, level: float, steps: int, max_step: float
) -> Tensor:
    error, grad = _residual(points, function, level)
    for _ in range(steps):
        square = grad.square().sum(1, keepdim=True)
        step = torch.where(square > 0, error[:, None] * grad / square, 0.0)
        length = step.norm(dim=1, keepdim=True)
        if math.isfinite(max_step):
            step = step * (max_step / length.clamp(min=max_step))
        tried = points - step
        new_error, new_grad = _residual(tried, function, level)
        better = new_error.abs() < error.abs()  # false for NaN too
        points = torch.where(better[:, None], tried, points)
        error = torch.where(better, new_error, error)
        # A vertex that has stopped has the gradient 0, and makes no further step.
        grad = torch.where(better[:, None], new_grad, 0.0)
    return points


def _residual(points: Tensor, function: Function, level: float) -> tuple[Tensor, Tensor]:
    """f(x) - level (n,), and its gradient (n, 3)."""
    with torch.enable_grad():
        leaf = points.detach().clone().requires_grad_()
        values = function(leaf[None])[0, :, 0]
        (grad,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach().to(points) - level, grad
