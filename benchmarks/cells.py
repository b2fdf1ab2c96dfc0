"""Tables of results, cell by cell: a row of a table with one seed is trained and evaluated.

    python benchmarks/cells.py list
    python benchmarks/cells.py run TABLE[/ROW]... --data FOLDER --runs FOLDER [--seeds 0 1 2]

``benchmarks/cells.toml`` describes the tables. Runs lie in FOLDER and go on where they were
stopped. Each finished cell is a file ``benchmarks/results/cells/TABLE/ROW-seedN.json``; cells that
have theirs, of the same settings, are passed over. One cell at a time, on one thread: start the
command twice for two, which share the cells by locks.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from math import log10
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from cell_figures import CHECKPOINTS, MEASURES
from checkpoints import keep_checkpoints
from watching import repeatedly

import fieldloom
from fieldloom import atomic, recipe
from fieldloom.assembly import open_source
from fieldloom.engine import device as devices
from fieldloom.engine.run import Run
from fieldloom.errors import DivergedError, InputError
from fieldloom.evaluation.results import Metric

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "cells"


def find_commit() -> str:
    """That the code is of, which may have changed when a cell is done; "-dirty" if it has none.

    Results and documents are no code.
    """

    def ask(*words: str) -> str:
        told = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True)
        return told.stdout.strip()

    changed = ask(
        "status", "--porcelain", "--untracked-files=no", ":/", ":!results", ":(top,exclude)docs"
    )
    return ask("describe", "--always", "--exclude=*") + ("-dirty" if changed else "")


COMMIT = find_commit()
POINTS = 200
"""Of a learning curve that are kept, at most."""

LEVELS = (20, 24)
"""dB of the training PSNR that a run is asked when it reached them."""

COUNTED = 5.0
"""Seconds between two notes of the processor's time."""

SMOOTHED = 10
"""Logged losses whose mean is the training PSNR of a step: one batch is noisy."""

SHARED = ("recipe", "variant", "data", "source", "part", "stage")
"""What decides the figures, beside overrides of the recipe and measures."""

TOLD = ("about", "paper", "expected", "dead")
"""Of a recipe: what no run depends on."""


