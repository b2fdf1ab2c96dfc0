"""Pictures of a run, and one self-contained page that shows them with the figures."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldloom import export
from fieldloom.engine.run import Run
from fieldloom.evaluation import Figure, Result
from fieldloom.modalities.modality import Resolution
from fieldloom.modalities.sources import Source
from fieldloom.system import System

SHOWN = 64
"""Samples on the sheet."""


def write(
    run: Run,
    system: System,
    source: Source,
    result: Result,
    resolution: Resolution | None = None,
    seconds: float | None = None,
) -> None:
    """``report.json``, ``report.html`` and the pictures, into the run.

    resolution: that samples and interpolations are drawn at. seconds: what training took, if known.
    """
    settings = system.settings
    run.write_json(
        "report.json",
        {
            "recipe": settings.title,
            "paper": settings.paper,
            "seed": settings.seed,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
            "figures": [as_json(figure) for figure in result.figures],
            "expected": settings.expected,
            "nearest": nearest_table(result, source),
        },
    )
    pictures = draw(run, system, source, result, resolution)
    if log := run.read_log():
        pictures = {"Loss": ("curves.png", curves(log))} | pictures
    for name, content in pictures.values():
        export.write(content, run.inside(name))
    export.text(page(run, system, result, pictures), run.inside("report.html"))


def as_json(figure: Figure) -> dict[str, Any]:
    """A figure as JSON has it: a number that is not finite is null, and said in words."""
    if math.isfinite(figure.value):
        return figure._asdict()
    return figure._asdict() | {"value": None, "how": f"{figure.value}; {figure.how}"}


def nearest_table(result: Result, source: Source) -> list[dict[str, Any]]:
    """For every sample: its class, and its nearest training datum's place, class and distance."""
    if result.nearest is None or result.distances is None:
        return []
    rows = []
    for i, (place, distance) in enumerate(zip(result.nearest, result.distances, strict=True)):
        row: dict[str, Any] = {"place": int(place), "distance": round(float(distance), 4)}
        if result.sample_labels is not None and source.labels is not None:
            row["asked"] = source.names[int(result.sample_labels[i])]
            row["class"] = source.names[int(source.labels[source.train[place]])]
        rows.append(row)
    return rows


Picture = tuple[str, bytes]


def draw(
    run: Run, system: System, source: Source, result: Result, resolution: Resolution | None
) -> dict[str, Picture]:
    """Caption -> file name and bytes."""
    pictures: dict[str, Picture] = {}
    count = min(16, len(result.reconstructions))
    true, made = (seen(system, x[:count]) for x in (result.originals, result.reconstructions))
    if true is not None and made is not None:
        size = shown_height(true)
        sheet = export.sheet(torch.cat([true, made]), count, size)
        what = "Data that were held out" if len(source.test) else "Data"
        pictures[f"{what} (above) and their reconstructions (below)"] = (
            "reconstructions.png",
            export.png_bytes(sheet),
        )
    for name, caption, shown in result.shown:
        content = export.sheet(shown, len(shown)) if len(shown) > 1 else export.pixels(shown[0])
        pictures[caption] = (name, export.png_bytes(content))
    if result.sample_codes is not None and result.samples is not None:
        pictures |= drawn_samples(system, source, result, resolution)
    if len(result.codes) >= 2 and system.family.has_code:
        frames = interpolation(system, result.codes[:16].to(system.device), resolution)
        if frames:
            path = export.gif(frames, run.inside("interpolation.gif"))
            pictures["Between pairs of held-out data, along the line between their codes"] = (
                "interpolation.gif",
                path.read_bytes(),
            )
    return pictures


def seen(system: System, data: Tensor) -> Tensor | None:
    """How data look: (n, 3, height, width); None where they cannot be shown, or there are none."""
    scattered = data.ndim < 4 and len(system.modality.shape()) > 1
    if not len(data) or scattered:
        return None
    pictures = [system.modality.to_image(datum) for datum in data]
    return None if pictures[0] is None else torch.stack([x for x in pictures if x is not None])


def decoded(system: System, codes: Tensor, resolution: Resolution | None) -> Tensor:
    """As ``System.decode``; of a scene one view, since one is shown."""
    return system.decode(codes, resolution, system.modality.cameras(count=1)).tensor


