"""Published numbers beside measured ones: only where both were measured alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fieldloom.engine.provenance import changed_settings
from fieldloom.evaluation import Metric, Result
from fieldloom.evaluation.metric_table import meaning_of
from fieldloom.report.words import find_detector
from fieldloom.settings import Settings
from fieldloom.system import System

DATA = ("source.", "modality.")
"""Beginnings of the keys of a recipe that say which data are measured."""

MODEL = ("field", "conditioner", "encoder", "renderer", "objective", "loss", "prior", "modality")
"""Sections of a recipe that say which system is measured."""

FREE = ("metrics", "weights", "seed")
"""Keys of ``[evaluate]`` that leave each metric as it is."""


@dataclass(frozen=True)
class Published:
    """A published number. key: of ``expected``. metric: the measured one that it stands beside;
    None where it stands beside none, and why_not says why.
    """

    key: str
    value: Any
    metric: str | None
    why_not: str = ""


def find_published(system: System, result: Result) -> list[Published]:
    """Every number of ``expected``, beside a metric if the protocols agree."""
    changed = changed_settings(system.recipe)
    return list(_compare(system, result, changed))


def _compare(
    system: System, result: Result, changed: Mapping[str, Any] | None
) -> Iterator[Published]:
    settings = system.settings
    measured = {metric.name: metric for metric in result.metrics}
    differs = settings.expected.get("differs", {})  # a text is of all numbers
    for key, value in settings.expected.items():
        if key == "differs":
            continue
        name = key.removeprefix("train.")
        if f"novel.{name}" in measured and name == key:  # runs whose recipes are older
            name = f"novel.{name}"
        known = differs.get(key) if isinstance(differs, Mapping) else differs
        why = known or _why_not(key, name, measured, system, result, changed)
        yield Published(key, value, None if why else name, why)


def _why_not(
    key: str,
    name: str,
    measured: Mapping[str, Metric],
    system: System,
    result: Result,
    changed: Mapping[str, Any] | None,
) -> str:
    """Why a published number stands beside no measured one; empty where it does.

    key, name: of the number, and of its metric.
    """
    meaning = meaning_of(name)
    if meaning is None:
        return "no metric has this name"
    if name not in measured:
        alike = measured.get(name.replace("fid", "frechet"))
        if alike is not None:
            return f"of Inception's features: here of {find_detector(alike)}'s"
        return "not measured here"
    if changed is None:
        return "the recipe's row is not there to compare the settings with"
    if meaning.machine:
        return "of another machine"
    if meaning.question != "cost":
        if result.part == "given":
            return "of other data: these were given instead of the recipe's"
        if other := _first(changed, DATA):
            return f"of other data: {other} is not the recipe's"
    if meaning.question == "reconstruction" and system.family.has_code:
        of_training = key.startswith("train.")
        if of_training != (result.part == "training"):
            there = "training" if of_training else "held-out"
            return f"of {there} data: here {result.part} data are measured"
    if meaning.features and (detector := find_detector(measured[name])) != "inception":
        return f"of Inception's features: here of {detector}'s"
    if meaning.question == "samples":
        free = {f"evaluate.{one}" for one in FREE}
        if other := _first({k: v for k, v in changed.items() if k not in free}, ("evaluate.",)):
            return f"{other} is not the recipe's"
    if other := _first(changed, MODEL):
        return f"of another system: {other} is not the recipe's"
    return ""


def _first(changed: Mapping[str, Any], beginnings: tuple[str, ...]) -> str:
    """The first changed key with one of these beginnings; empty where there is none."""
    return next((key for key in changed if key.startswith(beginnings)), "")


def describe_rules(settings: Settings) -> str:
    """What a reader must know of the published numbers."""
    return (
        f"Published numbers are those of {settings.paper or 'the recipe'}, on its data; whether "
        "the files that were read here are those is not checked."
    )
