"""What stands at the end of a fit: a file of its kind, a picture, how close it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloom.cli.data import source_of
from fieldloom.cli.grids import WHOLE, shape_of, tracked

if TYPE_CHECKING:
    from fieldloom.modalities import Grid, Views
    from fieldloom.modalities.sources import Source
    from fieldloom.system import System

CHEAP = 1 << 24
"""Values, or evaluations of the field, up to which a fit is drawn and measured as a whole."""

LONGEST, VIEWS = 1024, 8
"""Pixels of the longer side of a larger picture; views on a sheet."""


def show(system: System, folder: Path) -> list[str]:
    """Write ``fitted.png`` and the usual file of its kind of a run without codes; what to say.

    What would cost too much is drawn at a lower resolution, and said so.
    """
    if system.family.has_code or "field" not in system.finished:
        return []
    source = source_of(system, None)
    modality: Any = system.modality
    return (views if modality.kind == "views" else datum)(system, modality, source, folder)


def datum(system: System, modality: Grid, source: Source, folder: Path) -> list[str]:
    """Of a grid: the first datum as its usual file, and as a picture."""
    import torch

    from fieldloom import export
    from fieldloom.metrics.paired import psnr
    from fieldloom.types import Data

    code, own = system.family.conditioner.origin(1).detach(), modality.shape()
    shape = drawn(modality)
    strips = tracked(system.strips(code, shape), shape[0])
    raw = torch.cat([strip for _, strip in strips], 1)
    made = raw.clamp(0, 1)
    written = [modality.save(Data(made[None]), folder / "fitted")]
    picture = modality.to_image(made)
    if picture is not None and folder / "fitted.png" not in written:
        written.append(export.png(picture, folder / "fitted.png"))
    names = ", ".join(str(path) for path in written if path is not None)
    size = by(shape) if shape == own else f"{by(shape)} of {by(own)}"
    said = [f"fitted: {names} ({size})"]
    if shape == own and len(source.train) == 1 and source.data.shape[2:] == own:
        value = psnr(raw[None], source.read(source.train).tensor).item()
        return [*said, f"PSNR over all points: {value:.2f} dB"]
    return [*said, *logged(folder)]


def drawn(modality: Grid) -> tuple[int, ...]:
    """Samples of each axis of what is drawn: all of them, unless they are too many."""
    own = modality.shape()
    size = math.prod(own) * modality.channels
    if size <= CHEAP or len(own) not in (2, 3):
        return own
    if len(own) == 2:
        return shape_of(modality, LONGEST, WHOLE, False)
    smaller = max(own[1:]) * math.sqrt(CHEAP / size)
    return shape_of(modality, max(16, int(smaller)), WHOLE, False)


def views(system: System, modality: Views, source: Source, folder: Path) -> list[str]:
    """Of a scene: a sheet of views, those held out first, below their originals."""
    import torch
    from torch.nn.functional import interpolate

    from fieldloom import export
    from fieldloom.metrics.paired import psnr
    from fieldloom.modalities.views import views_of

    first = source.train[:1]
    data = source.take(first)
    kept, all_of = modality.kept(data), data.shape[1]
    indices = [*range(kept, all_of), *range(kept)][:VIEWS]
    data = views_of(data, torch.tensor(indices)).as_float()
    rays = len(indices) * math.prod(modality.shape()) * system.render.evaluations
    fraction = min(1.0, math.sqrt(CHEAP / rays))
    height, width = (max(1, int(n * fraction)) for n in modality.shape())
    code = system.family.conditioner.origin(1).detach()
    raw = system.predict(code, (height, width), data.cameras).tensor[0]
    true = data.tensor[0]
    small = interpolate(true, (height, width), mode="area")
    path = folder / "fitted.png"
    sheet = export.sheet(torch.cat([small, raw.clamp(0, 1)]), len(indices))
    export.write(export.png_bytes(sheet), path)
    beyond = min(modality.held, len(indices))
    size = f"{len(indices)} views, {beyond} of them held out, {height} x {width}"
    said = [f"fitted: {path} ({size})"]
    if fraction == 1:
        return [*said, f"PSNR of these views: {psnr(raw, true).mean():.2f} dB"]
    return [*said, *logged(folder)]


def logged(folder: Path) -> list[str]:
    """The last PSNR in the run's log, if there is one."""
    from fieldloom.engine.run import Run

    lines = [x for x in Run(folder).read_log() if x.get("stage") == "field" and "psnr" in x]
    return [f"PSNR of the last step's points: {lines[-1]['psnr']:.2f} dB"] if lines else []


def by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
