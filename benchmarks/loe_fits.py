"""Rows of Levels-of-Experts' fit tables at equal steps, and at equal seconds of one thread.

    python benchmarks/loe_fits.py table1 --source PICTURE --runs RUNS --out RESULTS.json

Each row, a recipe ``loe:small-tableN...``, is trained for the same steps, and again for as many as
take the seconds of the tiled row, ``loe:small-tableN``; its schedule ends with them. Seconds are
those of the processor (``time.process_time``), since other processes run beside it. A row is
trained in a process of its own and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loe import held_out, published, rows_of, without_folder

from fieldloom import atomic, load
from fieldloom.cli import app
from fieldloom.engine import loop
from fieldloom.metrics.cost import count_macs, count_parameters
from fieldloom.process import tune_process

FIGURES = ("psnr", "ssim", "novel.psnr", "novel.ssim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["table1", "table2", "table3"])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--steps", type=int, help="of the tiled row; default: the recipe's")
    parser.add_argument("--rows", nargs="*", help="some of the rows; default: all")
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", metavar="ROW:FOLDER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    steps = [f"train.field.steps={asked.steps}"] if asked.steps else []
    settings = [f"source.path={asked.source}", *steps, *asked.more]
    if asked.train:
        name, _, folder = asked.train.partition(":")
        train(asked.table, name, Path(folder), settings)
        return
    tiled = f"small-{asked.table}"
    names = [name for name in asked.rows or rows_of(asked.table) if name != tiled]
    results: list[dict[str, Any]] = []
    seconds = 0.0
    for name in [tiled, *names]:
        steps_alike = made(asked.runs / name, name, settings, [])
        seconds = seconds or steps_alike["seconds"]
        row = {"recipe": f"loe:{name}", "equal steps": steps_alike}
        if name != tiled:
            as_many = round(seconds * steps_alike["steps"] / steps_alike["seconds"])
            own = [f"train.field.steps={max(1, as_many)}"]
            row["equal seconds"] = made(asked.runs / f"{name}-seconds", name, settings, own)
        results.append(row | {"published": published(name)})
        result = {
            "command": f"python benchmarks/loe_fits.py {asked.table} (see its head)",
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "settings": [without_folder(x) for x in settings],
            "environment": environment(asked.runs / tiled),
            "rows": results,
        }
        atomic.write_text(json.dumps(result, indent=2) + "\n", asked.out)


def made(run: Path, name: str, settings: list[str], own: list[str]) -> dict[str, Any]:
    """The result of a row in a run's folder, trained and evaluated where it is not yet."""
    if not (run / "result.json").is_file():
        more = [x for key in own for x in ("--set", key)]
        command = [sys.executable, *sys.argv, *more, "--train", f"{name}:{run}"]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


def train(table: str, name: str, run: Path, settings: list[str]) -> None:
    """Train and evaluate a row, or go on with it, and write ``result.json`` into its run."""
    if not (run / "model.safetensors").is_file():
        tune_process()
        clock = watch_steps()
        known = (run / "recipe.toml").is_file()
        how = ["--resume"] if known else [x for key in settings for x in ("--set", key)]
        app(["train", f"loe:{name}", "--run", str(run), *how], standalone_mode=False)
        pace = (clock[-1] - clock[0]) / (len(clock) - 1)
        atomic.write_text(json.dumps(pace) + "\n", run / "pace.json")
    if table == "table3":
        held_out(run)
    elif not (run / "report.json").is_file():
        app(["evaluate", str(run)], standalone_mode=False)
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    system = load(run, "cpu")
    steps = system.recipe["train"]["field"]["steps"]
    result = {
        "steps": steps,
        "seconds": round(steps * json.loads((run / "pace.json").read_text("utf-8")), 2),
        "parameters": count_parameters(system.family),
        "macs": count_macs(system.family.field.slots, 0, 1),
        "train": system.recipe["train"]["field"],
        "figures": [x for x in report["figures"] if x["name"] in FIGURES],
    }
    atomic.write_text(json.dumps(result, indent=2) + "\n", run / "result.json")


def environment(run: Path) -> dict[str, Any]:
    """The machine and the versions that a run was trained with."""
    found = json.loads((run / "env.json").read_text(encoding="utf-8"))
    return {key: found[key] for key in ("versions", "python", "processor", "cores", "threads")}


def watch_steps() -> list[float]:
    """The processor's seconds at the end of each step that is trained from now on."""
    clock: list[float] = []
    advance = loop.Training.advance

    def timed(*arguments: Any) -> Any:
        found = advance(*arguments)
        clock.append(time.process_time())
        return found

    loop.Training.advance = timed  # type: ignore[method-assign, assignment]
    return clock


if __name__ == "__main__":
    main()
