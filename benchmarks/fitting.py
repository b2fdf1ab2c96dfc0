"""Which field when: five signals after 10, 60 and 600 seconds of one core (docs/fitting.md).

    python benchmarks/fitting.py measure --data DATA --runs RUNS --seconds 10 60 600
    python benchmarks/fitting.py page --runs RUNS

Every cell is a run of ``fit:*`` in a process of its own with one thread. Its budget is in CPU
seconds of training, so that what else the machine does changes little: trial steps tell the pace,
and the steps follow. Reading, trial steps and measuring are not counted. ``measure`` goes on where
it was stopped: a cell that has its ``cell.json`` is done. ``page`` writes the results, the pictures
and the table of the page. DATA holds the files named in ``SIGNALS``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import mock

import numpy as np
import torch
from hash_by_hand import fit as fit_by_hand
from torch import Tensor

from fieldloom import System, atomic, export, training
from fieldloom import recipe as recipes
from fieldloom.assembly import open_source, parse_overrides
from fieldloom.engine import device as devices
from fieldloom.engine.loop import Training
from fieldloom.evaluation import EVALUATORS
from fieldloom.fitting import choose
from fieldloom.metrics.cost import count_parameters
from fieldloom.metrics.paired import FIDELITY, psnr
from fieldloom.modalities import Views
from fieldloom.modalities.sources import Source
from fieldloom.modalities.views import select_views
from fieldloom.previews import Previews
from fieldloom.settings import Evaluation

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "fitting.json", HERE.parent / "docs" / "fitting.md"
PICTURE = HERE.parent / "docs" / "images" / "fitting-pluto.png"

SIGNALS = {
    "image": "hires_pluto_4408x4344.jpg",
    "video": "video_carphone.mp4",
    "audio": "audio_bach.wav",
    "mesh": "mesh_bunny.npz",
    "scene": "nerf_lego400.npz",
}
"""Variant of ``fit`` -> its file."""

FIELDS = ("grid", "experts", "siren", "by-hand")
"""``grid``: the recipe as it stands; ``by-hand``: ``hash_by_hand.py``."""

TRIAL, LEAST = 0.03, 0.5
"""Trial steps: the part of a budget, and the seconds at least, that they take."""
VIEWS = 3
"""Held-out views that a scene is measured on."""
PART, PART_OF = ((0.605, 0.655), (0.242, 0.292)), "A crater of Pluto"
"""The rows and the columns of the picture that are shown, as fractions."""


class Cell(NamedTuple):
    signal: str
    field: str
    seconds: int

    @property
    def name(self) -> str:
        return f"{self.signal}-{self.field}-{self.seconds}"


class EnoughError(Exception):
    """Trial steps have told the pace."""


def all_cells(signals: list[str], fields: list[str], seconds: list[int]) -> list[Cell]:
    """Short ones first; by hand there is no surface and no scene."""
    cells = [Cell(s, f, t) for t in sorted(seconds) for s in signals for f in fields]
    return [x for x in cells if x.field != "by-hand" or x.signal in ("image", "video", "audio")]


def measure(asked: argparse.Namespace) -> None:
    """Every cell that is not done, one after another."""
    for cell in all_cells(asked.signals, asked.fields, asked.seconds):
        if (asked.runs / cell.name / "cell.json").is_file():
            continue
        words = [*map(str, cell), "--data", str(asked.data), "--runs", str(asked.runs)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        done = subprocess.run(
            [sys.executable, __file__, "cell", *words], env={**os.environ, **threads}, check=False
        )
        print(f"{cell.name}: {'measured' if not done.returncode else 'failed'}", flush=True)


def measure_cell(cell: Cell, data: Path, runs: Path) -> None:
    """Fit one signal by one field within one budget, and write ``cell.json`` beside the run."""
    torch.set_num_threads(1)
    Previews.look = lambda self: None  # type: ignore[method-assign]  # they go by the wall's clock
    folder = runs / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = file_of(cell.signal, data, runs)
    found = by_hand if cell.field == "by-hand" else by_recipe
    about = found(cell, path, folder) | {
        "cell": cell._asdict(),
        "file": SIGNALS[cell.signal],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": devices.environment(torch.device("cpu")),
        "command": "python benchmarks/fitting.py measure (see its head)",
    }
    shutil.rmtree(folder / "run", ignore_errors=True)
    atomic.write_text(json.dumps(about, indent=2) + "\n", folder / "cell.json")


def file_of(signal: str, data: Path, runs: Path) -> Path:
    """The file of a signal; of the mesh a PLY, as people have them."""
    path = data / SIGNALS[signal]
    if signal != "mesh":
        return path
    arrays = np.load(path)
    vertices, faces = arrays["verts"].astype(np.float64), arrays["faces"].astype(np.int64)
    return export.mesh(vertices, faces, runs / f"{path.stem}.ply")


def recipe_of(cell: Cell, path: Path) -> recipes.Recipe:
    """What ``fieldloom fit PATH`` takes, still with its own number of steps."""
    choice = choose(path, cell.signal)
    own = [] if cell.field == "grid" else [f"field={cell.field}"]
    return recipes.load(choice.recipe, own, parse_overrides, choice.sections)


def by_recipe(cell: Cell, path: Path, folder: Path) -> dict[str, Any]:
    """Train a recipe for the budget, and measure the result."""
    recipe = recipe_of(cell, path)
    pace = pace_of(recipe, max(LEAST, TRIAL * cell.seconds))
    steps = max(1, round(cell.seconds / pace))
    system, spent = train(with_steps(recipe, steps), folder / "run")
    source = open_source(system.recipe, system.modality, quiet=True)
    if cell.signal == "image":
        save_part(system_part(system), folder)
    return {
        "recipe": recipe["recipe"],
        "seed": system.recipe["seed"],
        "steps": steps,
        "pace": pace,
        "cpu seconds": round(spent, 2),
        "parameters": count_parameters(system.family),
        "field": system.recipe["field"],
        "train": system.recipe["train"]["field"],
        "figures": figures_of(cell.signal, system, source),
    }


def with_steps(recipe: recipes.Recipe, steps: int) -> recipes.Recipe:
    """The recipe with this number of steps, few lines in its log and one checkpoint."""
    own = {"steps": steps, "save_every": steps, "log_every": max(1, steps // 50)}
    return recipes.merge(recipe, {"train": {"field": own}})


def pace_of(recipe: recipes.Recipe, seconds: float) -> float:
    """CPU seconds of a step, from trial steps for so long; two before them warm up."""
    ends: list[float] = []
    advance: Callable[..., Any] = Training.advance

    def timed(self: Training, *arguments: Any) -> Any:
        numbers = advance(self, *arguments)
        ends.append(time.process_time())
        if len(ends) > 3 and ends[-1] - ends[1] > seconds:
            raise EnoughError
        return numbers

    trial = mock.patch.object(Training, "advance", timed)
    with tempfile.TemporaryDirectory() as place, trial, suppress(EnoughError):
        training.train(with_steps(recipe, 1_000_000), f"{place}/run", device="cpu")
    return (ends[-1] - ends[1]) / (len(ends) - 2)


def train(recipe: recipes.Recipe, run: Path) -> tuple[System, float]:
    """Train a recipe; returns the system, and the CPU seconds of its loop."""
    spent: list[float] = []
    loop = training.loop

    def timed(*arguments: Any, **named: Any) -> None:
        began = time.process_time()
        loop(*arguments, **named)
        spent.append(time.process_time() - began)

    with mock.patch.object(training, "loop", timed):
        system = training.train(recipe, str(run), device="cpu")
    return system, sum(spent)


def figures_of(signal: str, system: System, source: Source) -> dict[str, float]:
    """The figures of a fit: of all points, or of a scene's first held-out views."""
    if signal == "scene":
        data = source.take(source.train[:1])
        seen = cast(Views, system.modality).count_seen(data)
        held = select_views(data, slice(seen, seen + VIEWS)).as_float()
        made = system.predict_at(system.family.conditioner.origin(1).detach(), held).tensor[0]
        return {"novel.psnr": psnr(made, held.tensor[0]).mean().item()}
    names = ("mesh",) if signal == "mesh" else (system.modality.fidelity,)
    evaluator = EVALUATORS[system.modality.kind](system, source, Evaluation(metrics=names))
    found = {x.name: x.value for x in evaluator.reconstruct("1 datum").metrics}
    return {name: 100 * x if name == "mesh.chamfer" else x for name, x in found.items()}


