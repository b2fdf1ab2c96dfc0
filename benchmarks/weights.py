"""Fields generated as weights, in four ways, and as latent codes by mNIF, under equal budgets.

    python benchmarks/weights.py mnist --source mnist.npz --runs RUNS --out RESULTS.json
    python benchmarks/weights.py chairs --source voxels_chair_32.npz --runs RUNS --out RESULTS.json

Fields are fitted once, by the first row; the others begin with them. Every prior, with its codec,
trains for about as long on one thread. Tokens are sampled by top-k 3 and 5 at temperatures 0.8 and
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
from statistics import median
from typing import Any

import torch
from collect import seconds
from torch import Tensor

from fieldloom import atomic, export, load
from fieldloom.assembly import open_source
from fieldloom.engine.run import Run
from fieldloom.engine.tensors import read_tensors
from fieldloom.evaluation import comparison, evaluator_of
from fieldloom.evaluation.neighbours import draw_neighbours
from fieldloom.evaluation.upper_bound import codec_upper_bound
from fieldloom.metrics.cost import count_parameters
from fieldloom.modalities.sources import Source
from fieldloom.report import tile_height
from fieldloom.system import System
from fieldloom.training import training_codes

TOKENS = [{"top_k": k, "temperature": t} for k, t in product((3, 5), (0.8, 1.0))]
NUMBERS: list[dict[str, Any]] = [{"temperature": 0.8}, {"temperature": 1.0}]
ONCE: list[dict[str, Any]] = [{}]
ALL: list[dict[str, Any]] = [{"steps": 500}]  # as HyperDiffusion is sampled

ROWS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "words": ("weights:{}", TOKENS),
    "numbers": ("weights:{}-numbers", NUMBERS),
    "neurons": ("weights:{}-neurons", NUMBERS),
    "graph": ("weights:{}-graph", NUMBERS),
    "graph-words": ("weights:{}-graph-words", TOKENS),
    "hyperdiffusion": ("hyperdiffusion:{}", ALL),
    "hyperdiffusion-raw": ("hyperdiffusion:{}-raw", ALL),
    "hyperdiffusion-all": ("hyperdiffusion:{}-all", ALL),
    "mnif": ("mnif:{}", ONCE),
}
"""Row -> its recipe, and how it is sampled."""

DATA = {"mnist": "mnist28", "chairs": "chairs32"}
COUNT = {"mnist": 250, "chairs": 36}
"""Samples of a judgement; of chairs half of the held-out ones."""

SHOWN = 12

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
    parser.add_argument("--sheet", type=Path, help="a picture of samples, a line for each row")
    asked = parser.parse_args()
    names = asked.rows or list(ROWS)
    found = []
    for name in names:
        folder = asked.runs / name
        train(asked.table, name, asked.source, folder, asked.runs / "words")
        found.append(judge(asked.table, name, folder, asked.commit))
    if asked.out:
        brief = [row | {"judgement": without_lists(row["judgement"])} for row in found]
        atomic.write_text(json.dumps(brief, indent=2) + "\n", asked.out)
    if asked.sheet:
        lines = [draw(name, asked.runs / name) for name in names]
        export.png(export.sheet(torch.cat(lines), SHOWN, 84), asked.sheet)


def train(table: str, name: str, source: Path, run: Path, fields: Path) -> None:
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


def judge(table: str, name: str, folder: Path, commit: str) -> dict[str, Any]:
    """What a row is, what its codec loses, and its samples beside baselines, once."""
    run, kept = Run(folder), folder / "weights.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    system = load(folder, "cpu")
    assert system.prior is not None
    source = open_source(system.recipe, system.modality)
    known, labels = training_codes(system, source, run)
    indices = read_tensors(folder / "codes.safetensors")[0].get("places", source.train)
    count, ways = COUNT[table], ROWS[name][1]
    asked = comparison.draw_labels(system, source, count, 0)
    sets = {label_of(how): system.sample_codes(count, asked, 0, **how) for how in ways}
    found = comparison.compare_with_baselines(
        system, source, known, sets, labels, comparison.ComparisonOptions(points=POINTS)
    )
    for way, novelty in found.novelty.items():
        images = draw_neighbours(system, sets[way], known, novelty)
        sheet = export.sheet(images, 3, tile_height(images))
        export.png(sheet, folder / f"nearest {way}.png")
    result = {
        "row": name,
        "recipe": system.recipe["recipe"],
        "commit": commit,
        "environment": json.loads((folder / "env.json").read_text(encoding="utf-8")),
        "seed": system.recipe.get("seed", 0),
        "seconds": seconds(run.read_log()),
        "train": system.recipe["train"],
        "parameters": count_parameters(system.prior),
        "numbers of a code": system.family.code_shape[0] * system.family.code_shape[1],
        "codec": codec_metrics(system, source, indices[:64], known[:64]),
        "judgement": comparison.as_json(found),
    }
    result["environment"].pop("command", None)
    run.write_json("weights.json", result)
    return result


def without_lists(found: Any) -> Any:
    """The numbers of a judgement without those of each sample; their median instead."""
    if isinstance(found, dict):
        return {key: without_lists(own) for key, own in found.items()}
    if isinstance(found, list) and found and all(x is None or isinstance(x, float) for x in found):
        there = [x for x in found if x is not None]
        return {"median": median(there) if there else None, "of": len(found)}
    if isinstance(found, list) and found and isinstance(found[0], int):
        return {"of": len(found)}
    return [without_lists(own) for own in found] if isinstance(found, list) else found


def draw(name: str, folder: Path) -> Tensor:
    """The first samples of a row, by the last of its settings, as pictures; of classes in turn."""
    system = load(folder, "cpu")
    assert system.prior is not None
    classes = system.prior.classes
    labels = torch.arange(SHOWN) % classes if classes else None
    data = system.decode(system.sample_codes(SHOWN, labels, 0, **ROWS[name][1][-1]))
    pictures = [system.modality.to_image(datum) for datum in data.tensor]
    return torch.stack([x for x in pictures if x is not None])


def label_of(how: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in how.items()) or "samples"


def codec_metrics(
    system: System, source: Source, indices: Tensor, codes: Tensor
) -> dict[str, float]:
    """Metrics of training fields as they were fitted, and through the codec."""
    evaluator = evaluator_of(system, source)
    return {x.name: x.value for x in codec_upper_bound(evaluator, source.read(indices), codes)}


if __name__ == "__main__":
    main()