def shown_height(pictures: Tensor) -> int:
    """About 96, by whole multiples, so that pixels stay square."""
    height = pictures.shape[2]
    return height * max(1, 96 // height)


def drawn_samples(
    system: System, source: Source, result: Result, resolution: Resolution | None
) -> dict[str, Picture]:
    """The sheet of samples, and the one of their nearest training data, where these are known."""
    assert result.sample_codes is not None
    assert result.samples is not None
    images = result.samples.ndim == 4
    codes = result.sample_codes[: SHOWN if images else SHOWN // 2]
    fine = torch.cat([decoded(system, code, resolution) for code in codes.split(8)])
    sheet = seen(system, fine)
    if sheet is None:
        return {}
    shape = " x ".join(str(n) for n in (fine.shape[2:] if images else sheet.shape[2:]))
    pictures = {
        f"{len(sheet)} samples, drawn at {shape}": (
            "samples.png",
            export.png_bytes(export.sheet(sheet, 8)),
        )
    }
    if result.nearest is None:
        return pictures
    count = len(codes)
    close = seen(system, source.read(source.train[result.nearest[:count]]).tensor)
    drawn = seen(system, result.samples[:count])
    assert close is not None
    assert drawn is not None
    size = shown_height(drawn)
    rows = []  # a row of samples above the row of their nearest training data
    for first in range(0, count, 16):
        part = slice(first, first + 16)
        rows.append(np.vstack([export.sheet(x[part], 16, size) for x in (drawn, close)]))
    width = rows[0].shape[1]
    rows = [np.pad(r, ((0, 6), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    pictures["Samples (above) and the nearest training datum of each (below)"] = (
        "nearest.png",
        export.png_bytes(np.vstack(rows)),
    )
    return pictures


def interpolation(
    system: System, codes: Tensor, resolution: Resolution | None, steps: int = 20
) -> list[NDArray[np.uint8]]:
    """Frames that go from the first half of the codes to the second half and back."""
    half = min(len(codes) // 2, 8)
    fractions = [i / (steps - 1) for i in range(steps)]
    forth = []
    for fraction in fractions:
        between = torch.lerp(codes[:half], codes[half : 2 * half], fraction)
        shown = seen(system, decoded(system, between, resolution))
        if shown is None:
            return []
        forth.append(export.sheet(shown, half))
    return forth + forth[-2:0:-1]


def curves(log: list[dict[str, Any]]) -> bytes:
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
            ax.plot(*zip(*there, strict=True), label=name)
        if ax.lines and len(ax.lines) > 1:
            ax.legend()
        ax.set(title=f"stage {stage}", xlabel="step", ylabel="loss", yscale="log")
        ax.grid(alpha=0.3)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#222}
h1{font-size:1.5rem}figure{margin:2rem
0}figcaption{color:#555}img{max-width:100%;image-rendering:auto}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px
solid #ddd}
td.n{text-align:right}td.of{color:#555}"""


def page(run: Run, system: System, result: Result, pictures: dict[str, Picture]) -> str:
    """One HTML file with everything inside."""
    escape: Callable[[object], str] = lambda x: html.escape(str(x))
    settings = system.settings
    rows = "".join(
        f"<tr><td>{escape(f.name)}</td><td class=n>{number(f.value)}</td>"
        f"<td class=n>{escape(settings.expected.get(f.name, ''))}</td>"
        f"<td class=of>{escape(f.of)}</td><td class=of>{escape(f.how)}</td></tr>"
        for f in result.figures
    )
    shown = "".join(
        f'<figure><img alt="{escape(caption)}" src="{data_uri(*picture)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in pictures.items()
    )
    title = escape(settings.title or run.folder.name)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}</h1><p>{escape(settings.paper or '')}, "
        f"seed {escape(settings.seed)}</p><table><tr><th>figure<th>value"
        f"<th>published<th>measured on<th>how</tr>{rows}</table>{shown}</html>\n"
    )


def data_uri(name: str, content: bytes) -> str:
    return f"data:image/{name.rpartition('.')[2]};base64,{base64.b64encode(content).decode()}"


def number(value: float) -> str:
    """Four significant digits; whole numbers with thousands apart."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"
