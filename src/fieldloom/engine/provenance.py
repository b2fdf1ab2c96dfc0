"""What made a file of a run: a fingerprint of each section of its recipe, its seed and its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldloom.engine.tensors import digest
from fieldloom.errors import InputError
from fieldloom.recipe import STAGES, Recipe
from fieldloom.system import System

FIELD = (
    "seed", "data", "modality", "renderer", "loss", "field", "conditioner", "encoder", "objective",
)  # fmt: skip
"""What a trained field and its codes depend on, beside the stage ``field``."""

FREE = {"micro", "save_every", "log_every"}
"""Settings of a stage that change nothing in what it ends with, but for rounding.

By all names that they had: fingerprints are of a recipe as the run's file has it.
"""


def provenance(recipe: Recipe) -> dict[str, str]:
    """Section -> fingerprint, of everything that a run's tensors are a function of.

    recipe: as its file has it; the same settings by names of another time have others. Where
    the data lie, how they are evaluated and what was expected is not of it.
    """
    told = {name: recipe.get(name) for name in (*FIELD, "prior")}
    told["seed"] = recipe.get("seed", 0)
    told["data"] = {key: x for key, x in recipe.get("known", {}).items() if key != "beside"}
    for stage in STAGES:
        told[f"train.{stage}"] = stage_settings(recipe, stage)
    return {name: fingerprint(value) for name, value in told.items()}


def stage_settings(recipe: Recipe, stage: str) -> dict[str, Any]:
    """The settings of a stage without those that change nothing."""
    spec = recipe.get("train", {}).get(stage, {})
    return {key: value for key, value in spec.items() if key not in FREE}


def fingerprint(value: Any) -> str:
    content = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def of_weights(system: System) -> str:
    """The fingerprint of a system's family and encoder: what codes are a function of."""
    seen = hashlib.blake2b(digest_size=8)
    for module in (system.family, system.encoder):
        for name, tensor in sorted(module.state_dict().items()):
            digest(seen, name, tensor)
    return seen.hexdigest()


def check_made_by(
    said: Mapping[str, str], now: Mapping[str, str], names: Iterable[str], path: Path, advice: str
) -> None:
    """Raise InputError where a file was made by something else, naming in what it differs.

    said: what the file says; now: what it should say; names: those that it depends on.
    """
    other = [name for name in names if said.get(name) != now.get(name)]
    if other:
        more = " ..." if len(other) > 3 else ""
        raise InputError(
            f"'{path}' does not belong to this run: it was made with other {', '.join(other[:3])}"
            f"{more}: {advice}"
        )
