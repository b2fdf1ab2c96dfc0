"""Pages beside a report, on which the browser evaluates the fields themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.evaluation import Result
from fieldloom.modalities.sources import Source
from fieldloom.pages import write_page
from fieldloom.report.pictures import label_data
from fieldloom.report.words import format_number, things
from fieldloom.system import System
from fieldloom.types import Code

FILE = "live.html"

EACH, NUMBERS = 8, 1 << 21
"""The most samples, and reconstructions, on a page, and the most numbers of all their weights."""


class Live(NamedTuple):
    """Functions for a page. file: its name; says: what is on it; codes: (functions, tokens, width);
    names: of the functions; slider: whether they are steps from one to another."""

    file: str
    says: str
    codes: Code
    names: Sequence[str]
    slider: bool = False


class Written(NamedTuple):
    """Files of pages -> what is on each; passed: why others are not there, in a sentence each."""

    pages: dict[str, str]
    passed: list[str]


def write_pages(run: Run, system: System, pages: Sequence[Live]) -> Written:
    """Write pages into a run; those of data or of sizes that no page shows are passed over."""
    done = Written({}, [])
    title = system.settings.title or run.folder.name
    for live in pages:
        path = run.inside(live.file)
        try:
            check_numbers(system, live)
            write_page(system, live.codes, path, live.names, title, slider=live.slider)
        except InputError as error:
            done.passed.append(f"There is no page that draws the field in the browser: {error}")
        else:
            done.pages[live.file] = live.says
    return done


def check_numbers(system: System, live: Live) -> None:
    """Raise InputError where the weights of all functions are too large for a report."""
    numbers = len(live.codes) * system.family.numbers
    if numbers > NUMBERS:
        raise InputError(
            f"its weights, {format_number(numbers)} numbers, are too many for a report; "
            "'fieldloom export' writes one of any size."
        )


def choose_functions(system: System, source: Source, result: Result) -> list[Live]:
    """A page of the first samples and reconstructions; none where there are neither."""
    one, many = things(system)
    if not system.family.has_code:
        return [Live(FILE, f"The {one}, as its field draws it", result.codes[:1], [one])]
    each = min(EACH, max(1, NUMBERS // (2 * system.family.numbers)))
    codes, names, says = [], [], []
    if result.sample_codes is not None:
        codes.append(result.sample_codes[:each].cpu())
        labels = [""] * each
        if result.sample_labels is not None and len(source.names) > 1:
            labels = [source.names[int(i)] for i in result.sample_labels[:each]]
        names += [name_function("sample", i, labels) for i in range(len(codes[-1]))]
        says.append("samples")
    if len(result.codes):
        codes.append(result.codes[:each].cpu())
        part = {"test": "held out", "given": "given", "training": "training"}[result.part]
        labels = label_data(source, result, each) if result.part != "given" else [""] * each
        count = len(codes[-1])
        names += [name_function(f"{part}, reconstructed,", i, labels) for i in range(count)]
        says.append(f"reconstructions of {many}")
    if not codes:
        return []
    return [Live(FILE, f"The first {' and '.join(says)}", torch.cat(codes), names)]


def name_function(what: str, index: int, labels: Sequence[str]) -> str:
    """``sample 1: A``."""
    label = labels[index] if index < len(labels) else ""
    return f"{what} {index + 1}: {label}" if label else f"{what} {index + 1}"
