"""Tables 1 to 4 of Levels-of-Experts at sizes for a CPU: every row with the same steps and seed.

    python benchmarks/loe.py table1 --source PICTURE --runs RUNS --out RESULTS.json

``large`` is one picture of any size, in its own size: ``loe:image``, narrower. The other rows are
the recipes ``loe:tableN...`` with the widths, sizes and steps below instead of the
paper's. Each is trained in a process of its own, so that its memory is its own, and goes on where
it stopped.
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

from fieldloom import export, load
from fieldloom import recipe as recipes
from fieldloom.assembly import open_source
from fieldloom.metrics.cost import macs, parameters
from fieldloom.metrics.paired import psnr, ssim

COMMON = {
    "table1": ["source.name=folder", "modality.size=1536", "field.skip=[]",
               "train.field.steps=1000", "train.field.points=32768"],
    "table2": ["train.field.steps=800", "train.field.points=32768"],
    "table3": ["source.name=multiview", "source.split=[1.0,0.0]", "modality.size=100",
               "modality.held=8", "renderer.samples=64", "renderer.fine=0", "field.width=128",
               "field.view_width=64", "field.count=8", "field.low=-1.5", "field.high=1.5",
               "train.field.steps=400", "train.field.points=768",
               "train.field.optimizer.rate=5e-3"],
    "large": ["field.width=64", "train.field.steps=300", "train.field.points=32768"],
    "table4": ["source.name=packed", "source.split=[0.9,0.1]", "source.shuffle=true",
               "modality.size=64", "field.width=64", "field.count=6", "field.context=64",
               "objective.critic.width=32", "objective.critic.depth=3",
               "objective.critic.scales=2", "train.field.steps=600", "train.field.batch=16",
               "train.field.optimizer.rate=1e-3", "train.field.ema=0.99",
               "evaluate.samples=500", "evaluate.detector=gabor"],
}  # fmt: skip
EIGHT = ["field.width=64", "field.depth=8", "field.count=11"]
TILED = [*EIGHT, "field.tiles=[4,4,4,4,4,4,4,1]"]
ROWS: dict[str, dict[str, list[str]]] = {
    "table1": {
        "table1-pe": EIGHT,
        "table1-ce": [*EIGHT, "field.grid={size=128,channels=26}"],
        "table1-interleaved": [*TILED, "field.arrangement.scale=1536.0"],
        "table1-chunked": TILED,
        "table1-affine": TILED,
        "table1-constant": ["field.width=64", "field.depth=8", "field.count=64",
                            "field.tiles=[4,4,4,4,4,4,4,1]"],
        "table1": TILED,
        "table1-linear": TILED,
    },
    "table2": {
        "table2-pe": ["field.width=64"],
        "table2-ce": ["field.width=64", "field.grid={size=32,channels=32}"],
        "table2-siren": ["field.width=64", "train.field.optimizer.rate=1e-3"],
        "table2": ["field.width=64", "field.arrangement.growth=3.0"],
        "table2-siren-l": ["field.width=256", "train.field.optimizer.rate=5e-4"],
    },
    "table3": {
        "table3-pe": [],
        "table3-aligned": ["field.arrangement.scale=16.0"],
        "table3": ["field.arrangement.growth=2.0"],
    },
    "large": {"image": []},
    "table4": {
        "table4-ce": ["field.grid={size=64,channels=256}"],
        "table4": ["field.arrangement.finest=64.0"],
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=COMMON)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--rows", nargs="*", help="some of the rows; default: all")
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--peaks", action="store_true", help="measure training's memory, too")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = ROWS[asked.table]
    for name in asked.rows or rows:
        train(asked.table, name, asked.source, asked.runs / name, asked.more)
    if asked.out:
        found = []
        for name in asked.rows or rows:
            how = settings(asked.table, name, asked.source, asked.more)
            more = {"peak": peak(name, how)} if asked.peaks else {}
            found.append(collect(asked.runs / name, name) | more)
        export.text(json.dumps(found, indent=2) + "\n", asked.out)


def settings(table: str, name: str, source: Path, more: list[str]) -> list[str]:
    common = [*COMMON[table], f"source.path={source}"]
    return [x for key in [*common, *ROWS[table][name], *more] for x in ("--set", key)]


def train(table: str, name: str, source: Path, run: Path, more: list[str]) -> None:
    """Train and evaluate a row, or go on with it."""
    verb = [sys.executable, "-m", "fieldloom"]
    if not (run / "model.safetensors").is_file():
        how = (
            ["--resume"] if (run / "recipe.toml").is_file() else settings(table, name, source, more)
        )
        subprocess.run([*verb, "train", f"loe:{name}", "--run", str(run), *how], check=True)
    if table == "table3":
        held_out(run)
    elif not (run / "report.json").is_file():
        subprocess.run([*verb, "evaluate", str(run)], check=True)


def held_out(run: Path) -> None:
    """PSNR and SSIM of the views held out alone, into the run: the others are ten times as many."""
    system = load(run, "cpu")
    source = open_source(system.recipe, system.modality)
    data, about = source.read(source.train)[0], source.about(source.train)
    kept = len(data) - system.modality.held
    cameras = {key: about[key][0, kept:] for key in ("c2w", "intrinsics")}
    raw = system.predict(system.family.conditioner.origin(1).detach(), cameras=cameras)[0]
    of = f"{len(raw)} held-out views"
    figures = [
        {"name": "novel.psnr", "value": psnr(raw, data[kept:]).mean().item(), "of": of},
        {"name": "novel.ssim", "value": ssim(raw.clamp(0, 1), data[kept:]).mean().item(), "of": of},
    ]
    report = {"seed": system.recipe["seed"], "figures": figures}
    export.text(json.dumps(report, indent=2) + "\n", run / "report.json")


def named(setting: str) -> str:
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
        "settings": [named(x) for x in environment.pop("command", [])[4:]],
        "environment": environment,
        "train": system.recipe["train"]["field"],
        "seconds": round(log[-1]["step"] * log[-1]["seconds_a_step"]),
        "parameters": parameters(system.family),
        "macs": macs(system.family.field.slots, 0, 1),
        "figures": report["figures"],
        "published": recipes.load(f"loe:{name}").get("expected", {}),
    }


if __name__ == "__main__":
    main()
