"""From a recipe to a trained run: the stages field, codec, prior, each by the same loop."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from fieldloom.assembly import assemble, objective_of
from fieldloom.budget import (
    change_settings,
    check_budget,
    check_done,
    check_steps,
    end_stage,
    share_minutes,
    spend_minutes,
)
from fieldloom.codes import bulk
from fieldloom.codes.given import are_codes, column, open_given, read_labels, remember, reopen
from fieldloom.codes.stored import StoredCodes
from fieldloom.engine import device as devices
from fieldloom.engine.feed import Feed
from fieldloom.engine.inherit import check_donor, inherit
from fieldloom.engine.layout import DATA, PREVIEW, SHARDS
from fieldloom.engine.lock import hold_lock
from fieldloom.engine.loop import Training, loop
from fieldloom.engine.nearby import no_run
from fieldloom.engine.provenance import commit
from fieldloom.engine.ranks import current_team
from fieldloom.engine.run import FINGERPRINTED, Run, sizes_of
from fieldloom.engine.training_memory import check_training_memory
from fieldloom.errors import InputError, Interrupted, name_argument, quote_path
from fieldloom.feeding import feed_codes, feed_data
from fieldloom.gathering import encode_together
from fieldloom.modalities.sources import Source
from fieldloom.objectives import CodecLoss, Objective, PriorLoss
from fieldloom.permit import NOTHING, Permit
from fieldloom.preparation import prepare
from fieldloom.previews import Previews
from fieldloom.progress import during
from fieldloom.recipe import STAGES, Recipe, merge, resolve
from fieldloom.settings import Stage
from fieldloom.sharing import divide_batches, lead_stage
from fieldloom.system import System
from fieldloom.threads import threads_by_work
from fieldloom.types import Batch, Data

StageName = Literal["field", "codec", "prior", "all"]
Moved = TypeVar("Moved", Data, Batch)

IN_MEMORY = 1 << 30
"""Bytes of codes in files up to which a run copies them, and trains on them in memory."""


def train(
    recipe: Recipe | None,
    folder: str,
    stage: StageName = "all",
    device: str = "auto",
    resume: bool = False,
    on_codec: Callable[[System, Source], object] | None = None,
    fields: str | Path | None = None,
    codes: str | Path | None = None,
    permit: Permit = NOTHING,
    path: str | None = None,
    resumed_by: str = "--resume",
    minutes: int | float | None = None,
    steps: Mapping[str, Any] | None = None,
    finish: bool = False,
) -> System:
    """Train the stages of a recipe into a run directory, or go on with those of a run.

    recipe: resolved; may be None with ``resume``, which takes the run's own.
    on_codec: is called when a lossy codec is fitted, before a prior is trained on its tokens.
    fields:   another run, whose trained field and codes a new run begins with; or codes that are
              fields by themselves: all weights of each (ours, or fit-a-nef's HDF5), or functa's
              with their network, as arrays.
    codes:    what the run of ``fields`` encoded, of whatever data, instead of its training codes.
    permit:   what the user allows.
    path:     with ``resume``, where the run's data lie now; they must be the same.
    resumed_by: what goes on with a run that was stopped, for the message.
    minutes:  a budget for the stages that are not finished, instead of their steps (see below).
    steps:    with ``resume``, new numbers of steps of stages that are not finished.
    finish:   ends the stage that was begun at its last checkpoint; ``resume`` trains what follows.

    The stages that take steps share the minutes equally. When a stage's turn comes, its pace is
    measured by trial steps that leave no trace, and the steps that follow from it are written into
    the run's recipe, so that the run is resumed without minutes. A stage that was begun goes on for
    its share. Reading and drawing are not counted, nor is the encoding between stages.

    Raises InputError where another process writes into the folder, where it holds a run already
    (and ``resume`` is not given) that has made anything, or holds none, and as ``inherit`` does.
    """
    if sum([minutes is not None, bool(steps), finish]) > 1:
        given = map(name_argument, ("minutes", "finish"))
        steps_key = "train.STAGE.steps"
        raise InputError(
            f"{', '.join(given)} and {steps_key} exclude one another: each says when a stage ends."
        )
    run, where, resume = Run(folder), devices.pick(device), resume or finish
    with hold_lock(run.folder):
        check_folder(run, resume, known=recipe is not None)
        chosen = run.read_recipe() if resume else resolve(recipe or {})
        if path is not None:
            chosen = merge(chosen, {"source": {"path": path}})
        resolved, source = prepare(chosen, where, permit)
        if current_team().leads and not resume:
            resolved = divide_batches(resolved, current_team().count)
        if resume and run.has_model:
            system = run.read_system(device, permit, checkpoint=False)
        else:
            system = assemble(resolved, permit).use(devices.kernels).to(where)
        system.recipe = system.stored_recipe = resolved
        if resume:
            system.stored_recipe = run.stored_recipe | {"source": resolved["source"]}
        stages = system.settings.stages
        todo = [
            name for name in STAGES if stage in (name, "all") or (name, stage) == ("codec", "prior")
        ]
        check_stages(system, source, stages, todo, given=fields is not None)
        done = [*system.finished, *(["field"] if fields is not None else [])]
        check_budget(system, [name for name in todo if name not in done], minutes)
        begun = run.unfinished() if resume else None
        check_steps(system, begun, steps or {})
        if resume:
            run.tidy(system.finished)
            if chosen.get("format", 1) < FINGERPRINTED:
                run.adopt(system)
            elif path is not None:
                run.write_recipe(system.stored_recipe)
        else:
            begin_run(system, run, where, fields, codes)
        run.write_json(DATA, source.summary.facts())
        if finish:
            todo = end_stage(system, run, begun, stage)
        todo = [name for name in todo if name not in system.finished]
        for name, number in (steps or {}).items():
            if name not in system.finished:
                change_settings(system, run, name, {"steps": number, "minutes": None})
        if minutes is not None:
            share_minutes(system, run, todo, minutes)
        try:
            _train_stages(system, source, system.settings.stages, todo, run, where, on_codec)
        except Interrupted as stop:
            raise Interrupted(f"{stop}; {resumed_by} goes on from here.{offer(run)}") from None
        return system


def offer(run: Run) -> str:
    """What can be done with a run that was stopped, after the first step of a stage."""
    begun = run.unfinished()
    if begun is None or not begun.step:
        return ""
    folder = shlex.quote(str(run.folder))
    return (
        f" 'fieldloom render {folder}' and 'fieldloom evaluate {folder}' work on it as it is, and "
        f"'fieldloom train --finish --run {folder}' ends the stage here."
    )


def check_folder(run: Run, resume: bool, known: bool) -> None:
    """Raise InputError where a folder can neither begin a run nor go on with one.

    known: whether there is a recipe to begin a run with.
    """
    if run.exists and not (resume and run.has_model) and not run.read_environment():
        raise InputError(
            f"'{run.folder}' holds a recipe.toml that no training has written there: give another "
            f"{name_argument('run')}."
        )
    if run.exists and not resume and not run.has_only_begun:
        more, other = name_argument("resume", True), name_argument("run")
        raise InputError(
            f"'{run.folder}' holds a run already: {more} goes on with it, another {other} begins a "
            "new one."
        )
    if not run.exists and (resume or not known):
        raise no_run_to_resume(run.folder)


def no_run_to_resume(folder: Path) -> InputError:
    """The error for a folder without a run to go on with, with the nearest one that is."""
    why = str(no_run(folder)).removeprefix(f"{quote_path(folder)} is not a run")
    return InputError(f"'{folder}' holds no run to resume{why}")


def check_resumed(folder: str | Path, name: str | None) -> None:
    """Raise InputError where a folder holds no run, or one of another recipe than of this name."""
    run = Run(folder)
    if not run.exists:
        raise no_run_to_resume(run.folder)
    if name is not None and run.read_recipe().get("recipe") != name:
        own = run.read_recipe().get("recipe")
        raise InputError(
            f"'{folder}' is a run of the recipe '{own}', not of '{name}': another "
            f"{name_argument('run')} begins a new one."
        )


def begin_run(
    system: System,
    run: Run,
    device: torch.device,
    fields: str | Path | None,
    codes: str | Path | None = None,
) -> None:
    """Begin a new run, with the trained fields of another run, or codes, where they are given.

    The recipe is written last, since a folder without one is no run.
    """
    about = devices.environment(device) | {"command": sys.argv[1:], "commit": commit()}
    about["sizes"] = sizes_of(system).model_dump()  # until there are weights, which tell their own
    if fields is not None and run.folder.resolve() == Path(fields).resolve():
        raise InputError(
            f"{name_argument('fields')}: '{fields}' is this very run; "
            f"{name_argument('resume', True)} goes on with it."
        )
    given = open_given(system, fields, codes)
    donor = None if fields is None or are_codes(fields) else fields
    if donor is not None:
        about["fields"] = check_donor(system.recipe, donor)
    elif fields is not None:
        about["fields"] = {"codes": str(fields)}
    labels = None if given is None else read_labels(given, system)
    stays = given is not None and is_large(given.codes)
    if given is not None and isinstance(given.codes, StoredCodes) and stays:
        about["codes"] = remember(given.codes)
    run.begin(system.recipe, about)
    if donor is not None:
        inherit(system, run, donor, with_codes=given is None)
    elif given is not None:
        system.finished = ["field"]
        run.write_system(system)
    if given is not None and not stays:
        extras = {x: own for x in ("errors",) if (own := column(given, x)) is not None}
        run.write_codes(system, given.codes[:], labels, extras, {"given": str(codes or fields)})
    run.write_recipe(system.recipe)


def is_large(codes: Tensor | StoredCodes) -> bool:
    """Whether codes stay in their files, and are read batch by batch."""
    return isinstance(codes, StoredCodes) and codes.nbytes > IN_MEMORY


def _train_stages(
    system: System,
    source: Source,
    stages: Mapping[str, Stage],
    todo: Sequence[str],
    run: Run,
    device: torch.device,
    on_codec: Callable[[System, Source], object] | None,
) -> None:
    if "field" in todo:
        train_field(system, source, stages["field"], run, device)
        finish_stage(system, "field", run)
    if system.prior is None or not {"codec", "prior"} & set(todo):
        return
    if not system.prior.learns:  # a GAN's prior was given before its field was trained
        for name in ("codec", "prior"):
            finish_stage(system, name, run)
        return
    train_prior(system, source, stages, todo, run, device, on_codec)


def check_stages(
    system: System,
    source: Source,
    stages: Mapping[str, Stage],
    todo: Sequence[str],
    given: bool = False,
) -> None:
    """Raise InputError for what would fail only after hours; before anything is kept.

    given: whether the trained field comes from another run.
    """
    if not system.family.has_code and len(source.train) > 1:
        raise InputError(
            f"the recipe fits one datum, since its conditioner has no codes, and here are "
            f"{len(source.train)} to train on: give one of them, or take a recipe that learns a "
            "set, as mnif:faces64 of images, mnif:chairs32 of shapes."
        )
    check_training_memory(system, source, stages, todo)
    Training(objective_of(system), stages["field"])
    if system.prior is None:
        return
    if system.prior.codec.trained:
        Training(CodecLoss(system.prior.codec), stages["codec"])
    if system.prior.trained:
        Training(PriorLoss(system.prior), stages["prior"])
    if not given and "field" not in [*system.finished, *todo]:
        first = name_argument("stage", "field")
        raise InputError(f"the run has no trained field yet: {first} comes first.")
    if system.prior.learns and len(source.train) < 2 and {"codec", "prior"} & set(todo):
        raise InputError(
            f"a prior cannot be trained on {len(source.train)} datum: give a set of data, or train "
            f"with {name_argument('stage', 'field')} alone."
        )


def finish_stage(system: System, stage: str, run: Run) -> None:
    """Write the weights of a finished stage into the run, and remove its checkpoint."""
    system.finished.append(stage)
    run.write_system(system)
    run.drop_state()
    if (preview := run.inside(PREVIEW)).is_file():
        preview.unlink()


def train_field(
    system: System, source: Source, stage: Stage, run: Run, device: torch.device
) -> None:
    """Train the stage ``field``: family and encoder, by the recipe's objective."""
    training = Training(objective_of(system), stage, STAGES.index("field"))

    feed = feed_data(system, source, stage, device)
    points = (stage.points or system.modality.grid().shape[1]) * system.render.evaluations
    numbers = (stage.micro or stage.batch) * points * system.family.widest
    with threads_by_work(numbers, device.type == "cpu"):
        previews = Previews(system, source, training, run.inside(PREVIEW))
        count, look = len(source.train), previews.look
        _run_stage("field", system, training, feed, count, run, device, look)


def train_prior(
    system: System,
    source: Source,
    stages: Mapping[str, Stage],
    todo: Sequence[str],
    run: Run,
    device: torch.device,
    on_codec: Callable[[System, Source], object] | None = None,
) -> None:
    """Train the stages ``codec`` and ``prior``, if in ``todo``, on the codes of the field."""
    assert system.prior is not None
    codes, labels = training_codes(system, source, run)
    if "codec" in todo:
        start = system.family.conditioner.origin(1)[0].detach()
        classes = None if labels is None else labels.to(device)
        if system.prior.codec.trained:
            system.prior.codec.prepare(codes[:].to(device), classes, start)
            learned = CodecLoss(system.prior.codec)
            train_on_codes("codec", learned, system, codes, labels, stages["codec"], run, device)
        with during("fitting the codec and what of the prior has a closed form"):
            if isinstance(codes, Tensor):
                system.prior.fit(codes.to(device), classes, start)
            else:
                system.prior.fit_in_pieces(codes, classes, start)
        finish_stage(system, "codec", run)
        lossy = system.prior.codec.trained or system.prior.codec.vocabulary is not None
        if on_codec is not None and lossy:
            on_codec(system, source)
    if "prior" in todo:
        if system.prior.trained:
            likelihood = PriorLoss(system.prior)
            train_on_codes("prior", likelihood, system, codes, labels, stages["prior"], run, device)
        finish_stage(system, "prior", run)


def train_on_codes(
    name: Literal["codec", "prior"],
    objective: Objective,
    system: System,
    codes: Tensor | StoredCodes,
    labels: Tensor | None,
    stage: Stage,
    run: Run,
    device: torch.device,
) -> None:
    """Train the stage ``codec`` or ``prior``: batches are codes, with their labels."""
    training = Training(objective, stage, STAGES.index(name))
    codes = codes.to(device) if isinstance(codes, Tensor) else codes
    feed = feed_codes(codes, labels, device)
    held: dict[str, Tensor] = {}
    if isinstance(codes, Tensor) or training.team.count > 1:  # others get them in memory
        held = {"codes": codes[:]} | ({} if labels is None else {"labels": labels})
    _run_stage(name, system, training, feed, len(codes), run, device, codes=held)


def _run_stage(
    name: str,
    system: System,
    training: Training,
    feed: Feed[Any],
    count: int,
    run: Run,
    device: torch.device,
    look: Callable[[], None] = lambda: None,
    codes: Mapping[str, Tensor] | None = None,
) -> None:
    lead_stage(name, system, training, codes)
    state = run.read_state(name)
    if state is not None:
        training.restore(state)
    else:
        training.share_state()
    watch: Callable[[int], None] = lambda step: None
    if training.stage.minutes is not None:
        watch = spend_minutes(system, run, name, training, feed, count, device)

    def look_and_watch() -> None:
        look()
        watch(training.step)

    check_done(name, training.step, training.stage.steps)
    run.rewind_log(name, training.step)
    loop(
        name,
        training,
        feed,
        count,
        seed=system.settings.seed,
        micro=training.stage.micro or training.stage.batch,
        device=device,
        save=lambda state: run.write_state(name, state, system.stored_recipe),
        log=run.append_log,
        look=look_and_watch,
    )


def lock_and_find_codes(system: System, source: Source, run: Run) -> tuple[Tensor, Tensor | None]:
    """As ``training_codes``, with the run's lock where they must be encoded first, in memory."""
    with nullcontext() if run.has_codes else hold_lock(run.folder):
        codes, labels = training_codes(system, source, run)
        return codes[:], labels


def training_codes(
    system: System, source: Source, run: Run
) -> tuple[Tensor | StoredCodes, Tensor | None]:
    """Raw codes of the training signals and their labels, from the run's file.

    Where there is no such file yet, the signals are encoded once, without noise, as a job of shards
    in ``codes/``, which are joined when it is finished. Signals that failed are left out. Codes
    that were given and are large are read where they are.
    """
    if system.unfinished is not None and system.unfinished.stage == "field":
        raise InputError(
            f"'{run.folder}' has no codes of its training data yet: they are found when the stage "
            f"'field' is finished (training with {name_argument('resume', True)}, or with "
            f"{name_argument('finish', True)})."
        )
    if isinstance(told := run.read_environment().get("codes"), dict):
        given = reopen(told, system)
        return given.codes, read_labels(given, system)
    shards = run.inside(SHARDS)
    if not run.has_codes:
        labels_of = lambda indices: None if source.labels is None else source.labels[indices]
        indices = torch.arange(len(source.train), device=system.device)
        stored = system.encoder.stored_codes(indices, system.family)
        if stored is not None:
            run.write_codes(system, stored, labels_of(source.train))
        else:
            found = encode_together(current_team(), system, source, shards)
            extras = {"places": found.indices, "errors": found.errors}
            failed = {"failed": found.failed}
            run.write_codes(system, found.codes, labels_of(found.indices), extras, failed)
    read = run.read_codes(system)
    bulk.remove(shards)  # a process that was killed may have left them
    return read.codes, read.labels
