"""Fields generated as weights, in four ways, and as latent codes by mNIF, under equal budgets.

    python benchmarks/weights.py mnist --source mnist.npz --runs RUNS --out RESULTS.json
    python benchmarks/weights.py chairs --source voxels_chair_32.npz --runs RUNS --out RESULTS.json

Fields are fitted once, by the first row; the others begin with them. Every prior, with its codec,
trains for about as long on one thread. Words are sampled by top-k 3 and 5 at temperatures 0.8 and
1, numbers at both temperatures. All samples of a row are judged beside the same baselines. What
there is already is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from collect import seconds

from fieldloom import export, load
from fieldloom.engine.run import Run
from fieldloom.engine.train import training_codes
from fieldloom.evaluate import judgement
from fieldloom.evaluate.ceiling import ceiling
from fieldloom.evaluate.neighbours import neighbours
from fieldloom.metrics.cost import parameters
from fieldloom.report import shown_height
from fieldloom.system import System, open_source

WORDS = [{"top_k": k, "temperature": t} for k, t in product((3, 5), (0.8, 1.0))]
NUMBERS: list[dict[str, Any]] = [{"temperature": 0.8}, {"temperature": 1.0}]
ONCE: list[dict[str, Any]] = [{}]

ROWS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "words": ("weights:{}", WORDS),
    "numbers": ("weights:{}-numbers", NUMBERS),
    "neurons": ("weights:{}-neurons", NUMBERS),
    "graph": ("weights:{}-graph", NUMBERS),
    "graph-words": ("weights:{}-graph-words", WORDS),
    "hyperdiffusion": ("hyperdiffusion:{}", ONCE),
    "hyperdiffusion-raw": ("hyperdiffusion:{}-raw", ONCE),
    "hyperdiffusion-all": ("hyperdiffusion:{}-all", ONCE),
    "mnif": ("mnif:{}", ONCE),
}
"""Row -> its recipe, and how it is sampled."""

DATA = {"mnist": "mnist28", "chairs": "chairs32"}
COUNT = {"mnist": 250, "chairs": 36}
"""Samples of a judgement; of chairs half of the held-out ones."""

POINTS = 1024
"""Of a chair's surface: half of the published 2,048, a quarter of the time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=DATA)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--rows", nargs="*", choices=ROWS, help="some of the rows; default: all")
    parser.add_argument("--commit", default="", help="that the runs are trained at")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    names = asked.rows or list(ROWS)
    found = []
    for name in names:
        folder = asked.runs / name
        trained(asked.table, name, asked.source, folder, asked.runs / "words")
        found.append(judged(asked.table, name, folder, asked.commit))
    if asked.out:
        export.text(json.dumps(found, indent=2) + "\n", asked.out)


def trained(table: str, name: str, source: Path, run: Path, fields: Path) -> None:
    """Train a row, or go on with it; all but words and mNIF begin with the fields of words."""
    if (run / "model.safetensors").is_file() and load(run, "cpu").generates:
        return
    how = ["--set", f"source.path={source}"]
    if (run / "recipe.toml").is_file():
        how = ["--resume"]
    elif name not in ("words", "mnif"):
        how += ["--fields", str(fields)]
    recipe = ROWS[name][0].format(DATA[table])
    verb = [sys.executable, "-m", "fieldloom", "train", recipe, "--run", str(run), *how]
    subprocess.run(verb, check=True)


def judged(table: str, name: str, folder: Path, commit: str) -> dict[str, Any]:
    """What a row is, what its codec loses, and its samples beside baselines, once."""
    run, kept = Run(folder), folder / "weights.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    system = load(folder, "cpu")
    assert system.prior is not None
    source = open_source(system.recipe, system.modality)
    known, labels = training_codes(system, source, run)
    count, ways = COUNT[table], ROWS[name][1]
    asked = judgement.asked_labels(system, source, count, 0)
    sets = {called(how): system.sample_codes(count, asked, 0, **how) for how in ways}
    found = judgement.judgement(
        system, source, known, sets, labels, judgement.Question(points=POINTS)
    )
    for way, novelty in found.novelty.items():
        pictures = neighbours(system, sets[way], known, novelty)
        sheet = export.sheet(pictures, 3, shown_height(pictures))
        export.write(export.png_bytes(sheet), folder / f"nearest {way}.png")
    result = {
        "row": name,
        "recipe": system.recipe["recipe"],
        "commit": commit,
        "environment": json.loads((folder / "env.json").read_text(encoding="utf-8")),
        "seed": system.recipe.get("seed", 0),
        "seconds": seconds(run.read_log()),
        "train": system.recipe["train"],
        "parameters": parameters(system.prior),
        "numbers of a code": system.family.code_shape[0] * system.family.code_shape[1],
        "codec": lost(system, source, known),
        "judgement": judgement.as_json(found),
    }
    result["environment"].pop("command", None)
    run.write_json("weights.json", result)
    return result


def called(how: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in how.items()) or "samples"


def lost(system: System, source: Any, known: Any) -> dict[str, float]:
    """Figures of 64 training fields as they were fitted, and through the codec."""
    data = source.read(source.train[:64])
    figures = ceiling(system, data, known[:64])
    return {figure.name: figure.value for figure in figures}


if __name__ == "__main__":
    main()
