"""The run directory: tensors are safetensors, the rest is text; no pickle.

    recipe.toml        the resolved recipe
    model.safetensors  all weights of the system, and which stages are finished
    codes.safetensors  raw codes of the training data, with the index and final error of each
    codes/             shards of these codes, until all of them are found
    state.safetensors  the checkpoint of an unfinished stage
    log.jsonl, env.json, report.json, report.html, images, live.html
    .lock              which process writes into the folder, while one does

The folder can be moved and loaded elsewhere. Every file is written under another name, then
renamed, and carries fingerprints of what made it. Nothing is written through a link out of the
folder.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldloom import atomic
from fieldloom.assembly import assemble, objective_of_stage
from fieldloom.engine import device as devices
from fieldloom.engine.folder import Folder
from fieldloom.engine.layout import (
    CODES,
    ENV,
    MODEL,
    RECIPE,
    RESERVED,
    SHARDS,
    STATE,
)
from fieldloom.engine.loop import State, load_checkpoint, load_weights
from fieldloom.engine.provenance import FIELD, check_made_by, fingerprint_weights, provenance
from fieldloom.engine.schemas import (
    Checkpoint,
    ModelNumbers,
    Sizes,
)
from fieldloom.engine.tensors import Held, numbers_of, read_tensors, write_tensors
from fieldloom.errors import InputError, name_argument
from fieldloom.metrics.cost import count_field_weights, count_parameters
from fieldloom.permit import NOTHING, Permit
from fieldloom.progress import announce
from fieldloom.recipe import Recipe, change_stage
from fieldloom.settings import parse_settings
from fieldloom.system import System
from fieldloom.unfinished import Unfinished

FINGERPRINTED = 2
"""The first format of a run's recipe whose files all carry fingerprints."""


class TrainingCodes(NamedTuple):
    """Raw codes (signals, tokens, width) of training signals in order, without those that failed.

    labels: the class of each, or None. extras: name -> one number a code: ``places``, its index in
    the source, where some are left out; ``errors``, its final reconstruction loss. numbers: the
    other entries of the file, as JSON.
    """

    codes: Tensor
    labels: Tensor | None
    extras: dict[str, Tensor]
    numbers: dict[str, Any]


