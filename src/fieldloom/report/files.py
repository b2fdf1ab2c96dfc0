"""The files of a report, written into a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fieldloom import atomic
from fieldloom.engine.run import Run
from fieldloom.engine.schemas import parse_json, read_text
from fieldloom.errors import InputError
from fieldloom.evaluation import Result
from fieldloom.modalities.modality import Resolution
from fieldloom.modalities.sources import Source
from fieldloom.progress import during
from fieldloom.report.live import Live, choose_functions, write_pages
from fieldloom.report.origin import find_origin, next_commands
from fieldloom.report.page import Content, html_page
from fieldloom.report.pictures import draw_pictures
from fieldloom.report.published import find_published
from fieldloom.report.questions import Answer, answer_questions
from fieldloom.system import System


def write(
    run: Run,
    system: System,
    source: Source,
    result: Result,
    resolution: Resolution | None = None,
    seconds: float | None = None,
    pages: Sequence[Live] = (),
) -> list[Answer]:
    """Write ``report.json``, ``report.html``, the images and the live pages into the run; return
    the answers.

    resolution: of samples and interpolations. seconds: the duration of training, if known. pages:
    further ones, beside that of samples and reconstructions.
    """
    settings, earlier = system.settings, own_files(run)
    with during("drawing the report"):
        pictures = draw_pictures(run, system, source, result, resolution)
        pages = [*choose_functions(system, source, result), *pages]
        live = write_pages(run, system, pages)
    origin, published = find_origin(run, system, seconds), find_published(system, result)
    answers = answer_questions(system, result, published, origin.seconds)
    run.write_json(
        "report.json",
        {
            "recipe": settings.title,
            "paper": settings.paper,
            "seed": settings.seed,
            "unfinished": None if system.unfinished is None else system.unfinished._asdict(),
            "date": origin.date,
            "seconds": seconds,
            "training_seconds": origin.seconds,
            "command": origin.command,
            "commit": origin.commit,
            "machine": origin.machine,
            "data": source.summary.facts(),
            "figures": [metric.as_json() for metric in result.metrics],
            "expected": settings.expected,
            "published": [vars(one) for one in published],
            "answers": [{"question": x.title, "sentence": x.sentence, "caution": x.caution}
                        for x in answers],
            "nearest": nearest_table(result, source),
            "images": [picture.file for picture in pictures],
            "pages": list(live.pages),
        },
    )  # fmt: skip
    for picture in pictures:
        atomic.write_bytes(picture.content, run.inside(picture.file))
    begun = "" if system.unfinished is None else system.unfinished.describe()
    content = Content(
        settings=settings,
        title=settings.title or run.folder.name,
        lead=source.summary.describe(),
        warning=f"This run is unfinished: its weights {begun}." if begun else "",
        result=result,
        pictures=pictures,
        live=live,
        answers=answers,
        published=published,
        data=source.summary.rows(),
        origin=origin,
        commands=next_commands(origin, system, result),
    )
    atomic.write_text(html_page(content), run.inside("report.html"))
    for name in earlier - {picture.file for picture in pictures} - {*live.pages}:
        run.inside(name).unlink(missing_ok=True)
    return answers


def own_files(run: Run) -> set[str]:
    """The images and live pages of the report in a folder: those that its ``report.json`` names."""
    path = run.folder / "report.json"
    try:
        content = parse_json(read_text(path), path)
    except InputError:
        return set()
    lists = [content.get(key) for key in ("images", "pages")] if isinstance(content, dict) else []
    names = [x for own in lists if isinstance(own, list) for x in own if isinstance(x, str)]
    own = {x for x in names if re.fullmatch(r"[\w-]+\.(png|gif|html)", x)}
    return own - {"report.html"}


def nearest_table(result: Result, source: Source) -> Sequence[dict[str, Any]]:
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
