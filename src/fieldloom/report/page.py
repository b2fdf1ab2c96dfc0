"""The report as one page."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable

from fieldloom.engine.run import Run
from fieldloom.errors import printable
from fieldloom.evaluation import Result
from fieldloom.report.pictures import ImageFile
from fieldloom.report.style import STYLE
from fieldloom.system import System


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
