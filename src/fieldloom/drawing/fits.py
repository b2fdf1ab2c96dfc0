"""The fit of a single datum as a file in its usual format and as an image, with its PSNR or SNR."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fieldloom import export
from fieldloom.drawing.drawer import report_strips
from fieldloom.drawing.grids import shape_of
from fieldloom.engine.run import Run
from fieldloom.evaluation.learning_curves import ratio_of
from fieldloom.metrics.paired import FIDELITY, psnr, ws_psnr
from fieldloom.modalities import Modality, Views
from fieldloom.modalities.modality import spread
from fieldloom.modalities.sources import Source
from fieldloom.modalities.sources.summary import count_things
from fieldloom.modalities.views import select_views
from fieldloom.progress import track
from fieldloom.system import System
from fieldloom.types import Data

CHEAP = 1 << 24
"""Values, or evaluations of the field, up to which a fit is drawn in full size and measured."""

LONGEST, VIEWS = 1024, 8
"""Pixels of the longer side of a reduced image; views on a sheet."""


def draw_grid_fit(system: System, source: Source, folder: Path) -> list[str]:
    """Draw the fit of a grid into its usual file and an image; returns lines for the user."""
    modality = system.modality
    code, own = system.family.conditioner.origin(1).detach(), modality.shape()
    shape = affordable_shape(modality)
    strips = report_strips(system.strips(code, shape), shape[0])
    raw = torch.cat([strip for _, strip in strips], 1)
    made = raw.clamp(0, 1)
    files = [modality.save(Data(made[None]), folder / "fitted")]
    image = modality.to_image(made)
    if image is not None and folder / "fitted.png" not in files:
        files.append(export.png(image, folder / "fitted.png"))
    names = ", ".join(str(path) for path in files if path is not None)
    size = " x ".join(map(str, shape))
    if shape != own:
        size += f" of {' x '.join(map(str, own))}"
    lines = [f"fitted: {names} ({size})"]
    if shape == own and len(source.train) == 1 and source.data.shape[2:] == own:
        true, areas = source.read(source.train).tensor, modality.areas(own[0])
        value = FIDELITY[modality.fidelity](raw[None], true).item()
        line = f"{modality.fidelity.upper()} over all points: {value:.2f} dB"
        if areas is not None:
            line += f", weighted by area {ws_psnr(raw[None], true, areas).item():.2f} dB"
        return [*lines, line]
    return [*lines, *logged_ratio(folder)]


def affordable_shape(modality: Modality) -> tuple[int, ...]:
    """The shape that a fit is drawn at: the modality's own, or a smaller one for large data."""
    own = modality.shape()
    size = math.prod(own) * modality.channels
    if size <= CHEAP or len(own) not in (2, 3):
        return own
    if len(own) == 2:
        return shape_of(modality, LONGEST)
    smaller = max(own[1:]) * math.sqrt(CHEAP / size)
    return shape_of(modality, max(16, int(smaller)))


def draw_scene_fit(system: System, source: Source, folder: Path) -> list[str]:
    """Draw the fit of a scene as a sheet of views below their originals, those held out first.

    Half of them were held out, where there are any, and the others trained on; there are as many as
    can be drawn soon in full size. Returns lines for the user, with the PSNR of both.
    """
    modality = cast(Views, system.modality)
    data = source.take(source.train[:1])
    seen, count = modality.count_seen(data), data.shape[1]
    each = math.prod(modality.shape()) * system.render.evaluations
    most = max(2, min(VIEWS, CHEAP // each))
    held = [seen + i for i in spread(count - seen, most // 2)]
    indices = [*held, *spread(seen, most - len(held))]
    data = select_views(data, torch.tensor(indices)).as_float()
    fraction = min(1.0, math.sqrt(CHEAP / (len(indices) * each)))
    height, width = (max(1, int(n * fraction)) for n in modality.shape())
    code = system.family.conditioner.origin(1).detach()
    each_view = (select_views(data, slice(i, i + 1)).cameras for i in range(len(indices)))
    shown = track(each_view, "drawing", len(indices), "views")
    raw = torch.cat([system.predict(code, (height, width), x).tensor[0] for x in shown])
    true = data.tensor[0]
    small = interpolate(true, (height, width), mode="area")
    path = folder / "fitted.png"
    sheet = export.sheet(torch.cat([small, raw.clamp(0, 1)]), len(indices))
    export.png(sheet, path)
    lines = [
        f"fitted: {path} ({count_things(len(indices), 'view')}, {len(held)} of them held out, "
        f"{height} x {width})"
    ]
    if fraction == 1:
        return [*lines, *describe_psnr(psnr(raw, true), len(held))]
    return [*lines, *logged_ratio(folder)]


def describe_psnr(values: Tensor, held_out: int) -> list[str]:
    """The mean PSNR of views held out, the first of them, and of those trained on, as lines."""
    parts = {"held out": values[:held_out], "trained on": values[held_out:]}
    return [
        f"PSNR of {count_things(len(part), 'view')} {how}: {part.mean():.2f} dB"
        for how, part in parts.items()
        if len(part)
    ]


def logged_ratio(folder: Path) -> list[str]:
    """The last PSNR or SNR in the run's log, as a line, if there is one."""
    lines = [x for x in Run(folder).read_log() if x.get("stage") == "field" and x.keys() & FIDELITY]
    if not lines:
        return []
    name = ratio_of(lines[-1:])
    return [f"{name.upper()} of the last step's points: {lines[-1][name]:.2f} dB"]
