"""Tables 1 to 4 of Levels-of-Experts at sizes for a CPU: every row with the same steps and seed.

    python benchmarks/loe.py table1 --source PICTURE --runs RUNS --out RESULTS.json

``large`` is one image of any size, in its own size: ``loe:large``, eight narrow layers of 4 x 4
tiles. The other rows are the recipes ``loe:small-tableN...``: ``loe:tableN...`` with other widths,
sizes and steps than the paper's. Each is trained in a process of its own, so that its memory is its
own, and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fieldloom import atomic, load
from fieldloom import recipe as recipes
from fieldloom.assembly import open_source
from fieldloom.metrics.cost import count_macs, count_parameters
from fieldloom.metrics.paired import psnr, ssim
from fieldloom.modalities.views import select_views

TABLES = ["table1", "table2", "table3", "table4", "large"]


def rows_of(table: str) -> list[str]:
    """The variants of ``loe.toml`` that are a table's rows."""
    if table == "large":
        return ["large"]
    return [x for x in recipes.list_recipes()["loe"] if x.startswith(f"small-{table}")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--rows", nargs="*", help="some of the rows; default: all")
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--peaks", action="store_true", help="measure training's memory, too")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = asked.rows or rows_of(asked.table)
    for name in rows:
        train(asked.table, name, asked.source, asked.runs / name, asked.more)
    if asked.out:
        found = []
        for name in rows:
            more = {"peak": peak(name, settings(asked.source, asked.more))} if asked.peaks else {}
            found.append(collect(asked.runs / name, name) | more)
        atomic.write_text(json.dumps(found, indent=2) + "\n", asked.out)


def settings(source: Path, more: list[str]) -> list[str]:
    return [x for key in [f"source.path={source}", *more] for x in ("--set", key)]


def train(table: str, name: str, source: Path, run: Path, more: list[str]) -> None:
    """Train and evaluate a row, or go on with it."""
    verb = [sys.executable, "-m", "fieldloom"]
    if not (run / "model.safetensors").is_file():
        how = ["--resume"] if (run / "recipe.toml").is_file() else settings(source, more)
        subprocess.run([*verb, "train", f"loe:{name}", "--run", str(run), *how], check=True)
    if table == "table3":
        held_out(run)
    elif not (run / "report.json").is_file():
        subprocess.run([*verb, "evaluate", str(run)], check=True)


def held_out(run: Path) -> None:
    """PSNR and SSIM of the views held out alone, into the run: the others are ten times as many."""
    system = load(run, "cpu")
    source = open_source(system.recipe, system.modality)
    data = source.read(source.train)
    held = select_views(data, slice(system.modality.count_seen(data), None))
    raw = system.predict_at(system.family.conditioner.origin(1).detach(), held).tensor[0]
    true, of = held.tensor[0], f"{len(raw)} held-out views"
    figures = [
        {"name": "novel.psnr", "value": psnr(raw, true).mean().item(), "of": of},
        {"name": "novel.ssim", "value": ssim(raw.clamp(0, 1), true).mean().item(), "of": of},
    ]
    report = {"seed": system.recipe["seed"], "figures": figures}
    atomic.write_text(json.dumps(report, indent=2) + "\n", run / "report.json")


def without_folder(setting: str) -> str:
    """A setting whose path is a file's name alone."""
    key, _, value = setting.partition("=")
    return f"{key}={Path(value).name}" if key == "source.path" else setting


def peak(name: str, how: list[str]) -> int:
    """Bytes: the most that a process which trains three steps, and draws the result, has held."""
    with tempfile.TemporaryDirectory() as folder:
        few = ["--set", "train.field.steps=3"]
        verb = [sys.executable, "-m", "fieldloom", "train", f"loe:{name}", *how, *few]
        process = subprocess.Popen([*verb, "--run", f"{folder}/run", "--stage", "field"])
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"loe:{name} did not train: {status}")
        return used.ru_maxrss * 1024


def collect(run: Path, name: str) -> dict[str, Any]:
    """A row's result: what was measured, and where, beside the paper's numbers."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    log = [json.loads(x) for x in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    environment = json.loads((run / "env.json").read_text(encoding="utf-8"))
    system = load(run, "cpu")
    return {
        "recipe": f"loe:{name}",
        "command": "python benchmarks/loe.py (see its head)",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seed": report["seed"],
        "settings": [without_folder(x) for x in environment.pop("command", [])[4:]],
        "environment": environment,
        "train": system.recipe["train"]["field"],
        "seconds": round(log[-1]["step"] * log[-1]["seconds_a_step"]),
        "parameters": count_parameters(system.family),
        "macs": count_macs(system.family.field.slots, 0, 1),
        "figures": report["figures"],
        "published": published(name),
    }


def published(name: str) -> dict[str, Any]:
    """What the paper prints for the row that a smaller one stands for; of grids it has none."""
    row = name.removeprefix("small-")
    known = row in recipes.list_recipes()["loe"]
    return recipes.load(f"loe:{row}").get("expected", {}) if known else {}


if __name__ == "__main__":
    main()
