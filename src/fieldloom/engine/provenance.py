"""Provenance of a run's files: fingerprints of its recipe's sections, its seed and its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloom.errors import InputError
from fieldloom.recipe import STAGES, Recipe

if TYPE_CHECKING:  # torch is imported by what needs it
    from fieldloom.system import System

FIELD = (
    "seed", "data", "modality", "renderer", "loss", "field", "conditioner", "encoder", "objective",
)  # fmt: skip
"""Sections that a trained field and its codes depend on, with the settings of stage ``field``."""

FREE = {"micro", "save_every", "log_every", "minutes"}
"""Settings of a stage that change its result by rounding alone, or not before they are replaced by
steps, under all names they ever had: fingerprints are of a recipe as the run's file has it.
"""


def provenance(recipe: Recipe) -> dict[str, str]:
    """Section -> fingerprint, of everything that a run's tensors depend on.

    recipe: as the run's file has it; the same settings under other names have other fingerprints.
    The path of the data, their evaluation and published metrics are left out.
    """
    sections = {name: recipe.get(name) for name in (*FIELD, "prior")}
    sections["seed"] = recipe.get("seed", 0)
    sections["data"] = {key: x for key, x in recipe.get("known", {}).items() if key != "beside"}
    for stage in STAGES:
        sections[f"train.{stage}"] = stage_settings(recipe, stage)
    return {name: fingerprint(value) for name, value in sections.items()}


def stage_settings(recipe: Recipe, stage: str) -> dict[str, Any]:
    """The settings of a stage without those of ``FREE``."""
    spec = recipe.get("train", {}).get(stage, {})
    return {key: value for key, value in spec.items() if key not in FREE}


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits of a value that JSON can hold."""
    content = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def fingerprint_weights(system: System) -> str:
    """The fingerprint of the weights of a system's family and encoder, which codes depend on."""
    from fieldloom.engine.tensors import digest

    seen = hashlib.blake2b(digest_size=8)
    for module in (system.family, system.encoder):
        for name, tensor in sorted(module.state_dict().items()):
            digest(seen, name, tensor)
    return seen.hexdigest()


def check_made_by(
    found: Mapping[str, str],
    expected: Mapping[str, str],
    names: Iterable[str],
    path: Path,
    advice: str,
) -> None:
    """Raise InputError where a file was made by something else, naming the sections that differ.

    found: the fingerprints that the file carries; expected: those that it should carry; names:
    the sections that it depends on; advice: what to do, the end of the sentence.
    """
    other = [name for name in names if found.get(name) != expected.get(name)]
    if other:
        more = " ..." if len(other) > 3 else ""
        raise InputError(
            f"'{path}' does not belong to this run: it was made with other {', '.join(other[:3])}"
            f"{more}: {advice}"
        )
