"""The state of a run from its text and the header of its weights: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from fieldloom.engine.layout import ENV, LOG, MODEL, RECIPE, STATE
from fieldloom.engine.log import read_lines
from fieldloom.engine.provenance import FIELD, check_made_by, provenance
from fieldloom.engine.schemas import (
    Checkpoint,
    ModelNumbers,
    Provenance,
    Sizes,
    parse_json,
    read_text,
    validate_content,
)
from fieldloom.errors import InputError
from fieldloom.recipe import Recipe, change_stage, read_file, resolve
from fieldloom.unfinished import Unfinished


class State(NamedTuple):
    """What a run is. parts: section of its recipe -> the name of its part. unfinished: where the
    stage of its checkpoint stands, if there is one.
    """

    title: str
    paper: str
    seed: int
    parts: Mapping[str, str]
    signals: int
    classes: int
    finished: Sequence[str]
    sizes: Sizes
    log: Sequence[dict[str, Any]]
    unfinished: Unfinished | None = None


PARTS = ("field", "conditioner", "encoder", "prior")
"""Sections of a recipe whose parts make the systems."""


def name_of(spec: Any) -> str:
    """The name of a part from its spec, a name or a table."""
    return spec if isinstance(spec, str) else str(spec.get("name"))


def state_of(
    recipe: Recipe,
    finished: Sequence[str],
    sizes: Sizes,
    log: Sequence[dict[str, Any]],
    unfinished: Unfinished | None,
) -> State:
    """The state of a run with this recipe, by today's names. Settings would need torch."""
    known = recipe.get("known", {})
    return State(
        recipe.get("recipe", "-"),
        recipe.get("paper", "-"),
        recipe.get("seed", 0),
        {name: name_of(recipe.get(name, "none")) for name in PARTS},
        known.get("signals", 0),
        known.get("classes", 0),
        finished,
        sizes,
        log,
        unfinished,
    )


def glance(run: str) -> State | None:
    """The state of a run; None where its files do not tell it, or are not of one another.

    Then the run must be read (``engine.run``), which also says what is wrong. The tensors are not
    read, so that a damaged weight is not noticed.
    """
    folder = Path(run)
    if not run:  # which Path takes for the current folder
        return None
    try:
        stored = read_file(folder / RECIPE)
        finished, sizes = read_sizes(folder, provenance(stored))
        begun = read_unfinished(folder, stored, finished)
    except (InputError, OSError, SafetensorError):
        return None
    if sizes is None:
        return None
    return state_of(resolve(stored, warn=False), finished, sizes, read_lines(folder / LOG), begun)


def read_sizes(folder: Path, made_by: dict[str, str]) -> tuple[list[str], Sizes | None]:
    """Finished stages and sizes as training wrote them; None where it did not, or by others.

    made_by: the fingerprints that the file must carry.
    """
    path = folder / MODEL
    if path.is_file():
        text = read_header(path)
    else:
        path = folder / ENV
        text = read_text(path)
    content = parse_json(text, path)
    numbers = validate_content(ModelNumbers, content, path)
    found = validate_content(Provenance, content.get("made_by", {}), path).root
    names = [*FIELD, "prior", *map("train.{}".format, numbers.finished)]
    ours = all(found.get(name) == made_by[name] for name in names)
    return numbers.finished, numbers.sizes if ours else None


def read_unfinished(folder: Path, recipe: Recipe, finished: Sequence[str]) -> Unfinished | None:
    """Where the stage of a checkpoint stands; None where there is none, or it is finished.

    Raises InputError for a checkpoint that is another recipe's, or does not say how many steps its
    stage has.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    content = parse_json(read_header(path), path)
    state = validate_content(Checkpoint, content, path)
    if state.stage in finished:
        return None
    found = validate_content(Provenance, content.get("made_by", {}), path).root
    trained = change_stage(recipe, state.stage, {"steps": state.steps})
    names, steps = [*FIELD, "prior", f"train.{state.stage}"], recipe_steps(recipe, state.stage)
    check_made_by(found, provenance(trained), names, path, "of another run.")
    if state.steps is None or steps is None:
        raise InputError(f"'{path}' does not say of how many steps its stage is.")
    return Unfinished(state.stage, state.step, steps)


def recipe_steps(recipe: Recipe, stage: str) -> int | None:
    """The steps of a stage, where the recipe states them."""
    steps = recipe.get("train", {}).get(stage, {}).get("steps")
    return steps if isinstance(steps, int) else None


def read_header(path: Path) -> str:
    """The metadata of a file of tensors, as JSON."""
    with safe_open(path, "np") as file:
        return (file.metadata() or {}).get("fieldloom", "{}")
