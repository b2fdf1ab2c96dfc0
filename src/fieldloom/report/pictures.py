"""The pictures of a report: reconstructions, samples, their nearest data, losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from fieldloom.report.words import things
from fieldloom.system import System

SAMPLES = 64
"""The most images on the sheet of samples; of other data half as many are drawn."""

PIXELS = 1 << 20
"""Pixels of the tiles of one picture on the page, all together; at least ``FEWEST`` are shown."""
FEWEST = 6

SECONDS = 10
"""Of each sound that the page plays, at most."""


@dataclass(frozen=True)
class Tile:
    """What a page shows as one: images (PNG) above one another, of one size, and a label.

    sounds: WAV files that belong to it. width, height: of an image, in pixels.
    """

    images: Sequence[bytes]
    width: int
    height: int
    label: str = ""
    sounds: Sequence[bytes] = ()


@dataclass(frozen=True)
class Picture:
    """A picture of a report: a file of the run, and the tiles by which the page shows it.

    tiles: empty where the page shows the file itself. place: the question beside whose answer it
    stands; empty: at the top; ``more``: in the folded part.
    """

    file: str
    content: bytes
    caption: str
    tiles: Sequence[Tile] = ()
    place: str = ""


def draw_pictures(
    run: Run, system: System, source: Source, result: Result, resolution: Resolution | None
) -> list[Picture]:
    """The pictures of a report, in their order; samples come first."""
    pictures, many = [], things(system)[1]
    if result.sample_codes is not None and result.samples is not None:
        pictures += draw_samples(system, source, result, resolution)
    if len(result.codes) >= 2 and system.family.has_code:
        frames = draw_interpolation(system, result.codes[:16].to(system.device), resolution)
        if frames:
            content = export.gif(frames, run.inside("interpolation.gif")).read_bytes()
            what = f"held-out {many}" if len(source.test) else many
            caption = f"From {what} to other {what} and back, along the line between their codes"
            pictures.append(Picture("interpolation.gif", content, caption))
    pictures += draw_reconstructions(system, source, result)
    for name, caption, own, question in result.images:
        if name.endswith(".gif"):
            content = export.gif(map(export.pixels, own), run.inside(name)).read_bytes()
            pictures.append(Picture(name, content, caption, place=question))
            continue
        sheet = export.sheet(own, len(own)) if len(own) > 1 else export.pixels(own[0])
        tiles = [make_tile([one]) for one in own] if len(own) > 1 else []
        pictures.append(Picture(name, export.png_bytes(sheet), caption, tiles, question))
    if log := run.read_log():
        pictures.append(Picture("curves.png", plot_losses(log), "Losses of training", place="more"))
    return pictures


def make_tile(images: Sequence[Tensor], label: str = "", sounds: Sequence[bytes] = ()) -> Tile:
    """A tile of images (1 | 3, height, width) in [0, 1] of one size."""
    height, width = images[0].shape[1:]
    contents = [export.png_bytes(export.pixels(image)) for image in images]
    return Tile(contents, width, height, label, sounds)


def count_tiles(images: Tensor) -> int:
    """How many of images (n, channel, height, width) the page shows."""
    return min(len(images), max(FEWEST, PIXELS // (images.shape[2] * images.shape[3])))


def draw_reconstructions(system: System, source: Source, result: Result) -> list[Picture]:
    """Data and their reconstructions; of a few scenes, several views of each."""
    true, made = (spread_views(system, x) for x in (result.originals, result.reconstructions))
    count = min(16, len(made))
    real, own = (as_images(system, x[:count]) for x in (true, made))
    if real is None or own is None:
        return []
    sheet = export.sheet(torch.cat([real, own]), len(real), tile_height(real))
    one, many = things(system)
    what = {"test": "Held-out", "given": "Given", "training": "Training"}[result.part] + f" {many}"
    if not system.family.has_code:
        what = "Held-out views" if system.modality.held else f"The {one}"
    labels = label_data(source, result, len(real)) if true is result.originals else [""] * len(real)
    shown = count_tiles(torch.cat([real, own])) if len(real) > 2 else len(real)
    if len(real) == 1:
        sounds = [[x] if x else [] for x in (sound(system, x[0]) for x in (true, made))]
        tiles = [
            make_tile([real[0]], "original", sounds[0]),
            make_tile([own[0]], "reconstruction", sounds[1]),
        ]
        caption = f"{what} and its reconstruction"
    else:
        tiles = [
            make_tile(
                [a, b], label, [x for x in (sound(system, one[i]) for one in (true, made)) if x]
            )
            for i, (a, b, label) in enumerate(zip(real, own, labels, strict=True))
        ][:shown]
        caption = f"{what} (above) and their reconstructions (below){crosses(result, 'empty')}"
    return [Picture("reconstructions.png", export.png_bytes(sheet), caption, tiles)]


def crosses(result: Result, name: str) -> str:
    """What a cross says, where a metric of this name counts shapes without a surface."""
    there = any(metric.name == name and metric.value for metric in result.metrics)
    return "; a cross: no surface" if there else ""


def spread_views(system: System, data: Tensor) -> Tensor:
    """Views (1, view, channel, height, width) of one scene, as data of a view each: at most 16,
    evenly spaced. Other data as they are.
    """
    if system.modality.kind != "views" or len(data) != 1:
        return data
    few = torch.linspace(0, data.shape[1] - 1, min(16, data.shape[1])).round().long()
    return data[0, few].unsqueeze(1)


def sound(system: System, datum: Tensor) -> bytes:
    """A sound (channel, samples) as a WAV file of its first seconds; empty for other data."""
    if system.modality.kind != "audio":
        return b""
    rate = round(system.modality.rate or 0)
    return export.wav_bytes(datum[:, : SECONDS * rate], rate) if rate else b""


def label_data(source: Source, result: Result, count: int) -> list[str]:
    """The names of the classes of the first measured data; empty where there are none."""
    measured = source.test if len(source.test) else source.train
    if source.labels is None or len(source.names) < 2:
        return [""] * count
    return [source.names[int(source.labels[i])] for i in measured[:count]]


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
) -> list[Picture]:
    """The sheet of samples and, where these are known, of their nearest training data."""
    assert result.sample_codes is not None
    assert result.samples is not None
    is_image = result.samples.ndim == 4
    codes = result.sample_codes[: SAMPLES if is_image else SAMPLES // 2]
    fine = torch.cat([decode_views(system, code, resolution) for code in codes.split(8)])
    sheet = as_images(system, fine)
    if sheet is None:
        return []
    solid = system.modality.kind == "shapes"
    size = fine.shape[2:] if is_image or solid else sheet.shape[2:]
    shape = " x ".join(str(n) for n in size)
    labels = [""] * len(sheet)
    if result.sample_labels is not None and len(source.names) > 1:
        labels = [source.names[int(i)] for i in result.sample_labels[: len(sheet)]]
    shown = count_tiles(sheet)
    tiles = [make_tile([x], y) for x, y in zip(sheet[:shown], labels, strict=False)]
    drawn = f", {'on a grid of' if solid else 'drawn at'} {shape}"
    first = f"; here the first {shown}, all in samples.png" if shown < len(sheet) else ""
    content = export.png_bytes(export.sheet(sheet, 8))
    pictures = [
        Picture(
            "samples.png",
            content,
            f"{len(sheet)} samples{drawn}{first}{crosses(result, 'failures')}",
            tiles,
        )
    ]
    if result.nearest is None:
        return pictures
    count = len(codes)
    close = as_images(system, source.read(source.train[result.nearest[:count]]).tensor)
    own = as_images(system, result.samples[:count])
    assert close is not None
    assert own is not None
    few = min(16, count_tiles(torch.cat([own, close])))
    pairs = [make_tile([a, b]) for a, b in zip(own[:few], close[:few], strict=True)]
    caption = f"Samples (above) and the nearest training {things(system)[0]} of each (below)"
    content = export.png_bytes(join_pairs(own, close))
    return [*pictures, Picture("nearest.png", content, caption, pairs, "copies")]


def join_pairs(above: Tensor, below: Tensor, columns: int = 16) -> NDArray[np.uint8]:
    """Rows of images (n, 3, height, width), each above the row of those that belong to them."""
    size, rows = tile_height(above), []
    for first in range(0, len(above), columns):
        part = slice(first, first + columns)
        rows.append(np.vstack([export.sheet(x[part], columns, size) for x in (above, below)]))
    width = rows[0].shape[1]
    rows = [np.pad(r, ((0, 6), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    return np.vstack(rows)


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
        forth.append(export.sheet(images, min(4, half), tile_height(images)))
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
