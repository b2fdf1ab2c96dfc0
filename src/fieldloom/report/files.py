"""The files of a report, written into a run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from fieldloom import atomic
from fieldloom.engine.run import Run
from fieldloom.engine.schemas import parse_json, read_text
from fieldloom.errors import InputError
from fieldloom.evaluation import Result
from fieldloom.modalities.modality import Resolution
from fieldloom.modalities.sources import Source
from fieldloom.progress import during
from fieldloom.report.page import html_page
from fieldloom.report.pictures import draw_images, plot_losses
from fieldloom.system import System


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
