"""Images of a run, and one self-contained page that shows them with the metrics."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom import atomic, export
from fieldloom.engine.run import Run
from fieldloom.engine.schemas import parse_json, read_text
from fieldloom.errors import InputError, printable
from fieldloom.evaluation import Result
from fieldloom.evaluation.plots import figure_to_png
from fieldloom.modalities.modality import Resolution
from fieldloom.modalities.sources import Source
from fieldloom.progress import PATIENCE, during, track
from fieldloom.system import System

SAMPLES = 64
"""The most images on the sheet of samples; of other data half as many are drawn."""


def write(
    run: Run,
    system: System,
    source: Source,
    result: Result,
    resolution: Resolution | None = None,
    seconds: float | None = None,
) -> None:
    """Write ``report.json``, ``report.html`` and the images into the run.

    resolution: of samples and interpolations. seconds: the duration of training, if known.
    """
    settings, earlier = system.settings, image_names(run)
    with during("drawing the report"):
        images = draw_images(run, system, source, result, resolution)
    if log := run.read_log():
        images = {"Loss": ("curves.png", plot_losses(log))} | images
    run.write_json(
        "report.json",
        {
            "recipe": settings.title,
            "paper": settings.paper,
            "seed": settings.seed,
            "unfinished": None if system.unfinished is None else system.unfinished._asdict(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
            "data": source.summary.facts(),
            "figures": [metric.as_json() for metric in result.metrics],
            "expected": settings.expected,
            "nearest": nearest_table(result, source),
            "images": [name for name, _ in images.values()],
        },
    )
    for name, content in images.values():
        atomic.write_bytes(content, run.inside(name))
    page = html_page(run, system, result, images, source.summary.describe())
    atomic.write_text(page, run.inside("report.html"))
    for name in earlier - {name for name, _ in images.values()}:
        run.inside(name).unlink(missing_ok=True)


def image_names(run: Run) -> set[str]:
    """The images of the report that is in a folder; those that its ``report.json`` names."""
    path = run.folder / "report.json"
    try:
        content = parse_json(read_text(path), path)
    except InputError:
        return set()
    names = content.get("images") if isinstance(content, dict) else None
    images = names if isinstance(names, list) else []
    return {x for x in images if isinstance(x, str) and re.fullmatch(r"[\w-]+\.(png|gif)", x)}


def nearest_table(result: Result, source: Source) -> list[dict[str, Any]]:
    """For every sample: its class, and the index, class and distance of its nearest training datum.

    The index is in the training part of the source.
    """
    if result.nearest is None or result.distances is None:
        return []
    rows = []
    for i, (index, distance) in enumerate(zip(result.nearest, result.distances, strict=True)):
        row: dict[str, Any] = {"place": int(index), "distance": round(float(distance), 4)}
        if result.sample_labels is not None and source.labels is not None:
            row["asked"] = source.names[int(result.sample_labels[i])]
            row["class"] = source.names[int(source.labels[source.train[index]])]
        rows.append(row)
    return rows


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
        if name.endswith(".gif"):
            frames = [export.pixels(frame) for frame in own]
            images[caption] = (name, export.gif(frames, run.inside(name)).read_bytes())
            continue
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


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#222}
h1{font-size:1.5rem}figure{margin:2rem
0}figcaption{color:#555}img{max-width:100%;image-rendering:auto}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px
solid #ddd}
td.n{text-align:right}td.of{color:#555}"""


def html_page(
    run: Run, system: System, result: Result, images: dict[str, ImageFile], data: str
) -> str:
    """The report as one HTML file with its images embedded. data: what was read, in words."""
    escape: Callable[[object], str] = lambda x: html.escape(str(x))
    settings = system.settings
    rows = "".join(
        f"<tr><td>{escape(m.name)}</td><td class=n>{format_number(m.value)}</td>"
        f"<td class=n>{escape(settings.expected.get(m.name, ''))}</td>"
        f"<td class=of>{escape(m.of)}</td><td class=of>{escape(m.how)}</td></tr>"
        for m in result.metrics
    )
    figures = "".join(
        f'<figure><img alt="{escape(caption)}" src="{data_uri(*image)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, image in images.items()
    )
    title = escape(printable(settings.title or run.folder.name))
    origin = ", ".join(
        [*([escape(settings.paper)] if settings.paper else []), f"seed {escape(settings.seed)}"]
    )
    begun = "" if system.unfinished is None else system.unfinished.describe()
    note = f"<p><b>This run is unfinished: its weights {escape(begun)}.</b></p>" if begun else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}</h1>{note}<p>{origin}</p><p>Data: {escape(data)}</p>"
        f"<table><tr><th>metric<th>value"
        f"<th>published<th>measured on<th>how</tr>{rows}</table>{figures}</html>\n"
    )


def data_uri(name: str, content: bytes) -> str:
    """An image file as a URI that holds its content; the type is the name's suffix."""
    return f"data:image/{name.rpartition('.')[2]};base64,{base64.b64encode(content).decode()}"


def format_number(value: float) -> str:
    """A number as text: four significant digits, or a whole number with separated thousands."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"
