"""Runs of reports, made up: what they ask of a system, and measured metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from fieldloom import recipe as recipes
from fieldloom.evaluation import Metric, Result
from fieldloom.modalities import Modality
from fieldloom.settings import parse_settings
from fieldloom.system import System


def made_up_system(name: str, *overrides: str, kind: str = "images", **facts: Any) -> Any:
    """What a report asks of the system of a recipe, without building it.

    facts: ``has_code``, ``encodes``, ``generates``, ``held``.
    """
    has = {"has_code": True, "encodes": True, "generates": True, "held": 0} | facts
    recipe = recipes.load(name, overrides)
    recipe = recipes.merge({"source": {"path": "somewhere"}}, recipe)
    recipe["known"] = {"signals": 3, "classes": 2, "names": ["a", "b"], "filter": "none"}
    unit = "view" if kind == "views" else "datum"
    shape = {"audio": (100,), "shapes": (8, 8, 8)}.get(kind, (8, 8))
    facts_of = {
        "recipe": recipe,
        "settings": parse_settings(recipe),
        "family": SimpleNamespace(has_code=has["has_code"]),
        "encodes": has["encodes"],
        "generates": has["generates"],
        "unfinished": None,
        "modality": made_up(
            Modality, kind=kind, unit=unit, held=has["held"], shape=lambda x: shape
        ),
    }
    return made_up(System, **facts_of)


def made_up(base: type, /, **facts: Any) -> Any:
    """An object of a class that has these attributes, and was not built."""
    own = type("MadeUp", (base,), facts)
    return own.__new__(own)


def made_up_result(
    count: int = 100, part: Any = "test", samples: int = 0, **values: float
) -> Result:
    """Metrics by name (``__`` for a point) of so many data."""
    hows = {
        "frechet": "gabor, resized",
        "fid": "inception, resized",
        "rfid": "inception, resized",
        "decoded": "a second, cpu, 1 threads",
    }
    hows |= dict.fromkeys(("precision", "recall", "kid"), "gabor, resized")
    metrics = [
        Metric(name.replace("__", "."), value, f"{count} {part} data", hows.get(name, ""))
        for name, value in ({"learnable": 1000.0} | values).items()
    ]
    nothing = torch.empty(0, 1, 8, 8)
    codes = torch.zeros(count, 1, 4)
    drawn = torch.zeros(samples, 1, 4) if samples else None
    return Result(metrics, nothing, nothing, codes, sample_codes=drawn, part=part)
