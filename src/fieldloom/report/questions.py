"""What a reader asks of a run: a sentence for each question, and the few numbers that answer it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from fieldloom.evaluation import Metric, Result
from fieldloom.evaluation.metric_table import (
    MEANINGS,
    QUESTIONS,
    Meaning,
    Question,
    meaning_of,
    parse_enlarged,
)
from fieldloom.report.published import Published
from fieldloom.report.words import (
    find_detector,
    format_measured,
    format_number,
    format_seconds,
    format_size,
    things,
)
from fieldloom.system import System

MOST = 5
"""Numbers beside a question, at most."""

FEW = 30
"""Fewer data than these give figures whose second digit means nothing."""


class Figure(NamedTuple):
    """A number beside a question. note: the detector, or what it was measured on."""

    name: str
    label: str
    value: str
    arrow: str = ""
    better: str = ""
    note: str = ""
    published: str = ""


class Answer(NamedTuple):
    """A question, one sentence that answers it, and the numbers. caution: what limits these."""

    question: Question
    sentence: str
    figures: Sequence[Figure]
    caution: str = ""

    @property
    def title(self) -> str:
        return QUESTIONS[self.question]


def answer_questions(
    system: System, result: Result, published: Sequence[Published], seconds: float | None
) -> list[Answer]:
    """Answers to the questions that can be asked of a system. seconds: of training, if known."""
    found = {metric.name: metric for metric in result.metrics}
    by_name = {x.metric: format_number(x.value) for x in published if x.metric is not None}
    sentences: dict[Question, str] = {
        "reconstruction": reconstruction_sentence(system, result, found),
        "enlargement": enlargement_sentence(found),
        "samples": samples_sentence(system, result, found),
        "copies": copies_sentence(system, result, found),
        "cost": cost_sentence(system, found, seconds),
    }
    return [
        Answer(
            question,
            sentence,
            chief_figures(system, result, question, by_name),
            find_caution(system, result, question),
        )
        for question, sentence in sentences.items()
        if sentence
    ]


def find_caution(system: System, result: Result, question: Question) -> str:
    """That few data were measured, where the figures of a question are of few."""
    if question == "reconstruction" and system.family.has_code and len(result.codes) < FEW:
        what = {"test": "held-out", "given": "given", "training": "training"}[result.part]
        one, many = things(system)
        thing = one if len(result.codes) == 1 else many
        return f"{len(result.codes)} {what} {thing}: the second digit means nothing."
    if question == "samples" and result.sample_codes is not None:
        few = [what for count, what in sets_compared(result) if count < FEW]
        return f"{' and '.join(few)}: the second digit means nothing." if few else ""
    return ""


def sets_compared(result: Result) -> list[tuple[int, str]]:
    """How many samples there are, and data that metrics compare them with: in words, too."""
    assert result.sample_codes is not None
    counts = {f"{len(result.sample_codes)} samples": len(result.sample_codes)}
    for metric in result.metrics:
        meaning = meaning_of(metric.name)
        found = re.search(r"samples, ((\d+) [^,]+)", metric.of)
        if found and meaning is not None and meaning.question == "samples":
            counts[found[1]] = int(found[2])
    return [(count, what) for what, count in counts.items()]


def chief_figures(
    system: System, result: Result, question: Question, published: dict[str, str]
) -> list[Figure]:
    """The numbers beside a question: of those of held-out and of seen views, the former."""
    metrics = [(m, meaning_of(m.name)) for m in result.metrics if math.isfinite(m.value)]
    own = [(m, x) for m, x in metrics if x is not None and x.question == question and x.chief]
    held = {m.name for m, _ in own if m.name.startswith("novel.")}
    own = [(m, x) for m, x in own if f"novel.{m.name}" not in held]
    names = list(MEANINGS)
    own.sort(key=lambda pair: names.index(pair[0].name.removeprefix("novel.")))
    errors = {m.name: m.value for m in result.metrics if m.name.endswith(".error")}
    figures = [make_figure(system, m, x, published) for m, x in own]
    figures = [
        x._replace(value=f"{x.value} ± {format_number(errors[f'{x.name}.error'], 1)}")
        if f"{x.name}.error" in errors
        else x
        for x in figures
    ]
    if question == "cost":
        figures += [
            make_figure(system, m, x, published) for m, x in metrics if m.name == "decoded" and x
        ]
    return figures[:MOST]


def make_figure(
    system: System, metric: Metric, meaning: Meaning, published: dict[str, str]
) -> Figure:
    """A metric as a reader sees it."""
    value = format_measured(metric.value)
    value = f"{value} {meaning.unit}".strip()
    note = find_detector(metric) if meaning.features else ""
    if meaning.unit.startswith("of "):
        value, note = percent(metric.value), meaning.unit
    if metric.name == "memory":
        value = format_size(metric.value)
    if metric.name == "decoded":
        one = "view" if system.modality.unit == "view" else things(system)[0]
        meaning = meaning._replace(label=f"to draw a {one}", better="lower")
        value = format_seconds(1 / metric.value)
    return Figure(
        metric.name, meaning.label, value, meaning.arrow, meaning.better, note,
        published.get(metric.name, ""),
    )  # fmt: skip


# -- sentences


def reconstruction_sentence(system: System, result: Result, found: dict[str, Metric]) -> str:
    """How close decoded data are to their originals; empty where nothing was encoded."""
    one, many = things(system)
    value = lambda name: found[name].value
    if system.family.has_code:
        count = len(result.codes)
        part = {"test": "held-out ", "given": "given ", "training": "training "}[result.part]
        who = f"{count:,} {part}{one if count == 1 else many}"
        comes = "comes back" if count == 1 else "come back"
    else:
        who, comes = f"The {one}", "comes back"
    for name in ("novel.psnr", "snr", "mesh.chamfer", "mesh.iou", "iou", "ws-psnr", "psnr",
                 "chamfer", "accuracy", "mse"):  # fmt: skip
        if name in found and math.isfinite(value(name)):
            break
    else:
        return ""
    if name == "novel.psnr":
        whose = who if system.family.has_code else f"the {one}"
        return f"Views of {whose} that it was not shown are drawn with {error_words(value(name))}."
    if name == "mesh.chamfer":
        far = percent(value(name))
        return f"Its surface lies {far} of its longest side beside the original's, on average."
    label = meaning_of(name)
    said = {
        "psnr": error_words,
        "ws-psnr": error_words,
        "snr": lambda x: f"an error of {percent(10 ** (-x / 10))} of its energy",
        "iou": lambda x: f"{percent(x)} of the inside in common with the original",
        "mesh.iou": lambda x: f"{percent(x)} of the inside in common with the original",
        "accuracy": lambda x: f"{percent(x)} of the cells on the right side of the surface",
    }.get(name, lambda x: f"a {label.label if label else name} of {format_measured(x)}")
    return f"{who} {comes} with {said(value(name))}."


def error_words(psnr: int | float) -> str:
    """What a PSNR says: ``an error of 5.6 % of the range (25 dB)``."""
    if psnr >= 80:
        return "no error that can be measured (80 dB PSNR)"
    error = percent(10 ** (-psnr / 20))
    return f"an error of {error} of the values' range ({format_measured(psnr)} dB PSNR)"


def percent(share: int | float) -> str:
    """A fraction as text: ``5.6 %``, ``0.034 %``."""
    return f"{format_number(100 * share, 2 if share < 0.1 else 3)} %"


def enlargement_sentence(found: dict[str, Metric]) -> str:
    """How well data are drawn larger, beside other ways; empty where it is not measured."""
    table = enlargement_table(found)
    for metric, rows in table.items():
        times = max((n for n, row in rows.items() if "" in row and len(row) > 1), default=None)
        if times is None:
            continue
        row, meaning = rows[times], meaning_of(metric)
        unit = f" {meaning.unit}" if meaning and meaning.unit else ""
        label = meaning.label if meaning else metric
        others = ", ".join(
            f"{ENLARGERS.get(by, by)} {format_measured(v)}" for by, v in row.items() if by
        )
        return (
            f"At {times} times the size, drawings have {format_measured(row[''])}{unit} {label} "
            f"against the truth; {others}."
        )
    return ""


ENLARGERS = {"bicubic": "bicubic enlargement of the data has", "pixels": "a network on pixels has"}
"""Another way to enlarge -> words before its number."""


def enlargement_table(found: dict[str, Metric]) -> dict[str, dict[int, dict[str, float]]]:
    """Metric -> times -> way (empty: the system) -> value, of all metrics at larger sizes."""
    table: dict[str, dict[int, dict[str, float]]] = {}
    for name, metric in found.items():
        if (one := parse_enlarged(name)) is not None:
            table.setdefault(one.metric, {}).setdefault(one.times, {})[one.by] = metric.value
    return {
        metric: {times: rows[times] for times in sorted(rows)} for metric, rows in table.items()
    }


def lacks_samples(system: System, result: Result) -> bool:
    """Whether samples should have been measured, and were no numbers."""
    return system.generates and result.sample_codes is None and result.part != "given"


def samples_sentence(system: System, result: Result, found: dict[str, Metric]) -> str:
    """Whether samples are like the data; empty of systems that sample nothing."""
    if lacks_samples(system, result):
        return "Not measured: codes or values of samples are NaN or infinite; the prior is broken."
    if result.sample_codes is None:
        return ""
    _, many = things(system)
    count, parts = len(result.sample_codes), []
    value = lambda name: found[name].value
    if {"precision", "recall"} <= set(found):
        parts.append(
            f"{percent(value('precision'))} of {count:,} samples lie among the {many} (precision), "
            f"and {percent(value('recall'))} of the {many} lie among the samples (recall), by the "
            f"features of {find_detector(found['precision'])}"
        )
    elif {"density", "coverage"} <= set(found):
        parts.append(
            f"{percent(value('coverage'))} of the {many} have one of {count:,} samples as near as "
            f"others of the {many} (coverage), by the features of "
            f"{find_detector(found['coverage'])}"
        )
    elif "chamfer.1nna" in found:
        parts.append(
            f"{count:,} samples are told from test {many} by their nearest neighbour in "
            f"{percent(value('chamfer.1nna'))} of cases, where 50 % is the best"
        )
    elif "chamfer.coverage" in found:
        parts.append(
            f"{percent(value('chamfer.coverage'))} of test {many} are the nearest of one of "
            f"{count:,} samples"
        )
    else:
        name = next((x for x in ("fid", "frechet", "kid", "cloud.frechet") if x in found), None)
        if name is not None:
            meaning = meaning_of(name)
            label = meaning.label if meaning else name
            parts.append(
                f"{count:,} samples lie at a {label} of {format_measured(value(name))} from the "
                f"{many}, by the features of {find_detector(found[name])}: a number that compares "
                "systems"
            )
    if "agreement" in found:
        other = ""
        if "agreement.test" in found:
            other = f", as it does with {percent(value('agreement.test'))} of held-out {many}"
        parts.append(
            f"a classifier sees the class that was asked for in {percent(value('agreement'))} of "
            f"samples{other}"
        )
    if found.get("failures") and value("failures"):
        parts.append(f"{format_number(value('failures'))} samples have no surface")
    if not parts:
        return f"Not measured: the recipe asks for no metric of sets, or too few {many} were there."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def copies_sentence(system: System, result: Result, found: dict[str, Metric]) -> str:
    """Whether samples repeat training data; empty of systems that sample nothing."""
    if result.sample_codes is None:
        return ""
    one, many = things(system)
    if "novelty" in found and math.isfinite(found["novelty"].value):
        return (
            f"The median sample lies {format_measured(found['novelty'].value, 2)} times as far "
            f"from its nearest training {one} as held-out {many} do: 0 is a copy, about 1 is as "
            "new as data are."
        )
    if "nearest.sample" in found:
        same = "of these classes " if result.sample_labels is not None else ""
        return (
            f"The median sample lies {format_number(found['nearest.sample'].value, 3)} from its "
            f"nearest training {one}; no {many} {same}were held out to compare that with."
        )
    return f"Not measured: samples and {many} are not compared value by value here."


def cost_sentence(system: System, found: dict[str, Metric], seconds: float | None) -> str:
    """Parameters, training, drawing."""
    parts = [f"{format_number(found['learnable'].value)} learned parameters"]
    if seconds:
        parts.append(f"trained in {format_seconds(seconds)}")
    if "decoded" in found and found["decoded"].value > 0:
        one = "view" if system.modality.unit == "view" else things(system)[0]
        device, _, threads = found["decoded"].how.partition(", ")[2].partition(", ")
        count = threads.removesuffix(" threads")
        where = device if device != "cpu" else f"CPU, {count} thread{'s' * (count != '1')}"
        parts.append(f"{format_seconds(1 / found['decoded'].value)} to draw one {one} ({where})")
    return ", ".join(parts) + "."
