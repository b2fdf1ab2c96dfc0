"""A run that begins with the fields of another: fitted once, many priors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fieldloom.engine.loop import load_weights
from fieldloom.engine.provenance import FIELD, stage_settings
from fieldloom.engine.run import MODEL, Run
from fieldloom.errors import InputError, quote
from fieldloom.recipe import Recipe
from fieldloom.system import System


def check_giver(recipe: Recipe, other: str | Path) -> dict[str, Any]:
    """What to remember of another run: its folder, and the seed of its field and codes.

    Raises InputError where its field is not trained, or is of other data, parts or settings.
    """
    giver = Run(other)
    theirs = giver.read_recipe()
    if "field" not in giver.read_weights()[1]:
        raise InputError(f"'{other}' has no trained field yet: --resume finishes it.")
    for name, here in _needed(recipe).items():
        there = _needed(theirs)[name]
        if here != there:
            raise InputError(
                f"the fields of '{other}' are not of this recipe: [{name}] differs, {quote(there)} "
                f"there and {quote(here)} here."
            )
    return {"run": str(other), "seed": theirs.get("seed", 0)}


def inherit(system: System, run: Run, other: str | Path) -> None:
    """Give the system and the run the stage ``field`` of another run, and its codes, if any."""
    giver = Run(other)
    tensors, _ = giver.read_weights()
    held = {name: x for name, x in tensors.items() if name.startswith(("family.", "encoder."))}
    load_weights(system, system.state_dict() | held, f"'{giver.folder / MODEL}'")
    system.finished = ["field"]
    run.write_system(system)
    if giver.has_codes:
        codes = giver.read_codes(system)
        run.write_codes(system, *codes)
    run.write_log([line for line in giver.read_log() if line["stage"] == "field"])


def _needed(recipe: Recipe) -> dict[str, Any]:
    """What fields and codes depend on; where the data lie is not of it, what they are is."""
    known = {key: x for key, x in recipe.get("known", {}).items() if key != "beside"}
    source = recipe.get("source")
    if isinstance(source, dict):
        source = {key: x for key, x in source.items() if key != "path"}
    found = {"source": source, "known": known}
    found |= {name: recipe.get(name) for name in FIELD if name not in ("seed", "data")}
    return found | {"train.field": stage_settings(recipe, "field")}
