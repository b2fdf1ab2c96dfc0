"""The steps of a run's unfinished stages: from a budget of time, or as the user changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fieldloom.engine.feed import Feed
from fieldloom.engine.loop import Training
from fieldloom.engine.pace import Watch, describe_plan, measure_pace, plan_steps
from fieldloom.engine.run import Run
from fieldloom.errors import InputError, name_argument
from fieldloom.progress import announce
from fieldloom.recipe import STAGES, change_stage
from fieldloom.settings import check_minutes, parse_stage
from fieldloom.system import System
from fieldloom.unfinished import Unfinished


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
        raise InputError(
            f"{name_argument('minutes', minutes)}: no stage is left to train that takes more than "
            f"one step (a finished stage begins anew in another {name_argument('run')})."
        )


def share_minutes(system: System, run: Run, todo: Sequence[str], minutes: int | float) -> None:
    """Write a budget into the recipe of a run: its stages that take steps share it equally.

    Each becomes a number of steps when the stage's turn comes.
    """
    stages = stages_of_steps(system, todo)
    for name in stages:
        change_settings(system, run, name, {"minutes": minutes / len(stages)})


def check_steps(system: System, begun: Unfinished | None, steps: Mapping[str, Any]) -> None:
    """Raise InputError for numbers of steps that stages of a run cannot be given any more.

    begun: the stage of the run's checkpoint.
    """
    for name, number in steps.items():
        if name != "field" and system.prior is None:
            raise InputError(f"train.{name}.steps: the run's recipe has no prior.")
        if name in system.finished and number != system.settings.stages[name].steps:
            raise InputError(
                f"train.{name}.steps: the stage '{name}' is finished, and its optimizer's state is "
                f"not kept: it begins anew in another {name_argument('run')}."
            )
        parse_stage(name, change_stage(system.recipe, name, {"steps": number})["train"][name])
        if begun is not None and begun.stage == name:
            check_done(name, begun.step, number)


def check_done(name: str, done: int, steps: int) -> None:
    """Raise InputError where a stage has fewer steps than are done."""
    if done > steps:
        raise InputError(
            f"train.{name}.steps = {steps}: {done} steps are done already; "
            f"{name_argument('finish', True)} ends the stage there."
        )


def end_stage(system: System, run: Run, begun: Unfinished | None, stage: str) -> list[str]:
    """Let the stage of a checkpoint end there; returns the stages that are still to be finished.

    That is the stage itself and, of a prior that was given before, those that train nothing. stage:
    which one the user names, or ``all``. Raises InputError where there is no checkpoint after a
    step, or one of another stage.
    """
    if begun is None or begun.stage in system.finished or not begun.step:
        raise InputError(
            f"{name_argument('finish')}: '{run.folder}' has no checkpoint after a step, and so no "
            "stage to end."
        )
    if stage not in ("all", begun.stage):
        raise InputError(
            f"{name_argument('finish')}: the stage that was begun is '{begun.stage}', not "
            f"'{stage}': leave {name_argument('stage')} out."
        )
    change_settings(system, run, begun.stage, {"steps": begun.step, "minutes": None})
    announce(f"'{run.folder}': its stage '{begun.stage}' ends here, after step {begun.step}.")
    given = begun.stage == "field" and system.prior is not None and not system.prior.learns
    return list(STAGES) if given else [begun.stage]


def spend_minutes(
    system: System,
    run: Run,
    name: str,
    training: Training,
    feed: Feed[Any],
    data: int,
    device: torch.device,
) -> Watch:
    """Turn the budget of a stage into its settings, in the training and in the run's recipe.

    The budget is of what is left of the stage. One line says what it comes to. Returns what watches
    the pace from then on.
    """
    stage, done = training.stage, training.step
    assert stage.minutes is not None
    seconds, seed, micro = 60 * stage.minutes, system.settings.seed, stage.micro or stage.batch
    pace = measure_pace(
        training, feed, data, seed=seed, micro=micro, device=device, seconds=seconds
    )
    planned = plan_steps(stage, done, pace, seconds)
    change_settings(system, run, name, planned)
    training.stage = system.settings.stages[name]
    training.share_state()
    announce(describe_plan(name, done, planned["steps"], pace, stage.minutes))
    return Watch(name, planned["steps"], pace, seconds - pace.took, run.folder)


def change_settings(system: System, run: Run, stage: str, settings: Mapping[str, Any]) -> None:
    """Change settings of a stage that is not finished, in a system and in the recipe of its run.

    settings: None removes one.
    """
    system.recipe, before = change_stage(system.recipe, stage, settings), system.stored_recipe
    system.stored_recipe = change_stage(before, stage, settings)
    run.replace_recipe(before, system.stored_recipe)
