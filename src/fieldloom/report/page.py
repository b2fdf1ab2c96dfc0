"""The report as one page: pictures, answers to a reader's questions, and all else folded."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fieldloom.errors import printable
from fieldloom.evaluation import Metric, Result
from fieldloom.evaluation.metric_table import meaning_of
from fieldloom.report.live import Written
from fieldloom.report.origin import Origin
from fieldloom.report.pictures import Picture, Tile
from fieldloom.report.published import Published, describe_rules
from fieldloom.report.questions import ENLARGERS, Answer, Figure, enlargement_table
from fieldloom.report.style import SCRIPT, STYLE
from fieldloom.report.words import format_number, format_seconds
from fieldloom.settings import Settings

SQUARES = 40
"""Pixels of an image up to which it is enlarged by squares, so that its pixels are seen."""


class Content(NamedTuple):
    """What a page says. data: what was read, aspect by aspect. commands: line -> what it does."""

    settings: Settings
    title: str
    lead: str
    warning: str
    result: Result
    pictures: Sequence[Picture]
    live: Written
    answers: Sequence[Answer]
    published: Sequence[Published]
    data: Sequence[tuple[str, str]]
    origin: Origin
    commands: Sequence[tuple[str, str]]


def html_page(content: Content) -> str:
    """The report as one HTML file, which asks for nothing outside itself."""
    title = escape(content.title)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    top = "".join(html_picture(x) for x in content.pictures if not x.place)
    warning = f'<p class="warn"><b>{escape(content.warning)}</b></p>' if content.warning else ""
    answers = "".join(html_answer(x, content) for x in content.answers)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>\n'
        f'<body><main><header><h1>{title}</h1><p class="lead">{escape(content.lead)}</p>{warning}'
        f"</header>\n{top}\n{html_live(content.live)}{answers}\n{html_commands(content.commands)}\n"
        f"{html_more(content)}\n{html_origin(content)}</main>\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def escape(text: object) -> str:
    """Text as HTML that shows it; what cannot be printed is written as an escape."""
    return html.escape(printable(str(text)))


# -- pictures


def data_uri(name: str, content: bytes) -> str:
    """A file as a URI that holds its content; the type is the name's suffix."""
    kind = "audio" if name.endswith(".wav") else "image"
    suffix = name.rpartition(".")[2]
    return f"data:{kind}/{suffix};base64,{base64.b64encode(content).decode()}"


def html_picture(picture: Picture) -> str:
    """A picture with its caption: its tiles, or the file as a whole."""
    caption = picture.caption
    if not picture.tiles:
        shown = f'<img alt="{escape(caption)}" src="{data_uri(picture.file, picture.content)}">'
    else:
        tiles = picture.tiles
        small = len(tiles) > 2 and max(tiles[0].width, tiles[0].height) <= SQUARES
        few = next((n for n in (1, 2, 8, 16, 32) if len(tiles) * (1 + small) <= n), 64)
        what = caption.partition(",")[0]
        items = (html_tile(x, f"{what}: {i + 1} of {len(tiles)}") for i, x in enumerate(tiles))
        two = " two" if len(tiles) <= 2 else ""
        shown = f'<ul class="tiles n{few}{two}">{"".join(items)}</ul>'
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def html_tile(tile: Tile, what: str) -> str:
    sharp = ' class="pixels"' if max(tile.width, tile.height) <= SQUARES else ""
    alt = escape(f"{what}, {tile.label}" if tile.label else what)
    size = f'width="{tile.width}" height="{tile.height}"'
    images = (f'<img{sharp} alt="{alt}" {size} src="{data_uri(".png", x)}">' for x in tile.images)
    sounds = (f'<audio controls aria-label="{alt}" src="{data_uri(".wav", x)}"></audio>'
              for x in tile.sounds)  # fmt: skip
    label = f"<span>{escape(tile.label)}</span>" if tile.label else ""
    return f"<li>{''.join(images)}{label}{''.join(sounds)}</li>"


def html_live(live: Written) -> str:
    """Links to the pages beside the report, and why others are not there."""
    links = (
        f'<p><a href="{escape(file)}">{escape(says)}</a>, live: this browser evaluates the '
        f"network, at any zoom. The page is a file beside this one, {escape(file)}.</p>"
        for file, says in live.pages.items()
    )
    passed = (f'<p class="note">{escape(sentence)}</p>' for sentence in live.passed)
    return f"<section>{''.join([*links, *passed])}</section>\n"


# -- questions


def html_answer(answer: Answer, content: Content) -> str:
    caution = f'<p class="note">{escape(answer.caution)}</p>' if answer.caution else ""
    figures = "".join(map(html_figure, answer.figures))
    numbers = f'<dl class="numbers">{figures}</dl>' if figures else ""
    own = "".join(html_picture(x) for x in content.pictures if x.place == answer.question)
    table = html_enlargement(content.result) if answer.question == "enlargement" else ""
    return (
        f"<article><h2>{escape(answer.title)}</h2><p>{escape(answer.sentence)}</p>{caution}"
        f"{numbers}{table}{own}</article>"
    )