class Run(Folder):
    """A run's folder."""

    def require(self) -> Run:
        super().require()
        return self

    # -- a changed recipe

    def replace_recipe(self, before: Recipe, recipe: Recipe) -> None:
        """Write a recipe that differs from the one before in the steps of unfinished stages alone.

        Wherever this is interrupted, the run goes on by the recipe that is there: a checkpoint says
        itself how many steps it was trained for.
        """
        begun = self._read_state()
        if begun is not None and begun[0].steps is None:  # of an older version
            tensors, numbers, made_by = begun[1]
            steps = parse_settings(before).stages[begun[0].stage].steps
            write_tensors(self.inside(STATE), tensors, numbers | {"steps": steps}, made_by)
        self.write_recipe(recipe)
        environment = self.read_environment()
        if environment.get("made_by") == provenance(before):
            self.write_json(ENV, environment | {"made_by": provenance(recipe)})

    # -- weights

    def write_system(self, system: System) -> None:
        numbers = {"finished": system.finished, "sizes": sizes_of(system).model_dump()}
        made_by = provenance(system.stored_recipe)
        write_tensors(self.inside(MODEL), system.state_dict(), numbers, made_by)

    def _load_checkpoint(self, system: System, state: Checkpoint, held: Held) -> None:
        """Load the weights of an unfinished stage into its system, and say so."""
        self._check_state(state, held)
        load_checkpoint(objective_of_stage(system, state.stage), held.tensors)
        steps = system.settings.stages[state.stage].steps
        system.unfinished = Unfinished(state.stage, state.step, steps)
        words = system.unfinished.describe()
        announce(f"'{self.folder}' is unfinished: these are its weights {words}.")

    def read_weights(self) -> tuple[dict[str, Tensor], list[str]]:
        """All weights of the run's system, and which stages are finished."""
        path = self.folder / MODEL
        if not path.is_file() and not (self.folder / CODES).is_file() and self.exists:
            raise InputError(
                f"'{self.folder}' holds no weights yet: its training has not come to its first "
                f"checkpoint (training with {name_argument('resume', True)} goes on with it)."
            )
        held = read_tensors(path)
        finished = list(numbers_of(ModelNumbers, held, path).finished)
        self._check(held, [*FIELD, "prior", *map("train.{}".format, finished)], path)
        return held.tensors, finished

    def read_system(
        self, device: str = "auto", permit: Permit = NOTHING, checkpoint: bool = True
    ) -> System:
        """The system with the run's weights; knows which stages are finished.

        checkpoint: whether weights of an unfinished stage are those of its checkpoint, averaged
        where they are averaged; one line says so. Raises InputError where there are no weights.
        """
        recipe = self.read_recipe()
        begun = self._read_state() if checkpoint else None
        tensors, finished = dict[str, Tensor](), list[str]()
        if begun is None or self.has_model:
            tensors, finished = self.read_weights()
        system = assemble(recipe, permit)
        if tensors:
            load_weights(system, tensors, f"'{self.folder / MODEL}'")
        system.finished = finished
        system.stored_recipe = self.stored_recipe | {
            "source": recipe.get("source", {})
        }  # where data lie now
        if begun is not None and begun[0].stage not in finished:
            self._load_checkpoint(system, *begun)
        return system.use(devices.kernels).to(devices.pick(device))

    def _check(
        self, held: Held, names: Sequence[str], path: Path, changes: Mapping[str, Any] | None = None
    ) -> None:
        """Raise InputError for a file that something else made than this run's recipe.

        changes: stage -> settings in which the recipe may differ by now.
        """
        if not held.made_by and self.stored_recipe.get("format", 1) >= FINGERPRINTED:
            raise InputError(
                f"'{path}' does not say what made it, as all files of this run do: it is of "
                "another run, or was changed. Delete it, or take another folder."
            )
        if not held.made_by:
            self._warn_no_fingerprints()
            return
        advice = f"restore the {RECIPE} that it belongs to, or train in another folder."
        recipe = self.stored_recipe
        for stage, settings in (changes or {}).items():
            recipe = change_stage(recipe, stage, settings)
        check_made_by(held.made_by, provenance(recipe), names, path, advice)

    def write_codes(
        self,
        system: System,
        codes: Tensor,
        labels: Tensor | None,
        extras: dict[str, Tensor] | None = None,
        numbers: dict[str, Any] | None = None,
    ) -> None:
        """Write the codes of the training signals; see ``TrainingCodes``."""
        tensors = {"codes": codes} | ({} if labels is None else {"labels": labels}) | (extras or {})
        made_by = provenance(system.stored_recipe) | {"weights": fingerprint_weights(system)}
        write_tensors(self.inside(CODES), tensors, numbers or {}, made_by)

    def read_codes(self, system: System | None = None) -> TrainingCodes:
        """The codes of the training signals.

        system: whose codes they must be. Raises InputError where they are damaged, or were made by
        another recipe or other weights.
        """
        path = self.folder / CODES
        held = read_tensors(path)
        self._check(held, [*FIELD, "train.field"], path)
        if held.made_by and system is not None:
            now = {"weights": fingerprint_weights(system)}
            more = name_argument("resume", True)
            advice = f"delete it, and training with {more} finds the codes again."
            check_made_by(held.made_by, now, now, path, advice)
        extras = dict(held.tensors)
        codes, labels = extras.pop("codes", None), extras.pop("labels", None)
        if codes is None or codes.ndim != 3 or not codes.is_floating_point():
            raise InputError(f"'{path}' holds no codes (signals, tokens, width).")
        if system is not None and tuple(codes.shape[1:]) != system.family.code_shape:
            raise InputError(f"'{path}' holds no codes of {system.family.code_shape} each.")
        rows = [x for x in (labels, *extras.values()) if x is not None]
        for name, own in (("labels", labels), ("places", extras.get("places"))):
            whole = own is None or own.dtype == torch.int64
            if own is not None and len(own) and not (whole and int(own.min()) >= 0):
                raise InputError(f"'{path}' is damaged: its {name} are no numbers of such things.")
        if any(x.shape != codes.shape[:1] for x in rows):
            raise InputError(f"'{path}' is damaged: what is beside its codes is not one a code.")
        return TrainingCodes(codes, labels, extras, held.numbers)

    def _warn_no_fingerprints(self) -> None:
        warnings.warn(
            f"'{self.folder}' was written by an older version, whose files carry no fingerprints: "
            "they are taken as they are, and get them when training goes on.",
            stacklevel=1,  # always from this line, so that it is shown once
        )

    def adopt(self, system: System) -> None:
        """Give files that carry no fingerprints theirs, and the recipe the newest format."""
        self._warn_no_fingerprints()
        made_by = provenance(system.stored_recipe)
        for name in (MODEL, CODES, STATE):
            path = self.folder / name
            if path.is_file():
                tensors, numbers, _ = read_tensors(path)
                weights = {"weights": fingerprint_weights(system)} if name == CODES else {}
                write_tensors(self.inside(name), tensors, numbers, made_by | weights)
        self.write_recipe(system.stored_recipe)

    # -- an unfinished stage

    def unfinished(self) -> Unfinished | None:
        """Where the stage of the checkpoint stands; None where there is none.

        The stage is finished where training was killed before it removed the checkpoint. Raises
        InputError where it is damaged.
        """
        begun = self._read_state()
        if begun is None:
            return None
        stage = begun[0].stage
        steps = parse_settings(self.read_recipe()).stages[stage].steps
        return Unfinished(stage, begun[0].step, steps)

    def _read_state(self) -> tuple[Checkpoint, Held] | None:
        """The checkpoint, of whatever stage. Raises InputError where it is damaged."""
        path = self.folder / STATE
        if not path.is_file():
            return None
        held = read_tensors(path)
        return numbers_of(Checkpoint, held, path), held

    def _check_state(self, state: Checkpoint, held: Held) -> None:
        """Raise InputError for a checkpoint of another recipe, other numbers of steps aside."""
        changes = {} if state.steps is None else {state.stage: {"steps": state.steps}}
        names = [*FIELD, "prior", f"train.{state.stage}"]
        self._check(held, names, self.folder / STATE, changes)

    def write_state(self, stage: str, state: State, recipe: Recipe | None = None) -> None:
        """Write the checkpoint of a stage. recipe: what it is trained by; None: the run's own."""
        tensors, numbers = state
        made_by = provenance(recipe or self.stored_recipe)
        write_tensors(self.inside(STATE), tensors, numbers | {"stage": stage}, made_by)

    def read_state(self, stage: str) -> State | None:
        """The checkpoint of a stage that was interrupted; None where there is none.

        Raises InputError for a checkpoint of another recipe.
        """
        begun = self._read_state()
        if begun is None or begun[0].stage != stage:
            return None
        self._check_state(*begun)
        return begun[1].tensors, begun[1].numbers

    def drop_state(self) -> None:
        (self.folder / STATE).unlink(missing_ok=True)

    # -- the beginning, and what is left over

    def begin(self, recipe: Recipe, environment: dict[str, Any]) -> None:
        """Prepare the folder for a new run: remove files of a run that only began, write
        ``env.json``.

        The recipe is written last, by ``write_recipe``: a folder without one is no run. Raises
        InputError where there are files of another run without their recipe.
        """
        made_by = provenance(recipe)
        there = [name for name in RESERVED if os.path.lexists(self.folder / name)]
        environment_before = self.read_environment()
        began = environment_before.get("made_by")
        ours = began is not None and (began == made_by or there == [ENV])
        only_begun = ours and self._holds_only_beginning(environment_before)
        if there and not self.exists and not only_begun:
            raise InputError(
                f"'{self.folder}' holds {there[0]} but no {RECIPE}: it is of another run. Take "
                "another folder, or delete it."
            )
        for name in there:
            if name != SHARDS:
                (self.folder / name).unlink()
        atomic.remove_partial(self.folder, RESERVED)
        self.write_json(ENV, environment | {"made_by": made_by})

    @property
    def has_only_begun(self) -> bool:
        """Whether nothing is trained yet but the fields that the run was given."""
        environment = self.read_environment()
        if environment.get("made_by") != provenance(self.stored_recipe):
            return False  # the folder was not begun by this recipe
        return self._holds_only_beginning(environment)

    def _holds_only_beginning(self, environment: dict[str, Any]) -> bool:
        """Whether the folder holds only what a run begins with. environment: its ``env.json``."""
        if (self.folder / STATE).exists() or (self.folder / SHARDS).exists():
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stages = {line["stage"] for line in self.read_log()}
        if "fields" not in environment:
            return not (self.has_model or self.has_codes or stages)
        path = self.folder / MODEL
        done = numbers_of(ModelNumbers, read_tensors(path), path).finished if self.has_model else []
        return stages <= {"field"} and set(done) <= {"field"}

    def tidy(self, finished: Sequence[str]) -> None:
        """Remove what a killed process left: half-written files, checkpoints of finished stages.

        Raises InputError where there are codes although the field is not trained.
        """
        if self.has_codes and "field" not in finished:
            raise InputError(
                f"'{self.folder / CODES}' is there before the field is trained: it is of another "
                "run. Delete it, or take another folder."
            )
        atomic.remove_partial(self.folder, RESERVED)
        if (self.folder / STATE).is_file():
            path = self.folder / STATE
            with suppress(InputError):  # a damaged one raises where it is read
                if numbers_of(Checkpoint, read_tensors(path), path).stage in finished:
                    self.drop_state()


