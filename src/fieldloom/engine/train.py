"""From a recipe to a trained run: the stages field, codec, prior, each by the same loop."""

from __future__ import annotations

import sys
from typing import Any, Literal

import torch
from torch import Tensor

from fieldloom.engine import device as devices
from fieldloom.engine.loop import Stage, Training, loop, parse_stage
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.modalities.sources import Source
from fieldloom.objectives import Likelihood
from fieldloom.progress import track
from fieldloom.recipe import Recipe, merge
from fieldloom.system import System, build, open_source
from fieldloom.types import Batch

StageName = Literal["field", "codec", "prior", "all"]


def train(
    recipe: Recipe | None,
    folder: str,
    stage: StageName = "all",
    device: str = "auto",
    resume: bool = False,
) -> System:
    """Train the stages of a recipe into a run directory, or go on with those of a run.

    recipe: resolved; may be None with ``resume``, which takes the run's own.
    Raises InputError where the folder holds a run already (and ``resume`` is not given), or holds
    none.
    """
    run, where = Run(folder), devices.pick(device)
    if run.exists and not resume:
        raise InputError(f"'{folder}' holds a run already: give --resume, or another --run.")
    if not run.exists and (resume or recipe is None):
        raise InputError(f"'{folder}' holds no run to resume.")
    recipe = run.read_recipe() if run.exists else recipe
    assert recipe is not None
    stages = {name: parse_stage(name, spec) for name, spec in recipe.get("train", {}).items()}
    source = open_source(recipe, build(_without_learned(recipe)).modality)
    if "known" not in recipe:
        recipe = merge(recipe, {"known": source.facts()})
    recipe = _with_micro(recipe, stages, where)
    system = build(recipe).to(where)
    if not run.exists:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.write_json("env.json", devices.environment(where) | {"command": sys.argv[1:]})
        run.write_recipe(recipe)
    finished: list[str] = []
    if (run.folder / "model.safetensors").is_file():
        system, finished = run.read_system(device)
    stages = {name: parse_stage(name, spec) for name, spec in recipe.get("train", {}).items()}
    if stage in ("field", "all") and "field" not in finished:
        train_field(system, source, stages.get("field", Stage()), run, where)
        finished.append("field")
    if stage in ("codec", "prior", "all") and system.prior is not None:
        if "field" not in finished:
            raise InputError(
                f"the run '{folder}' has no trained field yet: --stage field comes first."
            )
        codes, labels = training_codes(system, source, run)
        if "codec" not in finished:
            system.prior.fit(codes.to(where), None if labels is None else labels.to(where))
            finished.append("codec")
            run.write_system(system, finished)
        if stage != "codec" and "prior" not in finished:
            train_prior(system, codes, labels, stages.get("prior", Stage()), run, where)
            finished.append("prior")
            run.write_system(system, finished)
            run.drop_state()
    return system


def _without_learned(recipe: Recipe) -> Recipe:
    """The recipe with as much as the modality needs: a source is opened before all is known."""
    return {k: v for k, v in recipe.items() if k in ("modality", "field", "renderer")}


def _with_micro(recipe: Recipe, stages: dict[str, Stage], device: torch.device) -> Recipe:
    """The micro-batch of the field stage is chosen once, recorded, and reused on resume."""
    field = stages.get("field", Stage())
    if field.micro is not None:
        return recipe
    plain = build(_without_learned(recipe))
    points = field.points or plain.modality.grid().shape[1]
    width = max(slot.shape[-1] for slot in plain.family.field.slots.values())
    micro = devices.micro_batch(device, field.batch, points, width)
    return merge(recipe, {"train": {"field": {"micro": micro}}})


def train_field(
    system: System, source: Source, stage: Stage, run: Run, device: torch.device
) -> None:
    """The stage ``field``: family and encoder by the recipe's objective."""
    training = Training(system.objective(), stage)

    def fetch(places: Tensor) -> Batch:
        index = source.train[places]
        label = None if source.labels is None else source.labels[index]
        data = source.read(index).to(device)
        return system.modality.observe(data, places, label, points=stage.points).to(device)

    _run_stage("field", system, training, fetch, len(source.train), run, device)
    run.write_system(system, ["field"])
    run.drop_state()


def train_prior(
    system: System,
    codes: Tensor,
    labels: Tensor | None,
    stage: Stage,
    run: Run,
    device: torch.device,
) -> None:
    """The stage ``prior``: where it has a loss; others were fitted in closed form."""
    assert system.prior is not None
    if not system.prior.trained:
        return
    training = Training(Likelihood(system.prior), stage)
    codes = codes.to(device)
    labels = None if labels is None else labels.to(device)

    def fetch(places: Tensor) -> tuple[Tensor, Tensor | None]:
        places = places.to(device)
        return codes[places], None if labels is None else labels[places]

    _run_stage("prior", system, training, fetch, len(codes), run, device)


def _run_stage(
    name: str,
    system: System,
    training: Training,
    fetch: Any,
    count: int,
    run: Run,
    device: torch.device,
) -> None:
    state = run.read_state(name)
    if state is not None:
        training.restore(state)
        run.rewind_log(name, training.step)
    loop(
        name,
        training,
        fetch,
        count,
        seed=system.recipe.get("seed", 0),
        micro=training.stage.micro or training.stage.batch,
        device=device,
        save=lambda state: run.write_state(name, state),
        log=run.log,
    )


def training_codes(system: System, source: Source, run: Run) -> tuple[Tensor, Tensor | None]:
    """Raw codes of the training signals, kept in the run: encoded once, without noise."""
    if (run.folder / "codes.safetensors").is_file():
        return run.read_codes()
    stored = system.encoder.stored(
        torch.arange(len(source.train), device=system.device), system.family
    )
    if stored is None:
        batch = system.recipe.get("train", {}).get("field", {}).get("batch", 32)
        parts = source.train.split(batch)
        encoded = [
            system.encode(source.read(p)) for p in track(parts, "encoding", len(parts), "batches")
        ]
        stored = torch.cat(encoded)
    labels = None if source.labels is None else source.labels[source.train]
    run.write_codes(stored, labels)
    return stored.detach().cpu(), None if labels is None else labels.cpu()