def by_hand(cell: Cell, path: Path, folder: Path) -> dict[str, Any]:
    """Fit the same data by ``hash_by_hand``, and measure the result."""
    recipe = recipe_of(cell._replace(field="grid"), path)
    with tempfile.TemporaryDirectory() as place:  # data as the recipe reads them
        system = training.train(with_steps(recipe, 1), f"{place}/run", device="cpu")
    source = open_source(system.recipe, system.modality, quiet=True)
    data = source.read(source.train[:1]).tensor[0]
    values, steps, spent = fit_by_hand(data, cell.seconds, seed=0)
    made = torch.cat([values(part) for part in torch.arange(data[0].numel()).split(1 << 18)])
    whole = made.mT.view_as(data)
    if cell.signal == "image":
        rows, columns = (
            slice(*(round(n * x) for x in part))
            for n, part in zip(data.shape[1:], PART, strict=True)
        )
        save_part(whole[:, rows, columns], folder)
        save_part(data[:, rows, columns], folder, "original")
    name = system.modality.fidelity
    ratio = FIDELITY[name](whole[None], data[None]).item()
    return {"seed": 0, "steps": steps, "cpu seconds": round(spent, 2), "figures": {name: ratio}}


def system_part(system: System) -> Tensor:
    """The part of the picture that is shown, of a fit: (channel, rows, columns)."""
    sides = zip(system.modality.shape(), PART, strict=True)
    shape = tuple(round(n * last) - round(n * first) for n, (first, last) in sides)
    code = system.family.conditioner.origin(1).detach()
    return torch.cat([strip for _, strip in system.strips(code, shape, PART)], 1)