def sizes_of(system: System) -> Sizes:
    """The sizes of a system's codes, family and prior."""
    tokens, width = system.family.code_shape
    return Sizes(
        code=[tokens, width],
        learnable=count_parameters(system.family),
        inference=count_field_weights(system.family.field.slots),
        prior=None if system.prior is None else count_parameters(system.prior),
    )


def save(system: System, folder: str | Path) -> Path:
    """Write a system as a new run: its recipe and its weights. Returns the folder.

    Raises InputError where the folder holds a run already.
    """
    if isinstance(folder, System) or not isinstance(system, System):
        raise InputError("save: a system, and then the folder of its run: save(system, folder).")
    run = Run(folder)
    if run.exists or run.folder.is_file():
        what = "holds a run already" if run.exists else "is a file"
        raise InputError(f"'{folder}' {what}: choose another folder.")
    run.begin(system.stored_recipe, devices.environment(system.device))
    run.write_system(system)
    run.write_recipe(system.stored_recipe)
    return run.folder


def load(
    run: str | Path,
    device: str = "auto",
    *,
    trust: Sequence[str] = (),
    network: bool = False,
    large: bool = False,
) -> System:
    """The trained system of a run directory. Raises InputError where it is none, or damaged.

    Nothing in the folder can run code, or reach for the network. trust: modules whose classes its
    recipe may name as ``module:Class``; network: whether its data may be fetched; large: try sizes
    beyond the limits on files and memory.
    """
    return Run(run).read_system(
        device, Permit(tuple([trust] if isinstance(trust, str) else trust), network, large)
    )
