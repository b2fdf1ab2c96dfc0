"""How several processes share the stages of a training: the first one leads, the others follow.

Those that follow hold the same weights and write nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fieldloom import progress
from fieldloom.assembly import assemble, objective_of_stage
from fieldloom.engine import device as devices
from fieldloom.engine.feed import Feed, feed_steps
from fieldloom.engine.loop import Training
from fieldloom.engine.ranks import Team, Word
from fieldloom.feeding import feed_codes, feed_data
from fieldloom.gathering import find_part
from fieldloom.modalities.sources import Source
from fieldloom.objectives import AnyBatch
from fieldloom.permit import NOTHING, Permit
from fieldloom.preparation import prepare
from fieldloom.progress import announce
from fieldloom.recipe import STAGES, Recipe, change_stage, resolve
from fieldloom.settings import parse_settings
from fieldloom.system import System


def divide_batches(recipe: Recipe, count: int) -> Recipe:
    """The recipe of a new run with batches that so many processes can share."""
    stages = parse_settings(recipe).stages
    for name in STAGES if "prior" in recipe else STAGES[:1]:
        stage = stages[name]
        micro = max(1, min(stage.micro or stage.batch, stage.batch // count))
        recipe = change_stage(recipe, name, {"micro": micro, "divided": True})
    return recipe


def lead_stage(
    name: str, system: System, training: Training, codes: Mapping[str, Tensor] | None
) -> None:
    """Let the processes that follow prepare for a stage. codes: what it is trained on, no data."""
    team = training.team
    if not team.leads:
        return
    whole = training.micro_of(training.stage.micro or training.stage.batch)
    busy = min(team.count, -(-training.stage.batch // whole))
    if busy < team.count:
        announce(
            f"{name}: its batches of {training.stage.batch} are computed in {busy} "
            f"part{'' if busy == 1 else 's'}, so that {busy} of {team.count} processes work."
        )
    team.say(Word.STAGE)
    team.share({"recipe": system.recipe, "stage": name})
    team.share_tensors(codes)
    training.divide_rows()


def follow(team: Team, device: torch.device, permit: Permit = NOTHING) -> None:
    """Take part in the stages that the first process trains, until it says that all is done.

    This process announces nothing from then on, since the first one does.

    Raises InputError where the data are not those of the first process, and FieldloomError where
    another process ends too early.
    """
    progress.silence()
    part: Part | None = None
    held: dict[str, tuple[Recipe, Source]] = {}

    def open_source(recipe: Recipe) -> Source:
        """The data of a recipe, which are read once."""
        key = {n: x for n, x in recipe.items() if n in ("source", "modality", "known")}
        if held.get("data", (None,))[0] != key:
            held["data"] = key, prepare(recipe, device, permit)[1]
        return held["data"][1]

    while True:
        word, number = team.hear()
        if word is Word.LEAVE:
            return
        if word is Word.STAGE:
            part = take_part(team, device, permit, open_source)
        elif word is Word.CODES:
            find_part(team, device, permit, open_source)
        elif part is not None and word is Word.STATE:
            part.training.take_state()
        elif part is not None and word is Word.WHOLE:
            part.training.state()
        elif part is not None and word is Word.ROWS:
            part.training.read_rows(bool(number))
        elif part is not None and word is Word.JOIN:
            part.training.join_rows()
        elif part is not None:
            part.advance(number)


@dataclass
class Part:
    """A stage that this process takes part in. count: of the data; micro: as ``loop`` takes it."""

    training: Training
    feed: Feed[Any]
    count: int
    seed: int
    micro: int
    device: torch.device
    batches: Generator[AnyBatch, None, None] | None = None
    coming: int = -1

    def advance(self, step: int) -> None:
        """The step of this number; those after it are read ahead where the device is worth it."""
        training, stage = self.training, self.training.stage
        micro = training.micro_of(self.micro)
        if self.batches is None or step != self.coming:  # also after trial steps
            if self.batches is not None:
                self.batches.close()
            steps = range(step, stage.steps + (1 << 20))
            tag, parts = training.tag, training.parts_of(micro)
            self.batches = feed_steps(self.feed, stage, self.seed, tag, steps, self.count, parts)
        training.objective.train()
        training.advance(next(self.batches), micro, self.seed, self.device)
        self.coming = step + 1


def take_part(
    team: Team,
    device: torch.device,
    permit: Permit,
    open_source: Callable[[Recipe], Source],
) -> Part:
    """What the first process trains now, made here from its recipe and its data."""
    told, codes = team.share(), team.share_tensors()
    recipe, stage = resolve(told["recipe"], warn=False), told["stage"]
    source = None if codes else open_source(recipe)
    system = assemble(recipe, permit).use(devices.kernels).to(device)
    settings = system.settings.stages[stage]
    training = Training(objective_of_stage(system, stage), settings, STAGES.index(stage))
    training.divide_rows()
    seed, micro = system.settings.seed, settings.micro or settings.batch
    if source is None:
        feed = feed_codes(codes["codes"].to(device), codes.get("labels"), device)
        return Part(training, feed, len(codes["codes"]), seed, micro, device)
    feed = feed_data(system, source, settings, device)
    return Part(training, feed, len(source.train), seed, micro, device)
