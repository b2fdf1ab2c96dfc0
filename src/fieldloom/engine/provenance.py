"""Provenance of a run's files: fingerprints of its recipe's sections, its seed and its data."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloom.errors import InputError
from fieldloom.recipe import STAGES, Recipe, load

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


TEXTS = ("loss", "recipe", "paper", "kernels")
"""Sections of a recipe that are text; other text there names a part."""

OF_DATA = (
    "modality.size", "modality.channels", "modality.rate", "modality.up", "renderer.near",
    "renderer.far",
)  # fmt: skip
"""Keys that follow from the data where a recipe does not have them."""


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


def commit() -> str | None:
    """The commit of the checkout that this package runs from; None of an installed package, where
    git is not there, and where files of the package differ from the commit.
    """
    package = Path(__file__).resolve().parents[1]
    ask = ["git", "-C", str(package)]
    try:
        tracked = _output([*ask, "ls-files", "--error-unmatch", "__init__.py"])
        changed = _output([*ask, "status", "--porcelain", "--untracked-files=no", "."])
        found = _output([*ask, "rev-parse", "HEAD"])
    except (OSError, subprocess.SubprocessError):
        return None
    return found if tracked and not changed else None


def _output(command: list[str]) -> str:
    return subprocess.run(
        command, capture_output=True, check=True, text=True, timeout=5
    ).stdout.strip()


def changed_settings(recipe: Recipe) -> dict[str, Any] | None:
    """Key -> value, where a run's recipe differs from the row of its name: ``field.width`` -> 32.

    A value is None where the row alone has the key. What is known of the data, where they lie and
    what the machine decides are left out. None where that row is not there.
    """
    try:
        row = load(str(recipe.get("recipe")))
    except InputError:
        return None
    own, other = (dict(_flatten(x)) for x in (recipe, row))
    keys = sorted(key for key in {*own, *other} if own.get(key) != other.get(key))
    return {key: own.get(key) for key in keys if not _is_free(key, other)}


def _flatten(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}, "field": "siren"}`` as ``("a.b", 1)`` and ``("field.name", "siren")``."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{before}{key}.")
        elif value is not None:
            part = not before and isinstance(value, str) and key not in TEXTS
            yield (f"{key}.name" if part else f"{before}{key}"), value


def _is_free(key: str, row: Mapping[str, Any]) -> bool:
    section, _, rest = key.partition(".")
    if section in ("known", "format", "recipe", "expected"):
        return True
    if key in ("source.path", "source.cache"):
        return True
    if row.get(key) == "data" or (key in OF_DATA and key not in row):
        return True
    return section == "train" and rest.rpartition(".")[2] in FREE


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
