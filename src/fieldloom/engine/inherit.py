"""A run that begins with the fields of another: fitted once, many priors."""

from __future__ import annotations

import shutil
from pathlib import Path

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


def inherit(system: System, recipe: Recipe, run: Run, other: str | Path) -> Recipe:
    """Give the system and the run the stage ``field`` of another run, and its codes, if it has any.

    Returns the recipe with the settings that the field was trained by. Raises InputError where the
    other's field is not trained, or is of other data or parts.
    """
    giver = Run(other)
    theirs = giver.read_recipe()
    tensors, numbers = read_tensors(giver.folder / "model.safetensors")
    if "field" not in numbers.get("finished", []):
        raise InputError(f"'{other}' has no trained field yet: --resume finishes it.")
    for section in SHARED:
        if recipe.get(section) != theirs.get(section):
            raise InputError(
                f"the fields of '{other}' are not of this recipe: [{section}] differs, "
                f"{theirs.get(section)} there and {recipe.get(section)} here."
            )
    held = {name: x for name, x in tensors.items() if name.startswith(("family.", "encoder."))}
    load_weights(system, system.state_dict() | held, f"'{giver.folder / 'model.safetensors'}'")
    system.finished = ["field"]
    run.folder.mkdir(parents=True, exist_ok=True)
    if (giver.folder / "codes.safetensors").is_file():
        shutil.copyfile(giver.folder / "codes.safetensors", run.folder / "codes.safetensors")
    for line in giver.read_log():
        if line.get("stage") == "field":
            run.log(line)
    run.write_system(system)
    stages = recipe.get("train", {}) | {"field": theirs.get("train", {}).get("field", {})}
    return recipe | {"train": stages}
