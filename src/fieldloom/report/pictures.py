"""The pictures of a report: reconstructions, samples, their nearest data, losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom import export
from fieldloom.engine.run import Run
from fieldloom.evaluation import Result
from fieldloom.evaluation.plots import figure_to_png
from fieldloom.modalities.modality import Resolution
from fieldloom.modalities.sources import Source
from fieldloom.progress import PATIENCE, track
from fieldloom.system import System

SAMPLES = 64
"""The most images on the sheet of samples; of other data half as many are drawn."""

ImageFile = tuple[str, bytes]
"""The name and the content of a file."""


def draw_images(
    run: Run, system: System, source: Source, result: Result, resolution: Resolution | None
) -> dict[str, ImageFile]:
    """The images of a report: caption -> file name and bytes."""
    images: dict[str, ImageFile] = {}
    count = min(16, len(result.reconstructions))
    true, made = (as_images(system, x[:count]) for x in (result.originals, result.reconstructions))
    if true is not None and made is not None:
        size = tile_height(true)
        sheet = export.sheet(torch.cat([true, made]), count, size)
        what = "Data that were held out" if len(source.test) else "Data"
        images[f"{what} (above) and their reconstructions (below)"] = (
            "reconstructions.png",
            export.png_bytes(sheet),
        )
    for name, caption, own in result.images:
        content = export.sheet(own, len(own)) if len(own) > 1 else export.pixels(own[0])
        images[caption] = (name, export.png_bytes(content))
    if result.sample_codes is not None and result.samples is not None:
        images |= draw_samples(system, source, result, resolution)
    if len(result.codes) >= 2 and system.family.has_code:
        frames = draw_interpolation(system, result.codes[:16].to(system.device), resolution)
        if frames:
            path = export.gif(frames, run.inside("interpolation.gif"))
            images["Between pairs of held-out data, along the line between their codes"] = (
                "interpolation.gif",
                path.read_bytes(),
            )
    return images


def as_images(system: System, data: Tensor) -> Tensor | None:
    """Images (n, 3, height, width) of data; None where they cannot be shown, or are empty."""
    scattered = data.ndim < 4 and len(system.modality.shape()) > 1
    if not len(data) or scattered:
        return None
    images = [system.modality.to_image(datum) for datum in data]
    return None if images[0] is None else torch.stack([x for x in images if x is not None])


def decode_views(system: System, codes: Tensor, resolution: Resolution | None) -> Tensor:
    """As ``System.decode``, but of scenes a single view."""
    return system.decode(codes, resolution, system.modality.cameras(count=1)).tensor


def tile_height(images: Tensor) -> int:
    """The height to draw images (n, channel, height, width) at: about 96, a whole multiple of their
    own, so that pixels stay square.
    """
    height = images.shape[2]
    return height * max(1, 96 // height)


def draw_samples(
    system: System, source: Source, result: Result, resolution: Resolution | None
) -> dict[str, ImageFile]:
    """The sheet of samples and, where these are known, of their nearest training data.

    Returns caption -> file name and bytes.
    """
    assert result.sample_codes is not None
    assert result.samples is not None
    is_image = result.samples.ndim == 4
    codes = result.sample_codes[: SAMPLES if is_image else SAMPLES // 2]
    fine = torch.cat([decode_views(system, code, resolution) for code in codes.split(8)])
    sheet = as_images(system, fine)
    if sheet is None:
        return {}
    shape = " x ".join(str(n) for n in (fine.shape[2:] if is_image else sheet.shape[2:]))
    images = {
        f"{len(sheet)} samples, drawn at {shape}": (
            "samples.png",
            export.png_bytes(export.sheet(sheet, 8)),
        )
    }
    if result.nearest is None:
        return images
    count = len(codes)
    close = as_images(system, source.read(source.train[result.nearest[:count]]).tensor)
    own = as_images(system, result.samples[:count])
    assert close is not None
    assert own is not None
    size = tile_height(own)
    rows = []  # a row of samples above the row of their nearest training data
    for first in range(0, count, 16):
        part = slice(first, first + 16)
        rows.append(np.vstack([export.sheet(x[part], 16, size) for x in (own, close)]))
    width = rows[0].shape[1]
    rows = [np.pad(r, ((0, 6), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    images["Samples (above) and the nearest training datum of each (below)"] = (
        "nearest.png",
        export.png_bytes(np.vstack(rows)),
    )
    return images


def draw_interpolation(
    system: System, codes: Tensor, resolution: Resolution | None, steps: int = 20
) -> list[NDArray[np.uint8]]:
    """Frames from the first half of the codes to the second half and back.

    No frames where data cannot be shown as images.
    """
    half = min(len(codes) // 2, 8)
    fractions = [i / (steps - 1) for i in range(steps)]
    forth = []
    for fraction in track(fractions, "drawing an interpolation", steps, "frames", PATIENCE):
        between = torch.lerp(codes[:half], codes[half : 2 * half], fraction)
        images = as_images(system, decode_views(system, between, resolution))
        if images is None:
            return []
        forth.append(export.sheet(images, half))
    return forth + forth[-2:0:-1]


def plot_losses(log: list[dict[str, Any]]) -> bytes:
    """The loss of every stage against steps, as a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    stages = list(dict.fromkeys(line["stage"] for line in log))
    figure, axes = plt.subplots(1, max(1, len(stages)), figsize=(4.2 * max(1, len(stages)), 2.8))
    for ax, stage in zip(np.atleast_1d(axes), stages, strict=False):
        lines = [line for line in log if line["stage"] == stage]
        for name in [key for key in lines[0] if key.endswith("loss")]:
            there = [(x["step"], x[name]) for x in lines if x.get(name) is not None]
            mark = "o" if len(there) == 1 else None  # a line of one point is not seen
            ax.plot(*zip(*there, strict=True), label=name, marker=mark)
        if ax.lines and len(ax.lines) > 1:
            ax.legend()
        ax.set(title=f"stage {stage}", xlabel="step", ylabel="loss", yscale="log")
        ax.grid(alpha=0.3)
    return figure_to_png(figure)
