"""fit of many files as a job: each is a run of its own, and a shard is one of them, or a few."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldloom import atomic, training
from fieldloom.assembly import parse_overrides
from fieldloom.codes import jobs, shards
from fieldloom.codes.bulk import digest_places
from fieldloom.codes.shards import DIGESTS, Done, How, Made, Task, digest_of, digests_of
from fieldloom.drawing import draw_fit
from fieldloom.drawing.fits import CHEAP
from fieldloom.engine.layout import MODEL
from fieldloom.engine.run import Run
from fieldloom.engine.schemas import Job, Manifest
from fieldloom.errors import (
    InputError,
    Interrupted,
    escape_bytes,
    name_argument,
    quote_path,
    shorten,
)
from fieldloom.evaluation.learning_curves import ratio_of
from fieldloom.executors.work import explain, is_of_machine, numbers_in, row_of
from fieldloom.fitting import KIND_OF_SOURCE, budget, choose
from fieldloom.inputs import source_of
from fieldloom.metrics.paired import FIDELITY
from fieldloom.modalities.sources import AUDIO, IMAGES, MESHES, VIDEOS, spec_of
from fieldloom.modalities.sources.files import find_path, locate
from fieldloom.modalities.sources.folders import find_files
from fieldloom.permit import NOTHING, Permit
from fieldloom.recipe import Recipe, load, merge, parse_override
from fieldloom.settings import check_minutes
from fieldloom.system import System

RESULTS = "results.csv"
"""The list of a finished job: file, run, dB, and why a file has no fit."""

FILES = {*IMAGES, *VIDEOS, *AUDIO, *MESHES, ".npy", ".npz"}
"""Suffixes of the files of a folder that are fitted."""

MANY = 100
"""Files of which one is looked for that is known, so that settings are checked with it."""

OWN = re.compile(r"\.|[0-9]{5,}|slurm-|manifest\.json|paused\.|results\.csv")
"""How names of files begin that are the job's own."""


@dataclass(frozen=True)
class Fit:
    """How each file is fitted: arguments of ``fieldloom.fit``; sets: texts of ``--set``."""

    kind: str | None = None
    minutes: int | float | None = None
    sets: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    permit: Permit = NOTHING

    def recipe(self, path: Path) -> tuple[Recipe, float | None]:
        """The recipe of a file, and the minutes that it trains, if it has no steps."""
        choice = choose(path, self.kind)
        change = merge(choice.sections, dict(self.overrides)) | {"seed": self.seed}
        parse = lambda recipe, texts: parse_overrides(recipe, texts, self.permit)
        layers = [dict(self.overrides), *map(parse_override, self.sets)]
        minutes = budget(choice.kind, self.minutes, *layers)
        return load(choice.recipe, self.sets, parse, change), minutes


class Fitted(NamedTuple):
    """A file of a job. decibels: PSNR (of sound SNR), None where it failed; why it did, or ""."""

    file: Path
    run: Path
    decibels: float | None
    why: str


