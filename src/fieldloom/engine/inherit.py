"""Runs that begin with the trained fields of another run, so that many priors share one fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fieldloom.engine.layout import MODEL
from fieldloom.engine.loop import load_weights
from fieldloom.engine.provenance import FIELD, stage_settings
from fieldloom.engine.run import Run
from fieldloom.errors import InputError, name_argument, quote
from fieldloom.recipe import Recipe
from fieldloom.system import System


def check_donor(recipe: Recipe, other: str | Path) -> dict[str, Any]:
    """The folder and the seed of a run whose fields a recipe may begin with, for ``env.json``.

    Raises InputError where its field is not trained, or has other data, parts or settings.
    """
    donor = Run(other)
    theirs = donor.read_recipe()
    if "field" not in donor.read_weights()[1]:
        raise InputError(
            f"'{other}' has no trained field yet: train it further, with "
            f"{name_argument('resume', True)}, first."
        )
    for name, here in _dependencies(recipe).items():
        there = _dependencies(theirs)[name]
        if here != there:
            raise InputError(
                f"the fields of '{other}' are not of this recipe: [{name}] differs, {quote(there)} "
                f"there and {quote(here)} here."
            )
    return {"run": str(other), "seed": theirs.get("seed", 0)}


def inherit(system: System, run: Run, other: str | Path, with_codes: bool = True) -> None:
    """Copy the stage ``field`` of another run, and its codes, if any, to the system and its run.

    with_codes: whether codes are copied; a run may be given others.
    """
    donor = Run(other)
    tensors, _ = donor.read_weights()
    held = {name: x for name, x in tensors.items() if name.startswith(("family.", "encoder."))}
    load_weights(system, system.state_dict() | held, f"'{donor.folder / MODEL}'")
    system.finished = ["field"]
    run.write_system(system)
    if with_codes and donor.has_codes:
        codes = donor.read_codes(system)
        run.write_codes(system, *codes)
    run.write_log([line for line in donor.read_log() if line["stage"] == "field"])


def _dependencies(recipe: Recipe) -> dict[str, Any]:
    """What fields and codes depend on, by today's names; the path of the data is left out."""
    known = {key: x for key, x in recipe.get("known", {}).items() if key != "beside"}
    source = recipe.get("source")
    if isinstance(source, dict):
        source = {key: x for key, x in source.items() if key != "path"}
    found = {"source": source, "known": known}
    found |= {name: recipe.get(name) for name in FIELD if name not in ("seed", "data")}
    return found | {"train.field": stage_settings(recipe, "field")}