class Cell(NamedTuple):
    """A row of a table with a seed.

    data: a file, or nothing where the recipe's source makes its own. source: how they are read.
    part: which of a file's are used: ``all``, or ``train``, those that the recipe itself would
    train on, where settings are compared. changes: of the recipe. run: the row whose training it
    shares, which differs in what is measured alone. measures: further ones (``cell_figures.py``),
    with their settings. evaluated: whether the recipe's evaluation is made.
    """

    table: str
    row: str
    seed: int
    recipe: str
    variant: str
    data: str
    source: dict[str, Any]
    part: str
    stage: str
    changes: dict[str, Any]
    run: str
    measures: dict[str, dict[str, Any]]
    evaluated: bool = True

    @property
    def name(self) -> str:
        return f"{self.table}/{self.row}-seed{self.seed}"

    @property
    def result(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def settings(self) -> dict[str, Any]:
        """What decides the figures, as the cell's file holds it."""
        measures = {"measures": self.measures} if self.measures else {}
        told = {"overrides": self.changes, "resolved": self.fingerprint(self.evaluated)}
        return self.shared() | told | measures | ({} if self.evaluated else {"evaluated": False})

    def training(self) -> dict[str, Any]:
        """What decides how the run comes out."""
        return self.shared() | {"seed": self.seed, "resolved": self.fingerprint(False)}

    def shared(self) -> dict[str, Any]:
        own = self._asdict()
        return {name: own[name] for name in SHARED}

    def fingerprint(self, evaluated: bool) -> str:
        """Of the recipe with its changes, which another version of the package may have changed.

        evaluated: whether what the recipe says of evaluations counts.
        """
        whole = self.whole_recipe()
        idle = TOLD if evaluated else (*TOLD, "evaluate")
        text = json.dumps({k: x for k, x in whole.items() if k not in idle}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def whole_recipe(self) -> dict[str, Any]:
        known = recipe.load(f"{self.recipe}:{self.variant}".rstrip(":"))
        return recipe.merge(known, self.changes)

    @property
    def folder(self) -> str:
        """Of its run, below the folder of runs."""
        return f"{self.run}-seed{self.seed}"


def read_cells(seeds: Sequence[int] | None) -> list[Cell]:
    """All cells of ``cells.toml``."""
    with open(HERE / "cells.toml", "rb") as file:
        tables = tomllib.load(file)
    cells = []
    for table, described in tables.items():
        shared = described.get("shared", {})
        for row, own in described["rows"].items():
            both = recipe.merge(shared, own)
            for seed in seeds or both.get("seeds", [0]):
                name, _, variant = both["recipe"].partition(":")
                cells.append(
                    Cell(
                        table,
                        row,
                        seed,
                        name,
                        variant,
                        both.get("data", ""),
                        both.get("source", {}),
                        both.get("part", "all"),
                        both.get("stage", "all"),
                        both.get("set", {}),
                        both.get("run", f"{table}/{row}"),
                        both.get("measure", {}),
                        both.get("evaluated", True),
                    )
                )
    return cells


def find_data(cell: Cell, data: Path, folder: Path) -> dict[str, Any]:
    """What a cell's recipe reads, as settings of its source."""
    if not cell.data:
        if cell.part != "all":
            raise InputError(
                f"{cell.name}: part = '{cell.part}' is of a file, and data names none."
            )
        return cell.source
    path = data / cell.data
    if cell.part == "all":
        return {"path": str(path)} | cell.source
    return {"path": str(cut_data(cell, path, folder))} | cell.source


def cut_data(cell: Cell, path: Path, folder: Path) -> Path:
    """A packed file of the data that the recipe trains on."""
    read = hashlib.sha256(json.dumps(cell.source, sort_keys=True).encode()).hexdigest()[:8]
    cut = folder / f"{path.stem}-of-{cell.recipe}-{cell.variant}-{read}.npz"
    if not cut.exists():
        system = fieldloom.build(
            cell.recipe, cell.variant or None, source={"path": str(path)} | cell.source
        )
        which = open_source(system.recipe, system.modality).train.sort().values.numpy()
        with np.load(path, allow_pickle=False) as file:
            kept = cut_arrays({name: file[name] for name in file.files}, which)
        folder.mkdir(parents=True, exist_ok=True)
        part = cut.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, **kept)
        part.rename(cut)
    return cut


def cut_arrays(held: Mapping[str, np.ndarray], which: np.ndarray) -> dict[str, np.ndarray]:
    """Those of the data: rows of arrays, or stretches of ``data`` between its ``offsets``."""
    if "offsets" not in held:
        count = max(len(x) for x in held.values() if x.ndim)
        return {n: x[which] if x.ndim and len(x) == count else x for n, x in held.items()}
    data, offsets = held["data"], held["offsets"]
    kept = [data[offsets[i] : offsets[i + 1]] for i in which]
    ends = np.cumsum([len(x) for x in kept])
    return {"data": np.concatenate(kept), "offsets": np.concatenate([[0], ends])}


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process alone works in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "claim", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_done(cell: Cell) -> bool:
    if not cell.result.exists():
        return False
    held = json.loads(cell.result.read_text())
    return all(held.get(name) == value for name, value in cell.settings().items())


def run_cell(cell: Cell, data: Path, runs: Path) -> dict[str, Any]:
    """Train and evaluate a cell, or what remains of it; what its file says.

    Of a training that diverges it is the step where it did. Raises InputError where the run that is
    there is of other settings.
    """
    folder = runs / cell.folder
    check_folder(folder, cell)
    source = find_data(cell, data, runs / "data")
    kept = "held-out" in cell.measures
    diverged: DivergedError | None = None
    with keep_checkpoints(folder / "run", folder / CHECKPOINTS) if kept else nullcontext():
        try:
            with count_seconds(folder / "seconds"):
                train(cell, source, folder / "run")
        except DivergedError as error:
            diverged = error
    run, trained = folder / "run", float((folder / "seconds").read_text())
    log = Run(run).read_log()
    figures = {"fell.apart": diverged.step} if diverged else measure(cell, run, log, trained)
    return {
        "table": cell.table,
        "row": cell.row,
        "seed": cell.seed,
        **cell.settings(),
        "figures": figures,
        **({"diverged": str(diverged)} if diverged else {}),
        "seconds": find_seconds(log),
        **({} if diverged else {"processor_seconds": round(trained)}),
        "steps": {line["stage"]: line["step"] for line in log},
        "curves": find_curves(log),
        "commit": COMMIT,
        "command": f"python benchmarks/cells.py run {cell.table}/{cell.row} --seeds {cell.seed}",
        "machine": devices.environment(torch.device("cpu")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check_folder(folder: Path, cell: Cell) -> None:
    """Write down of what settings a run is. Raises InputError where it is of others."""
    settings = json.loads(json.dumps(cell.training()))
    told = folder / "settings.json"
    if not told.exists() and not (folder / "run").exists():
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(json.dumps(settings, indent=1) + "\n", told)
    elif not told.exists() or json.loads(told.read_text()) != settings:
        raise InputError(f"'{folder}' holds a run of other settings: remove it.")


def train(cell: Cell, source: dict[str, Any], run: Path) -> None:
    """Train what a cell's run still lacks. A codec's stage needs the field's before it."""
    changes = recipe.merge({"source": source, "seed": cell.seed}, cell.changes)
    stages = ["field", "codec"] if cell.stage == "codec" else [cell.stage]
    for stage in stages:
        how: dict[str, Any] = {"stage": stage, "device": "cpu"}
        if (run / "recipe.toml").exists():
            fieldloom.train(None, run, resume=True, **how)
        else:
            fieldloom.train(cell.recipe, run, cell.variant or None, **how, **changes)


@contextmanager
def count_seconds(path: Path) -> Iterator[None]:
    """Add the processor's seconds of this process meanwhile to those that a file has.

    The file is written every few seconds, so that a process that is killed loses no more.
    """
    before = float(path.read_text()) if path.exists() else 0.0
    began = time.process_time()

    def write() -> None:
        atomic.write_text(str(before + time.process_time() - began), path)

    with repeatedly(write, COUNTED):
        yield


def measure(
    cell: Cell, run: Path, log: Sequence[Mapping[str, Any]], spent: float
) -> dict[str, float]:
    """The figures of a run's evaluation, of the cell's measures, and of its learning curve."""
    system = fieldloom.load(run, device="cpu")
    asked = cell.whole_recipe().get("evaluate", {})  # the run may be another row's
    system.recipe = {**system.recipe, "evaluate": asked}
    found = name_figures(fieldloom.evaluate(system).metrics) if cell.evaluated else {}
    for name, how in cell.measures.items():
        found |= MEASURES[name](system, Run(run), **how)
    return found | find_reached(log, system.modality.high - system.modality.low, spent)


def name_figures(metrics: Sequence[Metric]) -> dict[str, float]:
    """Figures by their names; by how they were made, too, where two have one name."""
    found: dict[str, float] = {}
    for one in metrics:
        found[f"{one.name} ({one.how})" if one.name in found else one.name] = one.value
    return found


def find_seconds(log: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Of each stage: its steps times the time of one, as its last line has it."""
    last = {line["stage"]: line for line in log}
    return {name: round(line["step"] * line["seconds_a_step"]) for name, line in last.items()}


def find_curves(log: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Of each stage: [step, loss], the mean of the losses that were logged since the last."""
    curves: dict[str, list[list[float]]] = {}
    for stage in dict.fromkeys(line["stage"] for line in log):
        lines = [line for line in log if line["stage"] == stage and "loss" in line]
        every = max(1, -(-len(lines) // POINTS))
        parts = [lines[i : i + every] for i in range(0, len(lines), every)]
        curves[stage] = [
            [part[-1]["step"], float(f"{sum(x['loss'] for x in part) / len(part):.6g}")]
            for part in parts
        ]
    return curves


def find_reached(log: Sequence[Mapping[str, Any]], span: float, spent: float) -> dict[str, float]:
    """Steps and processor seconds until the field's training PSNR stays above the ``LEVELS``.

    It is 10 log10(span^2 / loss), of the mean of the losses that were logged last. What was not
    reached has no figure; nor have losses that are no squared errors. span: of the values' range;
    spent: the processor's seconds, of which a stage has the share that it has of the clock's.
    """
    lines = [line for line in log if line["stage"] == "field" and "psnr" in line]
    last = {line["stage"]: line for line in log}
    took = {name: line["step"] * line["seconds_a_step"] for name, line in last.items()}
    found: dict[str, float] = {}
    for level in LEVELS:
        reached = 0
        for end in range(len(lines), 0, -1):
            part = lines[max(0, end - SMOOTHED) : end]
            if 10 * log10(span**2 / mean(line["loss"] for line in part)) <= level:
                break
            reached = lines[end - 1]["step"]
        if reached:
            share = reached / last["field"]["step"] * took["field"] / sum(took.values())
            found |= {f"steps.{level}dB": reached, f"seconds.{level}dB": round(share * spent, 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["list", "run"])
    parser.add_argument("which", nargs="*", help="TABLE or TABLE/ROW; default: all")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*")
    asked = parser.parse_args()
    cells = [
        cell
        for cell in read_cells(asked.seeds)
        if not asked.which or {cell.table, f"{cell.table}/{cell.row}"} & set(asked.which)
    ]
    if not cells:
        parser.error("no such table or row: see 'list'")
    if asked.verb == "list":
        for cell in cells:
            print(cell.name, "done" if is_done(cell) else "not run")
        return
    if asked.data is None or asked.runs is None:
        parser.error("run needs --data and --runs")
    files = {cell.data for cell in cells} - {""}
    if missing := {name for name in files if not (asked.data / name).exists()}:
        parser.error(f"not in {asked.data}: {', '.join(sorted(missing))}")
    torch.set_num_threads(1)
    refused = [cell for cell in cells if not run_if_free(cell, asked.data, asked.runs)]
    sys.exit(2 if refused else 0)


def run_if_free(cell: Cell, data: Path, runs: Path) -> bool:
    """Run a cell that is not done, and that no other process works on; whether it could be run."""
    with claimed(runs / cell.folder) as mine:
        if not mine or is_done(cell):
            return True
        print(f"{cell.name}: begins", file=sys.stderr, flush=True)
        try:
            found = run_cell(cell, data, runs)
        except InputError as error:
            print(f"{cell.name}: {error}", file=sys.stderr, flush=True)
            return False
        cell.result.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(json.dumps(found, indent=1) + "\n", cell.result)
        print(f"{cell.name}: {found['figures']}", flush=True)
        return True


if __name__ == "__main__":
    main()