def save_part(part: Tensor, folder: Path, name: str = "part") -> None:
    export.png(part.clamp(0, 1), folder / f"{name}.png")


# -- the page


def page(asked: argparse.Namespace) -> None:
    """Write the results, the pictures and the numbers of the page from the cells that are done."""
    cells = [json.loads(x.read_text()) for x in sorted(asked.runs.glob("*/cell.json"))]
    atomic.write_text(json.dumps(cells, indent=1) + "\n", RESULTS)
    text = PAGE.read_text(encoding="utf-8")
    marks = re.compile(r"(<!-- numbers -->\n).*?(<!-- end of numbers -->)", re.DOTALL)
    assert marks.search(text), "the page has no place for numbers"
    numbers = [table(cells), measured_on(cells), *draw_parts(asked.runs, cells)]
    told = "\n".join(f"{one}\n" if one[-1] != "\n" else one for one in numbers)
    atomic.write_text(marks.sub(lambda m: m[1] + told + m[2], text), PAGE)


NAMES = {"grid": "hash grid", "experts": "LoE", "siren": "SIREN", "by-hand": "by hand"}
FIGURES = {
    "psnr": ("dB", "{:z.1f}"),
    "snr": ("dB SNR", "{:z.1f}"),
    "novel.psnr": ("dB, held-out views", "{:z.1f}"),
    "mesh.iou": ("IoU", "{:.4f}"),
    "mesh.chamfer": ("Chamfer, % of the longest side", "{:.3f}"),
}
"""Figure -> what it is, and how it is printed."""


