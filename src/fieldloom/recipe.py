"""Recipes: TOML files whose sections are the factors of a system.

``load("mnif:digits", ["field.width=32"])`` reads ``recipes/mnif.toml`` (or a path), merges the
variant's section over the rest and the overrides over both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from fieldloom.errors import InputError, unknown

FORMAT = 2
"""The newest recipe format that this program reads; a recipe may state its own as ``format``.

2: recipes of runs say where data lie beside them, and the run's files what made them.
"""

SECTIONS = {
    "format", "paper", "recipe", "seed", "source", "modality", "renderer", "loss", "field",
    "conditioner", "encoder", "objective", "prior", "train", "evaluate", "expected", "dead",
    "known",
}  # fmt: skip
STAGES = ("field", "codec", "prior")

Recipe = dict[str, Any]


def load(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe ``NAME``, ``NAME:VARIANT``, ``PATH.toml`` or ``PATH.toml:VARIANT``, resolved.

    overrides: ``"a.b=value"`` strings, applied last; the value is read as TOML, or as plain text
    where it is none. Raises InputError for what cannot be found or read.
    """
    stem, _, variant = name.partition(":") if not Path(name).is_file() else (name, "", "")
    recipe = read(stem)
    variants = recipe.pop("variants", {})
    if variant:
        if variant not in variants:
            raise unknown(f"variant of recipe '{stem}'", variant, variants)
        recipe = merge(recipe, variants[variant])
    for override in overrides:
        recipe = merge(recipe, parse_override(override))
    validate(recipe)
    return {"recipe": name} | recipe


def names() -> dict[str, list[str]]:
    """Bundled recipe -> its variants."""
    folder = resources.files("fieldloom") / "recipes"
    files = sorted(Path(str(f)) for f in folder.iterdir() if f.name.endswith(".toml"))
    return {f.stem: list(_parse(f).get("variants", {})) for f in files}


def read(stem: str) -> Recipe:
    """The file of a recipe as a dict, its variants still inside."""
    path = Path(stem)
    if path.suffix != ".toml":
        path = Path(str(resources.files("fieldloom") / "recipes" / f"{stem}.toml"))
        if not path.is_file():
            raise unknown("recipe", stem, names())
    if not path.is_file():
        raise InputError(f"recipe file '{path}' does not exist.")
    return _parse(path)


def _parse(path: Path) -> Recipe:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe file '{path}' is not valid TOML: {error}.") from None


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> Recipe:
    """``change`` over ``base``: a table with another ``name`` replaces, others merge key by key."""
    merged = dict(base)
    for key, value in change.items():
        old: Any = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, str) and "name" not in value:
            old = {"name": old}
        if isinstance(value, str) and isinstance(old, Mapping) and value == old.get("name"):
            continue
        renamed = isinstance(value, Mapping) and "name" in value and isinstance(old, Mapping)
        if renamed and value["name"] != old.get("name"):
            old = None
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = merge(old or {}, value) if both else value
    return merged


def parse_override(text: str) -> Recipe:
    """``a.b=value`` as the nested dict that it sets."""
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise InputError(f"override '{text}' is not of the form section.key=value.")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    for key in reversed(keys):
        value = {key: value}
    return value


def validate(recipe: Recipe) -> None:
    """Check what belongs to no constructor: format, section names, stages."""
    version = recipe.get("format", FORMAT)
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError(f"format = {version!r} is not right: it is a whole number.")
    if version > FORMAT:
        raise InputError(
            f"this recipe has format {version}, and this program reads up to {FORMAT}: "
            "update fieldloom."
        )
    for section in recipe:
        if section not in SECTIONS:
            raise unknown("section of the recipe", section, SECTIONS)
    seed = recipe.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f"seed = {seed!r} is not right: it is a whole number, from 0 to 2^63 - 1.")
    for section in ("train", "evaluate", "expected", "known"):
        if not isinstance(recipe.get(section, {}), Mapping):
            raise InputError(f"{section} = {recipe[section]!r} is not right: it is a table.")
    if not isinstance(recipe.get("loss", ""), str):
        raise InputError(f"loss = {recipe['loss']!r} is not right: it is a name.")
    for stage, spec in recipe.get("train", {}).items():
        if stage not in STAGES:
            raise unknown("training stage", stage, STAGES)
        if not isinstance(spec, Mapping):
            raise InputError(f"train.{stage} = {spec!r} is not right: it is a table.")


def dump(recipe: Recipe) -> str:
    """The recipe as TOML text."""
    return tomli_w.dumps(recipe)
