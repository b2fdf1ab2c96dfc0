"""Density where nothing is: in space that some view sees the background through.

Grids of weights that are repeated over space leave fog and floaters there (Levels-of-Experts,
Fig. 5), which pictures from nearby cameras hardly show.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fieldloom.evaluation.results import Score
from fieldloom.geometry.cameras import project_points
from fieldloom.modalities import Views
from fieldloom.renderers import Volume
from fieldloom.renderers.volume import Function
from fieldloom.system import System
from fieldloom.types import Code, Data

POINTS = 1 << 15
"""Points of a scene that are looked at, whether known to be empty or not."""

BLANK = 1.5 / 255
"""How far a pixel may be from the background, and still show it."""


def free_space_scores(system: System, modality: Views, codes: Code, data: Data) -> Sequence[Score]:
    """Mean density, and mean opacity, of each scene in space that is known to be empty.

    Scenes of which no such space is known are left out; of renderers without a density, or without
    a background, all are, with a warning.
    """
    render = system.render
    if type(render) is not Volume or render.background is None:
        needs = "free-space needs renderer 'volume' with a background: left out."
        warnings.warn(needs, stacklevel=2)
        return []
    unit = (render.background - modality.low) / (modality.high - modality.low)
    step = (render.far - render.near) / (render.samples - 1)
    densities, opacities = [], []
    for i in range(len(data)):
        points = empty_points(modality, data.part([i]), unit, (render.near, render.far))
        if len(points):
            function = system.family.bind(codes[i : i + 1].to(system.device))
            density = density_at(render, function, points.to(system.device)).cpu()
            densities.append(density.mean())
            opacities.append((1 - torch.exp(-density * step)).mean())
    of = ", points that a view sees the background through"
    return [
        Score("free.density", torch.tensor(densities), "per unit of length", of),
        Score("free.opacity", torch.tensor(opacities), f"of {step:.3g}, as samples lie apart", of),
    ]


def empty_points(
    modality: Views,
    datum: Data,
    background: float,
    depths: tuple[float, float] = (0.0, math.inf),
    count: int = POINTS,
) -> Tensor:
    """Those of random points of a scene that some view sees before its background: (n, 3).

    Their pixel and its eight neighbours are blank: the edge of an object may lie within a pixel
    whose centre misses it. Points are uniform in the scene's box, or in [-1, 1]^3, in the field's
    coordinates, and always the same. datum: one scene with all its views. background: its shade,
    from 0 to 1. depths: where a ray of a view begins and ends: what is nearer or farther is not
    drawn, so that a blank pixel says nothing of it.
    """
    box = torch.tensor(modality.box or (-1.0,) * 3 + (1.0,) * 3).view(2, 3)
    drawn = torch.rand(count, 3, generator=Generator().manual_seed(0))
    points = box[0] + (box[1] - box[0]) * drawn
    assert datum.cameras is not None
    cameras, images = modality.place(datum.cameras), datum.as_float().tensor[0]
    shown = ((images - background).abs() > BLANK).any(1, keepdim=True)
    blank = F.max_pool2d(shown.float(), 3, 1, 1)[:, 0] == 0  # (views, height, width)
    height, width = blank.shape[1:]
    empty = torch.zeros(count, dtype=torch.bool)
    for own, c2w, intrinsics in zip(blank, cameras.c2w[0], cameras.intrinsics[0], strict=True):
        pixels, depth = project_points(points, c2w, intrinsics)
        column, row = pixels.floor().nan_to_num(-1.0, -1.0, -1.0).clamp(-1, 1e9).long().unbind(-1)
        drawn_there = (depth > 0) & (depth >= depths[0]) & (depth <= depths[1])
        seen = drawn_there & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        empty[seen] |= own[row[seen], column[seen]]
    return points[empty]


@torch.no_grad()
def density_at(render: Volume, function: Function, points: Tensor) -> Tensor:
    """The density of a field at points (n, 3) of its rays' coordinates: (n,)."""
    direction = points.new_tensor([0.0, 0.0, 1.0]).expand(1, len(points), 3)  # it does not count
    raw = render.evaluate(function, points.view(1, -1, 1, 3) / render.scale, direction)
    return render.activate(raw)[1].flatten()