def table(cells: list[dict[str, Any]]) -> str:
    """The table of the page: a row for each signal and figure, a column for each field and budget.

    What was not measured is a dash; the best of each budget is bold.
    """
    found = {Cell(**x["cell"]): x for x in cells}
    budgets = sorted({x.seconds for x in found})
    lines = ["| signal | field | numbers | " + " | ".join(f"{x} s" for x in budgets) + " |"]
    lines.append("|---" * (3 + len(budgets)) + "|")
    for signal in [x for x in SIGNALS if any(c.signal == x for c in found)]:
        names = [n for n in FIGURES if any(n in x["figures"] for c, x in found.items()
                                           if c.signal == signal)]  # fmt: skip
        for name in names:
            unit, form = FIGURES[name]
            value = lambda f, s, n=name, g=signal: found.get(Cell(g, f, s), {"figures": {}})[
                "figures"
            ].get(n, math.nan)
            lowest = name == "mesh.chamfer"
            best = {}
            for seconds in budgets:
                there = [value(f, seconds) for f in FIELDS]
                there = [x for x in there if not math.isnan(x)]
                best[seconds] = (min if lowest else max)(there, default=math.nan)
            for field in FIELDS:
                row = [value(field, seconds) for seconds in budgets]
                if all(map(math.isnan, row)):
                    continue
                shown = [
                    "-" if math.isnan(x) else f"**{form.format(x)}**" if x == best[s]
                    else form.format(x) for x, s in zip(row, budgets, strict=True)
                ]  # fmt: skip
                counts = {found[Cell(signal, field, s)].get("parameters") for s in budgets
                          if Cell(signal, field, s) in found}  # fmt: skip
                size = "".join(f"{x:,}" for x in counts if x)
                cells_of_row = [f"{signal}, {unit}", NAMES[field], size, *shown]
                lines.append(f"| {' | '.join(cells_of_row)} |")
    return "\n".join(lines) + "\n"


def measured_on(cells: list[dict[str, Any]]) -> str:
    """Where and when cells were measured, and how near they came to their budgets."""
    first = cells[0]["environment"]
    dates = sorted(x["date"][:10] for x in cells)
    off = [x["cpu seconds"] / x["cell"]["seconds"] for x in cells]
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    told = (
        f"One thread of {first['processor']}, torch {first['versions']['torch']}, {days}; "
        f"seconds really spent are {min(off):.2f} to {max(off):.2f} of each budget."
    )
    return textwrap.fill(told, 100)


def draw_parts(runs: Path, cells: list[dict[str, Any]]) -> list[str]:
    """Draw the picture, a row for each budget: the original, and then each field.

    Returns the line of the page that shows it, if all cells of a row are there.
    """
    from PIL import Image

    budgets = sorted({x["cell"]["seconds"] for x in cells if x["cell"]["signal"] == "image"})
    read = lambda path: torch.from_numpy(np.array(Image.open(path).convert("L")))[None] / 255
    rows = []
    for seconds in budgets:
        paths = [runs / f"image-by-hand-{seconds}" / "original.png"]
        paths += [runs / f"image-{field}-{seconds}" / "part.png" for field in FIELDS]
        if all(path.is_file() for path in paths):
            rows += [read(path) for path in paths]
    if not rows:
        return []
    export.png(export.sheet(torch.stack(rows), 1 + len(FIELDS)), PICTURE)
    shown = ", ".join(str(x) for x in budgets[: len(rows) // (1 + len(FIELDS))])
    names = ", ".join(NAMES[field] for field in FIELDS)
    return [f"![{PART_OF} after {shown} s: the original, {names}](images/{PICTURE.name})"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("measure", "cell", "page"):
        verb = verbs.add_parser(name)
        if name == "cell":
            verb.add_argument("signal", choices=SIGNALS)
            verb.add_argument("field", choices=FIELDS)
            verb.add_argument("budget", type=int)
        if name == "measure":
            verb.add_argument("--signals", nargs="*", choices=SIGNALS, default=list(SIGNALS))
            verb.add_argument("--fields", nargs="*", choices=FIELDS, default=list(FIELDS))
            verb.add_argument("--seconds", nargs="*", type=int, default=[10, 60, 600])
        if name != "page":
            verb.add_argument("--data", type=Path, required=True, help="the folder of the files")
        verb.add_argument("--runs", type=Path, required=True, help="a folder for the cells")
    asked = parser.parse_args()
    asked.runs.mkdir(parents=True, exist_ok=True)
    if asked.verb == "cell":
        measure_cell(Cell(asked.signal, asked.field, asked.budget), asked.data, asked.runs)
    else:
        {"measure": measure, "page": page}[asked.verb](asked)


if __name__ == "__main__":
    main()