@dataclass(frozen=True, eq=False)
class FitFiles(Task):
    """Fits of files, each in the folder of its name."""

    kind, title = "fit", "fitting"
    paths: tuple[Path, ...]
    fit: Fit

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", torch.arange(len(self.paths)))
        object.__setattr__(self, "names", name_runs(self.paths))

    names: Sequence[str] = field(init=False)
    places: Tensor = field(init=False)

    def shard_size(self) -> int:
        return 1

    def describe(self, size: int) -> Job:
        fit = self.fit
        options = {"as": fit.kind or "auto", "seed": str(fit.seed), "minutes": repr(fit.minutes)}
        options["settings"] = digest_of(repr((fit.sets, sorted(fit.overrides.items()))))
        return Job(
            signals=len(self.paths),
            shard=size,
            worst=None,
            data=digest_of("\0".join(map(str, self.paths)).encode("utf-8", "surrogateescape")),
            places=digest_places(self.places),
            system="",
            kind=self.kind,
            options=options,
        )

    def compute(self, folder: Path, number: int, places: Tensor) -> Made:
        decibels, failed = dict[int, float](), dict[int, str]()
        for place in places.tolist():
            try:
                decibels[place] = fit_file(self.paths[place], folder / self.names[place], self.fit)
            except Interrupted:
                raise
            except Exception as error:  # of this file alone, unless the machine cannot go on
                if is_of_machine(error) and not is_of_file(error):
                    raise
                failed[place] = escape_bytes(explain(error))
        done = torch.tensor(list(decibels), dtype=torch.int64)
        tensors = {"places": done, "decibels": torch.tensor(list(decibels.values()))}
        tensors[DIGESTS] = digests_of(self._models(folder, done.tolist()))
        return Made(tensors, failed)

    def files(self, job: Job, folder: Path, number: int, places: Sequence[int]) -> list[Path]:
        return self._models(folder, places)

    def _models(self, folder: Path, places: Sequence[int]) -> list[Path]:
        return [folder / self.names[place] / MODEL for place in places]


def is_of_file(error: Exception) -> bool:
    """Whether an error is of one file of the user: damaged, not there, or not to be read."""
    return isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError) or (
        isinstance(error, OSError) and error.errno is None
    )


def fit_file(path: Path, folder: Path, fit: Fit) -> float:
    """Fit one file into a run's folder, or go on with it; returns its PSNR (of sound SNR) in dB."""
    run, permit = Run(folder), fit.permit
    if run.exists:
        check_same_file(folder, str(path))
        system = training.train(None, str(folder), "field", fit.device, True, permit=permit)
    else:
        recipe, minutes = fit.recipe(path)
        system = training.train(
            recipe, str(folder), "field", fit.device, permit=permit, minutes=minutes
        )
    draw_fit(system, source_of(system, quiet=True), folder)
    return measure(system, run)


def check_same_file(folder: Path, file: str) -> None:
    """Raise InputError where a run was fitted to another file, which is still at its place."""
    run = Run(folder)
    source = run.read_recipe().get("source", {}) if run.exists else {}
    fitted = locate(str(source.get("path", "")))
    if fitted.exists() and locate(file).exists() and not fitted.samefile(locate(file)):
        raise InputError(
            f"'{folder}' was fitted to {quote_path(fitted)}, not to {quote_path(file)}: another "
            f"{name_argument('run')} fits that one."
        )


def measure(system: System, run: Run) -> float:
    """PSNR (of sound SNR) in dB at all points of the fitted signal; of large ones, at the points of
    the last step that was logged."""
    shape = (*system.modality.shape(), system.modality.channels, system.render.evaluations)
    if system.modality.kind != "views" and math.prod(shape) <= CHEAP:
        source = source_of(system, quiet=True)
        signal = system.modality.encoding(source.read(source.train[:1]))
        return float(system.fidelity(system.as_code(None), signal))
    lines = [x for x in run.read_log() if x.get("stage") == "field" and x.keys() & FIDELITY]
    return float(lines[-1][ratio_of(lines[-1:])]) if lines else math.nan


def fit_files(
    paths: Sequence[str | Path],
    folder: str | Path,
    fit: Fit = Fit(),
    how: How = How(),  # noqa: B008 (frozen)
) -> list[Fitted]:
    """Fit each file by itself, in a run of its own in the folder; resumes a job that was stopped.

    paths: files, and folders of scenes. Files that failed are tried again by the same call. A list
    of all, ``results.csv``, lies in the folder when all are done.

    Raises InputError where the folder holds another job; FieldloomError where shards are left, or
    every file failed.
    """
    folder = Path(folder)
    check_settings(paths, fit)
    task = FitFiles(tuple(Path(os.path.abspath(locate(str(path)))) for path in paths), fit)
    retry(task, folder)
    opens = partial(FitFiles, task.paths, fit)
    done = shards.run(task, folder, replace(how, opens=opens, shared=True))
    results = read_results(task, folder, done)
    write_results(results, folder)
    if not done.count:
        shards.report_failures(done.failed, done.job)
    return results


