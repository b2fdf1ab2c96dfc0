"""A run that begins with the fields of another: fitted once, many priors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fieldloom import export
from fieldloom.engine.loop import load_weights
from fieldloom.engine.run import Run, read_tensors
from fieldloom.errors import InputError
from fieldloom.recipe import Recipe
from fieldloom.system import System

SHARED = (
    "source", "known", "modality", "renderer", "loss", "field", "conditioner", "encoder",
    "objective",
)  # fmt: skip
"""Sections of a recipe that the trained field and the codes depend on."""

FREE = {"micro", "save_every", "log_every"}
"""Settings of a stage that change nothing in what it ends with, but for rounding."""


def inherit(system: System, recipe: Recipe, run: Run, other: str | Path) -> dict[str, Any]:
    """Give the system and the run the stage ``field`` of another run, and its codes, if it has any.

    Returns what to remember of the other run: its folder, and the seed of its field and codes.
    Raises InputError where its field is not trained, or is of other data, parts or settings.
    """
    giver = Run(other)
    theirs = giver.read_recipe()
    tensors, numbers = read_tensors(giver.folder / "model.safetensors")
    if "field" not in numbers.get("finished", []):
        raise InputError(f"'{other}' has no trained field yet: --resume finishes it.")
    for name, here in _needed(recipe).items():
        there = _needed(theirs)[name]
        if here != there:
            raise InputError(
                f"the fields of '{other}' are not of this recipe: [{name}] differs, {there} there "
                f"and {here} here."
            )
    held = {name: x for name, x in tensors.items() if name.startswith(("family.", "encoder."))}
    load_weights(system, system.state_dict() | held, f"'{giver.folder / 'model.safetensors'}'")
    system.finished = ["field"]
    codes = giver.folder / "codes.safetensors"
    if codes.is_file():
        export.write(codes.read_bytes(), run.folder / codes.name)
    log = [json.dumps(line) + "\n" for line in giver.read_log() if line.get("stage") == "field"]
    export.text("".join(log), run.folder / "log.jsonl")
    run.write_system(system)
    return {"run": str(other), "seed": theirs.get("seed", 0)}


def _needed(recipe: Recipe) -> dict[str, Any]:
    """What fields and codes depend on; where the data lie is not of it, what they are is."""
    found = {section: recipe.get(section) for section in SHARED}
    if isinstance(found["source"], dict):
        found["source"] = {key: x for key, x in found["source"].items() if key != "path"}
    stage = recipe.get("train", {}).get("field", {})
    return found | {"train.field": {key: x for key, x in stage.items() if key not in FREE}}
