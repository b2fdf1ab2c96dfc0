"""The steps of a run's stages that are not finished: from a budget of time, or changed by the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fieldloom.engine.feed import Feed
from fieldloom.engine.loop import Training
from fieldloom.engine.pace import describe_plan, measure_pace, plan_steps
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.progress import announce
from fieldloom.recipe import change_stage
from fieldloom.settings import check_minutes
from fieldloom.system import System


def stages_of_steps(system: System, todo: Sequence[str]) -> list[str]:
    """Those of some stages that take steps: no closed form, and no stage of one long step."""
    prior = system.prior
    learns = prior is not None and prior.learns
    trained = {
        "field": True,
        "codec": learns and prior is not None and prior.codec.trained,
        "prior": learns and prior is not None and prior.trained,
    }
    return [name for name in todo if trained[name] and system.settings.stages[name].steps > 1]


def check_budget(system: System, todo: Sequence[str], minutes: int | float | None) -> None:
    """Raise InputError for minutes that are no positive number, or that no stage could take."""
    if minutes is None:
        return
    check_minutes(minutes)
    if not stages_of_steps(system, todo):
        names = f"stage {', '.join(todo)}" if todo else "every stage is finished, and none"
        raise InputError(f"minutes = {minutes:g}: {names} takes steps that could be budgeted.")


def share_minutes(system: System, run: Run, todo: Sequence[str], minutes: int | float) -> None:
    """Write a budget into the recipe of a run: its stages that take steps share it equally.

    Each becomes a number of steps when the stage's turn comes.
    """
    stages = stages_of_steps(system, todo)
    for name in stages:
        change_settings(system, run, name, {"minutes": minutes / len(stages)})


def spend_minutes(
    system: System,
    run: Run,
    name: str,
    training: Training,
    feed: Feed[Any],
    data: int,
    device: torch.device,
) -> None:
    """Turn the budget of a stage into its settings, in the training and in the run's recipe.

    The budget is of what is left of the stage. One line says what it comes to.
    """
    stage, done = training.stage, training.step
    assert stage.minutes is not None
    given = {"seed": system.settings.seed, "micro": stage.micro or stage.batch, "device": device}
    pace = measure_pace(training, feed, data, **given, seconds=60 * stage.minutes)
    planned = plan_steps(stage, done, pace, 60 * stage.minutes)
    change_settings(system, run, name, planned)
    training.stage = system.settings.stages[name]
    announce(describe_plan(name, done, planned["steps"], pace, stage.minutes))


def change_settings(system: System, run: Run, stage: str, settings: Mapping[str, Any]) -> None:
    """Change settings of a stage that is not finished, in a system and in the recipe of its run.

    settings: None removes one.
    """
    system.recipe, before = change_stage(system.recipe, stage, settings), system.stored_recipe
    system.stored_recipe = change_stage(before, stage, settings)
    run.replace_recipe(before, system.stored_recipe)