def html_figure(figure: Figure) -> str:
    arrow = ""
    if figure.arrow:
        says = f"{figure.better} is better"
        arrow = f'&nbsp;<span role="img" aria-label="{says}" title="{says}">{figure.arrow}</span>'
    notes = [figure.note, f"published {figure.published}" if figure.published else ""]
    below = "".join(f'<dd class="note">{escape(x)}</dd>' for x in notes if x)
    return (
        f"<div><dt>{escape(figure.label)}{arrow}</dt><dd>{escape(figure.value)}</dd>{below}</div>"
    )


def html_enlargement(result: Result) -> str:
    """The table of metrics at larger sizes: a row a size, a column a way to enlarge."""
    tables = []
    for metric, rows in enlargement_table({m.name: m for m in result.metrics}).items():
        ways = list(dict.fromkeys(by for row in rows.values() for by in row))
        meaning = meaning_of(metric)
        label = (
            f"{meaning.label}, {meaning.unit or 'no unit'} {meaning.arrow}" if meaning else metric
        )
        head = [label, *(WAYS.get(by, by) for by in ways)]
        body = [
            [f"{times}x", *(format_number(row[by], 3) if by in row else "-" for by in ways)]
            for times, row in rows.items()
        ]
        tables.append(html_table(head, body, numbers=range(1, len(head))))
    return "".join(tables)


WAYS = {"": "this system", "bicubic": "bicubic", "pixels": "network on pixels"}
assert set(WAYS) - {""} == set(ENLARGERS)


# -- what to type, and what is folded


def html_commands(commands: Sequence[tuple[str, str]]) -> str:
    if not commands:
        return ""
    lines = (
        f"<p>{escape(what)}:</p><pre><code>{html_command(line)}</code></pre>"
        for line, what in commands
    )
    return f"<article><h2>What next?</h2>{''.join(lines)}</article>"


def html_command(line: str) -> str:
    """A command line that breaks between its words alone."""
    return " ".join(
        f"<span>{escape(x)}</span>" if x[:1] == "-" else escape(x) for x in line.split(" ")
    )


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()
) -> str:
    """A table that scrolls by itself where it is too wide. numbers: columns of numbers."""
    right = set(numbers)
    kind = lambda i: ' class="n"' if i in right else ' class="how"' if i == len(head) - 1 else ""
    top = "".join(f"<th{kind(i)}>{escape(x)}</th>" for i, x in enumerate(head))
    body = "".join(
        f"<tr>{''.join(f'<td{kind(i)}>{escape(x)}</td>' for i, x in enumerate(row))}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(head[0])}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def html_more(content: Content) -> str:
    """What is folded: all figures, published numbers, data, changed settings, losses."""
    parts = [
        ("All figures", html_metrics(content.result.metrics)),
        ("Published numbers", html_published(content)),
        ("Data", html_table(["aspect", "what was read"], content.data)),
        ("Settings that differ from the recipe", html_changed(content.origin)),
        ("Training", "".join(html_picture(x) for x in content.pictures if x.place == "more")),
    ]
    return "".join(
        f"<details><summary>{escape(name)}</summary>{inner}</details>"
        for name, inner in parts
        if inner
    )


def html_metrics(metrics: Sequence[Metric]) -> str:
    rows = []
    for metric in metrics:
        meaning = meaning_of(metric.name)
        way = f" {meaning.arrow}" if meaning and meaning.arrow else ""
        unit = meaning.unit if meaning else ""
        says = meaning.says if meaning else ""
        value = format_number(metric.value)
        rows.append([f"{metric.name}{way}", value, unit, metric.of, says, metric.how])
    return html_table(["metric", "value", "unit", "measured on", "what it is", "how"], rows, [1])


def html_published(content: Content) -> str:
    if not content.published:
        return ""
    rows = [
        [x.key, format_number(x.value) if isinstance(x.value, int | float) else x.value,
         "beside the measured one" if x.metric else x.why_not]
        for x in content.published
    ]  # fmt: skip
    note = f"<p>{escape(describe_rules(content.settings))}</p>"
    return note + html_table(["published", "value", "shown"], rows, [1])


def html_changed(origin: Origin) -> str:
    if origin.changed is None:
        return "<p>The recipe of this name is not there to compare with.</p>"
    rows = [[key, "left out" if x is None else x] for key, x in origin.changed.items()]
    return html_table(["setting", "value here"], rows) if rows else "<p>None.</p>"


def html_origin(content: Content) -> str:
    origin, settings = content.origin, content.settings
    rows = [
        ("run", origin.folder and str(origin.folder.folder)),
        ("paper", settings.paper),
        ("command", origin.command),
        ("seed", settings.seed),
        ("training", origin.seconds and format_seconds(origin.seconds)),
        ("machine", origin.machine),
        ("versions", origin.versions),
        ("commit", origin.commit),
        ("measured", origin.date.replace("T", " ").replace("+00:00", " UTC")),
    ]
    listed = "".join(
        f"<dt>{name}</dt><dd>{f'<code>{escape(x)}</code>' if name in CODE else escape(x)}</dd>"
        for name, x in rows
        if x not in (None, "")
    )
    return f"<footer><dl>{listed}</dl></footer>"


CODE = ("command", "commit")