def check_settings(paths: Sequence[str | Path], fit: Fit) -> None:
    """Raise InputError, before the work, for settings that fail with any file: with the first."""
    if fit.minutes is not None:
        check_minutes(fit.minutes)
    for path in paths[:MANY]:
        with suppress(InputError):
            choose(path, fit.kind)
            break
    else:
        return
    fit.recipe(Path(path))


def retry(task: FitFiles, folder: Path) -> None:
    """Remove shards of this job that name failures, so that these files are tried again."""
    manifest = jobs.read_manifest(folder)
    if manifest is None or task.describe(manifest.job.shard) != manifest.job:
        return
    for number in numbers_in(folder, ".json"):
        row = jobs.read_row(folder, number, manifest)
        if row is not None and row.failed:
            row_of(folder, number).unlink(missing_ok=True)
            jobs.shard_path(folder, number).unlink(missing_ok=True)


def read_results(task: FitFiles, folder: Path, done: Done) -> list[Fitted]:
    """What became of each file, in their order."""
    found = dict[int, float]()
    for number, row in enumerate(shards.read_rows(folder, Manifest(job=done.job))):
        part = shards.read_shard(folder, number, done.job, row)
        found |= zip(part["places"].tolist(), part["decibels"].tolist(), strict=True)
    each = enumerate(zip(task.paths, task.names, strict=True))
    return [
        Fitted(path, folder / name, found.get(i), done.failed.get(i, ""))
        for i, (path, name) in each
    ]


def write_results(results: Sequence[Fitted], folder: Path) -> Path:
    """Write the list of results as CSV."""
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(["file", "run", "dB", "failure"])
    for one in results:
        value = "" if one.decibels is None else f"{one.decibels:.4f}"
        table.writerow([escape_bytes(str(one.file)), one.run.name, value, one.why])
    lines = content.getvalue().encode()
    return atomic.write_atomically(folder / RESULTS, lambda file: file.write(lines))


def name_runs(paths: Sequence[Path]) -> list[str]:
    """The folder of each file's run: its name without a suffix, and its number where that name is
    taken, or is like one of the job's own files."""
    taken, names = set[str](), list[str]()
    for number, path in enumerate(paths):
        stem = path.stem if path.suffix and not path.is_dir() else path.name
        stem = escape_bytes(stem)
        if OWN.match(stem.lower()) or stem.lower() in taken or len(stem) > 100:
            stem = f"{stem[:80].lstrip('.')}-{number:05d}"
            stem = stem if OWN.match(stem.lower()) is None else f"fit-{stem}"
        taken.add(stem.lower())
        names.append(stem)
    return names


def find_signals(path: str | Path, kind: str | None = None) -> tuple[list[Path], str]:
    """The files, or folders of scenes, that a path stands for, and what was passed over, in words.

    A file, or the folder of one scene, is itself; another folder stands for what is in it. Raises
    InputError where there is nothing.
    """
    root = Path(find_path(str(path)))
    if not root.is_dir():
        return [root], ""
    try:
        choose(path, kind)
        return [root], ""
    except InputError:
        scenes = [x for x in sorted(root.iterdir()) if x.is_dir() and is_scene(x)]
    if scenes:
        return scenes, ""
    found = find_files(root, str(path), FILES, "images, videos, sounds, meshes and arrays")
    passed = [name for names in found.passed_over.values() for name in names]
    few = shorten(", ".join(passed[:5]))
    return list(found.files), f"{quote_path(root)}: {len(passed)} passed over ({few})" * bool(
        passed
    )


def is_scene(folder: Path) -> bool:
    """Whether a folder holds one scene."""
    try:
        return KIND_OF_SOURCE.get(spec_of(str(folder))["name"]) == "scene"
    except InputError:
        return False
